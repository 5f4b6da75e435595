// cp.async, its groups, and ldmatrix.
#include <cstring>
#include <string>

#include "instructions/memory_access.h"

namespace ptx_simulator {

namespace {

// The fourth operand of cp.async: Op::vector.
enum CopyForm : uint8_t { kPlain, kSourceBytes, kIgnoreSource };
constexpr uint32_t kNegated = 1;  // Op::flags, of the ignore-src predicate

// s: shared address, global address, and the operand of the form. The offset of the shared address
// is in Op::target, that of the global one in Op::immediate.
void execute_copy(Warp& warp, const Op& op, uint32_t mask) {
  const Addresses to = lane_addresses(warp, op.s[0], op.target, mask);
  const Addresses from = lane_addresses(warp, op.s[1], op.immediate, mask);
  const uint32_t width = op.bytes;

  std::array<uint32_t, kWarpSize> source_bytes;
  source_bytes.fill(width);
  if (op.vector == kSourceBytes) {
    for (uint32_t rest = mask; rest != 0; rest &= rest - 1) {
      const int lane = std::countr_zero(rest);
      const auto n = static_cast<uint32_t>(warp.value(op.s[2], lane));
      if (n > width) {
        return warp.fail(FindingKind::kIllegalInstruction, op, lane,
                         "cp.async of " + std::to_string(width) + " bytes with a src-size of " +
                             std::to_string(n));
      }
      source_bytes[lane] = n;
    }
  } else if (op.vector == kIgnoreSource) {
    const uint32_t all = warp.predicate(op.s[2]);
    const uint32_t ignored = (op.flags & kNegated) != 0 ? ~all : all;
    for (int lane = 0; lane < kWarpSize; ++lane) {
      if ((ignored >> lane & 1) != 0) source_bytes[lane] = 0;
    }
  }

  // Lanes that read nothing may have any source address; all of them have to be aligned.
  uint32_t whole = 0, part = 0, bytes_read = 0;
  for_each_lane(mask, [&](int lane) {
    whole |= static_cast<uint32_t>(source_bytes[lane] == width) << lane;
    part |= static_cast<uint32_t>(source_bytes[lane] != width && source_bytes[lane] != 0) << lane;
    bytes_read += source_bytes[lane];
  });
  const auto of = [&](uint32_t lanes) {
    if (lanes == mask) return from;
    Addresses result;
    const uint64_t other = from[std::countr_zero(lanes)];
    for (int lane = 0; lane < kWarpSize; ++lane) {
      result[lane] = (lanes >> lane & 1) != 0 ? from[lane] : other;
    }
    return result;
  };
  if (whole != 0 && !check_global(warp, op, whole, of(whole), width, width, AccessKind::kRead)) {
    return;
  }
  for (uint32_t rest = part; rest != 0; rest &= rest - 1) {
    const uint32_t lane = rest & (~rest + 1);
    const int n = source_bytes[std::countr_zero(rest)];
    if (!check_global(warp, op, lane, of(lane), n, width, AccessKind::kRead)) return;
  }
  if (!check_shared(warp, op, mask, to, width)) return;

  Counters& counters = warp.counters();
  counters.global_read_bytes += bytes_read;
  if ((whole | part) != 0) counters.global_read_sectors += count_sectors(of(whole | part));

  std::array<uint32_t, kWarpSize> offsets;
  std::array<const uint8_t*, kWarpSize> sources;
  for (int lane = 0; lane < kWarpSize; ++lane) {
    offsets[lane] = static_cast<uint32_t>(to[lane]);
    sources[lane] = reinterpret_cast<const uint8_t*>(from[lane]);
  }
  warp.block.shared.copy_begins(warp, op, mask, offsets.data(), width, sources.data(),
                                source_bytes.data());
}

void execute_commit(Warp& warp, const Op&, uint32_t mask) {
  warp.block.shared.commit_group(warp, mask);
}
void execute_wait_group(Warp& warp, const Op& op, uint32_t mask) {
  warp.block.shared.wait_group(warp, mask, static_cast<int>(op.immediate));
}
void execute_wait_all(Warp& warp, const Op&, uint32_t mask) {
  warp.block.shared.wait_all(warp, mask);
}

// cp.async.{ca,cg}.shared.global{.level::...} [dst], [src], bytes{, src-size | ignore-src}{,
// policy}
void decode_copy(Decoder& d) {
  const int cache = d.take_one_of({"ca", "cg"});
  if (cache < 0) d.fail("this form of cp.async is not known");
  if (d.take_space() != StateSpace::kShared || d.take_space() != StateSpace::kGlobal) {
    d.fail("cp.async copies from global to shared memory");
  }
  d.take_cache_hints();
  Op& op = d.op();
  d.address(0, StateSpace::kShared);
  op.target = static_cast<int32_t>(op.immediate);
  d.address(1, StateSpace::kGlobal);
  const int64_t bytes = d.immediate(2);
  if (bytes != 16 && (cache == 1 || (bytes != 4 && bytes != 8))) {
    d.fail("cp.async cannot copy " + std::to_string(bytes) + " bytes");
  }
  op.bytes = static_cast<uint8_t>(bytes);
  size_t next = 3;
  const size_t before_policy = d.operands() - (has_cache_policy(d) ? 1 : 0);
  op.vector = kPlain;
  if (next < before_policy) {
    const Operand& operand = d.operand(next);
    if (operand.kind == Operand::Kind::kRegister && d.register_bits(operand) == 1) {
      bool negated = false;
      d.predicate_source(operand, negated);
      if (negated) op.flags |= kNegated;
      op.vector = kIgnoreSource;
    } else {
      d.source(next, Type::kU32);
      op.vector = kSourceBytes;
    }
    ++next;
  }
  take_cache_policy(d, next);
  op.execute = execute_copy;
}

void decode_async(Decoder& d) {
  d.op().kind = InstructionClass::kAsyncCopy;
  if (!d.take("async")) d.fail("only cp.async is known");
  if (d.take("commit_group")) {
    d.op().execute = execute_commit;
  } else if (d.take("wait_all")) {
    d.op().execute = execute_wait_all;
  } else if (d.take("wait_group")) {
    const int64_t pending = d.immediate(0);
    if (pending < 0 || pending > INT32_MAX) d.fail("a number of groups is expected");
    d.op().immediate = pending;
    d.op().execute = execute_wait_group;
  } else {
    decode_copy(d);
  }
}

// Lane 8 i + r holds the address of row r of matrix i: 8 elements of 2 bytes. Lane t gets, of each
// matrix, the elements 2 (t % 4) and the one behind it of row t / 4; transposed, of column t / 4.
template <bool kTransposed>
void execute_ldmatrix(Warp& warp, const Op& op, uint32_t mask) {
  if (mask != UINT32_MAX) {
    return warp.fail(FindingKind::kBarrierDivergence, op, std::countr_zero(mask),
                     "ldmatrix needs all 32 threads of the warp");
  }
  const int matrices = op.vector;
  const uint32_t rows = matrices == 4 ? UINT32_MAX : (uint32_t{1} << (8 * matrices)) - 1;
  const Addresses addresses = lane_addresses(warp, op.s[0], op.immediate, rows);
  Pointers from;
  if (!locate(warp, op, rows, addresses, op.space, 16, AccessKind::kRead, nullptr, from)) return;
  for (int i = 0; i < matrices; ++i) {
    if (op.d[i].none()) continue;
    uint32_t* to = warp.lanes<uint32_t>(op.d[i]);
    if constexpr (kTransposed) {
      uint16_t element[8][8];
      for (int row = 0; row < 8; ++row) std::memcpy(element[row], from[8 * i + row], 16);
      for (int lane = 0; lane < kWarpSize; ++lane) {
        const int row = lane % 4 * 2, column = lane / 4;
        to[lane] = element[row][column] | uint32_t{element[row + 1][column]} << 16;
      }
    } else {
      for (int row = 0; row < 8; ++row) std::memcpy(to + 4 * row, from[8 * i + row], 16);
    }
  }
}

// ldmatrix.sync.aligned.m8n8.{x1,x2,x4}{.trans}{.shared}.b16 {d, ...}, [a]
void decode_ldmatrix(Decoder& d) {
  d.op().kind = InstructionClass::kLdmatrix;
  if (!d.take("sync") || !d.take("aligned") || !d.take("m8n8")) {
    d.fail("this form of ldmatrix is not known");
  }
  const int count = d.take_one_of({"x1", "x2", "x4"});
  if (count < 0) d.fail("no number of matrices");
  const bool transposed = d.take("trans");
  const StateSpace space = d.take_space();
  if (space != StateSpace::kShared && space != StateSpace::kGeneric) {
    d.fail("ldmatrix reads shared memory");
  }
  d.take_type({Type::kB16});
  d.op().vector = static_cast<uint8_t>(1 << count);
  if (d.destinations(0, Type::kB32).size() != d.op().vector) {
    d.fail("one register for each matrix is expected");
  }
  d.address(1, space);
  d.op().execute = transposed ? execute_ldmatrix<true> : execute_ldmatrix<false>;
}

}  // namespace

const InstructionTable kAsyncInstructions = {
    {"cp", decode_async},
    {"ldmatrix", decode_ldmatrix},
};

}  // namespace ptx_simulator
