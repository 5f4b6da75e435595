// A page of the KV cache on the device: kKvPageTokens tokens of one layer. For each KV head
//   K [kKvPageTokens][head_dim], V [kKvPageTokens][head_dim]
//   int8 only: scales of K [kKvPageTokens], of V [kKvPageTokens], f32
// so that a key is one stretch of memory, and so are all keys of a page. Pages of a layer stand one
// after the other. Included by kernels and by the host.
#pragma once

#include <cstddef>
#include <cstdint>

#include "util/kv_type.h"

namespace altiplano::cuda {

constexpr size_t kv_element_bytes(KvType type) {
  return type == KvType::kF32 ? 4 : type == KvType::kInt8 ? 1 : 2;
}

// Of one KV head; a multiple of 64, as head_dim is even.
constexpr size_t kv_head_bytes(KvType type, int head_dim) {
  const size_t elements = size_t{2} * kKvPageTokens * static_cast<size_t>(head_dim);
  const size_t scales = type == KvType::kInt8 ? size_t{2} * kKvPageTokens * sizeof(float) : 0;
  return elements * kv_element_bytes(type) + scales;
}

}  // namespace altiplano::cuda
