// x = E[tokens]: the rows of the embedding for the tokens of a step, in f32, exact.
//
// A token below zero is what a row of the step before chose: -(r + 1) is chosen[r]. So a step can
// be submitted before the one in front of it has ended.
//
// A thread takes kAtOnce columns at a time, so that their loads are under way together.
#include "cuda/canonical.cuh"

namespace altiplano::cuda {

constexpr int kAtOnce = 16;

// One block per token.
// tokens [T], chosen [rows of the step before], x [T][x_stride]
template <class Weights>
__device__ void embed(const CanonicalView& embedding, const int32_t* tokens, const int32_t* chosen,
                      float* x, int64_t x_stride) {
  const int64_t t = blockIdx.x;
  int32_t token = tokens[t];
  if (token < 0) token = chosen[-(token + 1)];
  const auto cols = static_cast<int32_t>(embedding.cols);
  const auto threads = static_cast<int32_t>(blockDim.x);
  for (int32_t first = threadIdx.x; first < cols; first += kAtOnce * threads) {
    float v[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      v[i] = Weights::at(embedding, token, min(first + i * threads, cols - 1));
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int32_t col = first + i * threads;
      if (col < cols) x[t * x_stride + col] = v[i];
    }
  }
}

extern "C" __global__ void embed_f32(CanonicalView embedding, const int32_t* tokens,
                                     const int32_t* chosen, float* x, int64_t x_stride) {
  embed<F32Weights>(embedding, tokens, chosen, x, x_stride);
}

extern "C" __global__ void embed_f16(CanonicalView embedding, const int32_t* tokens,
                                     const int32_t* chosen, float* x, int64_t x_stride) {
  embed<F16Weights>(embedding, tokens, chosen, x, x_stride);
}

extern "C" __global__ void embed_bf16(CanonicalView embedding, const int32_t* tokens,
                                      const int32_t* chosen, float* x, int64_t x_stride) {
  embed<BF16Weights>(embedding, tokens, chosen, x, x_stride);
}

extern "C" __global__ void embed_int8(CanonicalView embedding, const int32_t* tokens,
                                      const int32_t* chosen, float* x, int64_t x_stride) {
  embed<Int8Weights>(embedding, tokens, chosen, x, x_stride);
}

extern "C" __global__ void embed_int4(CanonicalView embedding, const int32_t* tokens,
                                      const int32_t* chosen, float* x, int64_t x_stride) {
  embed<Int4Weights>(embedding, tokens, chosen, x, x_stride);
}

}  // namespace altiplano::cuda
