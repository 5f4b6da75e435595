// Element types of the KV cache.
#pragma once

#include <cstdint>

namespace altiplano {

enum class KvType : uint8_t { kF32, kF16 };

// Tokens in a page of the KV cache, on every device: the page tables are made in TypeScript.
inline constexpr int kKvPageTokens = 32;

}  // namespace altiplano
