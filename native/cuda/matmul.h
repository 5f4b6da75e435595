// Multiplication of activations with weight matrices: what the rest of the CUDA backend knows of
// it. Layouts of packed weights, tiles and kernels are the business of the implementation
// (matmul_parameters.h, docs/cuda-kernels.md).
//
// Activations are f16 or bf16, sums are f32. Weights of any canonical format
// (docs/weight-formats.md) come in canonical rows on the device and are packed there, once.
#pragma once

#include <cuda.h>

#include <cstdint>
#include <memory>

#include "backend.h"
#include "cuda/kernel.h"
#include "cuda/matmul_parameters.h"
#include "cuda/memory.h"
#include "util/kv_type.h"
#include "util/weight_format.h"

namespace altiplano::cuda {

// kGateUp is for a matrix of two halves, rows / 2 rows of gate and as many of up, whose product
// becomes silu(gate) * up (Epilogue::kSiluMul, and no other). Both halves have one format.
enum class RowOrder : uint8_t { kPlain, kGateUp };

struct MatrixShape {
  WeightFormat format;
  int64_t rows = 0;
  int64_t cols = 0;
  RowOrder order = RowOrder::kPlain;
  // Multiplies int8 by int8: activations are quantized with a scale per token, and the weights, of
  // whatever format, to int8 with a scale per row.
  bool int8_activations = false;
  // What x is, and y where it has 16 bits. With bf16 weights of any float type are rounded to bf16,
  // and multiplied so.
  ActivationType activations = ActivationType::kF16;
};

// A weight matrix [rows][cols] in the layout of its kernels.
struct PackedMatrix {
  MatrixShape shape;
  DeviceMemory memory;
  // The rest is the implementation's.
  MatmulKind kind = MatmulKind::kF16;
  int64_t panels = 0;
  int64_t slices = 0;
  int64_t groups = 0;
  CUdeviceptr values = 0;
  CUdeviceptr scales = 0;
  CUdeviceptr zeros = 0;
};

// Rows row_begin .. row_begin + rows - 1 of a matrix in canonical form, in device memory, each
// array aligned to 256 bytes. `zeros` is 0 without zero points, `scales` too for float types. With
// RowOrder::kGateUp rows of gate come before those of up, and one stretch has rows of one of them.
struct CanonicalOnDevice {
  int64_t row_begin = 0;
  int64_t rows = 0;
  CUdeviceptr values = 0;
  CUdeviceptr scales = 0;
  CUdeviceptr zeros = 0;
};

// Stretches of rows that are packed by one call begin at multiples of this (of gate and up: each
// counted from its own first row), and have a multiple of it but for the last one.
inline constexpr int64_t kPackRows = 2;

// What a matrix is multiplied with: rows of f16 or bf16, as the matrix was made for, or of int8,
// where x = value * scale of the token. Each row begins at a multiple of 16 bytes.
struct Activations {
  CUdeviceptr values = 0;
  int64_t stride = 0;      // numbers of a row
  CUdeviceptr scales = 0;  // [T] f32, of int8; else 0
};

// Bytes that `rows` rows take in 16 bits or as int8, and where they stand then: of int8 the codes,
// then the scales.
uint64_t activation_bytes(int64_t rows, int64_t cols);
Activations float_activations(CUdeviceptr memory, int64_t cols);
Activations int8_activations(CUdeviceptr memory, int64_t rows, int64_t cols);
// Those of the tokens from `first` on.
Activations from_token(const Activations& x, int64_t first);

// For Epilogue::kHeads: where heads go, and what their tokens are. All is device memory.
struct HeadsTarget {
  int first_head = 0;  // of the matrix, in the stack of `heads` q, `kv_heads` k and as many v
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  CUdeviceptr positions = 0;  // [T] i32
  CUdeviceptr slots = 0;      // [T] i32; below 0: k and v are stored nowhere
  CUdeviceptr rotations = 0;  // [positions][head_dim / 2] (cos, sin), f32
  CUdeviceptr pages = 0;      // of the layer: [pages][kv_heads][head_bytes], kv_page.h
  int64_t head_bytes = 0;
  KvType kv_type = KvType::kF32;
};
// Head dimensions that Epilogue::kHeads knows: those of every Llama 2.
constexpr bool has_heads_epilogue(int head_dim) { return head_dim == 64 || head_dim == 128; }

// Its multiplications share a workspace: one stream at a time.
class Matmul {
 public:
  virtual ~Matmul() = default;

  // --- loading --------------------------------------------------------------------------------
  virtual PackedMatrix allocate(const MatrixShape& shape) = 0;
  // Packs some rows. All rows come once, in any order. Asynchronous.
  virtual void pack(const Stream& stream, const CanonicalOnDevice& from, PackedMatrix& to) = 0;
  // Allocates what the largest step needs beside x and y. Before the first multiply().
  virtual void prepare(const StepLimits& limits) = 0;
  virtual size_t workspace_bytes() const = 0;

  // --- a step ---------------------------------------------------------------------------------
  // y[t * y_stride + r] for t < tokens, r < rows from x[t][k], k < w.cols; y as the epilogue says.
  // Nothing of x beyond `tokens` and `cols` is read. If y is aligned to 16 bytes and y_stride a
  // multiple of 8, as it must be for kAddF32, kSiluMul and kHeads, columns up to the next
  // multiple of 4 are written, too, with nothing of use; else kStore16 and kStoreF32 are slower. x
  // is int8 only for matrices with int8_activations, for which f16 is quantized first. kHeads is
  // for whole heads in RowOrder::kPlain, and takes `heads`; y then has the q of all heads,
  // whichever the matrix has, and nothing beside them is written. Asynchronous, no allocation, no
  // synchronisation; which kernels are launched depends on shapes and `tokens` only.
  virtual void multiply(const Stream& stream, const PackedMatrix& w, const Activations& x,
                        int64_t tokens, Epilogue epilogue, CUdeviceptr y, int64_t y_stride,
                        const HeadsTarget* heads = nullptr) = 0;
};

// For the device of `kernels`, or as if it had so many multiprocessors (for tests).
std::unique_ptr<Matmul> make_matmul(KernelLibrary& kernels, int multiprocessors = 0);

// Bytes that allocate() and prepare() will take, without a device. The workspace depends on the
// number of multiprocessors.
uint64_t packed_bytes(const MatrixShape& shape);
uint64_t matmul_workspace_bytes(const StepLimits& limits, int multiprocessors);

}  // namespace altiplano::cuda
