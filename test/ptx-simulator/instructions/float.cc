// Arithmetic on f32 and f64: add sub mul fma div rcp sqrt abs neg min max copysign.
//
// NaN results are PTX's canonical 0x7fffffff in f32. For f64 PTX leaves the payload open; here it
// is one fixed NaN, so that results do not depend on which operand the processor takes it from.
//
// ptxas may fuse a mul and an add that have no rounding modifier into an fma; here they never are.
// (nvcc writes fma.rn itself where it contracts, so its PTX leaves little to fuse.)
#include <cmath>

#include "instructions/half.h"
#include "instructions/lanes.h"
#include "instructions/scalar.h"

namespace ptx_simulator {
namespace {

template <class T>
inline constexpr Stored<T> kNan = kNan32;
template <>
inline constexpr Stored<double> kNan<double> = 0xfff8000000000000;

template <class T>
T canonical(T x) {
  return x == x ? x : std::bit_cast<T>(kNan<T>);
}

// How results and operands of f32 are changed. f64 has none of this.
struct Exactly {
  static constexpr bool kFlush = false, kSaturate = false;
};
struct Flushed {  // .ftz: subnormal operands and results become zeros of the same sign
  static constexpr bool kFlush = true, kSaturate = false;
};
struct Saturated {  // .sat: results are clamped to [0, 1], NaN and -0 to +0
  static constexpr bool kFlush = false, kSaturate = true;
};
struct FlushedAndSaturated {
  static constexpr bool kFlush = true, kSaturate = true;
};

template <class Mode, class T>
T flush(T x) {
  if constexpr (Mode::kFlush) {
    const uint32_t bits = std::bit_cast<uint32_t>(x);
    return std::bit_cast<float>((bits & 0x7f800000) == 0 ? bits & 0x80000000 : bits);
  } else {
    return x;
  }
}
template <class Mode, class T>
T finish(T x) {
  if constexpr (Mode::kSaturate) {
    const T above_zero = flush<Mode>(x) > 0 ? x : T{0};
    return above_zero < 1 ? above_zero : T{1};
  } else {
    return flush<Mode>(canonical(x));
  }
}

template <class T, class Mode>
T add(T a, T b) {
  return finish<Mode>(flush<Mode>(a) + flush<Mode>(b));
}
template <class T, class Mode>
T sub(T a, T b) {
  return finish<Mode>(flush<Mode>(a) - flush<Mode>(b));
}
template <class T, class Mode>
T mul(T a, T b) {
  return finish<Mode>(flush<Mode>(a) * flush<Mode>(b));
}
template <class T, class Mode>
T fma(T a, T b, T c) {
  return finish<Mode>(std::fma(flush<Mode>(a), flush<Mode>(b), flush<Mode>(c)));
}
template <class T, class Mode>
T div(T a, T b) {
  return finish<Mode>(flush<Mode>(a) / flush<Mode>(b));
}
template <class T, class Mode>
T rcp(T a) {
  return finish<Mode>(T{1} / flush<Mode>(a));
}
template <class T, class Mode>
T square_root(T a) {
  return finish<Mode>(std::sqrt(flush<Mode>(a)));
}

// Sign bits are set whatever the value, NaN included.
template <class T>
inline constexpr Stored<T> kSign = Stored<T>{1} << (8 * sizeof(T) - 1);
template <class T, class Mode>
T abs(T a) {
  return std::bit_cast<T>(std::bit_cast<Stored<T>>(flush<Mode>(a)) & ~kSign<T>);
}
template <class T, class Mode>
T neg(T a) {
  return std::bit_cast<T>(std::bit_cast<Stored<T>>(flush<Mode>(a)) ^ kSign<T>);
}
template <class T, class Mode>
T copysign(T sign, T magnitude) {  // in the order of PTX
  return std::bit_cast<T>((std::bit_cast<Stored<T>>(sign) & kSign<T>) |
                          (std::bit_cast<Stored<T>>(magnitude) & ~kSign<T>));
}

// min and max order -0 below +0. A NaN gives way to the other operand, unless .NaN makes it the
// result. .xorsign.abs compares magnitudes and gives the result the product's sign.
template <class T>
bool is_less(T a, T b) {
  using Integer = std::conditional_t<sizeof(T) == 8, int64_t, int32_t>;
  const auto order = [](T x) {
    const auto bits = std::bit_cast<Integer>(x);
    return bits ^ ((bits >> (8 * sizeof(T) - 1)) & static_cast<Integer>(~kSign<T>));
  };
  return order(a) < order(b);
}
template <class T, class Mode, bool maximum, bool propagate, bool xorsign>
T extreme(T a, T b) {
  a = flush<Mode>(a);
  b = flush<Mode>(b);
  const Stored<T> sign = (std::bit_cast<Stored<T>>(a) ^ std::bit_cast<Stored<T>>(b)) & kSign<T>;
  if constexpr (xorsign) {
    a = abs<T, Exactly>(a);
    b = abs<T, Exactly>(b);
  }
  const T chosen = is_less(a, b) != maximum ? a : b;
  const bool a_nan = a != a, b_nan = b != b;
  T result = a_nan ? b : b_nan ? a : chosen;
  if constexpr (xorsign) result = std::bit_cast<T>(std::bit_cast<Stored<T>>(result) | sign);
  return (propagate ? a_nan | b_nan : a_nan & b_nan) ? std::bit_cast<T>(kNan<T>) : result;
}

// --- decoding ---

struct Modes {
  bool flush = false;
  bool saturate = false;
};

// make(mode) for the modes that were written.
template <class Make>
Execute with_modes(Modes modes, Make make) {
  if (modes.flush) return modes.saturate ? make(FlushedAndSaturated()) : make(Flushed());
  return modes.saturate ? make(Saturated()) : make(Exactly());
}

// Takes .ftz .sat and the type. `make(As<T>(), mode)` is the execution.
enum Allowed : uint8_t { kNothing = 0, kFtz = 1, kSat = 2 };
template <class Make>
void decode_simple(Decoder& d, size_t sources, int allowed, Make make) {
  Modes modes;
  modes.flush = (allowed & kFtz) != 0 && d.take("ftz");
  modes.saturate = (allowed & kSat) != 0 && d.take("sat");
  const Type type = d.take_type({Type::kF32, Type::kF64});
  if (type == Type::kF64 && (modes.flush || modes.saturate)) d.fail(".f64 has no .ftz or .sat");
  take_operands(d, type, sources);
  if (type == Type::kF64) {
    return set(d, InstructionClass::kFloat64, type, make(As<double>(), Exactly()));
  }
  set(d, InstructionClass::kFloat32, type,
      with_modes(modes, [&](auto mode) -> Execute { return make(As<float>(), mode); }));
}

// The same with a rounding: required where PTX requires one.
template <class Make>
void decode_rounded(Decoder& d, size_t sources, int allowed, bool required, Make make) {
  const std::string_view written = d.peek();
  const Rounding rounding = take_rounding(d);
  if (required && written == d.peek()) d.fail("needs a rounding: .rn .rz .rm .rp");
  d.op().flags = static_cast<uint32_t>(rounding);
  decode_simple(d, sources, allowed, [&](auto t, auto mode) -> Execute {
    return make(t, mode, rounding != Rounding::kNearest);
  });
}

template <auto f>
Execute rounded(bool directed) {
  return directed ? with_rounding<map<f>> : map<f>;
}

void decode_add(Decoder& d) {
  decode_rounded(d, 2, kFtz | kSat, false, [](auto t, auto mode, bool directed) -> Execute {
    return rounded<add<typename decltype(t)::type, decltype(mode)>>(directed);
  });
}
void decode_sub(Decoder& d) {
  decode_rounded(d, 2, kFtz | kSat, false, [](auto t, auto mode, bool directed) -> Execute {
    return rounded<sub<typename decltype(t)::type, decltype(mode)>>(directed);
  });
}
void decode_mul(Decoder& d) {
  decode_rounded(d, 2, kFtz | kSat, false, [](auto t, auto mode, bool directed) -> Execute {
    return rounded<mul<typename decltype(t)::type, decltype(mode)>>(directed);
  });
}
// mad of floats is fma.
void decode_fma(Decoder& d) {
  decode_rounded(d, 3, kFtz | kSat, true, [](auto t, auto mode, bool directed) -> Execute {
    return rounded<fma<typename decltype(t)::type, decltype(mode)>>(directed);
  });
}
void decode_div(Decoder& d) {
  if (d.peek() == "approx" || d.peek() == "full") return decode_approximate_div(d);
  decode_rounded(d, 2, kFtz, true, [](auto t, auto mode, bool directed) -> Execute {
    return rounded<div<typename decltype(t)::type, decltype(mode)>>(directed);
  });
}
void decode_rcp(Decoder& d) {
  if (d.peek() == "approx") return decode_approximate_rcp(d);
  decode_rounded(d, 1, kFtz, true, [](auto t, auto mode, bool directed) -> Execute {
    return rounded<rcp<typename decltype(t)::type, decltype(mode)>>(directed);
  });
}
void decode_sqrt(Decoder& d) {
  if (d.peek() == "approx") return decode_approximate_sqrt(d);
  decode_rounded(d, 1, kFtz, true, [](auto t, auto mode, bool directed) -> Execute {
    return rounded<square_root<typename decltype(t)::type, decltype(mode)>>(directed);
  });
}

void decode_abs(Decoder& d) {
  decode_simple(d, 1, kFtz, [](auto t, auto mode) -> Execute {
    return map<abs<typename decltype(t)::type, decltype(mode)>>;
  });
}
void decode_neg(Decoder& d) {
  decode_simple(d, 1, kFtz, [](auto t, auto mode) -> Execute {
    return map<neg<typename decltype(t)::type, decltype(mode)>>;
  });
}
void decode_copysign(Decoder& d) {
  decode_simple(d, 2, kNothing, [](auto t, auto mode) -> Execute {
    return map<copysign<typename decltype(t)::type, decltype(mode)>>;
  });
}

template <bool maximum>
void decode_extreme(Decoder& d) {
  Modes modes;
  modes.flush = d.take("ftz");
  const bool propagate = d.take("NaN");
  const bool xorsign = d.take("xorsign");
  if (xorsign && !d.take("abs")) d.fail("needs .xorsign.abs");
  const Type type = d.take_type({Type::kF32, Type::kF64});
  take_operands(d, type, 2);
  if (type == Type::kF64) {
    if (modes.flush || propagate || xorsign) d.fail("no such modifier of .f64");
    return set(d, InstructionClass::kFloat64, type,
               map<extreme<double, Exactly, maximum, false, false>>);
  }
  const auto make = [&](auto mode) -> Execute {
    using Mode = decltype(mode);
    if (xorsign) {
      return propagate ? map<extreme<float, Mode, maximum, true, true>>
                       : map<extreme<float, Mode, maximum, false, true>>;
    }
    return propagate ? map<extreme<float, Mode, maximum, true, false>>
                     : map<extreme<float, Mode, maximum, false, false>>;
  };
  set(d, InstructionClass::kFloat32, type, modes.flush ? make(Flushed()) : make(Exactly()));
}

}  // namespace

const InstructionTable kFloatInstructions = {
    {"add", decode_add},
    {"sub", decode_sub},
    {"mul", decode_mul},
    {"fma", decode_fma},
    {"mad", decode_fma},
    {"div", decode_div},
    {"rcp", decode_rcp},
    {"sqrt", decode_sqrt},
    {"abs", decode_abs},
    {"neg", decode_neg},
    {"min", decode_extreme<false>},
    {"max", decode_extreme<true>},
    {"copysign", decode_copysign},
    {"rsqrt", decode_rsqrt},
    {"sin", decode_sin},
    {"cos", decode_cos},
    {"lg2", decode_lg2},
    {"ex2", decode_ex2},
    {"tanh", decode_tanh},
    {"testp", decode_testp},
    {"setp", decode_setp},
    {"set", decode_set},
    {"slct", decode_slct},
};

}  // namespace ptx_simulator
