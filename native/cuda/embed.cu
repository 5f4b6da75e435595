// x = E[tokens]: the rows of the embedding for the tokens of a step, in f32, exact.
//
// A token below zero is what a row of the step before chose: -(r + 1) is chosen[r]. So a step can
// be submitted before the one in front of it has ended.
#include "cuda/canonical.cuh"

namespace altiplano::cuda {

// One block per token.
// tokens [T], chosen [rows of the step before], x [T][x_stride]
template <class Weights>
__device__ void embed(const CanonicalView& embedding, const int32_t* tokens, const int32_t* chosen,
                      float* x, int64_t x_stride) {
  const int64_t t = blockIdx.x;
  int32_t token = tokens[t];
  if (token < 0) token = chosen[-(token + 1)];
  for (int64_t col = threadIdx.x; col < embedding.cols; col += blockDim.x) {
    x[t * x_stride + col] = Weights::at(embedding, token, col);
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
