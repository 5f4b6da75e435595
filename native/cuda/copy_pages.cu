// Copies pages of the KV cache in all layers, pair after pair: what one pair writes, a later one
// may read. A thread makes all copies of its own 16 bytes of a page, so the order needs no barrier.
#include <cstdint>

namespace altiplano::cuda {

// blockIdx.y is the layer, the other threads are words of a page.
// cache [layers][layer_bytes]; pairs [count][source page, destination page]
extern "C" __global__ void copy_pages(uint8_t* cache, int64_t layer_bytes, int64_t page_bytes,
                                      const int32_t* pairs, int32_t count) {
  const int64_t at = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * 16;
  if (at >= page_bytes) return;
  uint8_t* layer = cache + blockIdx.y * layer_bytes;
  for (int32_t i = 0; i < count; ++i) {
    const auto* from = reinterpret_cast<const uint4*>(layer + pairs[2 * i] * page_bytes + at);
    *reinterpret_cast<uint4*>(layer + pairs[2 * i + 1] * page_bytes + at) = *from;
  }
}

}  // namespace altiplano::cuda
