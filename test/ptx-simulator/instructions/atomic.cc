// atom and red. Blocks run on several host threads, so operations on global memory are the host's
// own atomic operations, always with the strongest order; those on shared memory, which one host
// thread has to itself, are plain. The lanes of a warp come in an order that is random by seed, as
// PTX promises none.
#include <cmath>
#include <cstring>

#include "instructions/memory_access.h"

namespace ptx_simulator {

namespace {

struct Add {
  template <class T>
  static T apply(T a, T b, T) {
    return a + b;
  }
};
struct Minimum {
  template <class T>
  static T apply(T a, T b, T) {
    return a < b ? a : b;
  }
};
struct Maximum {
  template <class T>
  static T apply(T a, T b, T) {
    return a < b ? b : a;
  }
};
struct And {
  template <class T>
  static T apply(T a, T b, T) {
    return a & b;
  }
};
struct Or {
  template <class T>
  static T apply(T a, T b, T) {
    return a | b;
  }
};
struct Xor {
  template <class T>
  static T apply(T a, T b, T) {
    return a ^ b;
  }
};
struct Increment {  // up to b, then 0
  template <class T>
  static T apply(T a, T b, T) {
    return a >= b ? 0 : a + 1;
  }
};
struct Decrement {  // down from b
  template <class T>
  static T apply(T a, T b, T) {
    return a == 0 || a > b ? b : a - 1;
  }
};
struct Exchange {
  template <class T>
  static T apply(T, T b, T) {
    return b;
  }
};
struct CompareAndSwap {
  template <class T>
  static T apply(T a, T b, T c) {
    return a == b ? c : a;
  }
};

template <class To, class From>
To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

// Float additions on the bits, to nearest even.

// On global memory an A100 flushes subnormal inputs and results; on shared memory it does not.
template <bool kFlush>
struct AddF32 {
  static float flush(float x) {
    return kFlush && std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.f, x) : x;
  }
  static uint32_t apply(uint32_t a, uint32_t b, uint32_t) {
    const float sum = flush(flush(bits_as<float>(a)) + flush(bits_as<float>(b)));
    return std::isnan(sum) ? 0x7FFFFFFF : bits_as<uint32_t>(sum);
  }
};
struct AddF64 {
  static uint64_t apply(uint64_t a, uint64_t b, uint64_t) {
    return bits_as<uint64_t>(bits_as<double>(a) + bits_as<double>(b));
  }
};

uint16_t add_f16(uint16_t a, uint16_t b) {
  const auto sum = static_cast<_Float16>(static_cast<float>(bits_as<_Float16>(a)) +
                                         static_cast<float>(bits_as<_Float16>(b)));
  return sum != sum ? 0x7FFF : bits_as<uint16_t>(sum);
}
uint16_t add_bf16(uint16_t a, uint16_t b) {
  // f32 holds enough bits for the rounding to f32 not to matter (24 >= 2 * 8 + 2).
  const float sum = bits_as<float>(uint32_t{a} << 16) + bits_as<float>(uint32_t{b} << 16);
  if (std::isnan(sum)) return 0x7FFF;
  const uint32_t bits = bits_as<uint32_t>(sum);
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}
template <uint16_t (*kAdd)(uint16_t, uint16_t)>
struct AddHalf {
  static uint16_t apply(uint16_t a, uint16_t b, uint16_t) { return kAdd(a, b); }
  static uint32_t apply(uint32_t a, uint32_t b, uint32_t) {
    const uint32_t low = kAdd(static_cast<uint16_t>(a), static_cast<uint16_t>(b));
    return low | uint32_t{kAdd(static_cast<uint16_t>(a >> 16), static_cast<uint16_t>(b >> 16))}
                     << 16;
  }
};

// What an operation is on shared memory: nearly always the same.
template <class Operation>
struct OnShared {
  using type = Operation;
};
template <>
struct OnShared<AddF32<true>> {
  using type = AddF32<false>;
};

// No other host thread touches the place: it is in shared memory.
template <class Operation, class T>
T update_alone(uint8_t* at, T b, T c) {
  T* place = reinterpret_cast<T*>(at);
  const T old = *place;
  *place = Operation::apply(old, b, c);
  return old;
}

template <class Operation, class T>
T update(uint8_t* at, T b, T c) {
  T* place = reinterpret_cast<T*>(at);
  T old = __atomic_load_n(place, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(place, &old, Operation::apply(old, b, c), true,
                                      __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
  }
  return old;
}

// s: address, b, and c of cas. d: the old value, or nothing.
template <class Operation, class T>
void execute_atomic(Warp& warp, const Op& op, uint32_t mask) {
  const Addresses addresses = lane_addresses(warp, op.s[0], op.immediate, mask);
  Pointers at;
  if (!locate(warp, op, mask, addresses, op.space, sizeof(T), AccessKind::kAtomic, nullptr, at)) {
    return;
  }
  const Slot d = op.d.empty() ? Slot{} : op.d[0];
  const Slot c = op.s.size() > 2 ? op.s[2] : op.s[1];
  const auto c_of = [&](int lane) { return static_cast<T>(warp.value(c, lane)); };
  const auto in_shared = [&](int lane) {
    return op.space == StateSpace::kShared ||
           (op.space == StateSpace::kGeneric &&
            (addresses[lane] & ~(kWindowBytes - 1)) == kSharedWindow);
  };
  const auto run = [&](int lane) {
    const T b = static_cast<T>(warp.value(op.s[1], lane));
    T old;
    if (in_shared(lane)) {
      old = update_alone<typename OnShared<Operation>::type, T>(at[lane], b, c_of(lane));
    } else {
      old = update<Operation, T>(at[lane], b, c_of(lane));
    }
    if (d.none()) return;
    if (d.bytes == 8) {
      warp.lanes<uint64_t>(d)[lane] = std::make_unsigned_t<T>(old);
    } else {
      warp.lanes<uint32_t>(d)[lane] = static_cast<uint32_t>(std::make_unsigned_t<T>(old));
    }
  };
  // From a random lane on, around.
  const uint32_t first = warp.random() >> 16 & 31;
  for_each_lane(mask & (UINT32_MAX << first), run);
  if (first != 0) for_each_lane(mask & ~(UINT32_MAX << first), run);
}

// In the order in which take_operation() names them.
enum OperationName { kAdd, kMin, kMax, kAnd, kOr, kXor, kInc, kDec, kExch, kCas };
int take_operation(Decoder& d) {
  const int operation =
      d.take_one_of({"add", "min", "max", "and", "or", "xor", "inc", "dec", "exch", "cas"});
  if (operation < 0) d.fail("no known operation");
  return operation;
}

template <class Operation>
Execute bits_32_or_64(Type type) {
  return bits_of(type) == 64 ? execute_atomic<Operation, uint64_t>
                             : execute_atomic<Operation, uint32_t>;
}

template <class Operation>
Execute ordered(Type type) {
  switch (type) {
    case Type::kU32:
      return execute_atomic<Operation, uint32_t>;
    case Type::kS32:
      return execute_atomic<Operation, int32_t>;
    case Type::kU64:
      return execute_atomic<Operation, uint64_t>;
    default:
      return execute_atomic<Operation, int64_t>;
  }
}

Execute addition(Type type) {
  switch (type) {
    case Type::kF32:
      return execute_atomic<AddF32<true>, uint32_t>;
    case Type::kF64:
      return execute_atomic<AddF64, uint64_t>;
    case Type::kF16:
      return execute_atomic<AddHalf<add_f16>, uint16_t>;
    case Type::kF16x2:
      return execute_atomic<AddHalf<add_f16>, uint32_t>;
    case Type::kBf16:
      return execute_atomic<AddHalf<add_bf16>, uint16_t>;
    case Type::kBf16x2:
      return execute_atomic<AddHalf<add_bf16>, uint32_t>;
    default:
      return bits_32_or_64<Add>(type);
  }
}

Type take_type_of(Decoder& d, int operation) {
  switch (operation) {
    case kAdd:
      return d.take_type({Type::kU32, Type::kS32, Type::kU64, Type::kF32, Type::kF64, Type::kF16,
                          Type::kF16x2, Type::kBf16, Type::kBf16x2});
    case kMin:
    case kMax:
      return d.take_type({Type::kU32, Type::kS32, Type::kU64, Type::kS64});
    case kInc:
    case kDec:
      return d.take_type({Type::kU32});
    case kCas:
      return d.take_type({Type::kB16, Type::kB32, Type::kB64});
    default:
      return d.take_type({Type::kB32, Type::kB64});
  }
}

Execute choose(int operation, Type type) {
  switch (operation) {
    case kAdd:
      return addition(type);
    case kMin:
      return ordered<Minimum>(type);
    case kMax:
      return ordered<Maximum>(type);
    case kAnd:
      return bits_32_or_64<And>(type);
    case kOr:
      return bits_32_or_64<Or>(type);
    case kXor:
      return bits_32_or_64<Xor>(type);
    case kInc:
      return execute_atomic<Increment, uint32_t>;
    case kDec:
      return execute_atomic<Decrement, uint32_t>;
    case kExch:
      return bits_32_or_64<Exchange>(type);
    default:
      return type == Type::kB16 ? execute_atomic<CompareAndSwap, uint16_t>
                                : bits_32_or_64<CompareAndSwap>(type);
  }
}

// atom{.order}{.scope}{.space}.op{.noftz}{.level::cache_hint}.type d, [a], b{, c}{, policy}.
// Compilers and headers of CUDA also write the scope behind the space, and order and scope behind
// the operation.
void decode_atomic(Decoder& d) {
  const bool returns = d.instruction().opcode == "atom";
  d.op().kind = InstructionClass::kAtomic;
  d.take_memory_order();
  StateSpace space = d.take_space();
  d.take_memory_order();
  const int operation = take_operation(d);
  d.take_memory_order();
  if (space == StateSpace::kGeneric) space = d.take_space();
  if (space != StateSpace::kGeneric && space != StateSpace::kGlobal &&
      space != StateSpace::kShared) {
    d.fail("neither global nor shared");
  }
  const bool noftz = d.take("noftz");
  d.take_cache_hints();
  const Type type = take_type_of(d, operation);
  if (noftz != (operation == kAdd &&
                (bits_of(type) == 16 || type == Type::kF16x2 || type == Type::kBf16x2))) {
    d.fail(noftz ? ".noftz is for f16 and bf16" : ".noftz is missing");
  }
  if (!returns && (operation == kExch || operation == kCas)) d.fail("red cannot do this");

  const size_t address = returns ? 1 : 0;
  d.op().type = type;
  d.op().bytes = static_cast<uint8_t>(bits_of(type) / 8);
  d.address(address, space);
  if (returns) d.destination(0, type);
  d.source(address + 1, type);
  size_t next = address + 2;
  if (operation == kCas) d.source(next++, type);
  take_cache_policy(d, next);
  d.op().execute = choose(operation, type);
}

}  // namespace

const InstructionTable kAtomicInstructions = {
    {"atom", decode_atomic},
    {"red", decode_atomic},
};

}  // namespace ptx_simulator
