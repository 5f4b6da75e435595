#include "llama/weights.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <string>

#include "util/error.h"
#include "util/file.h"

namespace altiplano {
namespace {

// Files stay open while the model loads: a file that is replaced meanwhile is still read whole.
class OpenFiles {
 public:
  const File& open(const std::string& path) {
    std::unique_ptr<File>& file = files_[path];
    if (!file) file = std::make_unique<File>(path);
    return *file;
  }

 private:
  std::map<std::string, std::unique_ptr<File>> files_;
};

// fn(); an Error then says which tensor it is about.
template <class Fn>
auto about(const TensorSpec& tensor, const Fn& fn) -> decltype(fn()) {
  try {
    return fn();
  } catch (const Error& e) {
    throw Error(e.code(), "tensor " + tensor.name + ": " + e.what());
  }
}

// A matrix in a file, with its rows in the file's order.
class FileMatrix : public MatrixSource {
 public:
  FileMatrix(const TensorSpec& tensor, const File& file)
      : tensor_(tensor), file_(file), type_(info(tensor.type)) {}

  const char* name() const override { return tensor_.name.c_str(); }
  FileType type() const override { return tensor_.type; }
  int64_t rows() const override { return tensor_.rows; }
  int64_t cols() const override { return tensor_.cols; }

  void read(const MatrixSlice& s, uint8_t* out) const override {
    check(s);
    const uint64_t begin = tensor_.offset +
                           static_cast<uint64_t>(s.row_begin * row_bytes(tensor_.cols)) +
                           static_cast<uint64_t>(row_bytes(s.col_begin));
    const auto bytes = static_cast<size_t>(row_bytes(s.cols));
    if (s.cols == tensor_.cols) {
      file_.read_at(begin, out, static_cast<size_t>(s.rows) * bytes);
      return;
    }
    const auto stride = static_cast<uint64_t>(row_bytes(tensor_.cols));
    for (int64_t row = 0; row < s.rows; ++row) {
      file_.read_at(begin + row * stride, out + row * bytes, bytes);
    }
  }

 protected:
  // Bytes of so many columns, whole blocks.
  int64_t row_bytes(int64_t cols) const { return cols / type_.block * type_.block_bytes; }

  void check(const MatrixSlice& s) const {
    const auto within = [](int64_t begin, int64_t count, int64_t size) {
      return begin >= 0 && count >= 0 && begin <= size && count <= size - begin;
    };
    if (!within(s.row_begin, s.rows, tensor_.rows) || !within(s.col_begin, s.cols, tensor_.cols) ||
        s.col_begin % type_.block != 0 || s.cols % type_.block != 0) {
      throw Error("ALTIPLANO_INTERNAL", "the slice is not within the matrix or cuts a block");
    }
  }

 private:
  const TensorSpec& tensor_;
  const File& file_;
  const FileTypeInfo& type_;
};

// q or k of a file whose rotary pairs are interleaved (2i, 2i+1), with rows in the order of halves
// (i, i + d/2), which is what the kernels rotate. Heads stay whole, so K is reordered by KV heads.
class InterleavedMatrix : public FileMatrix {
 public:
  InterleavedMatrix(const TensorSpec& tensor, const File& file, int head_dim)
      : FileMatrix(tensor, file), head_dim_(head_dim) {}

  void read(const MatrixSlice& s, uint8_t* out) const override {
    check(s);
    if (s.rows == 0) return;
    const int64_t bytes = row_bytes(s.cols);
    // The heads that the slice touches, whole.
    const int64_t begin = s.row_begin / head_dim_ * head_dim_;
    const int64_t end = (s.row_begin + s.rows + head_dim_ - 1) / head_dim_ * head_dim_;
    std::vector<uint8_t> heads(static_cast<size_t>((end - begin) * bytes));
    FileMatrix::read({begin, end - begin, s.col_begin, s.cols}, heads.data());
    for (int64_t row = s.row_begin; row < s.row_begin + s.rows; ++row, out += bytes) {
      const int64_t i = row % head_dim_, half = head_dim_ / 2;
      const int64_t in_file = row - i + (i < half ? 2 * i : 2 * (i - half) + 1);
      std::copy_n(heads.data() + (in_file - begin) * bytes, bytes, out);
    }
  }

 private:
  const int64_t head_dim_;
};

class Loader {
 public:
  Loader(const ModelSpec& spec, Backend& backend, LoadMonitor& monitor)
      : spec_(spec), backend_(backend), monitor_(monitor) {}

  Weights load() {
    Weights w;
    stack({&spec_.embedding}, embedding_use(spec_));
    w.embedding = std::move(prepare().front());
    for (const LayerSpec& l : spec_.layers) {
      LayerWeights layer;
      layer.attention_norm = vector(l.attention_norm);
      layer.feed_forward_norm = vector(l.feed_forward_norm);
      stack({&l.q, &l.k, &l.v}, LinearUse::kMatmul, /*rotary=*/2);
      stack({&l.o});
      stack({&l.gate, &l.up}, LinearUse::kGateUp);
      stack({&l.down});
      std::vector<std::unique_ptr<Linear>> linears = prepare();
      layer.qkv = std::move(linears[0]);
      layer.o = std::move(linears[1]);
      layer.gate_up = std::move(linears[2]);
      layer.down = std::move(linears[3]);
      w.layers.push_back(std::move(layer));
    }
    w.final_norm = vector(spec_.final_norm);
    if (!spec_.tied) {
      stack({&spec_.head});
      w.head = std::move(prepare().front());
    }
    return w;
  }

 private:
  // Another Linear for prepare(). The first `rotary` tensors are q and k.
  void stack(const std::vector<const TensorSpec*>& tensors, LinearUse use = LinearUse::kMatmul,
             size_t rotary = 0) {
    MatrixStack added;
    added.use = use;
    for (size_t i = 0; i < tensors.size(); ++i) {
      const TensorSpec& t = *tensors[i];
      const File& file = open(t);
      const bool interleaved = i < rotary && spec_.config.interleaved_rotary;
      sources_.push_back(matrix_source(t, file, interleaved ? spec_.config.head_dim : 0));
      added.parts.push_back({sources_.back().get(), t.format});
    }
    stacks_.push_back(std::move(added));
  }

  // The Linears of all stacks since the last call.
  std::vector<std::unique_ptr<Linear>> prepare() {
    std::vector<std::unique_ptr<Linear>> linears = backend_.prepare(stacks_, monitor_);
    stacks_.clear();
    sources_.clear();
    return linears;
  }

  // Norm weights are kept in f32 whatever the file has.
  std::unique_ptr<Buffer> vector(const TensorSpec& t) {
    const File& file = open(t);
    std::vector<uint8_t> raw(t.size_bytes);
    about(t, [&] { file.read_at(t.offset, raw.data(), raw.size()); });
    std::vector<float> values(static_cast<size_t>(t.cols));
    backend_.to_float(t.type, raw.data(), t.cols, values.data());
    for (int64_t i = 0; i < t.cols; ++i) {
      if (!std::isfinite(values[i])) {
        throw Error("ALTIPLANO_CHECKPOINT_INVALID",
                    "tensor " + t.name + ": element " + std::to_string(i) + " is NaN or infinite");
      }
    }
    monitor_.done_bytes += static_cast<int64_t>(t.size_bytes);
    return backend_.upload(values.data(), t.cols);
  }

  const File& open(const TensorSpec& t) {
    return about(t, [&]() -> const File& { return files_.open(t.file); });
  }

  const ModelSpec& spec_;
  Backend& backend_;
  LoadMonitor& monitor_;
  OpenFiles files_;
  std::vector<MatrixStack> stacks_;
  std::vector<std::unique_ptr<MatrixSource>> sources_;  // of the stacks' parts
};

int64_t file_bytes(const ModelSpec& spec) {
  uint64_t sum = spec.embedding.size_bytes + spec.final_norm.size_bytes;
  for (const LayerSpec& l : spec.layers) {
    for (const TensorSpec* t : {&l.attention_norm, &l.q, &l.k, &l.v, &l.o, &l.feed_forward_norm,
                                &l.gate, &l.up, &l.down}) {
      sum += t->size_bytes;
    }
  }
  if (!spec.tied) sum += spec.head.size_bytes;
  return static_cast<int64_t>(sum);
}

}  // namespace

std::unique_ptr<MatrixSource> matrix_source(const TensorSpec& tensor, const File& file,
                                            int interleaved_head_dim) {
  if (interleaved_head_dim == 0) return std::make_unique<FileMatrix>(tensor, file);
  return std::make_unique<InterleavedMatrix>(tensor, file, interleaved_head_dim);
}

uint64_t Weights::bytes() const {
  uint64_t sum = embedding->bytes() + (head ? head->bytes() : 0);
  for (const LayerWeights& l : layers) {
    sum += l.qkv->bytes() + l.o->bytes() + l.gate_up->bytes() + l.down->bytes();
  }
  return sum;
}

Weights load_weights(const ModelSpec& spec, Backend& backend, LoadMonitor& monitor) {
  monitor.done_bytes = 0;
  monitor.total_bytes = file_bytes(spec);
  return Loader(spec, backend, monitor).load();
}

}  // namespace altiplano
