// The operations of backend.h on the CPU: what is computed in parallel, in items of which size.
// How it is computed is the business of the kernel tables. No item shares an output with another,
// and no result depends on how the work was cut.
#include "cpu/cpu_backend.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "cpu/attention_plan.h"
#include "cpu/convert.h"
#include "cpu/kernels.h"
#include "cpu/pack.h"
#include "cpu/select.h"
#include "util/aligned_memory.h"
#include "util/error.h"
#include "util/thread_pool.h"

namespace altiplano::cpu {
namespace {

// Waking a worker costs microseconds: jobs with fewer multiply-adds than this run on one thread.
constexpr int64_t kSerialWork = 100'000;
// What it takes to rotate and store one number of q, k or v, in multiply-adds.
constexpr int64_t kStoreWork = 16;
// Weight bytes of many tokens that a kernel gets in one call: they stay in the second-level cache
// while it goes through the tokens in chunks.
constexpr int64_t kCallBytes = 256 << 10;
// Rows whose logits are computed together: 16 x 32,000 floats are 2 MiB.
constexpr int kLogitRows = 16;
// Matrices in a stack: q, k and v.
constexpr size_t kMostParts = 3;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct CpuBuffer : Buffer {
  CpuBuffer(int64_t rows, int64_t cols)
      : memory(static_cast<size_t>(rows * cols) * sizeof(float), "activations"), stride(cols) {}
  size_t bytes() const override { return memory.bytes(); }
  AlignedMemory memory;
  int64_t stride;  // floats of a row
};

float* data(Buffer& b) { return static_cast<CpuBuffer&>(b).memory.floats(); }
const float* data(const Buffer& b) { return static_cast<const CpuBuffer&>(b).memory.floats(); }
int64_t stride(const Buffer& b) { return static_cast<const CpuBuffer&>(b).stride; }

size_t packed_bytes(const Kernels& k, WeightFormat format, int64_t rows, int64_t cols) {
  return static_cast<size_t>(ceil_div(rows, k.tile_rows)) * k.packed_tile_bytes(format, cols);
}

// Of products that do not stay as they are.
size_t products_bytes(const StepLimits& limits) {
  const int64_t cols = std::max(2 * limits.intermediate_size, limits.hidden_size);
  return static_cast<size_t>(limits.tokens * cols) * sizeof(float);
}

// Of the activations of a step, as int8.
size_t quantized_bytes(const StepLimits& limits) {
  if (!limits.int8_activations) return 0;
  return static_cast<size_t>(std::max<int64_t>(limits.tokens, kLogitRows) *
                             activation_groups(limits.most_cols)) *
         sizeof(ActivationGroup);
}

// Stacked matrices; each part keeps its own format, so that parts stay addressable and may differ.
struct CpuLinear : Linear {
  struct Part {
    PackedMatrix matrix;
    int64_t first_row;  // of the stack
    size_t bytes;
  };
  std::vector<Part> parts;
  int64_t rows = 0;
  int64_t cols = 0;

  size_t bytes() const override {
    size_t sum = 0;
    for (const Part& part : parts) sum += part.bytes;
    return sum;
  }
};

const CpuLinear& linear(const Linear& w) { return static_cast<const CpuLinear&>(w); }

class CpuBackend : public Backend {
 public:
  CpuBackend(int threads, const Kernels& kernels) : k_(kernels), pool_(threads) {}

  std::unique_ptr<Buffer> allocate(int64_t rows, int64_t cols, BufferKind) override {
    return std::make_unique<CpuBuffer>(rows, cols);
  }

  void to_float(FileType type, const uint8_t* raw, int64_t count, float* out) override {
    cpu::to_float(k_, type, raw, count, out);
  }

  std::unique_ptr<Buffer> upload(const float* values, int64_t count) override {
    auto buffer = std::make_unique<CpuBuffer>(1, count);
    std::copy_n(values, count, buffer->memory.floats());
    return buffer;
  }

  std::vector<std::unique_ptr<Linear>> prepare(std::span<const MatrixStack> stacks,
                                               LoadMonitor& monitor) override {
    std::vector<std::unique_ptr<Linear>> result;
    std::vector<PackJob> jobs;
    for (const MatrixStack& stack : stacks) result.push_back(allocate_stack(stack, jobs));
    pack_matrices(k_, pool_, jobs, monitor);
    return result;
  }

  void prepare_attention(const AttentionShape& shape) override {
    shape_ = shape;
    kv_page_bytes_ = k_.kv_page_bytes(shape.kv_type, shape.head_dim);
    kv_ = AlignedMemory(page_stride() * static_cast<size_t>(shape.kv_pages), "the KV cache");
  }

  void prepare_steps(const StepLimits& limits) override {
    products_ = AlignedMemory(products_bytes(limits), "activations");
    gathered_ = AlignedMemory(kLogitRows * limits.hidden_size * sizeof(float), "activations");
    logits_ = AlignedMemory(kLogitRows * limits.vocab_size * sizeof(float), "logits");
    quantized_ = AlignedMemory(quantized_bytes(limits), "quantized activations");
    const auto tokens = static_cast<size_t>(limits.tokens);
    const size_t half = static_cast<size_t>(shape_.head_dim / 2);
    token_ids_.reserve(tokens);
    visible_.reserve(tokens);
    cos_.reserve(tokens * half);
    sin_.reserve(tokens * half);
    plan_.reserve(tokens, shape_.kv_heads);
    // These have an element for each row. A token may be asked for twice: they may have to grow.
    chosen_.reserve(tokens);
    offsets_.candidates.reserve(tokens);
    offsets_.full.reserve(tokens);
  }

  bool begin_step(const Batch& batch, RowResults& results) override {
    batch_ = &batch;
    results_ = &results;
    tokens_ = static_cast<int64_t>(batch.tokens.size());
    token_ids_ = batch.tokens;
    for (int32_t& id : token_ids_) {
      if (id < 0) id = chosen_[-(id + 1)];  // what a row of the step before chose
    }
    visible_.resize(tokens_);
    for (int64_t t = 0; t < tokens_; ++t) visible_[t] = batch.positions[t] + 1;

    const int half = shape_.head_dim / 2;
    cos_.resize(tokens_ * half);
    sin_.resize(tokens_ * half);
    for (int64_t t = 0; t < tokens_; ++t) {
      for (int i = 0; i < half; ++i) {
        const double angle = batch.positions[t] * shape_.inverse_frequencies[i];
        cos_[t * half + i] = static_cast<float>(std::cos(angle));
        sin_[t * half + i] = static_cast<float>(std::sin(angle));
      }
    }

    plan_.make(batch, shape_, pool_.threads());

    for (size_t i = 0; i + 1 < batch.page_copies.size(); i += 2) {
      std::memmove(kv_.data() + batch.page_copies[i + 1] * page_stride(),
                   kv_.data() + batch.page_copies[i] * page_stride(), page_stride());
    }
    return true;
  }

  // No operation outlasts its call.
  void end_step() override {}
  void abandon_step() noexcept override {}
  void finish_step() override {}

  void embed(const Linear& embedding, Buffer& x) override {
    const PackedMatrix& matrix = linear(embedding).parts[0].matrix;
    run(tokens_, matrix.cols,
        [&](int64_t t) { k_.unpack_row(matrix, token_ids_[t], data(x) + t * stride(x)); });
  }

  void rmsnorm(const Buffer& x, const Buffer& weight, float eps, const Linear&,
               Buffer& out) override {
    const int64_t n = stride(x);
    run(tokens_, 4 * n,
        [&](int64_t t) { k_.rmsnorm(data(x) + t * n, data(weight), eps, n, data(out) + t * n); });
  }

  void matmul_qkv(const Linear& w, const Buffer& x, Buffer& qkv, int layer,
                  const int32_t* adapters) override {
    if (adapters != nullptr) {
      throw Error("ALTIPLANO_INTERNAL", "the CPU backend takes no adapters");
    }
    multiply(linear(w), data(x), stride(x), tokens_, data(qkv), stride(qkv));
    const AttentionShape& a = shape_;
    const int64_t half = a.head_dim / 2;
    const int group = a.heads / a.kv_heads;
    const auto rotate = [&](int64_t t, float* head) {
      k_.rope(head, &cos_[t * half], &sin_[t * half], a.head_dim);
    };
    const auto& items = plan_.stores();
    const auto count = static_cast<int64_t>(items.size());
    const int64_t work = kStoreWork * tokens_ * stride(qkv) / std::max<int64_t>(count, 1);
    run(count, work, [&](int64_t i) {
      const AttentionItem& item = items[i];
      for (int h = item.head; h < item.head + item.heads; ++h) {
        for (int t = item.token_begin; t < item.token_begin + item.tokens; ++t) {
          float* q = data(qkv) + t * stride(qkv);
          float* key = q + int64_t{a.heads + h} * a.head_dim;
          for (int j = h * group; j < (h + 1) * group; ++j) rotate(t, q + int64_t{j} * a.head_dim);
          rotate(t, key);
          const int32_t slot = batch_->slots[t];
          if (slot < 0) continue;
          k_.kv_store(a.kv_type, pages(layer, h) + slot / kKvPageTokens * page_stride(),
                      slot % kKvPageTokens, a.head_dim, key, key + a.kv_heads * a.head_dim);
        }
      }
    });
  }

  // The products are complete before they are added: beside a matrix, reading them again is
  // nothing.
  void matmul_add(const Linear& w, const Buffer& x, Buffer& residual) override {
    const int64_t n = stride(residual);
    multiply(linear(w), data(x), stride(x), tokens_, products_.floats(), n);
    run(tokens_, n, [&](int64_t t) {
      const float* y = products_.floats() + t * n;
      float* out = data(residual) + t * n;
      for (int64_t i = 0; i < n; ++i) out[i] += y[i];
    });
  }

  void matmul_silu(const Linear& gate_up, const Buffer& x, Buffer& out) override {
    const CpuLinear& w = linear(gate_up);
    const int64_t n = stride(out);
    multiply(w, data(x), stride(x), tokens_, products_.floats(), 2 * n);
    run(tokens_, 16 * n, [&](int64_t t) {
      const float* gate = products_.floats() + t * 2 * n;
      k_.silu_mul(gate, gate + n, n, data(out) + t * n);
    });
  }

  void attention(const Buffer& qkv, int layer, Buffer& out) override {
    const AttentionShape& a = shape_;
    const int group = a.heads / a.kv_heads;
    const auto& items = plan_.attention();
    const auto count = static_cast<int64_t>(items.size());
    int64_t keys = 0;  // the work: two multiply-adds per key, query head and dimension
    for (int64_t t = 0; t < tokens_; ++t) keys += visible_[t];
    const int64_t work = 2 * keys * a.heads * a.head_dim / std::max<int64_t>(count, 1);
    run(count, work, [&](int64_t i) {
      const AttentionItem& item = items[i];
      const int64_t first_head = int64_t{item.head} * group;
      AttendArgs args;
      args.type = a.kv_type;
      args.head_dim = a.head_dim;
      args.scale = 1.0f / std::sqrt(static_cast<float>(a.head_dim));
      args.pages = pages(layer, item.head);
      args.page_stride = page_stride();
      args.block_table = batch_->block_table.data() + batch_->block_starts[item.sequence];
      args.tokens = item.tokens;
      args.group = group;
      args.q = data(qkv) + item.token_begin * stride(qkv) + first_head * a.head_dim;
      args.q_stride = stride(qkv);
      args.visible = &visible_[item.token_begin];
      args.out = data(out) + item.token_begin * stride(out) + first_head * a.head_dim;
      args.out_stride = stride(out);
      args.heads = item.heads;
      args.head_stride = kv_page_bytes_;
      k_.attend(args);
    });
  }

  void all_reduce(Buffer&, const Shard& shard) override {
    if (shard.size != 1) {
      throw Error("ALTIPLANO_INTERNAL", "the CPU backend has no tensor parallelism");
    }
  }

  void logits(const Linear& head, const Buffer& h) override {
    const CpuLinear& w = linear(head);
    const int64_t hidden = w.cols, vocab = w.rows;
    const auto rows = static_cast<int64_t>(batch_->rows.size());
    chosen_.resize(rows);
    offsets_.set(*batch_, vocab);
    for (int64_t first = 0; first < rows; first += kLogitRows) {
      const int64_t count = std::min<int64_t>(kLogitRows, rows - first);
      for (int64_t r = 0; r < count; ++r) {
        std::copy_n(data(h) + batch_->rows[first + r] * stride(h), hidden,
                    gathered_.floats() + r * hidden);
      }
      multiply(w, gathered_.floats(), hidden, count, logits_.floats(), vocab);
      run(count, 8 * vocab, [&](int64_t r) {
        const float* row = logits_.floats() + r * vocab;
        chosen_[first + r] = reduce_row(k_, row, vocab, *batch_, first + r, offsets_, *results_);
      });
    }
  }

  size_t kv_bytes() const override { return kv_.bytes(); }
  size_t scratch_bytes() const override {
    return products_.bytes() + gathered_.bytes() + logits_.bytes() + quantized_.bytes();
  }

 private:
  // Memory for the matrices of a stack, and the jobs that fill it.
  std::unique_ptr<Linear> allocate_stack(const MatrixStack& stack, std::vector<PackJob>& jobs) {
    if (stack.parts.empty() || stack.parts.size() > kMostParts) {
      throw Error("ALTIPLANO_INTERNAL", "the CPU backend stacks 1 to 3 matrices");
    }
    auto result = std::make_unique<CpuLinear>();
    result->cols = stack.parts[0].source->cols();
    for (const MatrixPart& part : stack.parts) {
      const int64_t rows = part.source->rows(), cols = part.source->cols();
      const size_t bytes = packed_bytes(k_, part.format, rows, cols);
      uint8_t* tiles = weights_.allocate(bytes, "weights");
      const PackedMatrix matrix = {part.format, rows, cols, tiles,
                                   k_.packed_tile_bytes(part.format, cols)};
      result->parts.push_back({matrix, result->rows, bytes});
      jobs.push_back({part.source, matrix, tiles});
      result->rows += rows;
    }
    return result;
  }

  // Calls fn(item) for each item, in parallel if the multiply-adds per item make it worthwhile. fn
  // must not throw.
  template <class Fn>
  void run(int64_t items, int64_t work_per_item, const Fn& fn) {
    if (items * work_per_item < kSerialWork) {
      for (int64_t i = 0; i < items; ++i) fn(i);
    } else {
      pool_.parallel_for(items, fn);
    }
  }

  // Whether a matrix is multiplied with int8 activations.
  bool takes_int8(const PackedMatrix& m) const {
    return m.format.quantized() && quantized_.bytes() > 0;
  }

  // y[t][0 .. rows) = x[t] W^T, in items of a few tiles of one part.
  void multiply(const CpuLinear& w, const float* x, int64_t ldx, int64_t tokens, float* y,
                int64_t ldy) {
    const int64_t groups = activation_groups(w.cols);
    if (std::ranges::any_of(w.parts, [&](const auto& part) { return takes_int8(part.matrix); })) {
      run(tokens, 2 * w.cols, [&](int64_t t) {
        k_.quantize_activations(x + t * ldx, w.cols, quantized() + t * groups);
      });
    }
    // An item is as many tiles as kernels multiply at once.
    struct PartItems {
      int64_t first;
      int64_t tiles;  // of an item; the last of a part may have fewer
    };
    PartItems plan[kMostParts + 1];
    int64_t items = 0;
    for (size_t p = 0; p < w.parts.size(); ++p) {
      const PackedMatrix& m = w.parts[p].matrix;
      const int64_t at_once = !takes_int8(m) ? 4 : tokens == 1 ? 1 : 32 / k_.tile_rows;
      plan[p] = {items, at_once};
      items += ceil_div(ceil_div(m.rows, k_.tile_rows), at_once);
    }
    plan[w.parts.size()] = {items, 0};
    const auto multiply_items = [&](int64_t begin, int64_t end) {
      for (size_t p = 0; p < w.parts.size(); ++p) {
        const PackedMatrix& m = w.parts[p].matrix;
        const int64_t item_bytes = plan[p].tiles * static_cast<int64_t>(m.tile_bytes);
        const int64_t most = tokens == 1 ? items : std::max<int64_t>(1, kCallBytes / item_bytes);
        const int64_t part_end = std::min(end, plan[p + 1].first) - plan[p].first;
        for (int64_t item = std::max(begin - plan[p].first, int64_t{0}); item < part_end;) {
          const int64_t item_end = std::min(item + most, part_end);
          multiply_tiles(m, item * plan[p].tiles,
                         std::min(item_end * plan[p].tiles, ceil_div(m.rows, k_.tile_rows)), x, ldx,
                         tokens, y + w.parts[p].first_row, ldy);
          item = item_end;
        }
      }
    };
    if (w.rows * w.cols * tokens < kSerialWork) {
      multiply_items(0, items);
    } else {
      pool_.parallel_for_ranges(items, multiply_items);
    }
  }

  void multiply_tiles(const PackedMatrix& m, int64_t begin, int64_t end, const float* x,
                      int64_t ldx, int64_t tokens, float* y, int64_t ldy) {
    if (takes_int8(m)) {
      k_.matmul_int8(m, begin, end, quantized(), activation_groups(m.cols), tokens, y, ldy);
    } else {
      k_.matmul(m, begin, end, x, ldx, tokens, y, ldy, false);
    }
  }

  ActivationGroup* quantized() { return reinterpret_cast<ActivationGroup*>(quantized_.data()); }

  // The part of the cache of one layer and KV head: page p is page_stride() * p further.
  uint8_t* pages(int layer, int kv_head) {
    return kv_.data() + (int64_t{layer} * shape_.kv_heads + kv_head) * kv_page_bytes_;
  }
  size_t page_stride() const {
    return kv_page_bytes_ * static_cast<size_t>(shape_.kv_heads) * shape_.layers;
  }

  const Kernels& k_;
  ThreadPool pool_;
  Arena weights_;  // of all that was prepared
  AttentionShape shape_;
  // [page][layer][kv head][K, V]: a first prompt touches as little new memory as it fills.
  AlignedMemory kv_;
  size_t kv_page_bytes_ = 0;
  AlignedMemory products_;  // [T][2F] of gate and up, or [T][D] to be added
  AlignedMemory gathered_;  // [kLogitRows][D]
  AlignedMemory logits_;    // [kLogitRows][V]
  // The input of a matmul with int8 activations, [T][groups of a row]; empty without.
  AlignedMemory quantized_;

  // The running step.
  const Batch* batch_ = nullptr;
  RowResults* results_ = nullptr;
  int64_t tokens_ = 0;
  std::vector<int32_t> token_ids_;  // [T]
  std::vector<int32_t> visible_;    // [T] keys that each token sees
  std::vector<float> cos_, sin_;    // [T][d / 2]
  AttentionPlan plan_;
  RowOffsets offsets_;
  std::vector<int32_t> chosen_;  // [R] best ids of the step before
};

class CpuSizes : public BackendSizes {
 public:
  uint64_t buffer(int64_t rows, int64_t cols, BufferKind) const override {
    return static_cast<uint64_t>(rows * cols) * sizeof(float);
  }
  uint64_t linear(std::span<const PartShape> parts, LinearUse, bool) const override {
    uint64_t sum = 0;
    for (const PartShape& p : parts) sum += packed_bytes(k_, p.format, p.rows, p.cols);
    return sum;
  }
  uint64_t kv_cache(const AttentionShape& shape) const override {
    return static_cast<uint64_t>(k_.kv_page_bytes(shape.kv_type, shape.head_dim)) * shape.kv_heads *
           static_cast<uint64_t>(shape.kv_pages) * shape.layers;
  }
  uint64_t scratch(const AttentionShape&, const StepLimits& limits) const override {
    return static_cast<uint64_t>(kLogitRows) * sizeof(float) *
               (limits.hidden_size + limits.vocab_size) +
           products_bytes(limits) + quantized_bytes(limits);
  }

 private:
  const Kernels& k_ = select_kernels();
};

}  // namespace

std::unique_ptr<Backend> make_backend(int threads, const Kernels& kernels) {
  return std::make_unique<CpuBackend>(threads, kernels);
}

std::unique_ptr<const BackendSizes> backend_sizes() { return std::make_unique<CpuSizes>(); }

}  // namespace altiplano::cpu
