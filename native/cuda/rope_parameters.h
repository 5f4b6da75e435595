// The argument of the kernels of rope.cu, shared by host and device.
#pragma once

#include <cstdint>

namespace altiplano::cuda {

struct RopeParameters {
  void* qkv;                 // [T][stride]: q of all heads, then k, then v of all KV heads
  const int32_t* positions;  // [T]
  const int32_t* slots;      // [T]
  const float* rotations;    // [max positions][head_dim / 2] (cos, sin)
  uint8_t* pages;            // of the layer: [pages][kv_heads][head_bytes]
  int64_t head_bytes;
  int32_t stride;
  int32_t heads;
  int32_t kv_heads;
  int32_t head_dim;
};

}  // namespace altiplano::cuda
