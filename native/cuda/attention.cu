// softmax(q K^T / sqrt(d)) V over the paged cache, for any head dimension, any number of tokens and
// any element types: right everywhere, fast nowhere. Prefill and decode are the same to it: each
// token sees the keys up to its own position, in the pages of its sequence.
//
// One block computes one token and query head. Its warps take pages in turn; each keeps a running
// maximum, a sum and a weighted sum of values (online softmax, f32), which are merged at the end by
// their maxima. In a page a lane scores one key, then the warp adds up the values, a lane per
// dimension. What a token gets depends on nothing but its own sequence.
#include "cuda/attention_parameters.h"
#include "cuda/kv_element.cuh"
#include "cuda/reduce.cuh"

namespace altiplano::cuda {

constexpr int kWarps = 4;
static_assert(kKvPageTokens == 32, "a lane scores one key of a page");

// Dynamic shared memory: q [head_dim], then per warp the weighted values [head_dim].
template <class Activation, class Element>
__device__ void attend(const GeneralAttentionParameters& p) {
  extern __shared__ float shared[];
  __shared__ float maxima[kWarps], sums[kWarps];
  const int64_t t = blockIdx.x;
  const int head = blockIdx.y;
  const int head_dim = p.head_dim;
  const auto* const qkv = static_cast<const Activation*>(p.qkv);
  auto* const out = static_cast<Activation*>(p.out);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int kv_head = head / (p.heads / p.kv_heads);
  float* const q = shared;
  float* const values = shared + (1 + warp) * head_dim;

  for (int i = threadIdx.x; i < head_dim; i += blockDim.x) {
    q[i] = to_float(qkv[t * p.stride + static_cast<int64_t>(head) * head_dim + i]) * p.scale;
  }
  for (int i = lane; i < head_dim; i += 32) values[i] = 0.0f;
  __syncthreads();  // all of q is there

  const int32_t* const pages = p.words + p.block_begin[t];
  const int32_t visible = p.positions[t] + 1;
  float maximum = -INFINITY, sum = 0.0f;
  for (int32_t first = warp * kKvPageTokens; first < visible; first += kWarps * kKvPageTokens) {
    const int64_t page = pages[first / kKvPageTokens];
    const KvHead<const Element> cache(p.pages + (page * p.kv_heads + kv_head) * p.head_bytes,
                                      head_dim);
    const int count = min(kKvPageTokens, visible - first);

    float score = -INFINITY;  // of this lane's key
    if (lane < count) {
      score = 0.0f;
      const Element* key = cache.k + lane * head_dim;
      for (int i = 0; i < head_dim; ++i) score += q[i] * to_float(key[i]);
      if constexpr (sizeof(Element) == 1) score *= cache.k_scales[lane];
    }
    // fmaxf() leaves NaN out; it comes back through the weight of its key.
    const float page_maximum = reduce_warp(score, [](float a, float b) { return fmaxf(a, b); });
    const float new_maximum = fmaxf(maximum, page_maximum);
    const float keep = maximum == -INFINITY ? 0.0f : expf(maximum - new_maximum);
    float weight = lane < count ? expf(score - new_maximum) : 0.0f;
    sum = sum * keep + reduce_warp(weight, [](float a, float b) { return a + b; });
    if constexpr (sizeof(Element) == 1) {
      if (lane < count) weight *= cache.v_scales[lane];
    }
    maximum = new_maximum;
    for (int base = 0; base < head_dim; base += 32) {
      const int i = base + lane;
      float total = i < head_dim ? values[i] * keep : 0.0f;
      for (int key = 0; key < count; ++key) {
        const float w = __shfl_sync(kAllLanes, weight, key);
        if (i < head_dim) total += w * to_float(cache.v[key * head_dim + i]);
      }
      if (i < head_dim) values[i] = total;
    }
  }
  if (lane == 0) {
    maxima[warp] = maximum;
    sums[warp] = sum;
  }
  __syncthreads();  // every warp's part is there

  float most = maxima[0];
  for (int w = 1; w < kWarps; ++w) most = fmaxf(most, maxima[w]);
  float total = 0.0f, shares[kWarps];
  for (int w = 0; w < kWarps; ++w) {
    // A warp without keys has no share. A NaN in a sum makes the total NaN, whatever its share is.
    shares[w] = maxima[w] == -INFINITY ? 0.0f : expf(maxima[w] - most);
    total += sums[w] * shares[w];
  }
  for (int i = threadIdx.x; i < head_dim; i += blockDim.x) {
    float value = 0.0f;
    for (int w = 0; w < kWarps; ++w) value += shared[(1 + w) * head_dim + i] * shares[w];
    out[t * p.out_stride + static_cast<int64_t>(head) * head_dim + i] =
        from_float<Activation>(value / total);
  }
}

extern "C" __global__ void attention_f16_kv_f32(
    const __grid_constant__ GeneralAttentionParameters p) {
  attend<__half, float>(p);
}
extern "C" __global__ void attention_f16_kv_f16(
    const __grid_constant__ GeneralAttentionParameters p) {
  attend<__half, __half>(p);
}
extern "C" __global__ void attention_f16_kv_int8(
    const __grid_constant__ GeneralAttentionParameters p) {
  attend<__half, int8_t>(p);
}
extern "C" __global__ void attention_f16_kv_bf16(
    const __grid_constant__ GeneralAttentionParameters p) {
  attend<__half, __nv_bfloat16>(p);
}
extern "C" __global__ void attention_bf16_kv_f32(
    const __grid_constant__ GeneralAttentionParameters p) {
  attend<__nv_bfloat16, float>(p);
}
extern "C" __global__ void attention_bf16_kv_f16(
    const __grid_constant__ GeneralAttentionParameters p) {
  attend<__nv_bfloat16, __half>(p);
}
extern "C" __global__ void attention_bf16_kv_int8(
    const __grid_constant__ GeneralAttentionParameters p) {
  attend<__nv_bfloat16, int8_t>(p);
}
extern "C" __global__ void attention_bf16_kv_bf16(
    const __grid_constant__ GeneralAttentionParameters p) {
  attend<__nv_bfloat16, __nv_bfloat16>(p);
}

}  // namespace altiplano::cuda
