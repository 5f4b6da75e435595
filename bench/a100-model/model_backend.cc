#include "model_backend.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

namespace altiplano::a100 {
namespace {

using cuda::Epilogue;
using cuda::MatmulKind;

constexpr double kRowThreads = 256;  // as native/cuda/operations.cc has them
constexpr double kEmbedAtOnce = 16;  // as embed.cu
constexpr int64_t kLogitRows = 128;  // as row_outputs.cc
// Threads of a multiprocessor, hence blocks of the device that run at once.
constexpr double kThreads = 2048;
constexpr double kRowBlocks = kThreads / kRowThreads * kMultiprocessors;
constexpr double kLogitBlocks = kMultiprocessors;  // row_results takes all registers of one

struct ModelBuffer : Buffer {
  explicit ModelBuffer(int64_t columns) : cols(columns) {}
  size_t bytes() const override { return 0; }
  const int64_t cols;
  bool is_int8 = false;
};

struct ModelLinear : Linear {
  ModelLinear(int64_t r, int64_t c, MatmulKind k, int g) : rows(r), cols(c), kind(k), group(g) {}
  size_t bytes() const override { return static_cast<size_t>(weight_bytes()); }
  double weight_bytes() const {
    const double count = static_cast<double>(rows * cols);
    if (kind == MatmulKind::kF16) return 2 * count;
    if (kind == MatmulKind::kW8A8) return count + 4.0 * static_cast<double>(rows);
    return count * ((kind == MatmulKind::kInt4 ? 0.5 : 1.0) + 2.0 / group);
  }
  const int64_t rows, cols;
  const MatmulKind kind;
  const int group;
};

// The embedding and the head stay in int8 where the layers are int4 (lib/load-plan.ts).
ModelLinear head_of(const Model& m, const Scheme& s) {
  const MatmulKind kind = s.kind == MatmulKind::kInt4 ? MatmulKind::kInt8 : s.kind;
  return {kVocabulary, m.hidden, kind, s.group};
}

Weights weights_of(const Model& m, const Scheme& s) {
  const int head_dim = m.hidden / m.heads;
  const auto matrix = [&](int64_t rows, int64_t cols) {
    return std::make_unique<ModelLinear>(rows, cols, s.kind, s.group);
  };
  const auto norm = [&] { return std::make_unique<ModelBuffer>(m.hidden); };
  Weights w;
  w.embedding = std::make_unique<ModelLinear>(head_of(m, s));
  w.head = std::make_unique<ModelLinear>(head_of(m, s));
  w.final_norm = norm();
  for (int l = 0; l < m.layers; ++l) {
    w.layers.push_back({norm(), matrix((m.heads + 2 * m.kv_heads) * head_dim, m.hidden),
                        matrix(m.hidden, m.heads * head_dim), norm(),
                        matrix(2 * m.feed_forward, m.hidden), matrix(m.hidden, m.feed_forward)});
  }
  return w;
}

Config config_of(const Model& m) {
  Config c;
  c.hidden_size = m.hidden;
  c.intermediate_size = m.feed_forward;
  c.layers = m.layers;
  c.heads = m.heads;
  c.kv_heads = m.kv_heads;
  c.head_dim = m.hidden / m.heads;
  c.vocab_size = kVocabulary;
  return c;
}

Batch batch_of(const Step& step) {
  Batch b;
  b.sequence_starts.push_back(0);
  for (int s = 0; s < step.sequences; ++s) {
    for (int t = 0; t < step.tokens; ++t) b.positions.push_back(step.past + t);
    b.sequence_starts.push_back(static_cast<int32_t>(b.positions.size()));
    b.rows.push_back(b.sequence_starts.back() - 1);
  }
  b.tokens.resize(b.positions.size());
  return b;
}

class ModelBackend : public Backend {
 public:
  explicit ModelBackend(AttentionShape shape) : shape_(std::move(shape)) {}
  std::vector<Launch> take() { return std::move(launches_); }

  std::unique_ptr<Buffer> allocate(int64_t, int64_t cols, BufferKind) override {
    return std::make_unique<ModelBuffer>(cols);
  }

  bool begin_step(const Batch& batch, RowResults&) override {
    tokens_ = static_cast<int64_t>(batch.tokens.size());
    rows_ = static_cast<int64_t>(batch.rows.size());
    gathers_ = !wants_every_token(batch);
    const int group = shape_.heads / shape_.kv_heads;
    // As size_of() of the CUDA backend: a step of decodes is a graph, of one of few sizes.
    const int64_t padded = cuda::padded_tokens(tokens_, kStepTokens);
    if (padded >= std::max(tokens_, rows_) && cuda::only_decodes(batch, group)) {
      tokens_ = rows_ = padded;
    }
    const std::vector<int32_t> blocks(batch.sequence_starts.size());
    items_ = cuda::attention_items(batch, blocks, group);
    double pages = 0;
    for (size_t s = 1; s < batch.sequence_starts.size(); ++s) {
      pages +=
          batch.positions[static_cast<size_t>(batch.sequence_starts[s]) - 1] / kKvPageTokens + 1;
    }
    // Four words of a token, seven of a row, four of an item, and the pages.
    copy("inputs to the device",
         4 * (4.0 * tokens() + 7.0 * static_cast<double>(rows_) +
              4.0 * static_cast<double>(items_.prefill.size() + items_.decode.size()) + pages));
    return true;
  }
  void end_step() override { copy("results to the host", static_cast<double>(rows_) * 40); }
  void finish_step() override {}
  void abandon_step() noexcept override {}

  void embed(const Linear&, Buffer& x) override {
    // The token, then the columns of a thread, so many at once.
    const double turns = std::ceil(columns(x) / kRowThreads / kEmbedAtOnce);
    small("embed", tokens(), kRowBlocks, 1 + turns, tokens() * columns(x) * 6);
  }
  // Rows stay in registers (as long as those of Llama 2 do), all loads of a thread at once.
  void rmsnorm(const Buffer& x, const Buffer&, float, const Linear& next, Buffer& out) override {
    const bool int8 = static_cast<const ModelLinear&>(next).kind == MatmulKind::kW8A8;
    static_cast<ModelBuffer&>(out).is_int8 = int8;
    small(int8 ? "rmsnorm_int8" : "rmsnorm", tokens(), kRowBlocks, 1,
          tokens() * columns(x) * (int8 ? 5 : 6));
  }
  // k and v are counted as if the cache was f16.
  void matmul_qkv(const Linear& w, const Buffer& x, Buffer&, int, const int32_t*) override {
    multiply(w, x, tokens_, Epilogue::kHeads);
  }
  void matmul_add(const Linear& w, const Buffer& x, Buffer&) override {
    multiply(w, x, tokens_, Epilogue::kAddF32);
  }
  void matmul_silu(const Linear& w, const Buffer& x, Buffer&) override {
    multiply(w, x, tokens_, Epilogue::kSiluMul);
  }
  void attention(const Buffer&, int, Buffer&) override {
    if (!items_.prefill.empty()) {
      launches_.push_back({"attention_prefill", LaunchKind::kAttention,
                           prefill_work(shape_, items_.prefill), 0, 0, 0});
    }
    if (!items_.decode.empty()) {
      const Times times = decode_times(shape_, items_.decode, items_.decode_pages);
      launches_.push_back({"attention_decode", LaunchKind::kAttention, times.work, times.waiting,
                           decode_bytes(shape_, items_.decode), 0});
    }
  }
  void all_reduce(Buffer&, const Shard&) override {}
  void logits(const Linear& head, const Buffer& h) override {
    for (int64_t first = 0; first < rows_; first += kLogitRows) {
      const int64_t rows = std::min(kLogitRows, rows_ - first);
      const auto blocks = static_cast<double>(rows);
      if (gathers_) {
        small("gather_rows", blocks, kRowBlocks, 1 + columns(h) / 8 / kRowThreads,
              blocks * columns(h) * 4);
      }
      multiply(head, h, rows, Epilogue::kStoreF32);
      // The request and the row, whose loads a thread makes at once. A block reads the row, then
      // makes an exponential of each logit (greedy: one sum serves both), then adds quads in f64: a
      // sum, and two conversions, which go half as fast.
      small("row_results", blocks, kLogitBlocks, 2, 0);
      launches_.back().work +=
          std::ceil(blocks / kLogitBlocks) *
          (kVocabulary * sizeof(float) / kOneBlock + kVocabulary / kExponentials +
           kVocabulary / 4 * (1 / kF64 + 2 / kF64)) /
          kClock;
    }
  }

  // What only a loader asks for.
  void to_float(FileType, const uint8_t*, int64_t, float*) override { not_here(); }
  std::unique_ptr<Buffer> upload(const float*, int64_t) override { not_here(); }
  std::vector<std::unique_ptr<Linear>> prepare(std::span<const MatrixStack>,
                                               LoadMonitor&) override {
    not_here();
  }
  void prepare_attention(const AttentionShape&) override { not_here(); }
  void prepare_steps(const StepLimits&) override { not_here(); }
  size_t kv_bytes() const override { return 0; }
  size_t scratch_bytes() const override { return 0; }

 private:
  [[noreturn]] static void not_here() { throw std::logic_error("nothing is loaded in a model"); }
  double tokens() const { return static_cast<double>(tokens_); }
  static double columns(const Buffer& b) {
    return static_cast<double>(static_cast<const ModelBuffer&>(b).cols);
  }

  void small(const char* name, double blocks, double at_once, double trips, double bytes) {
    const Times times = small_times(blocks, at_once, trips, bytes);
    launches_.push_back({name, LaunchKind::kSmall, times.work, times.waiting, 0, 0});
  }
  void copy(const char* name, double bytes) {
    launches_.push_back({name, LaunchKind::kCopy, bytes / kBus, 0, 0, 0});
  }
  void multiply(const Linear& linear, const Buffer& x, int64_t tokens, Epilogue epilogue) {
    const auto& w = static_cast<const ModelLinear&>(linear);
    const auto count = static_cast<double>(tokens), cols = static_cast<double>(w.cols);
    if (w.kind == MatmulKind::kW8A8 && !static_cast<const ModelBuffer&>(x).is_int8) {
      // Eight times eight columns of a thread at once; a row that does not fit is read twice. Its
      // registers leave room for half as many blocks.
      const double chunks = std::ceil(cols / 64 / kRowThreads);
      small("quantize_rows", count, kRowBlocks / 2, chunks > 1 ? 2 * chunks : 1, count * cols * 3);
    }
    const MatmulTimes times =
        matmul_times({w.kind, w.group, false, w.rows, tokens, epilogue}, w.cols);
    launches_.push_back({"matmul " + std::to_string(w.rows) + " x " + std::to_string(w.cols),
                         LaunchKind::kMatmul, times.work(), times.waiting(), w.weight_bytes(),
                         2.0 * static_cast<double>(w.rows) * cols * count, times.hidden()});
  }

  const AttentionShape shape_;
  int64_t tokens_ = 0, rows_ = 0;
  bool gathers_ = false;
  cuda::AttentionItems items_;
  std::vector<Launch> launches_;
};

AttentionShape attention_shape(const Model& m, KvType kv) {
  AttentionShape shape;
  shape.heads = m.heads;
  shape.kv_heads = m.kv_heads;
  shape.head_dim = m.hidden / m.heads;
  shape.layers = m.layers;
  shape.kv_type = kv;
  return shape;
}

}  // namespace

std::vector<Launch> launches_of(const Model& model, const Scheme& scheme, KvType kv,
                                const Step& step) {
  ModelBackend backend(attention_shape(model, kv));
  const Config config = config_of(model);
  Workspace workspace(backend, config);
  RowResults results;
  backend.begin_step(batch_of(step), results);
  forward(config, weights_of(model, scheme), backend, workspace, false);
  backend.end_step();
  return backend.take();
}

double weight_bytes(const Model& model, const Scheme& scheme) {
  const Weights w = weights_of(model, scheme);
  double sum = static_cast<double>(w.head->bytes());
  for (const LayerWeights& l : w.layers) {
    for (const auto* matrix : {&l.qkv, &l.o, &l.gate_up, &l.down}) {
      sum += static_cast<double>((*matrix)->bytes());
    }
  }
  return sum;
}

double embedding_bytes(const Model& model, const Scheme& scheme) {
  return head_of(model, scheme).weight_bytes();
}

double kv_bytes(const Model& model, KvType kv) {
  const double elements = 2.0 * model.layers * model.kv_heads * (model.hidden / model.heads);
  return elements * (kv == KvType::kInt8 ? 1 : 2);
}

double bound(const Model& model, const Scheme& scheme, KvType kv, const Step& step) {
  const double sequences = step.sequences, tokens = step.tokens;
  const double bytes =
      weight_bytes(model, scheme) + sequences * (step.past + tokens) * kv_bytes(model, kv);
  double operations = 0;
  for (const Launch& launch : launches_of(model, scheme, kv, step)) {
    if (launch.kind == LaunchKind::kMatmul) operations += launch.operations;
  }
  const double attention =
      4.0 * model.layers * model.hidden * sequences * tokens * (step.past + (tokens + 1) / 2.0);
  const double peak = scheme.kind == MatmulKind::kW8A8 ? 2 * kF16Peak : kF16Peak;
  return std::max(bytes / kPeakBandwidth, operations / peak + attention / kF16Peak);
}

StepTime time_of(const std::vector<Launch>& launches) {
  StepTime time;
  for (const Launch& launch : launches) {
    double& part = launch.kind == LaunchKind::kMatmul      ? time.matmul
                   : launch.kind == LaunchKind::kAttention ? time.attention
                   : launch.kind == LaunchKind::kSmall     ? time.small
                                                           : time.copies;
    part += launch.work;
    time.waiting += launch.waiting;
    time.hidden += launch.hidden;
    ++time.nodes;
  }
  return time;
}

}  // namespace altiplano::a100
