// Element types of the KV cache.
#pragma once

#include <cstdint>

namespace altiplano {

// kInt8: codes with an f32 scale per token and head, docs/weight-formats.md.
enum class KvType : uint8_t { kF32, kF16, kInt8, kBF16 };
inline constexpr int kKvTypes = 4;

// Tokens in a page of the KV cache, on every device: the page tables are made in TypeScript.
inline constexpr int kKvPageTokens = 32;

}  // namespace altiplano
