// ld, st and their kin. Cache hints and policies mean nothing here; relaxed, acquire and release
// differ from plain accesses for the detector of races only: blocks run on host threads whose loads
// and stores are ordered as acquire and release require, and fences (sync.cc) order the rest.
#include <cstring>

#include "instructions/memory_access.h"

namespace ptx_simulator {

namespace {

// Op::flags
constexpr uint32_t kStrong = 1;  // relaxed, acquire or release

AccessKind read_kind(const Op& op) {
  return (op.flags & kStrong) != 0 ? AccessKind::kStrongRead : AccessKind::kRead;
}
AccessKind write_kind(const Op& op) {
  return (op.flags & kStrong) != 0 ? AccessKind::kStrongWrite : AccessKind::kWrite;
}

// Memory: an element as it lies there. Register: what it is extended to.
template <class Memory, class Register>
void load_element(Warp& warp, Slot to, uint32_t mask, const Pointers& from, size_t offset) {
  const auto load = [&](int lane) {
    Memory value;
    std::memcpy(&value, from[lane] + offset, sizeof value);
    return static_cast<Register>(value);
  };
  if (to.bytes == 8) {
    uint64_t* lanes = warp.lanes<uint64_t>(to);
    for_each_lane(mask, [&](int lane) { lanes[lane] = load(lane); });
  } else {
    uint32_t* lanes = warp.lanes<uint32_t>(to);
    for_each_lane(mask, [&](int lane) { lanes[lane] = static_cast<uint32_t>(load(lane)); });
  }
}

template <class Memory, class Register>
void execute_load(Warp& warp, const Op& op, uint32_t mask) {
  const Addresses addresses = lane_addresses(warp, op.s[0], op.immediate, mask);
  Pointers from;
  if (!locate(warp, op, mask, addresses, op.space, op.bytes, read_kind(op), nullptr, from)) return;
  for (size_t i = 0; i < op.d.size(); ++i) {
    if (op.d[i].none()) continue;
    load_element<Memory, Register>(warp, op.d[i], mask, from, i * sizeof(Memory));
  }
}

template <class Memory>
void gather_element(Warp& warp, Slot from, uint32_t mask, uint8_t* to, size_t stride) {
  const auto store = [&](int lane, auto value) {
    const auto element = static_cast<Memory>(value);
    std::memcpy(to + lane * stride, &element, sizeof element);
  };
  if (from.bytes == 8) {
    const uint64_t* values = warp.values<uint64_t>(from);
    for_each_lane(mask, [&](int lane) { store(lane, values[lane]); });
  } else {
    const uint32_t* values = warp.values<uint32_t>(from);
    for_each_lane(mask, [&](int lane) { store(lane, values[lane]); });
  }
}

template <class Memory, int kElements>
void execute_store(Warp& warp, const Op& op, uint32_t mask) {
  constexpr size_t kBytes = sizeof(Memory) * kElements;
  alignas(32) uint8_t values[kWarpSize * kBytes];
  for (int i = 0; i < kElements; ++i) {
    gather_element<Memory>(warp, op.s[1 + i], mask, values + i * sizeof(Memory), kBytes);
  }
  const Addresses addresses = lane_addresses(warp, op.s[0], op.immediate, mask);
  Pointers to;
  if (!locate(warp, op, mask, addresses, op.space, kBytes, write_kind(op), values, to)) return;
  for_each_lane(mask, [&](int lane) { std::memcpy(to[lane], values + lane * kBytes, kBytes); });
}

// .weak, .volatile, .relaxed ... and the scope.
void take_order(Decoder& d) {
  const std::string_view order = d.peek();
  if (order == "relaxed" || order == "acquire" || order == "release" || order == "mmio") {
    d.op().flags |= kStrong;
  }
  d.take_memory_order();
}

// Elements: how many, of what type.
int take_elements(Decoder& d) {
  const int vector = d.take_one_of({"v2", "v4"});
  const Type type = d.take_type({Type::kB8, Type::kB16, Type::kB32, Type::kB64, Type::kB128,
                                 Type::kU8, Type::kU16, Type::kU32, Type::kU64, Type::kS8,
                                 Type::kS16, Type::kS32, Type::kS64, Type::kF16, Type::kF16x2,
                                 Type::kBf16, Type::kBf16x2, Type::kF32, Type::kF64});
  const int elements = vector == 1 ? 4 : vector == 0 ? 2 : 1;
  d.op().type = type;
  d.op().vector = static_cast<uint8_t>(elements);
  d.op().bytes = static_cast<uint8_t>(bits_of(type) / 8 * elements);
  if (d.op().bytes > 16 || (type == Type::kB128 && elements != 1)) {
    d.fail("an access has at most 16 bytes");
  }
  return elements;
}

void check_elements(const Decoder& d, const Operand& operand, int elements) {
  const size_t n = operand.kind == Operand::Kind::kVector ? operand.parts.size() : 1;
  if (n != static_cast<size_t>(elements)) d.fail("as many registers as elements are expected");
}

template <class Memory>
Execute load_signed(int register_bits) {
  if (register_bits == 64) return execute_load<Memory, int64_t>;
  if (register_bits == 32) return execute_load<Memory, int32_t>;
  if constexpr (sizeof(Memory) == 1) {
    if (register_bits == 16) return execute_load<int8_t, uint16_t>;
  }
  return execute_load<std::make_unsigned_t<Memory>, std::make_unsigned_t<Memory>>;
}

Execute load_of(Type type, int register_bits) {
  switch (type) {
    case Type::kS8:
      return load_signed<int8_t>(register_bits);
    case Type::kS16:
      return load_signed<int16_t>(register_bits);
    case Type::kS32:
      return load_signed<int32_t>(register_bits);
    default:
      break;
  }
  switch (bits_of(type)) {
    case 8:
      return execute_load<uint8_t, uint8_t>;
    case 16:
      return execute_load<uint16_t, uint16_t>;
    case 32:
      return execute_load<uint32_t, uint32_t>;
    default:
      return execute_load<uint64_t, uint64_t>;
  }
}

void decode_load(Decoder& d) {
  d.op().kind = InstructionClass::kLoad;
  take_order(d);
  const StateSpace space = d.take_space();
  d.take_cache_hints();
  const bool read_only = d.take("nc");
  d.take_cache_hints();
  if (read_only && space != StateSpace::kGlobal) d.fail(".nc is for .global only");
  const int elements = take_elements(d);
  d.address(1, space);
  const Operand& to = d.operand(0);
  check_elements(d, to, elements);
  d.destinations(0, d.op().type);
  take_cache_policy(d, 2);
  // Elements go to registers of one width; `_` has none.
  int register_bits = bits_of(d.op().type);
  if (to.kind == Operand::Kind::kRegister) {
    register_bits = d.register_bits(to);
  } else if (to.kind == Operand::Kind::kVector) {
    int named = 0;
    for (const Operand& part : to.parts) {
      if (part.kind != Operand::Kind::kRegister) continue;
      if (named != 0 && d.register_bits(part) != named) d.fail("registers of different widths");
      named = d.register_bits(part);
    }
    if (named != 0) register_bits = named;
  }
  d.op().execute = load_of(d.op().type, register_bits);
}

template <class Memory>
Execute store_of(size_t elements) {
  if constexpr (sizeof(Memory) <= 4) {
    if (elements == 4) return execute_store<Memory, 4>;
  }
  return elements == 2 ? execute_store<Memory, 2> : execute_store<Memory, 1>;
}

void decode_store(Decoder& d) {
  d.op().kind = InstructionClass::kStore;
  take_order(d);
  const StateSpace space = d.take_space();
  d.take_cache_hints();
  const int elements = take_elements(d);
  if (space == StateSpace::kConst) d.fail("constant memory cannot be written");
  d.address(0, space);
  check_elements(d, d.operand(1), elements);
  const size_t before = d.op().s.size();
  d.sources(1, d.op().type);
  const size_t slots = d.op().s.size() - before;  // two for .b128
  take_cache_policy(d, 2);
  switch (std::min(bits_of(d.op().type), 64)) {
    case 8:
      d.op().execute = store_of<uint8_t>(slots);
      break;
    case 16:
      d.op().execute = store_of<uint16_t>(slots);
      break;
    case 32:
      d.op().execute = store_of<uint32_t>(slots);
      break;
    default:
      d.op().execute = store_of<uint64_t>(slots);
  }
}

void execute_nothing(Warp&, const Op&, uint32_t) {}

// prefetch{.global,.local}.L1/.L2{::evict_...} [a]; prefetchu.L1 [a]. Its address may be anything.
void decode_prefetch(Decoder& d) {
  d.op().kind = InstructionClass::kLoad;
  const StateSpace space = d.take_space();
  if (d.take_one_of({"L1", "L2", "L2::evict_last", "L2::evict_normal"}) < 0) d.fail("no level");
  d.address(0, space);
  d.op().execute = execute_nothing;
}

// applypriority{.global}.L2::evict_normal [a], 128
void decode_applypriority(Decoder& d) {
  d.op().kind = InstructionClass::kLoad;
  const StateSpace space = d.take_space();
  if (!d.take("L2::evict_normal")) d.fail("no priority");
  d.address(0, space);
  if (d.immediate(1) != 128) d.fail("the size must be 128");
  d.op().execute = execute_nothing;
}

// The data are lost, without having been written back: they can be anything afterwards.
void execute_discard(Warp& warp, const Op& op, uint32_t mask) {
  const Addresses addresses = lane_addresses(warp, op.s[0], op.immediate, mask);
  if (!check_global(warp, op, mask, addresses, 128, 128, AccessKind::kWrite)) return;
  for_each_lane(
      mask, [&](int lane) { std::memset(reinterpret_cast<void*>(addresses[lane]), 0xFF, 128); });
}

void decode_discard(Decoder& d) {
  d.op().kind = InstructionClass::kStore;
  const StateSpace space = d.take_space();
  if (!d.take("L2")) d.fail("no level");
  d.address(0, space);
  if (d.immediate(1) != 128) d.fail("the size must be 128");
  d.op().execute = execute_discard;
}

// A policy is a number that means nothing here.
void execute_policy(Warp& warp, const Op& op, uint32_t mask) {
  uint64_t* to = warp.lanes<uint64_t>(op.d[0]);
  for_each_lane(mask, [&](int lane) { to[lane] = 0x12F0000000000000; });
}

// createpolicy.fractional.L2::evict_...{.L2::...}.b64 d{, fraction}
// createpolicy.range{.global}.L2::...{.L2::...}.b64 d, [a], primary, total
// createpolicy.cvt.L2.b64 d, property
void decode_createpolicy(Decoder& d) {
  d.op().kind = InstructionClass::kMove;
  const int form = d.take_one_of({"fractional", "range", "cvt"});
  if (form < 0) d.fail("no kind of policy");
  if (form == 1) d.take_space();
  if (form == 2) {
    if (!d.take("L2")) d.fail("no level");
  } else {
    d.take_cache_hints();
  }
  d.take_type({Type::kB64});
  d.destination(0, Type::kB64);
  if (form == 0 && d.operands() > 1) d.source(1, Type::kF32);
  if (form == 1) {
    d.address(1, StateSpace::kGlobal);
    d.source(2, Type::kU32);
    d.source(3, Type::kU32);
  }
  if (form == 2) d.source(1, Type::kB64);
  d.op().execute = execute_policy;
}

void execute_isspacep(Warp& warp, const Op& op, uint32_t mask) {
  const Addresses addresses = lane_addresses(warp, op.s[0], 0, mask);
  uint32_t in_space = 0;
  for (int lane = 0; lane < kWarpSize; ++lane) {
    const uint64_t window = addresses[lane] & ~(kWindowBytes - 1);
    const bool shared = window == kSharedWindow;
    const bool local = window == kLocalWindow;
    bool is = false;
    if (op.space == StateSpace::kShared) {
      is = shared;
    } else if (op.space == StateSpace::kLocal) {
      is = local;
    } else if (op.space == StateSpace::kGlobal) {
      is = !shared && !local;
    } else {
      const Allocation* a = warp.block.launch.allocations->find(addresses[lane]);
      is = a != nullptr && a->is_constant;
    }
    in_space |= static_cast<uint32_t>(is) << lane;
  }
  warp.set_predicate(op.d[0], mask, in_space);
}

void decode_isspacep(Decoder& d) {
  d.op().kind = InstructionClass::kInteger;
  const StateSpace space = d.take_space();
  if (space == StateSpace::kGeneric || space == StateSpace::kParam) d.fail("no known space");
  d.predicate_destination(d.operand(0));
  d.source(1, Type::kB64);
  d.op().space = space;
  d.op().execute = execute_isspacep;
}

}  // namespace

const InstructionTable kMemoryInstructions = {
    {"ld", decode_load},
    {"ldu", decode_load},
    {"st", decode_store},
    {"prefetch", decode_prefetch},
    {"prefetchu", decode_prefetch},
    {"applypriority", decode_applypriority},
    {"discard", decode_discard},
    {"createpolicy", decode_createpolicy},
    {"isspacep", decode_isspacep},
};

}  // namespace ptx_simulator
