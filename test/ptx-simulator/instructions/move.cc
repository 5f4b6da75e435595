// Moves: mov (registers, constants, addresses, special registers, vectors packed into one register
// and unpacked from it), selp, prmt, and cvta between addresses of a state space and generic ones.
#include "instructions/lanes.h"
#include "machine/global_memory.h"

namespace ptx_simulator {
namespace {

template <class T>
T move(T a) {
  return a;
}

void move_predicate(Warp& warp, const Op& op, uint32_t mask) {
  const uint32_t value = warp.predicate(op.s[0]);
  warp.set_predicate(op.d[0], mask, op.flags != 0 ? ~value : value);
}

// --- vectors: element 0 lies in the low bits ---

// d = {s[0], s[1], ...}
template <class T>
void pack(Warp& warp, const Op& op, uint32_t mask) {
  T* d = warp.lanes<T>(op.d[0]);
  const size_t n = op.s.size(), bits = 8 * sizeof(T) / n;
  const T element = static_cast<T>(~T{0}) >> (8 * sizeof(T) - bits);
  for_each_lane(mask, [&](int lane) {
    T result = 0;
    for (size_t i = 0; i < n; ++i) {
      result |= (static_cast<T>(warp.value(op.s[i], lane)) & element) << (bits * i);
    }
    d[lane] = result;
  });
}
// {d[0], d[1], ...} = s. The source is read before anything is written: it may be a destination.
template <class T>
void unpack(Warp& warp, const Op& op, uint32_t mask) {
  const T* s = warp.values<T>(op.s[0]);
  const size_t n = op.d.size(), bits = 8 * sizeof(T) / n;
  const T element = static_cast<T>(~T{0}) >> (8 * sizeof(T) - bits);
  for_each_lane(mask, [&](int lane) {
    const T value = s[lane];
    for (size_t i = 0; i < n; ++i) {
      if (op.d[i].none()) continue;
      const T part = value >> (bits * i) & element;
      if (op.d[i].bytes == 8) {
        warp.lanes<uint64_t>(op.d[i])[lane] = part;
      } else {
        warp.lanes<uint32_t>(op.d[i])[lane] = static_cast<uint32_t>(part);
      }
    }
  });
}
// The frequent cases of two elements, as vector code.
void pack_halves(Warp& warp, const Op& op, uint32_t mask) {
  write_lanes(warp.lanes<uint32_t>(op.d[0]), mask,
              [a = warp.values<uint32_t>(op.s[0]), b = warp.values<uint32_t>(op.s[1])](int lane) {
                return (a[lane] & 0xffff) | b[lane] << 16;
              });
}

// The source, being wider, is no register that is written; and none that shares a place with one
// (liveness.h). So one result may be written before the other is read.
template <class T, class Part>
void unpack_two(Warp& warp, const Op& op, uint32_t mask) {
  for (const int part : {0, 1}) {
    write_lanes(warp.lanes<uint32_t>(op.d[part]), mask,
                [s = warp.values<T>(op.s[0]), shift = 8 * sizeof(Part) * part](int lane) {
                  return static_cast<uint32_t>(static_cast<Part>(s[lane] >> shift));
                });
  }
}
void pack_words(Warp& warp, const Op& op, uint32_t mask) {
  write_lanes(warp.lanes<uint64_t>(op.d[0]), mask,
              [a = warp.values<uint32_t>(op.s[0]), b = warp.values<uint32_t>(op.s[1])](int lane) {
                return uint64_t{b[lane]} << 32 | a[lane];
              });
}

// 128 bits are two slots of 64: {a, b} with 64 bits each, or another register. Both are read first,
// so that {b, a} may be unpacked into what they come from.
void move_128(Warp& warp, const Op& op, uint32_t mask) {
  const uint64_t* low = warp.values<uint64_t>(op.s[0]);
  const uint64_t* high = warp.values<uint64_t>(op.s[1]);
  for_each_lane(mask, [&](int lane) {
    const uint64_t parts[] = {low[lane], high[lane]};
    for (int i = 0; i < 2; ++i) {
      if (!op.d[i].none()) warp.lanes<uint64_t>(op.d[i])[lane] = parts[i];
    }
  });
}

// --- special registers ---

enum class Special : uint8_t {
  kTid,
  kNtid,
  kCtaid,
  kNctaid,
  kLaneid,
  kWarpid,
  kNwarpid,
  kSmid,
  kNsmid,
  kLanemaskEq,
  kLanemaskLe,
  kLanemaskLt,
  kLanemaskGe,
  kLanemaskGt,
  kClock,
  kClockHi,
  kTotalSharedSize,
  kDynamicSharedSize,
};
struct SpecialName {
  std::string_view name;
  Special special;
  int component;  // of tid and the like
  Type type;
};
constexpr SpecialName kSpecials[] = {
    {"%tid.x", Special::kTid, 0, Type::kU32},
    {"%tid.y", Special::kTid, 1, Type::kU32},
    {"%tid.z", Special::kTid, 2, Type::kU32},
    {"%ntid.x", Special::kNtid, 0, Type::kU32},
    {"%ntid.y", Special::kNtid, 1, Type::kU32},
    {"%ntid.z", Special::kNtid, 2, Type::kU32},
    {"%ctaid.x", Special::kCtaid, 0, Type::kU32},
    {"%ctaid.y", Special::kCtaid, 1, Type::kU32},
    {"%ctaid.z", Special::kCtaid, 2, Type::kU32},
    {"%nctaid.x", Special::kNctaid, 0, Type::kU32},
    {"%nctaid.y", Special::kNctaid, 1, Type::kU32},
    {"%nctaid.z", Special::kNctaid, 2, Type::kU32},
    {"%laneid", Special::kLaneid, 0, Type::kU32},
    {"%warpid", Special::kWarpid, 0, Type::kU32},
    {"%nwarpid", Special::kNwarpid, 0, Type::kU32},
    {"%smid", Special::kSmid, 0, Type::kU32},
    {"%nsmid", Special::kNsmid, 0, Type::kU32},
    {"%lanemask_eq", Special::kLanemaskEq, 0, Type::kU32},
    {"%lanemask_le", Special::kLanemaskLe, 0, Type::kU32},
    {"%lanemask_lt", Special::kLanemaskLt, 0, Type::kU32},
    {"%lanemask_ge", Special::kLanemaskGe, 0, Type::kU32},
    {"%lanemask_gt", Special::kLanemaskGt, 0, Type::kU32},
    {"%clock", Special::kClock, 0, Type::kU32},
    {"%clock_hi", Special::kClockHi, 0, Type::kU32},
    {"%clock64", Special::kClock, 0, Type::kU64},
    {"%globaltimer", Special::kClock, 0, Type::kU64},
    {"%globaltimer_lo", Special::kClock, 0, Type::kU32},
    {"%globaltimer_hi", Special::kClockHi, 0, Type::kU32},
    {"%total_smem_size", Special::kTotalSharedSize, 0, Type::kU32},
    {"%dynamic_smem_size", Special::kDynamicSharedSize, 0, Type::kU32},
};

uint64_t value_of(const Warp& warp, Special special, int component, int lane) {
  const LaunchContext& launch = warp.block.launch;
  const uint32_t bit = uint32_t{1} << lane;
  switch (special) {
    case Special::kTid:
      return warp.thread_ids[component][lane];
    case Special::kNtid:
      return launch.block[component];
    case Special::kCtaid:
      return warp.block.index[component];
    case Special::kNctaid:
      return launch.grid[component];
    case Special::kLaneid:
      return lane;
    case Special::kWarpid:
      return warp.index;
    case Special::kNwarpid:  // of the largest block
      return kMostWarps;
    case Special::kSmid:
      return warp.block.multiprocessor;
    case Special::kNsmid:
      return launch.multiprocessors;
    case Special::kLanemaskEq:
      return bit;
    case Special::kLanemaskLe:
      return bit | (bit - 1);
    case Special::kLanemaskLt:
      return bit - 1;
    case Special::kLanemaskGe:
      return uint32_t{0} - bit;
    case Special::kLanemaskGt:
      return (uint32_t{0} - bit) & ~bit;
    case Special::kClock:
      return warp.block.clock();
    case Special::kClockHi:
      return warp.block.clock() >> 32;
    case Special::kTotalSharedSize:
      return launch.shared_bytes;
    case Special::kDynamicSharedSize:
      return launch.shared_bytes - launch.program->static_shared_bytes;
  }
  return 0;
}

template <class T>
void move_special(Warp& warp, const Op& op, uint32_t mask) {
  T* d = warp.lanes<T>(op.d[0]);
  const auto special = static_cast<Special>(op.flags);
  const int component = static_cast<int>(op.immediate);
  for_each_lane(
      mask, [&](int lane) { d[lane] = static_cast<T>(value_of(warp, special, component, lane)); });
}

// --- prmt: bytes of b:a chosen by the nibbles of a selector ---

uint32_t choose_bytes(uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t bytes = uint64_t{b} << 32 | a;
  uint32_t result = 0;
  for (int i = 0; i < 4; ++i) {
    const uint32_t nibble = selector >> (4 * i) & 15;
    const uint32_t byte = static_cast<uint32_t>(bytes >> (8 * (nibble & 7)) & 0xff);
    // With its high bit the nibble asks for copies of the byte's sign.
    const uint32_t signs = (byte >> 7) * 0xff;
    result |= (nibble < 8 ? byte : signs) << (8 * i);
  }
  return result;
}
// The other modes are four selectors each, chosen by the low bits of the third operand.
constexpr std::string_view kModes[] = {"f4e", "b4e", "rc8", "ecl", "ecr", "rc16"};
constexpr uint32_t kSelectors[][4] = {
    {0x3210, 0x4321, 0x5432, 0x6543}, {0x5670, 0x6701, 0x7012, 0x0123},
    {0x0000, 0x1111, 0x2222, 0x3333}, {0x3210, 0x3211, 0x3222, 0x3333},
    {0x0000, 0x1110, 0x2210, 0x3210}, {0x1010, 0x3232, 0x1010, 0x3232},
};
uint32_t prmt_mode(Constants k, uint32_t a, uint32_t b, uint32_t c) {
  return choose_bytes(a, b, kSelectors[k.flags][c & 3]);
}

void decode_prmt(Decoder& d) {
  const Type type = d.take_type({Type::kB32});
  take_operands(d, type, 3);
  set(d, InstructionClass::kMove, type, map<choose_bytes>);
  for (size_t i = 0; i < std::size(kModes); ++i) {
    if (!d.take(kModes[i])) continue;
    d.op().flags = static_cast<uint32_t>(i);
    d.op().execute = map<prmt_mode>;
    return;
  }
}

// --- selp ---

template <class T>
void selp(Warp& warp, const Op& op, uint32_t mask) {
  uint32_t c = warp.predicate(op.s[2]);
  if (op.flags != 0) c = ~c;
  write_lanes(warp.lanes<T>(op.d[0]), mask,
              [c, a = warp.values<T>(op.s[0]), b = warp.values<T>(op.s[1])](int lane) {
                const T x = a[lane], y = b[lane];
                return (c >> lane & 1) != 0 ? x : y;
              });
}

void decode_selp(Decoder& d) {
  const Type type =
      d.take_type({Type::kB16, Type::kB32, Type::kB64, Type::kU16, Type::kU32, Type::kU64,
                   Type::kS16, Type::kS32, Type::kS64, Type::kF32, Type::kF64});
  if (d.operands() != 4) d.fail("takes 4 operands");
  take_destination(d, type);
  d.source(1, type);
  d.source(2, type);
  bool negated = false;
  d.predicate_source(d.operand(3), negated);
  d.op().flags = negated ? 1 : 0;
  set(d, InstructionClass::kMove, type, bits_of(type) == 64 ? selp<uint64_t> : selp<uint32_t>);
}

// --- cvta ---

template <class T, uint64_t window, bool to_space>
uint64_t convert_address(T a) {
  return to_space ? a - window : a + window;
}

// Generic addresses of global and constant memory are the addresses themselves; those of shared and
// local memory lie in windows of their own (global_memory.h).
template <uint64_t window>
Execute convert_address_of(bool to_space) {
  return to_space ? map<convert_address<uint64_t, window, true>>
                  : map<convert_address<uint64_t, window, false>>;
}
void decode_cvta(Decoder& d) {
  const bool to_space = d.take("to");
  const StateSpace space = d.take_space();
  const Type type = d.take_type({Type::kU64});
  take_operands(d, type, 1);
  switch (space) {
    case StateSpace::kGlobal:
    case StateSpace::kConst:
      return set(d, InstructionClass::kMove, type, map<move<uint64_t>>);
    case StateSpace::kShared:
      return set(d, InstructionClass::kMove, type, convert_address_of<kSharedWindow>(to_space));
    case StateSpace::kLocal:
      return set(d, InstructionClass::kMove, type, convert_address_of<kLocalWindow>(to_space));
    default:
      d.fail("needs .global, .shared, .local or .const");
  }
}

// --- mov ---

bool take_special(Decoder& d, Type type) {
  const Operand& from = d.operand(1);
  if (from.kind != Operand::Kind::kSpecial) return false;
  for (const SpecialName& name : kSpecials) {
    if (name.name != from.name) continue;
    if (bits_of(type) != bits_of(name.type)) d.fail("another type than " + from.name);
    take_destination(d, type);
    d.op().flags = static_cast<uint32_t>(name.special);
    d.op().immediate = name.component;
    set(d, InstructionClass::kMove, type,
        bits_of(type) == 64 ? move_special<uint64_t> : move_special<uint32_t>);
    return true;
  }
  d.fail("unknown special register " + from.name);
}

Type untyped(int bits) {
  return bits == 8 ? Type::kB8 : bits == 16 ? Type::kB16 : bits == 32 ? Type::kB32 : Type::kB64;
}

void decode_mov(Decoder& d) {
  const Type type =
      d.take_type({Type::kPred, Type::kB16, Type::kB32, Type::kB64, Type::kB128, Type::kU16,
                   Type::kU32, Type::kU64, Type::kS16, Type::kS32, Type::kS64, Type::kF16,
                   Type::kF16x2, Type::kBf16, Type::kBf16x2, Type::kF32, Type::kF64});
  if (d.operands() != 2) d.fail("takes 2 operands");
  constexpr auto kVector = Operand::Kind::kVector;
  const bool from_vector = d.operand(1).kind == kVector, to_vector = d.operand(0).kind == kVector;
  const int bits = bits_of(type);
  if (type == Type::kPred) {
    d.predicate_destination(d.operand(0));
    bool negated = false;
    d.predicate_source(d.operand(1), negated);
    d.op().flags = negated ? 1 : 0;
    return set(d, InstructionClass::kMove, type, move_predicate);
  }
  if (!from_vector && !to_vector) {
    if (take_special(d, type)) return;
    take_destination(d, type);
    d.source(1, type);
    return set(d, InstructionClass::kMove, type,
               type == Type::kB128 ? move_128
               : bits == 64        ? map<move<uint64_t>>
                                   : map<move<uint32_t>>);
  }
  if (from_vector && to_vector) d.fail("moves between vectors do not exist");
  const size_t n = d.operand(from_vector ? 1 : 0).parts.size();
  if (n != 2 && n != 4) d.fail("a vector has 2 or 4 elements");
  if (bits / static_cast<int>(n) < 8) d.fail("an element has at least 8 bits");
  if (type == Type::kB128 && n != 2) d.fail("128 bits are two elements of 64");
  const Type element = untyped(bits / static_cast<int>(n));
  if (from_vector) {
    take_destination(d, type);
    d.sources(1, element);
    return set(d, InstructionClass::kMove, type,
               type == Type::kB128    ? move_128
               : bits == 32 && n == 2 ? pack_halves
               : bits == 64 && n == 2 ? pack_words
               : bits == 64           ? pack<uint64_t>
                                      : pack<uint32_t>);
  }
  const std::vector<Slot> results = d.destinations(0, element);
  d.source(1, type);
  const bool both = n == 2 && !results[0].none() && !results[1].none() && results[0].bytes == 4 &&
                    results[1].bytes == 4;
  set(d, InstructionClass::kMove, type,
      type == Type::kB128  ? move_128
      : both && bits == 64 ? unpack_two<uint64_t, uint32_t>
      : both && bits == 32 ? unpack_two<uint32_t, uint16_t>
      : bits == 64         ? unpack<uint64_t>
                           : unpack<uint32_t>);
}

}  // namespace

const InstructionTable kMoveInstructions = {
    {"mov", decode_mov},
    {"selp", decode_selp},
    {"prmt", decode_prmt},
    {"cvta", decode_cvta},
};

}  // namespace ptx_simulator
