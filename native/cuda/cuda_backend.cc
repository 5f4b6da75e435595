// The operations of backend.h on a GPU: everything is launched on one stream, in order, and nothing
// waits before finish_step(), for the copy of the results to the host. The next step may be
// launched behind the running one meanwhile: what the host writes and reads, each of them has of
// its own.
//
// Steps of decodes are CUDA graphs: padded to one of few sizes, so that the launches of a size are
// always the same, recorded when the size comes for the first time, and repeated from then on. What
// differs between steps lies in the inputs on the device, but for the split of attention, which is
// changed in the graph. A step with prompts is launched kernel by kernel: its kernels are long.
//
// The residual stream is f32; what a matmul reads or writes otherwise is f16, or bf16 throughout.
// Rows begin at multiples of 8 numbers.
#include "cuda/cuda_backend.h"

#include <algorithm>
#include <cmath>
#include <compare>
#include <map>
#include <utility>
#include <vector>

#include "cuda/devices.h"
#include "cuda/graph.h"
#include "cuda/kv_page.h"
#include "cuda/linear.h"
#include "cuda/matmul.h"
#include "cuda/operations.h"
#include "cuda/row_outputs.h"
#include "cuda/step_inputs.h"
#include "util/error.h"

namespace altiplano::cuda {
namespace {

int64_t stride_of(int64_t cols) { return (cols + 7) / 8 * 8; }

size_t buffer_bytes(int64_t rows, int64_t cols, BufferKind kind) {
  if (kind == BufferKind::kMatmulInput) return activation_bytes(rows, cols);
  const size_t element = kind == BufferKind::kResidual ? sizeof(float) : 2;
  return static_cast<size_t>(rows * stride_of(cols)) * element;
}

struct CudaBuffer : Buffer {
  CudaBuffer(std::shared_ptr<const Context> context, int64_t rows, int64_t cols, BufferKind kind)
      : memory(std::move(context), buffer_bytes(rows, cols, kind), "activations"),
        rows(rows),
        cols(cols),
        stride(stride_of(cols)) {}
  size_t bytes() const override { return memory.bytes(); }
  Activations activations() const {
    return is_int8 ? int8_activations(memory.get(), rows, cols)
                   : float_activations(memory.get(), cols);
  }
  DeviceMemory memory;
  const int64_t rows;
  const int64_t cols;
  const int64_t stride;  // elements of a row
  bool is_int8 = false;  // what rmsnorm() left in it
};

const CudaBuffer& buffer(const Buffer& b) { return static_cast<const CudaBuffer&>(b); }
CUdeviceptr data(const Buffer& b) { return buffer(b).memory.get(); }
Activations activations(const Buffer& b) { return buffer(b).activations(); }
const CudaLinear& linear(const Linear& w) { return static_cast<const CudaLinear&>(w); }

int64_t kv_page_bytes(const AttentionShape& a) {
  return static_cast<int64_t>(kv_head_bytes(a.kv_type, a.head_dim)) * a.kv_heads;
}

size_t rotation_bytes(const AttentionShape& a) {
  return static_cast<size_t>(a.max_positions) * static_cast<size_t>(a.head_dim / 2) * 2 *
         sizeof(float);
}

// Pages of the block tables of a step, as most steps have them.
int64_t usual_pages(const AttentionShape& a) { return std::min<int64_t>(a.kv_pages, 1 << 16); }

// What the launches of a step of decodes depend on, beside the split of attention.
struct GraphShape {
  int64_t tokens = 0;  // 0: the step is no graph
  bool gathers = false;
  bool wants_candidates = false;
  auto operator<=>(const GraphShape&) const = default;
};

struct StepGraph {
  std::unique_ptr<Graph> graph;
  std::vector<CUgraphNode> attention;
  AttentionSplit split;
};

class CudaBackend : public Backend {
 public:
  CudaBackend(int ordinal, std::unique_ptr<RowReader> reader)
      : context_(std::make_shared<Context>(ordinal)),
        stream_(context_),
        kernels_(context_),
        matmul_(make_matmul(kernels_)),
        reader_(std::move(reader)),
        ends_{Event(context_), Event(context_)} {}

  ~CudaBackend() override { abandon_step(); }

  // --- loading --------------------------------------------------------------------------------

  std::unique_ptr<Buffer> allocate(int64_t rows, int64_t cols, BufferKind kind) override {
    context_->make_current();
    auto result = std::make_unique<CudaBuffer>(context_, rows, cols, kind);
    // What pads the rows is never written to, and must be numbers.
    fill_bytes(stream_, data(*result), 0, result->bytes());
    return result;
  }

  void to_float(FileType type, const uint8_t* raw, int64_t count, float* out) override {
    reader_->to_float(type, raw, count, out);
  }

  std::unique_ptr<Buffer> upload(const float* values, int64_t count) override {
    context_->make_current();
    auto result = std::make_unique<CudaBuffer>(context_, 1, count, BufferKind::kResidual);
    copy_and_wait(data(*result), values, static_cast<size_t>(count) * sizeof(float));
    return result;
  }

  std::vector<std::unique_ptr<Linear>> prepare(std::span<const MatrixStack> stacks,
                                               LoadMonitor& monitor) override {
    context_->make_current();
    if (!loader_) {
      loader_ = std::make_unique<LinearLoader>(stream_, *matmul_, *reader_, limits_);
    }
    std::vector<std::unique_ptr<Linear>> result;
    for (const auto& [parts, use] : stacks) {
      std::unique_ptr<CudaLinear> linear = loader_->load(parts, use, monitor);
      if (use == LinearUse::kGateUp && linear->parts.size() > 1 && gate_up_.bytes() == 0) {
        const auto products = static_cast<size_t>(limits_.tokens * 2 * limits_.intermediate_size);
        gate_up_ = DeviceMemory(context_, products * 2, "activations");
      }
      result.push_back(std::move(linear));
    }
    return result;
  }

  void prepare_attention(const AttentionShape& shape) override {
    context_->make_current();
    shape_ = shape;
    cache_.head_bytes = static_cast<int64_t>(kv_head_bytes(shape.kv_type, shape.head_dim));
    cache_.page_bytes = kv_page_bytes(shape);
    cache_.layer_bytes = cache_.page_bytes * shape.kv_pages;
    kv_ = DeviceMemory(context_, static_cast<size_t>(cache_.layer_bytes) * shape.layers,
                       "the KV cache");
    cache_.pages = kv_.get();
    operations_ = std::make_unique<Operations>(kernels_, shape);
    attention_ = std::make_unique<Attention>(stream_, kernels_, shape);

    // The angles are computed in float64: f32 would be off by whole turns at far positions.
    const int64_t half = shape.head_dim / 2;
    std::vector<float> rotations;
    rotations.reserve(static_cast<size_t>(shape.max_positions * half * 2));
    for (int64_t position = 0; position < shape.max_positions; ++position) {
      for (int64_t i = 0; i < half; ++i) {
        const double angle = static_cast<double>(position) * shape.inverse_frequencies[i];
        rotations.push_back(static_cast<float>(std::cos(angle)));
        rotations.push_back(static_cast<float>(std::sin(angle)));
      }
    }
    rotations_ = DeviceMemory(context_, rotation_bytes(shape), "rotary positions");
    copy_and_wait(rotations_.get(), rotations.data(), rotation_bytes(shape));
  }

  void prepare_steps(const StepLimits& limits) override {
    context_->make_current();
    limits_ = limits;
    matmul_->prepare(limits);
    inputs_ = std::make_unique<StepInputs>(
        context_, limits.tokens, usual_pages(shape_),
        has_attention_tiles(shape_) ? shape_.heads / shape_.kv_heads : 0);
    outputs_ = std::make_unique<RowOutputs>(stream_, *operations_, *matmul_, limits);
  }

  // --- a step ---------------------------------------------------------------------------------

  bool begin_step(const Batch& batch, RowResults& results) override {
    // Weights have been loaded: their threads and staging memory are needed no more.
    loader_.reset();
    reader_.reset();

    context_->make_current();  // for all of the step
    const StepSize size = size_of(batch);
    // Memory that the running step may use, and graphs have been recorded with, moves.
    const auto moved = [this] {
      stream_.synchronize();
      graphs_.clear();
    };
    const int place = static_cast<int>(told_ % kStepsInFlight);
    outputs_->begin(place, batch, results, size, moved);
    inputs_->set(stream_, place, batch, size, moved);
    tokens_ = inputs_->step_tokens();
    operations_->copy_pages(stream_, cache_, inputs_->page_copies(),
                            static_cast<int64_t>(batch.page_copies.size() / 2));

    graph_ = {};
    if (!size.decodes || outputs_->unusual()) return true;
    graph_ = {size.tokens, outputs_->gathers(), outputs_->wants_candidates()};
    if (graphs_.contains(graph_)) return false;
    recording_ = std::make_unique<Graph>(stream_);
    return true;
  }

  void end_step() override {
    if (recording_) {
      recording_->finish();
      std::vector<CUgraphNode> attention = attention_->split_launches(*recording_);
      graphs_[graph_] = {std::move(recording_), std::move(attention),
                         attention_->split_of(tokens_)};
    }
    if (graph_.tokens > 0) {
      StepGraph& step = graphs_.at(graph_);
      if (const AttentionSplit split = attention_->split_of(tokens_); split != step.split) {
        step.split = {};  // of none, should not all of it be changed
        Attention::set_split(*step.graph, step.attention, split);
        step.split = split;
      }
      step.graph->launch();
    }
    outputs_->copy();
    ends_[told_ % kStepsInFlight].record(stream_);
    ++told_;
  }

  void abandon_step() noexcept override {
    recording_.reset();
    try {
      const CurrentContext current(*context_);
      stream_.synchronize();
    } catch (const Error&) {
      // A kernel failed. The step's own error has been told, and the next call will fail again.
    }
  }

  void finish_step() override {
    const auto place = static_cast<int>(finished_++ % kStepsInFlight);
    const CurrentContext current(*context_);
    ends_[place].synchronize();
    outputs_->take(place);
  }

  void embed(const Linear& embedding, Buffer& x) override {
    const CudaLinear& w = linear(embedding);
    operations_->embed(stream_, w.embedding_format, w.embedding, tokens_.count, inputs_->tokens(),
                       outputs_->chosen(), data(x), buffer(x).stride);
  }

  void rmsnorm(const Buffer& x, const Buffer& weight, float eps, const Linear& next,
               Buffer& out) override {
    auto& to = static_cast<CudaBuffer&>(out);
    to.is_int8 = linear(next).takes_int8();
    operations_->rmsnorm(stream_, tokens_.count, data(x), buffer(x).stride, data(weight), eps,
                         buffer(x).cols, to.activations());
  }

  void matmul_qkv(const Linear& w, const Buffer& x, Buffer& qkv, int layer,
                  const int32_t* adapters) override {
    if (adapters != nullptr) {
      throw Error("ALTIPLANO_INTERNAL", "the CUDA backend takes no adapters");
    }
    const bool fused = has_heads_epilogue(shape_.head_dim);
    HeadsTarget to = {.heads = shape_.heads,
                      .kv_heads = shape_.kv_heads,
                      .head_dim = shape_.head_dim,
                      .positions = tokens_.positions,
                      .slots = tokens_.slots,
                      .rotations = rotations_.get(),
                      .pages = cache_.layer(layer),
                      .head_bytes = cache_.head_bytes,
                      .kv_type = shape_.kv_type};
    for (const CudaLinear::Part& part : linear(w).parts) {
      to.first_head = static_cast<int>(part.first_row / shape_.head_dim);
      matmul_->multiply(stream_, part.matrix, activations(x), tokens_.count,
                        fused ? Epilogue::kHeads : Epilogue::kStore16,
                        data(qkv) + (fused ? 0 : static_cast<CUdeviceptr>(part.first_row * 2)),
                        buffer(qkv).stride, fused ? &to : nullptr);
    }
    if (!fused) {
      operations_->rope_and_store(stream_, tokens_, data(qkv), buffer(qkv).stride, rotations_.get(),
                                  cache_, layer);
    }
  }

  void matmul_add(const Linear& w, const Buffer& x, Buffer& residual) override {
    for (const CudaLinear::Part& part : linear(w).parts) {
      matmul_->multiply(stream_, part.matrix, activations(x), tokens_.count, Epilogue::kAddF32,
                        data(residual) + static_cast<CUdeviceptr>(part.first_row * 4),
                        buffer(residual).stride);
    }
  }

  void matmul_silu(const Linear& gate_up, const Buffer& x, Buffer& out) override {
    const std::vector<CudaLinear::Part>& parts = linear(gate_up).parts;
    if (parts.size() == 1) {
      matmul_->multiply(stream_, parts[0].matrix, activations(x), tokens_.count, Epilogue::kSiluMul,
                        data(out), buffer(out).stride);
      return;
    }
    const int64_t cols = buffer(out).cols;
    for (const CudaLinear::Part& part : parts) {  // gate and up in different formats
      matmul_->multiply(stream_, part.matrix, activations(x), tokens_.count, Epilogue::kStore16,
                        gate_up_.get() + static_cast<CUdeviceptr>(part.first_row * 2), 2 * cols);
    }
    operations_->silu_mul(stream_, tokens_.count, gate_up_.get(), cols, data(out),
                          buffer(out).stride);
  }

  void attention(const Buffer& qkv, int layer, Buffer& out) override {
    attention_->launch(stream_, tokens_, data(qkv), buffer(qkv).stride, cache_, layer, data(out),
                       buffer(out).stride);
  }

  void all_reduce(Buffer&, const Shard& shard) override {
    if (shard.size != 1) {
      throw Error("ALTIPLANO_INTERNAL", "the CUDA backend has no tensor parallelism");
    }
  }

  void logits(const Linear& head, const Buffer& h) override {
    outputs_->launch(head, activations(h), *inputs_);
  }

  // --- memory ---------------------------------------------------------------------------------

  size_t kv_bytes() const override { return kv_.bytes(); }
  size_t scratch_bytes() const override {
    return rotations_.bytes() + matmul_->workspace_bytes() + inputs_->device_bytes() +
           outputs_->device_bytes() + gate_up_.bytes() + attention_->device_bytes();
  }

 private:
  StepSize size_of(const Batch& batch) const {
    const auto tokens = static_cast<int64_t>(batch.tokens.size());
    const auto rows = static_cast<int64_t>(batch.rows.size());
    const int group = has_attention_tiles(shape_) ? shape_.heads / shape_.kv_heads : 0;
    const int64_t padded = padded_tokens(tokens, limits_.tokens);
    // A graph hides what fails within it, and a token may be asked for twice.
    if (waits_behind_launches() || padded == 0 || rows > padded || !only_decodes(batch, group)) {
      return {tokens, rows};
    }
    return {padded, padded, true};
  }

  // From memory that is not pinned.
  void copy_and_wait(CUdeviceptr to, const void* from, size_t bytes) {
    copy_to_device(stream_, to, from, bytes);
    stream_.synchronize();
  }

  std::shared_ptr<const Context> context_;
  Stream stream_;
  KernelLibrary kernels_;
  std::unique_ptr<Matmul> matmul_;
  std::unique_ptr<RowReader> reader_;     // while weights are loaded
  std::unique_ptr<LinearLoader> loader_;  // likewise
  std::unique_ptr<Operations> operations_;
  std::unique_ptr<Attention> attention_;
  AttentionShape shape_;
  StepLimits limits_;
  DeviceMemory kv_;
  KvCache cache_;
  DeviceMemory rotations_;  // [max positions][d / 2] (cos, sin)
  DeviceMemory gate_up_;    // [T][2F], for gate and up in different formats; else none

  std::unique_ptr<StepInputs> inputs_;
  std::unique_ptr<RowOutputs> outputs_;
  std::map<GraphShape, StepGraph> graphs_;
  Event ends_[kStepsInFlight];
  uint64_t told_ = 0;      // steps
  uint64_t finished_ = 0;  // of them; the finishing thread's

  // The step that is being told.
  StepTokens tokens_;
  GraphShape graph_;
  std::unique_ptr<Graph> recording_;
};

class CudaSizes : public BackendSizes {
 public:
  explicit CudaSizes(int ordinal) : device_(device_properties(ordinal)) {}

  uint64_t buffer(int64_t rows, int64_t cols, BufferKind kind) const override {
    return buffer_bytes(rows, cols, kind);
  }
  uint64_t linear(std::span<const PartShape> parts, LinearUse use,
                  bool int8_activations) const override {
    return LinearLoader::device_bytes(parts, use, int8_activations);
  }
  uint64_t kv_cache(const AttentionShape& shape) const override {
    return static_cast<uint64_t>(kv_page_bytes(shape)) * static_cast<uint64_t>(shape.kv_pages) *
           static_cast<uint64_t>(shape.layers);
  }
  uint64_t scratch(const AttentionShape& shape, const StepLimits& limits) const override {
    return rotation_bytes(shape) + StepInputs::device_bytes(limits.tokens, usual_pages(shape)) +
           RowOutputs::device_bytes(limits) +
           matmul_workspace_bytes(limits, device_.multiprocessors) +
           Attention::device_bytes(shape, device_.multiprocessors);
  }

 private:
  const DeviceProperties device_;
};

}  // namespace

std::unique_ptr<Backend> make_backend(int ordinal, std::unique_ptr<RowReader> reader) {
  return std::make_unique<CudaBackend>(ordinal, std::move(reader));
}

std::unique_ptr<const BackendSizes> backend_sizes(int ordinal) {
  return std::make_unique<CudaSizes>(ordinal);
}

}  // namespace altiplano::cuda
