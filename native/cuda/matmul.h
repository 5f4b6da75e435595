// Multiplication of activations with weight matrices: what the rest of the CUDA backend knows of
// it. Layouts of packed weights, tiles and kernels are the business of the implementation.
//
// Activations are f16, sums are f32. Weights of any canonical format (docs/weight-formats.md) come
// in canonical rows on the device and are packed there, once.
#pragma once

#include <cuda.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "backend.h"
#include "cuda/kernel.h"
#include "cuda/memory.h"
#include "util/weight_format.h"

namespace altiplano::cuda {

// What becomes of the products y[T][rows] = x[T][cols] W^T.
enum class Epilogue : uint8_t {
  kStoreF16,  // y, rounded to f16
  kStoreF32,  // y
};

// A weight matrix [rows][cols] in the layout of its kernels.
struct PackedMatrix {
  WeightFormat format;
  int64_t rows = 0;
  int64_t cols = 0;
  DeviceMemory memory;
  // Parts of `memory`; what they point to is the implementation's.
  CUdeviceptr values = 0;
  CUdeviceptr scales = 0;
  CUdeviceptr zeros = 0;
};

// Rows row_begin .. row_begin + rows - 1 of a matrix in canonical form, in device memory, each
// array aligned to 256 bytes. `zeros` is 0 without zero points, `scales` too for float types.
struct CanonicalOnDevice {
  int64_t row_begin = 0;
  int64_t rows = 0;
  CUdeviceptr values = 0;
  CUdeviceptr scales = 0;
  CUdeviceptr zeros = 0;
};

// Stretches of rows that are packed by one call begin at multiples of this.
inline constexpr int64_t kPackRows = 256;

class Matmul {
 public:
  virtual ~Matmul() = default;

  // --- loading --------------------------------------------------------------------------------
  // Bytes of device memory that a packed matrix takes. Also static, below, for estimates.
  virtual PackedMatrix allocate(WeightFormat format, int64_t rows, int64_t cols) = 0;
  // Packs some rows. All rows come once, in any order. Asynchronous.
  virtual void pack(const Stream& stream, const CanonicalOnDevice& from, PackedMatrix& to) = 0;
  // Allocates what the largest step needs beside x and y. Before the first multiply().
  virtual void prepare(const StepLimits& limits) = 0;
  virtual size_t workspace_bytes() const = 0;

  // --- a step ---------------------------------------------------------------------------------
  // y[t * y_stride + r] for t < tokens, r < w.rows from x[t * x_stride + k], k < w.cols: x is f16,
  // y as the epilogue says. x is aligned to 16 bytes and x_stride a multiple of 8; y_stride and the
  // beginning of y are anything. Rows of x beyond `tokens` may be read (they exist, up to the
  // largest step), not written; the same for columns up to x_stride (what stands there is finite).
  // Asynchronous, no allocation, no synchronisation; which kernels are launched depends on shapes
  // and `tokens` only.
  virtual void multiply(const Stream& stream, const PackedMatrix& w, CUdeviceptr x,
                        int64_t x_stride, int64_t tokens, Epilogue epilogue, CUdeviceptr y,
                        int64_t y_stride) = 0;
};

std::unique_ptr<Matmul> make_matmul(KernelLibrary& kernels);

// Bytes that allocate() and prepare() will take, without a device.
uint64_t packed_bytes(WeightFormat format, int64_t rows, int64_t cols);
uint64_t matmul_workspace_bytes(const StepLimits& limits);

}  // namespace altiplano::cuda
