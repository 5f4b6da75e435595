// What the arithmetic instructions share: how a lane's value lies in a slot, and loops over the
// lanes of a warp that compilers make vector instructions of.
//
// An instruction is a plain function of one lane's values, `int32_t add(int32_t a, int32_t b)`;
// `map<add>` is the execution of it for a warp.
#pragma once

#include <bit>
#include <cfenv>
#include <concepts>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "machine/decoder.h"
#include "machine/warp.h"

namespace ptx_simulator {

// 64-bit values lie in slots of 8 bytes per lane, all others in 4; 8 and 16 bits zero-extended.
template <class T>
using Stored = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;

template <class T>
inline T from_stored(Stored<T> bits) {
  if constexpr (std::is_floating_point_v<T>) {
    return std::bit_cast<T>(bits);
  } else {
    return static_cast<T>(bits);
  }
}

template <class T>
inline Stored<T> to_stored(T value) {
  if constexpr (std::is_floating_point_v<T>) {
    return std::bit_cast<Stored<T>>(value);
  } else {
    return static_cast<std::make_unsigned_t<T>>(value);
  }
}

// result[lane] = body(lane) for the lanes in the mask. A lane reads no other lane's values, so that
// the loop stays free of dependencies where the result is one of the sources. Unless few lanes are
// active, all are computed, as vectors, and those left out are thrown away: `body` must be defined
// for whatever their registers hold.
template <class T, class Body>
inline void write_lanes(T* result, uint32_t mask, Body body) {
  constexpr int kFewLanes = 6;
  if (std::popcount(mask) > kFewLanes) {
    alignas(64) T all[kWarpSize];
    T* const into = mask == UINT32_MAX ? result : all;
#pragma GCC ivdep
    for (int lane = 0; lane < kWarpSize; ++lane) into[lane] = body(lane);
    if (mask == UINT32_MAX) return;
    for (int lane = 0; lane < kWarpSize; ++lane) {
      result[lane] = (mask >> lane & 1) != 0 ? all[lane] : result[lane];
    }
  } else {
    for (uint32_t rest = mask; rest != 0; rest &= rest - 1) {
      const int lane = std::countr_zero(rest);
      result[lane] = body(lane);
    }
  }
}

// The parts of an instruction that are the same for all lanes; a function that has it as its first
// parameter gets it.
struct Constants {
  int64_t immediate;
  uint32_t flags;
};

template <auto f, class R, class... A, size_t... i>
inline void map_lanes(Warp& warp, const Op& op, uint32_t mask, R (*)(A...),
                      std::index_sequence<i...>) {
  write_lanes(warp.lanes<Stored<R>>(op.d[0]), mask,
              [... s = warp.values<Stored<A>>(op.s[i])](int lane) {
                return to_stored<R>(f(from_stored<A>(s[lane])...));
              });
}

template <auto f, class R, class... A, size_t... i>
inline void map_lanes(Warp& warp, const Op& op, uint32_t mask, R (*)(Constants, A...),
                      std::index_sequence<i...>) {
  write_lanes(warp.lanes<Stored<R>>(op.d[0]), mask,
              [k = Constants{op.immediate, op.flags}, ... s = warp.values<Stored<A>>(op.s[i])](
                  int lane) { return to_stored<R>(f(k, from_stored<A>(s[lane])...)); });
}

template <class R, class... A>
constexpr size_t arity(R (*)(A...)) {
  return sizeof...(A);
}
template <class R, class... A>
constexpr size_t arity(R (*)(Constants, A...)) {
  return sizeof...(A);
}

// d[0] = f(s[0], s[1], ...). Flattened: a loop with a call in it is no vector code.
template <auto f>
[[gnu::flatten]] void map(Warp& warp, const Op& op, uint32_t mask) {
  map_lanes<f>(warp, op, mask, f, std::make_index_sequence<arity(f)>());
}

// The function of 32-bit registers that does the same for both of their 16-bit halves.
template <auto f, class R, class... A, class... Pair>
inline uint32_t on_halves(R (*)(A...), Pair... pair) {
  const uint32_t low = static_cast<uint16_t>(f(static_cast<A>(pair)...));
  const uint32_t high = static_cast<uint16_t>(f(static_cast<A>(pair >> 16)...));
  return low | high << 16;
}
template <auto f>
uint32_t packed1(uint32_t a) {
  return on_halves<f>(f, a);
}
template <auto f>
uint32_t packed2(uint32_t a, uint32_t b) {
  return on_halves<f>(f, a, b);
}
template <auto f>
uint32_t packed3(uint32_t a, uint32_t b, uint32_t c) {
  return on_halves<f>(f, a, b, c);
}

// A type that a generic lambda can be called with.
template <class T>
struct As {
  using type = T;
};

// make(As<T>()) for the C++ type of a PTX integer type; untyped bits are unsigned.
template <class Make>
Execute for_integer(Decoder& d, Type type, Make make) {
  switch (type) {
    case Type::kB16:
    case Type::kU16:
      return make(As<uint16_t>());
    case Type::kS16:
      return make(As<int16_t>());
    case Type::kB32:
    case Type::kU32:
      return make(As<uint32_t>());
    case Type::kS32:
      return make(As<int32_t>());
    case Type::kB64:
    case Type::kU64:
      return make(As<uint64_t>());
    case Type::kS64:
      return make(As<int64_t>());
    default:
      d.fail("no such type for this instruction");
  }
}

// make(std::bool_constant<...>()...) for each value of the flags.
template <class Make>
Execute for_flag(bool flag, Make make) {
  return flag ? make(std::true_type()) : make(std::false_type());
}

// Rounding of floating-point instructions, as in the modifiers .rn .rz .rm .rp.
enum class Rounding : uint8_t { kNearest, kZero, kDown, kUp };
inline constexpr int kHostRounding[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};
inline constexpr uint32_t kRoundingMask = 3;  // of Op::flags, where with_rounding is used

// Runs an execution with the processor's rounding set to that of Op::flags. The operands are loaded
// behind the first call and the results stored before the second, both calls being opaque to the
// compiler, so that the arithmetic cannot move out from between them.
template <Execute execute>
void with_rounding(Warp& warp, const Op& op, uint32_t mask) {
  std::fesetround(kHostRounding[op.flags & kRoundingMask]);
  execute(warp, op, mask);
  std::fesetround(FE_TONEAREST);
}

// Takes .rn .rz .rm .rp; nearest if there is none.
inline Rounding take_rounding(Decoder& d) {
  const int index = d.take_one_of({"rn", "rz", "rm", "rp"});
  return index < 0 ? Rounding::kNearest : static_cast<Rounding>(index);
}

// The destination, which must not be `_`.
inline void take_destination(Decoder& d, Type type) {
  if (d.destination(0, type).none()) d.fail("needs a destination");
}

// The destination, then `sources` sources of the same type.
inline void take_operands(Decoder& d, Type type, size_t sources) {
  if (d.operands() != sources + 1) d.fail("takes " + std::to_string(sources + 1) + " operands");
  take_destination(d, type);
  for (size_t i = 1; i <= sources; ++i) d.source(i, type);
}

inline void set(Decoder& d, InstructionClass kind, Type type, Execute execute) {
  d.op().kind = kind;
  d.op().type = type;
  d.op().execute = execute;
}

}  // namespace ptx_simulator
