#include "cuda/matmul_general.h"

#include "cuda/canonical.h"
#include "util/error.h"

namespace altiplano::cuda {
namespace {

constexpr uint32_t kWarps = 4;  // of a block
constexpr int64_t kManyTokens = 8;

size_t aligned(size_t bytes) { return (bytes + 255) / 256 * 256; }

class GeneralMatmul : public Matmul {
 public:
  explicit GeneralMatmul(KernelLibrary& kernels) : context_(kernels.context()) {
    // In the order of WeightType.
    static constexpr const char* kNames[][2] = {{"matmul_general_f32_1", "matmul_general_f32_8"},
                                                {"matmul_general_f16_1", "matmul_general_f16_8"},
                                                {"matmul_general_bf16_1", "matmul_general_bf16_8"},
                                                {"matmul_general_int8_1", "matmul_general_int8_8"},
                                                {"matmul_general_int4_1", "matmul_general_int4_8"}};
    for (const auto& [one, many] : kNames) {
      one_.push_back(kernels.find("matmul_general", one));
      many_.push_back(kernels.find("matmul_general", many));
    }
  }

  PackedMatrix allocate(const MatrixShape& shape) override {
    PackedMatrix m;
    m.shape = shape;
    const WeightFormat f = shape.format;
    const auto values = static_cast<size_t>(shape.rows * canonical_row_bytes(f, shape.cols));
    const auto scales = static_cast<size_t>(shape.rows * f.groups(shape.cols)) * 2;
    m.memory = DeviceMemory(context_, aligned(values) + aligned(scales) + scales / 2, "weights");
    m.values = m.memory.get();
    if (f.quantized()) m.scales = m.values + aligned(values);
    if (f.zero_points) m.zeros = m.scales + aligned(scales);
    return m;
  }

  void pack(const Stream& stream, const CanonicalOnDevice& from, PackedMatrix& to) override {
    const WeightFormat f = to.shape.format;
    const int64_t row_bytes = canonical_row_bytes(f, to.shape.cols);
    const int64_t groups = f.groups(to.shape.cols);
    const auto rows = static_cast<size_t>(from.rows);
    copy_on_device(stream, to.values + from.row_begin * row_bytes, from.values, rows * row_bytes);
    if (from.scales != 0) {
      copy_on_device(stream, to.scales + from.row_begin * groups * 2, from.scales,
                     rows * groups * 2);
    }
    if (from.zeros != 0) {
      copy_on_device(stream, to.zeros + from.row_begin * groups, from.zeros, rows * groups);
    }
  }

  void prepare(const StepLimits&) override {}
  size_t workspace_bytes() const override { return 0; }

  void multiply(const Stream& stream, const PackedMatrix& w, CUdeviceptr x, int64_t x_stride,
                int64_t tokens, Epilogue epilogue, CUdeviceptr y, int64_t y_stride) override {
    const CanonicalView view = {
        reinterpret_cast<const void*>(w.values), reinterpret_cast<const uint16_t*>(w.scales),
        reinterpret_cast<const uint8_t*>(w.zeros), w.shape.cols, w.shape.format.group};
    const int64_t outputs = epilogue == Epilogue::kSiluMulF16 ? w.shape.rows / 2 : w.shape.rows;
    const int64_t at_once = tokens == 1 ? 1 : kManyTokens;
    const auto& kernel = (tokens == 1 ? one_ : many_)[static_cast<size_t>(w.shape.format.type)];
    const Dim3 grid = {static_cast<uint32_t>((outputs + kWarps - 1) / kWarps),
                       static_cast<uint32_t>((tokens + at_once - 1) / at_once)};
    kernel.launch(stream, grid, {kWarps * 32}, 0, view, w.shape.rows, x, x_stride,
                  static_cast<int32_t>(tokens), epilogue, y, y_stride);
  }

  void multiply_quantized(const Stream&, const PackedMatrix&, const QuantizedRows&, int64_t,
                          Epilogue, CUdeviceptr, int64_t) override {
    throw Error("ALTIPLANO_INTERNAL", "the general matmul takes no int8 activations");
  }

 private:
  std::shared_ptr<const Context> context_;
  std::vector<Kernel> one_, many_;  // by WeightType
};

}  // namespace

std::unique_ptr<Matmul> make_general_matmul(KernelLibrary& kernels) {
  return std::make_unique<GeneralMatmul>(kernels);
}

}  // namespace altiplano::cuda
