// A multiplication for tests: a matrix packed on the device, activations, and y as it came back.
#pragma once

#include <vector>

#include "cuda/matmul.h"
#include "device.h"
#include "halves.h"

namespace altiplano::test {

inline int64_t round_up(int64_t a, int64_t b) { return (a + b - 1) / b * b; }

// A weight format with what it is multiplied with; bf16 activations are for float weights.
struct Operands {
  WeightFormat format;
  ActivationType activations = ActivationType::kF16;
};
std::vector<Operands> all_operands();

// Numbers of a type of activations as floats, of normal distribution.
std::vector<float> normals_of(ActivationType type, int64_t count, Random& random,
                              float deviation = 1.f);

// Steps of so many tokens, and matrices of so many columns.
StepLimits limits(int64_t tokens, int64_t cols, bool int8_activations = false);

// Packs a matrix in stretches of rows whose lengths and order are random. For kGateUp the first
// half of its rows is gate, the second up.
cuda::PackedMatrix pack(CudaDevice& device, cuda::Matmul& matmul, const Matrix& m,
                        cuda::RowOrder order, bool int8_activations, Random& random,
                        ActivationType activations = ActivationType::kF16);

// y[T][columns] of a multiplication, as floats; `before` (or nothing) is what stood in y. Checks
// that nothing is written where it should not be. x[T][cols] are numbers of the type of
// activations; behind them stand NaN.
std::vector<float> multiply(CudaDevice& device, cuda::Matmul& matmul, const cuda::PackedMatrix& w,
                            const std::vector<float>& x, int64_t tokens, cuda::Epilogue epilogue,
                            const std::vector<float>* before = nullptr);

// What one product should be, and how far it may be off.
struct Expected {
  double value;
  double bound;
};

// Row `row` of m with a token's activations, in f64. The bound:
//   - a weight is rounded to the type of activations once, (q - zero) * scale or a wider float:
//     2^-11 of its size, and 2^-25 below f16's normal numbers; to bf16 2^-8 and nothing below, and
//     nothing at all where it is bf16 already. Products of two of them are exact in f32
//   - each `mma` adds 16 products, and each of the blocks that share a tile its sum, in f32. How a
//     tensor core rounds within is not documented; measured devices cut off what lies below the
//     last bit of the largest summand. 2^-22 of the sum of magnitudes covers rounding and cutting
//     off for an addition of any order.
Expected expected(const Matrix& m, int64_t row, const float* x,
                  ActivationType activations = ActivationType::kF16);

// The same where both are quantized to int8: half a step each, with what f32 adds to a code before
// it is rounded; integers are exact; the scales and their products are rounded.
Expected expected_int8(const Matrix& m, int64_t row, const float* x);

// The output of an epilogue from that.
Expected stored_16(Expected e, ActivationType type);
Expected stored_f32(Expected e);
Expected silu_mul(Expected gate, Expected up, ActivationType type);

}  // namespace altiplano::test
