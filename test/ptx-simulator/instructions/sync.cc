// What threads do together: votes, shuffles and other operations of the lanes of a warp, bar.warp.
// sync, fences. Barriers of a block are in barrier.cc.
//
// All `.sync` operations have their member mask as their last source. They wait until every member
// has come, and then run once for all of them.
#include <algorithm>
#include <atomic>

#include "instructions/sync.h"

namespace ptx_simulator {

namespace {

using Lanes32 = std::array<uint32_t, kWarpSize>;

uint32_t lanes_equal_to(const uint32_t* values, uint32_t value, uint32_t mask) {
  uint32_t same = 0;
  for (int lane = 0; lane < kWarpSize; ++lane) {
    same |= static_cast<uint32_t>(values[lane] == value) << lane;
  }
  return same & mask;
}

template <Warp::Complete kComplete, Warp::Meet kMeet = Warp::Meet::kInstruction>
void execute_together(Warp& warp, const Op& op, uint32_t mask) {
  const uint32_t* members = warp.values<uint32_t>(op.s.back());
  for (uint32_t rest = mask; rest != 0;) {
    const uint32_t all = members[std::countr_zero(rest)];
    const uint32_t same = op.s.back().constant ? rest : lanes_equal_to(members, all, rest);
    rest &= ~same;
    if (const uint32_t outside = same & ~all; outside != 0) [[unlikely]] {
      const int lane = std::countr_zero(outside);
      warp.report(FindingKind::kIllegalInstruction, op, lane,
                  "lane " + std::to_string(lane) + " is not in its own member mask " + hex(all));
      if ((same & all) == 0) continue;
    }
    warp.synchronize(op, same & all, all, kMeet, kComplete);
  }
}

// --- shfl.sync: op.flags is the mode, op.s: value, b, c; op.d: result and predicate, or none ---

enum ShuffleMode : uint32_t { kUp, kDown, kButterfly, kIndex };

void shuffle(Warp& warp, const Op& op, uint32_t lanes) {
  Lanes32 value;
  std::copy_n(warp.values<uint32_t>(op.s[0]), kWarpSize, value.begin());
  const uint32_t* b = warp.values<uint32_t>(op.s[1]);
  const uint32_t* c = warp.values<uint32_t>(op.s[2]);
  const uint32_t mode = op.flags;
  Lanes32 result{};
  uint32_t in_range = 0;
  uint32_t from_outside = 0;
  for (int lane = 0; lane < kWarpSize; ++lane) {
    const int shift = static_cast<int>(b[lane] & 31);
    const int segment = static_cast<int>(c[lane] >> 8 & 31);
    const int lowest = lane & segment;
    const int limit = lowest | static_cast<int>(c[lane] & 31 & ~segment);
    int source = mode == kUp          ? lane - shift
                 : mode == kDown      ? lane + shift
                 : mode == kButterfly ? lane ^ shift
                                      : lowest | (shift & ~segment);
    const bool valid = mode == kUp ? source >= limit : source <= limit;
    if (!valid) source = lane;
    in_range |= static_cast<uint32_t>(valid) << lane;
    from_outside |= (~lanes >> source & 1) << lane;
    result[lane] = value[source];
  }
  if (from_outside &= lanes; from_outside != 0) [[unlikely]] {
    const int lane = std::countr_zero(from_outside);
    warp.report(FindingKind::kIllegalInstruction, op, lane,
                "lane " + std::to_string(lane) +
                    " reads the value of a lane that does not take part; " + hex(lanes) + " do");
    // Anything may come out.
    for_each_lane(from_outside, [&](int other) { result[other] ^= warp.random(); });
  }
  if (!op.d[0].none()) {
    uint32_t* d = warp.lanes<uint32_t>(op.d[0]);
    for_each_lane(lanes, [&](int lane) { d[lane] = result[lane]; });
  }
  if (op.d.size() > 1 && !op.d[1].none()) warp.set_predicate(op.d[1], lanes, in_range);
}

void decode_shfl(Decoder& d) {
  set_sync(d, execute_together<shuffle>);
  if (!d.take("sync")) d.fail("shfl without .sync");
  const int mode = d.take_one_of({"up", "down", "bfly", "idx"});
  if (mode < 0) d.fail("unknown mode");
  d.op().flags = static_cast<uint32_t>(mode);
  d.op().type = d.take_type({Type::kB32});
  result_and_predicate(d, Type::kB32);
  for (size_t i = 1; i <= 4; ++i) d.source(i, Type::kB32);
}

// --- vote.sync: op.s[0] is the predicate, op.flags says whether it is negated ---

uint32_t votes(Warp& warp, const Op& op) {
  const uint32_t predicate = warp.predicate(op.s[0]);
  return op.flags != 0 ? ~predicate : predicate;
}
void vote_all(Warp& warp, const Op& op, uint32_t lanes) {
  warp.set_predicate(op.d[0], lanes, (~votes(warp, op) & lanes) == 0 ? UINT32_MAX : 0);
}
void vote_any(Warp& warp, const Op& op, uint32_t lanes) {
  warp.set_predicate(op.d[0], lanes, (votes(warp, op) & lanes) != 0 ? UINT32_MAX : 0);
}
void vote_uni(Warp& warp, const Op& op, uint32_t lanes) {
  const uint32_t yes = votes(warp, op) & lanes;
  warp.set_predicate(op.d[0], lanes, yes == 0 || yes == lanes ? UINT32_MAX : 0);
}
void vote_ballot(Warp& warp, const Op& op, uint32_t lanes) {
  store_to_all(warp, op.d[0], lanes, votes(warp, op) & lanes);
}

void decode_vote(Decoder& d) {
  if (!d.take("sync")) d.fail("vote without .sync");
  const int mode = d.take_one_of({"all", "any", "uni", "ballot"});
  if (mode < 0) d.fail("unknown mode");
  constexpr Execute kExecute[] = {execute_together<vote_all>, execute_together<vote_any>,
                                  execute_together<vote_uni>, execute_together<vote_ballot>};
  set_sync(d, kExecute[mode]);
  if (mode == 3) {
    d.op().type = d.take_type({Type::kB32});
    d.destination(0, Type::kB32);
  } else {
    d.op().type = d.take_type({Type::kPred});
    d.predicate_destination(d.operand(0));
  }
  bool negated = false;
  d.predicate_source(d.operand(1), negated);
  d.op().flags = negated;
  d.source(2, Type::kB32);
}

// --- match.sync ---

void match_any(Warp& warp, const Op& op, uint32_t lanes) {
  Lanes32 result{};
  for (uint32_t rest = lanes; rest != 0;) {
    const int first = std::countr_zero(rest);
    uint32_t same = 0;
    for_each_lane(rest, [&](int lane) {
      if (warp.value(op.s[0], lane) == warp.value(op.s[0], first)) same |= 1u << lane;
    });
    for_each_lane(same, [&](int lane) { result[lane] = same; });
    rest &= ~same;
  }
  for_each_lane(lanes, [&](int lane) { warp.lanes<uint32_t>(op.d[0])[lane] = result[lane]; });
}
void match_all(Warp& warp, const Op& op, uint32_t lanes) {
  const int first = std::countr_zero(lanes);
  bool all = true;
  for_each_lane(lanes, [&](int lane) {
    all = all && warp.value(op.s[0], lane) == warp.value(op.s[0], first);
  });
  if (!op.d[0].none()) store_to_all(warp, op.d[0], lanes, all ? lanes : 0);
  if (op.d.size() > 1 && !op.d[1].none()) {
    warp.set_predicate(op.d[1], lanes, all ? UINT32_MAX : 0);
  }
}

void decode_match(Decoder& d) {
  const int mode = d.take_one_of({"any", "all"});
  if (mode < 0 || !d.take("sync")) d.fail("unknown mode");
  set_sync(d, mode == 0 ? execute_together<match_any> : execute_together<match_all>);
  const Type type = d.op().type = d.take_type({Type::kB32, Type::kB64});
  if (mode == 0) {
    d.destination(0, Type::kB32);
  } else {
    result_and_predicate(d, Type::kB32);
  }
  d.source(1, type);
  d.source(2, Type::kB32);
}

// --- redux.sync ---

template <class T, class Combine>
void reduce(Warp& warp, const Op& op, uint32_t lanes) {
  const T* values = warp.values<T>(op.s[0]);
  T result = values[std::countr_zero(lanes)];
  for_each_lane(lanes & (lanes - 1), [&](int lane) { result = Combine{}(result, values[lane]); });
  store_to_all(warp, op.d[0], lanes, static_cast<uint32_t>(result));
}
template <class T>
struct Min {
  T operator()(T a, T b) const { return std::min(a, b); }
};
template <class T>
struct Max {
  T operator()(T a, T b) const { return std::max(a, b); }
};

void decode_redux(Decoder& d) {
  if (!d.take("sync")) d.fail("redux without .sync");
  const int mode = d.take_one_of({"add", "min", "max", "and", "or", "xor"});
  if (mode < 0) d.fail("unknown operation");
  const Type type = mode < 3 ? d.take_type({Type::kU32, Type::kS32}) : d.take_type({Type::kB32});
  const bool is_signed = type == Type::kS32;
  const Execute execute[] = {
      execute_together<reduce<uint32_t, std::plus<>>>,
      is_signed ? execute_together<reduce<int32_t, Min<int32_t>>>
                : execute_together<reduce<uint32_t, Min<uint32_t>>>,
      is_signed ? execute_together<reduce<int32_t, Max<int32_t>>>
                : execute_together<reduce<uint32_t, Max<uint32_t>>>,
      execute_together<reduce<uint32_t, std::bit_and<>>>,
      execute_together<reduce<uint32_t, std::bit_or<>>>,
      execute_together<reduce<uint32_t, std::bit_xor<>>>,
  };
  set_sync(d, execute[mode]);
  d.op().type = type;
  d.destination(0, type);
  d.source(1, type);
  d.source(2, Type::kB32);
}

// --- activemask, elect.sync ---

void execute_activemask(Warp& warp, const Op& op, uint32_t mask) {
  store_to_all(warp, op.d[0], mask, mask);
}
void decode_activemask(Decoder& d) {
  set_sync(d, execute_activemask);
  d.op().type = d.take_type({Type::kB32});
  d.destination(0, Type::kB32);
}

// Any member may be elected, though always the same one for the same mask.
void elect(Warp& warp, const Op& op, uint32_t lanes) {
  const int leader = std::countr_zero(lanes);
  if (!op.d[0].none()) store_to_all(warp, op.d[0], lanes, static_cast<uint32_t>(leader));
  if (op.d.size() > 1 && !op.d[1].none()) warp.set_predicate(op.d[1], lanes, 1u << leader);
}
void decode_elect(Decoder& d) {
  set_sync(d, execute_together<elect>);
  if (!d.take("sync")) d.fail("elect without .sync");
  result_and_predicate(d, Type::kB32);
  d.source(1, Type::kB32);
}

// --- fences ---

// Blocks run on several host threads. Between warps of a block a fence does nothing: it orders what
// one thread does, and whether another one may rely on that takes a barrier.
void execute_fence(Warp&, const Op&, uint32_t) {
  std::atomic_thread_fence(std::memory_order_seq_cst);
}
void decode_membar(Decoder& d) {
  set_sync(d, execute_fence);
  if (d.take("proxy")) {
    if (d.take_one_of({"alias", "async"}) < 0) d.fail("unknown proxy");
  } else if (d.take_one_of({"cta", "gl", "sys"}) < 0) {
    d.fail("unknown level");
  }
}
void decode_fence(Decoder& d) {
  set_sync(d, execute_fence);
  if (d.take("proxy")) {
    if (d.take_one_of({"alias", "async"}) < 0) d.fail("unknown proxy");
    d.take_one_of({"global", "shared::cta"});
    return;
  }
  d.take_one_of({"sc", "acq_rel", "acquire", "release"});
  if (d.take_one_of({"cta", "cluster", "gpu", "sys"}) < 0) d.fail("unknown scope");
}

// --- bar.warp.sync ---

void warp_barrier(Warp& warp, const Op&, uint32_t lanes) {
  warp.block.shared.warp_barrier(warp, lanes);
  ++warp.counters().barriers;
}

}  // namespace

void decode_warp_barrier(Decoder& d) {
  set_sync(d, execute_together<warp_barrier, Warp::Meet::kAnywhere>);
  if (!d.take("sync")) d.fail("bar.warp without .sync");
  d.source(0, Type::kB32);
}

const InstructionTable kSyncInstructions = {
    {"shfl", decode_shfl},       {"vote", decode_vote},   {"match", decode_match},
    {"redux", decode_redux},     {"elect", decode_elect}, {"activemask", decode_activemask},
    {"membar", decode_membar},   {"fence", decode_fence}, {"bar", decode_bar},
    {"barrier", decode_barrier},
};

}  // namespace ptx_simulator
