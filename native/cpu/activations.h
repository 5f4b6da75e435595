// What all tables must do alike when they quantize activations. Internal linkage for the reason
// given in scalar.h.
#pragma once

namespace altiplano::cpu {
namespace {

constexpr float kMostFloat = 0x1.fffffep127f;
// Groups of smaller activations count as 0: the inverse of their scale would not be a finite f32.
constexpr float kLeastActivation = 0x1p-100f;

// The scale of a group of activations whose largest magnitude is `most`.
inline float activation_scale(float most, bool finite) {
  if (!finite) return __builtin_nanf("");
  return most < kLeastActivation ? 0.f : most / 127.f;
}

}  // namespace
}  // namespace altiplano::cpu
