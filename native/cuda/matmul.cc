// The host side of matrix multiplication: memory of packed weights, the launches of packing, and of
// a multiplication as it is planned (matmul_plan.h).
#include "cuda/matmul.h"

#include <algorithm>
#include <array>
#include <bit>
#include <iterator>
#include <string>

#include "cuda/matmul_plan.h"
#include "cuda/pack_parameters.h"
#include "util/error.h"

namespace altiplano::cuda {
namespace {

constexpr uint32_t kPackThreads = 128;
constexpr uint32_t kQuantizeThreads = 256;

constexpr const char* kSources[kMatmulKinds] = {"matmul_f16", "matmul_int8", "matmul_int4",
                                                "matmul_w8a8", "matmul_bf16"};
constexpr const char* kKernels[kMatmulKinds][kTiles] = {
    {"matmul_f16_8", "matmul_f16_16", "matmul_f16_32", "matmul_f16_64", "matmul_f16_128",
     "matmul_f16_256x128"},
    {"matmul_int8_8", "matmul_int8_16", "matmul_int8_32", "matmul_int8_64", "matmul_int8_128",
     "matmul_int8_256x128"},
    {"matmul_int4_8", "matmul_int4_16", "matmul_int4_32", "matmul_int4_64", "matmul_int4_128",
     "matmul_int4_256x128"},
    {"matmul_w8a8_8", "matmul_w8a8_16", "matmul_w8a8_32", "matmul_w8a8_64", "matmul_w8a8_128",
     "matmul_w8a8_256x128"},
    {"matmul_bf16_8", "matmul_bf16_16", "matmul_bf16_32", "matmul_bf16_64", "matmul_bf16_128",
     "matmul_bf16_256x128"}};
// In the order of WeightType.
constexpr int kWeightTypes = 5;
constexpr const char* kPack[kWeightTypes] = {"pack_f16_from_f32", "pack_f16_from_f16",
                                             "pack_f16_from_bf16", "pack_int8", "pack_int4"};
constexpr const char* kPackBf16[] = {"pack_bf16_from_f32", "pack_bf16_from_f16",
                                     "pack_bf16_from_bf16"};
constexpr const char* kPackW8A8[kWeightTypes] = {"pack_w8a8_from_f32", "pack_w8a8_from_f16",
                                                 "pack_w8a8_from_bf16", "pack_w8a8_from_int8",
                                                 "pack_w8a8_from_int4"};

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }
size_t index_of(MatmulKind kind) { return static_cast<size_t>(kind); }

MatmulKind kind_of(const MatrixShape& shape) {
  if (shape.activations == ActivationType::kBF16) {
    if (shape.int8_activations || shape.format.quantized()) {
      throw Error("ALTIPLANO_INTERNAL", "bf16 activations are for matrices of floats");
    }
    return MatmulKind::kBF16;
  }
  if (shape.int8_activations) return MatmulKind::kW8A8;
  if (shape.format.type == WeightType::kInt8) return MatmulKind::kInt8;
  if (shape.format.type == WeightType::kInt4) return MatmulKind::kInt4;
  return MatmulKind::kF16;
}

int group_shift(const WeightFormat& format) {
  return format.group == 0 ? 0 : std::countr_zero(static_cast<unsigned>(format.group));
}

// Sizes of a packed matrix, and where its arrays stand in its memory.
struct PackedSizes {
  explicit PackedSizes(const MatrixShape& shape) : kind(kind_of(shape)) {
    // Of gate and up, pairs of rows alternate: an odd number of them needs another pair.
    const int64_t rows =
        shape.order == RowOrder::kGateUp ? 2 * round_up(shape.rows / 2, 2) : shape.rows;
    panels = round_up(rows, kPaddedRows) / kPanelRows;
    slices = round_up(shape.cols, kPaddedCols) / slice_cols(kind);
    const auto values_bytes = static_cast<size_t>(panels * slices * panel_slice_bytes(kind));
    scales = values_bytes;
    zeros = bytes = values_bytes + static_cast<size_t>(panels * kPanelRows) * sizeof(float);
    if (has_groups(kind)) {
      groups = ceil_div(round_up(shape.cols, kPaddedCols), shape.format.group);
      const auto all = static_cast<size_t>(panels * kPanelRows * groups);
      zeros = bytes = values_bytes + 2 * all;
      if (shape.format.zero_points) bytes += all;
    } else if (is_float(kind)) {
      bytes = values_bytes;
    }
  }

  MatmulKind kind;
  int64_t panels;
  int64_t slices;
  int64_t groups = 0;
  size_t scales;  // offsets
  size_t zeros;
  size_t bytes;
};

uint64_t int8_bytes(int64_t rows, int64_t cols) {
  return static_cast<uint64_t>(rows) * (static_cast<uint64_t>(round_up(cols, 16)) + sizeof(float));
}

// Of activations that are quantized on the way into a multiplication.
uint64_t quantized_bytes(const StepLimits& limits) {
  return limits.int8_activations ? int8_bytes(limits.tokens, limits.most_cols) : 0;
}

PlanDevice plan_device(const DeviceProperties& d, int multiprocessors) {
  return {multiprocessors > 0 ? multiprocessors : d.multiprocessors, d.shared_bytes_per_block,
          d.shared_bytes_per_multiprocessor};
}

class TensorCoreMatmul : public Matmul {
 public:
  TensorCoreMatmul(KernelLibrary& kernels, int multiprocessors)
      : kernels_(kernels),
        context_(kernels.context()),
        device_(plan_device(context_->device(), multiprocessors)) {}

  PackedMatrix allocate(const MatrixShape& shape) override {
    if (shape.order == RowOrder::kGateUp && shape.rows % 2 != 0) {
      throw Error("ALTIPLANO_INTERNAL", "gate and up have as many rows each");
    }
    const PackedSizes sizes(shape);
    find_kernels(shape, sizes.kind);
    PackedMatrix m;
    m.shape = shape;
    m.memory = DeviceMemory(context_, sizes.bytes, "weights");
    m.kind = sizes.kind;
    m.panels = sizes.panels;
    m.slices = sizes.slices;
    m.groups = sizes.groups;
    m.values = m.memory.get();
    if (!is_float(sizes.kind)) m.scales = m.values + sizes.scales;
    if (has_groups(sizes.kind) && shape.format.zero_points) m.zeros = m.values + sizes.zeros;
    return m;
  }

  void pack(const Stream& stream, const CanonicalOnDevice& from, PackedMatrix& to) override {
    const MatrixShape& shape = to.shape;
    const bool paired = shape.order == RowOrder::kGateUp;
    const int64_t part_rows = paired ? shape.rows / 2 : shape.rows;
    const bool second = paired && from.row_begin >= part_rows;
    const int64_t row_begin = from.row_begin - (second ? part_rows : 0);
    const bool last = row_begin + from.rows == part_rows;
    if (row_begin % kPackRows != 0 || row_begin + from.rows > part_rows ||
        (!last && from.rows % kPackRows != 0)) {
      throw Error("ALTIPLANO_INTERNAL", "a stretch of rows that cannot be packed alone");
    }
    PackParameters p = {};
    p.values = pointer<const uint8_t>(from.values);
    p.scales = pointer<const uint16_t>(from.scales);
    p.zeros = pointer<const uint8_t>(from.zeros);
    p.packed_values = pointer<uint8_t>(to.values);
    p.packed_scales = pointer<void>(to.scales);
    p.packed_zeros = pointer<uint8_t>(to.zeros);
    p.pair_begin = row_begin / 2;
    p.rows = from.rows;
    p.cols = shape.cols;
    p.slices = to.slices;
    p.groups = shape.format.groups(shape.cols);
    p.packed_groups = to.groups;
    p.group_shift = group_shift(shape.format);
    p.pair_step = paired ? 2 : 1;
    p.pair_offset = second ? 1 : 0;

    // The stretch that ends the matrix fills the padding behind it.
    const int64_t padded_pairs = to.panels * kPanelRows / 2 / p.pair_step;
    const int64_t pairs = (last ? padded_pairs : (row_begin + from.rows) / 2) - p.pair_begin;
    const auto type = static_cast<size_t>(shape.format.type);
    const auto x = static_cast<uint32_t>(pairs);
    if (to.kind == MatmulKind::kW8A8) {
      pack_w8a8_[type].launch(stream, {x}, {kPackThreads}, 0, p);
      return;
    }
    const int64_t pieces = to.slices * panel_slice_bytes(to.kind) / (kPanelRows / 2) / 16;
    const Kernel& pack = to.kind == MatmulKind::kBF16 ? pack_bf16_[type] : pack_[type];
    pack.launch(stream, {x, blocks_for(pieces)}, {kPackThreads}, 0, p);
    if (has_groups(to.kind)) {
      const uint32_t zero_offset = to.kind == MatmulKind::kInt8 ? 128 : 0;
      pack_groups_.launch(stream, {x, blocks_for(to.groups)}, {kPackThreads}, 0, p, zero_offset);
    }
  }

  void prepare(const StepLimits& limits) override {
    const auto partials = static_cast<size_t>(partials_bytes(device_, limits.tokens));
    const size_t counters = static_cast<size_t>(most_blocks(device_)) * sizeof(uint32_t);
    partials_ = DeviceMemory(context_, partials, "partial sums");
    counters_ = DeviceMemory(context_, counters, "partial sums");
    quantized_ =
        DeviceMemory(context_, static_cast<size_t>(quantized_bytes(limits)), "int8 activations");
    limits_ = limits;
    if (limits.int8_activations) quantize_ = kernels_.find("quantize", "quantize_rows");
    const Stream stream(context_);
    fill_bytes(stream, counters_.get(), 0, counters);
    stream.synchronize();
  }

  size_t workspace_bytes() const override {
    return partials_.bytes() + counters_.bytes() + quantized_.bytes();
  }

  void multiply(const Stream& stream, const PackedMatrix& w, const Activations& x, int64_t tokens,
                Epilogue epilogue, CUdeviceptr y, int64_t y_stride,
                const HeadsTarget* heads) override {
    const bool int8 = x.scales != 0;
    if (int8 && w.kind != MatmulKind::kW8A8) {
      throw Error("ALTIPLANO_INTERNAL", "a matrix that is not for int8 activations");
    }
    const bool quantizes = !int8 && w.kind == MatmulKind::kW8A8;
    launch(stream, w, quantizes ? quantize(stream, x, tokens, w.shape.cols) : x, tokens, epilogue,
           y, y_stride, heads);
  }

 private:
  template <class T>
  static T* pointer(CUdeviceptr address) {
    return reinterpret_cast<T*>(address);
  }
  static uint32_t blocks_for(int64_t threads) {
    return static_cast<uint32_t>(ceil_div(threads, kPackThreads));
  }

  // Loads what a matrix of this shape needs, at load time.
  void find_kernels(const MatrixShape& shape, MatmulKind kind) {
    const size_t k = index_of(kind);
    if (!found_[k]) {
      for (int tile = 0; tile < kTiles; ++tile) {
        if (!fits(device_, kind, tile)) continue;
        multiply_[k][tile] = kernels_.find(kSources[k], kKernels[k][tile]);
        multiply_[k][tile].allow_shared_bytes(tile_of(kind, tile).shared_bytes(kind));
      }
      found_[k] = true;
    }
    const auto type = static_cast<size_t>(shape.format.type);
    if (kind == MatmulKind::kW8A8) {
      pack_w8a8_[type] = kernels_.find("matmul_pack", kPackW8A8[type]);
    } else if (kind == MatmulKind::kBF16) {
      pack_bf16_[type] = kernels_.find("matmul_pack", kPackBf16[type]);
    } else {
      pack_[type] = kernels_.find("matmul_pack", kPack[type]);
      if (has_groups(kind)) pack_groups_ = kernels_.find("matmul_pack", "pack_groups");
    }
  }

  Activations quantize(const Stream& stream, const Activations& x, int64_t tokens, int64_t cols) {
    if (quantized_.bytes() < int8_bytes(tokens, cols)) {
      throw Error("ALTIPLANO_INTERNAL", "int8 activations that prepare() was not told of");
    }
    const Activations rows = int8_activations(quantized_.get(), tokens, cols);
    QuantizeParameters p = {};
    p.x = pointer<const uint8_t>(x.values);
    p.values = pointer<uint8_t>(rows.values);
    p.scales = pointer<float>(rows.scales);
    p.x_stride_bytes = x.stride * 2;
    p.values_stride = rows.stride;
    p.cols = static_cast<int32_t>(cols);
    quantize_.launch(stream, {static_cast<uint32_t>(tokens)}, {kQuantizeThreads}, 0, p);
    return rows;
  }

  static HeadsParameters heads_parameters(const HeadsTarget& to, int64_t rows) {
    if (!has_heads_epilogue(to.head_dim) || rows % to.head_dim != 0 ||
        to.first_head + rows / to.head_dim > to.heads + 2 * to.kv_heads) {
      throw Error("ALTIPLANO_INTERNAL", "heads that no epilogue knows");
    }
    HeadsParameters p = {};
    p.positions = pointer<const int32_t>(to.positions);
    p.slots = pointer<const int32_t>(to.slots);
    p.rotations = pointer<const float>(to.rotations);
    p.pages = pointer<uint8_t>(to.pages);
    p.head_bytes = to.head_bytes;
    p.first_head = to.first_head;
    p.heads = to.heads;
    p.kv_heads = to.kv_heads;
    p.head_dim_log2 = std::countr_zero(static_cast<unsigned>(to.head_dim));
    p.kv_type = to.kv_type;
    return p;
  }

  void launch(const Stream& stream, const PackedMatrix& w, const Activations& x, int64_t tokens,
              Epilogue epilogue, CUdeviceptr y, int64_t y_stride, const HeadsTarget* heads) {
    if (tokens == 0) return;
    const bool paired = w.shape.order == RowOrder::kGateUp;
    const bool stored = epilogue == Epilogue::kStore16 || epilogue == Epilogue::kStoreF32;
    const bool y_aligned = y % 16 == 0 && y_stride % 8 == 0;
    const int64_t x_stride_bytes = x.stride * (x.scales != 0 ? 1 : 2);
    if (x.values % 16 != 0 || x_stride_bytes % 16 != 0 || !(y_aligned || stored) ||
        tokens > limits_.tokens || paired != (epilogue == Epilogue::kSiluMul) ||
        (heads != nullptr) != (epilogue == Epilogue::kHeads)) {
      throw Error("ALTIPLANO_INTERNAL", "a multiplication outside of what matmul.h allows");
    }
    const int64_t rows = paired ? 2 * round_up(w.shape.rows / 2, 2) : w.shape.rows;
    const MatmulPlan plan = plan_matmul(device_, w.kind, rows, w.slices, tokens);
    MatmulParameters p = {};
    p.values = pointer<const uint8_t>(w.values);
    p.scales = pointer<const void>(w.scales);
    p.zeros = pointer<const uint8_t>(w.zeros);
    p.x = pointer<const uint8_t>(x.values);
    p.x_scales = pointer<const float>(x.scales);
    p.y = pointer<void>(y);
    p.partials = pointer<float>(partials_.get());
    p.counters = pointer<uint32_t>(counters_.get());
    p.x_stride_bytes = x_stride_bytes;
    p.y_stride = y_stride;
    p.tokens = static_cast<int32_t>(tokens);
    p.rows = static_cast<int32_t>(rows);
    p.cols_bytes = static_cast<int32_t>(w.shape.cols * (w.kind == MatmulKind::kW8A8 ? 1 : 2));
    p.slices = static_cast<int32_t>(w.slices);
    p.groups = static_cast<int32_t>(w.groups);
    p.group_shift = group_shift(w.shape.format);
    p.row_tiles = static_cast<int32_t>(plan.row_tiles);
    p.token_tiles = static_cast<int32_t>(plan.token_tiles);
    p.tile_units = static_cast<int32_t>(plan.tile_units);
    p.whole_tiles = static_cast<int32_t>(plan.whole_tiles());
    p.block_units = static_cast<int32_t>(plan.line_units() / plan.blocks);
    p.longer_blocks = static_cast<int32_t>(plan.line_units() % plan.blocks);
    if (heads != nullptr) p.heads = heads_parameters(*heads, rows);
    p.epilogue = epilogue;
    p.store_singly = y_aligned ? 0 : 1;
    p.read_once = plan.token_tiles == 1 ? 1 : 0;
    multiply_[index_of(w.kind)][plan.tile_index].launch(
        stream, {static_cast<uint32_t>(plan.blocks)}, {static_cast<uint32_t>(plan.tile.threads())},
        static_cast<uint32_t>(plan.tile.shared_bytes(w.kind)), p);
  }

  KernelLibrary& kernels_;
  std::shared_ptr<const Context> context_;
  const PlanDevice device_;
  StepLimits limits_;
  DeviceMemory partials_;
  DeviceMemory counters_;
  DeviceMemory quantized_;

  bool found_[kMatmulKinds] = {};
  Kernel multiply_[kMatmulKinds][kTiles];
  Kernel pack_[kWeightTypes];
  Kernel pack_bf16_[std::size(kPackBf16)];
  Kernel pack_w8a8_[kWeightTypes];
  Kernel pack_groups_;
  Kernel quantize_;
};

}  // namespace

std::unique_ptr<Matmul> make_matmul(KernelLibrary& kernels, int multiprocessors) {
  return std::make_unique<TensorCoreMatmul>(kernels, multiprocessors);
}

uint64_t activation_bytes(int64_t rows, int64_t cols) {
  const auto f16 = static_cast<uint64_t>(rows * float_activations(0, cols).stride * 2);
  return std::max(f16, int8_bytes(rows, cols));
}

Activations float_activations(CUdeviceptr memory, int64_t cols) {
  return {memory, round_up(cols, 8), 0};
}

Activations int8_activations(CUdeviceptr memory, int64_t rows, int64_t cols) {
  const int64_t stride = round_up(cols, 16);
  return {memory, stride, memory + static_cast<CUdeviceptr>(rows * stride)};
}

Activations from_token(const Activations& x, int64_t first) {
  const auto token = static_cast<CUdeviceptr>(first);
  const auto stride = static_cast<CUdeviceptr>(x.stride);
  if (x.scales == 0) return {x.values + token * stride * 2, x.stride, 0};
  return {x.values + token * stride, x.stride, x.scales + token * sizeof(float)};
}

uint64_t packed_bytes(const MatrixShape& shape) { return PackedSizes(shape).bytes; }

uint64_t matmul_workspace_bytes(const StepLimits& limits, int multiprocessors) {
  PlanDevice device;
  device.multiprocessors = multiprocessors;
  return partials_bytes(device, limits.tokens) +
         static_cast<uint64_t>(most_blocks(device)) * sizeof(uint32_t) + quantized_bytes(limits);
}

}  // namespace altiplano::cuda
