// The element type of activations on devices that multiply in 16 bits.
#pragma once

#include <cstdint>

namespace altiplano {

// bf16 has the range of f32 and 8 significant bits, f16 ends at 65504 and has 11. A model has one
// of them throughout: bf16 where all of its matrices are kept so, else f16.
enum class ActivationType : uint8_t { kF16, kBF16 };

}  // namespace altiplano
