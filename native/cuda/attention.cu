// softmax(q K^T / sqrt(d)) V over the paged cache, for any head dimension, any number of tokens and
// any element type of the cache: right everywhere, fast nowhere. Prefill and decode are the same to
// it: each token sees the keys up to its own position, in the pages of its sequence.
//
// One block computes one token and query head. Its warps take pages in turn; each keeps a running
// maximum, a sum and a weighted sum of values (online softmax, f32), which are merged at the end by
// their maxima. In a page a lane scores one key, then the warp adds up the values, a lane per
// dimension. What a token gets depends on nothing but its own sequence.
#include "cuda/kv_element.cuh"
#include "cuda/reduce.cuh"

namespace altiplano::cuda {

constexpr int kWarps = 4;
static_assert(kKvPageTokens == 32, "a lane scores one key of a page");

// Dynamic shared memory: q [head_dim], then per warp the weighted values [head_dim].
// q in qkv [T][stride]; positions [T]; block_begin [T]: where the pages of a token's sequence begin
// in `words`; layer_pages [pages][kv_heads][head_bytes]; out [T][out_stride]
template <class Element>
__device__ void attend(const __half* qkv, int32_t stride, int32_t heads, int32_t kv_heads,
                       int32_t head_dim, float scale, const int32_t* positions,
                       const int32_t* block_begin, const int32_t* words, uint8_t* layer_pages,
                       int64_t head_bytes, __half* out, int32_t out_stride) {
  extern __shared__ float shared[];
  __shared__ float maxima[kWarps], sums[kWarps];
  const int64_t t = blockIdx.x;
  const int head = blockIdx.y;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int kv_head = head / (heads / kv_heads);
  float* const q = shared;
  float* const values = shared + (1 + warp) * head_dim;

  for (int i = threadIdx.x; i < head_dim; i += blockDim.x) {
    q[i] = __half2float(qkv[t * stride + static_cast<int64_t>(head) * head_dim + i]) * scale;
  }
  for (int i = lane; i < head_dim; i += 32) values[i] = 0.0f;
  __syncthreads();  // all of q is there

  const int32_t* const pages = words + block_begin[t];
  const int32_t visible = positions[t] + 1;
  float maximum = -INFINITY, sum = 0.0f;
  for (int32_t first = warp * kKvPageTokens; first < visible; first += kWarps * kKvPageTokens) {
    const int64_t page = pages[first / kKvPageTokens];
    const KvHead<Element> cache(layer_pages + (page * kv_heads + kv_head) * head_bytes, head_dim);
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
    out[t * out_stride + static_cast<int64_t>(head) * head_dim + i] =
        __float2half_rn(value / total);
  }
}

extern "C" __global__ void attention_f32(const __half* qkv, int32_t stride, int32_t heads,
                                         int32_t kv_heads, int32_t head_dim, float scale,
                                         const int32_t* positions, const int32_t* block_begin,
                                         const int32_t* words, uint8_t* layer_pages,
                                         int64_t head_bytes, __half* out, int32_t out_stride) {
  attend<float>(qkv, stride, heads, kv_heads, head_dim, scale, positions, block_begin, words,
                layer_pages, head_bytes, out, out_stride);
}

extern "C" __global__ void attention_f16(const __half* qkv, int32_t stride, int32_t heads,
                                         int32_t kv_heads, int32_t head_dim, float scale,
                                         const int32_t* positions, const int32_t* block_begin,
                                         const int32_t* words, uint8_t* layer_pages,
                                         int64_t head_bytes, __half* out, int32_t out_stride) {
  attend<__half>(qkv, stride, heads, kv_heads, head_dim, scale, positions, block_begin, words,
                 layer_pages, head_bytes, out, out_stride);
}

extern "C" __global__ void attention_int8(const __half* qkv, int32_t stride, int32_t heads,
                                          int32_t kv_heads, int32_t head_dim, float scale,
                                          const int32_t* positions, const int32_t* block_begin,
                                          const int32_t* words, uint8_t* layer_pages,
                                          int64_t head_bytes, __half* out, int32_t out_stride) {
  attend<int8_t>(qkv, stride, heads, kv_heads, head_dim, scale, positions, block_begin, words,
                 layer_pages, head_bytes, out, out_stride);
}

}  // namespace altiplano::cuda
