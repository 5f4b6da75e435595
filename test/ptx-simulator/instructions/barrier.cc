// Barriers of a block: barrier{.cta}.sync, .arrive and .red, with bar{.cta} for their aligned form,
// which all threads of a warp have to execute together. Block::visit counts who has come.
#include "machine/barrier.h"

#include "instructions/sync.h"

namespace ptx_simulator {

namespace {

// op.flags
constexpr uint32_t kWaits = 1;
constexpr uint32_t kHasThreads = 2;  // op.s[1] is the number of threads
constexpr uint32_t kNegated = 4;
constexpr uint32_t kReductionShift = 8;  // a BarrierReduction, of the predicate op.s.back()

// Lanes may ask for different barriers, unless they are aligned.
void visit(Warp& warp, const Op& op, uint32_t lanes) {
  const uint32_t* number = warp.values<uint32_t>(op.s[0]);
  const bool has_threads = (op.flags & kHasThreads) != 0;
  const uint32_t* threads = has_threads ? warp.values<uint32_t>(op.s[1]) : nullptr;
  BarrierVisit visit;
  visit.waits = (op.flags & kWaits) != 0;
  visit.reduction = static_cast<BarrierReduction>(op.flags >> kReductionShift);
  if (visit.reduction != BarrierReduction::kNone) {
    visit.predicate = warp.predicate(op.s.back());
    if ((op.flags & kNegated) != 0) visit.predicate = ~visit.predicate;
  }
  for (uint32_t rest = lanes; rest != 0;) {
    const int first = std::countr_zero(rest);
    uint32_t same = 0;
    for_each_lane(rest, [&](int lane) {
      const bool equal =
          number[lane] == number[first] && (!has_threads || threads[lane] == threads[first]);
      same |= static_cast<uint32_t>(equal) << lane;
    });
    rest &= ~same;
    visit.number = number[first];
    visit.threads = has_threads ? threads[first] : 0;
    if (visit.number >= kBarriers) {
      warp.fail(FindingKind::kIllegalInstruction, op, first,
                "barrier " + std::to_string(visit.number) + " of " + std::to_string(kBarriers));
    } else if (has_threads && (visit.threads == 0 || visit.threads % kWarpSize != 0)) {
      warp.fail(FindingKind::kIllegalInstruction, op, first,
                "a barrier for " + std::to_string(visit.threads) +
                    " threads, which is no multiple of the warp size");
    } else {
      warp.block.visit(warp, op, same, visit);
    }
  }
}

void execute_aligned(Warp& warp, const Op& op, uint32_t mask) {
  warp.synchronize(op, mask, UINT32_MAX, Warp::Meet::kWarp, visit);
}

// Behind "bar" or "barrier".
void decode_rest(Decoder& d, bool aligned) {
  d.take("cta");
  const int action = d.take_one_of({"sync", "arrive", "red"});
  if (action < 0) d.fail("unknown action");
  BarrierReduction reduction = BarrierReduction::kNone;
  if (action == 2) {
    const int operation = d.take_one_of({"popc", "and", "or"});
    if (operation < 0) d.fail("unknown reduction");
    constexpr BarrierReduction kReductions[] = {BarrierReduction::kPopc, BarrierReduction::kAnd,
                                                BarrierReduction::kOr};
    reduction = kReductions[operation];
  }
  if (d.take("aligned")) aligned = true;
  set_sync(d, aligned ? execute_aligned : visit);
  Op& op = d.op();
  op.flags = action == 1 ? 0 : kWaits;
  op.flags |= static_cast<uint32_t>(reduction) << kReductionShift;

  size_t next = 0;
  if (reduction == BarrierReduction::kPopc) {
    op.type = d.take_type({Type::kU32});
    d.destination(next++, Type::kU32);
  } else if (reduction != BarrierReduction::kNone) {
    op.type = d.take_type({Type::kPred});
    d.predicate_destination(d.operand(next++));
  }
  d.source(next++, Type::kU32);
  const size_t behind_threads = reduction == BarrierReduction::kNone ? next : next + 1;
  if (d.operands() > behind_threads) {
    op.flags |= kHasThreads;
    d.source(next++, Type::kU32);
  } else if (action == 1) {
    d.fail("arrive without a number of threads");
  }
  if (reduction != BarrierReduction::kNone) {
    bool negated = false;
    d.predicate_source(d.operand(next++), negated);
    if (negated) op.flags |= kNegated;
  }
}

}  // namespace

void decode_bar(Decoder& d) {
  if (d.take("warp")) return decode_warp_barrier(d);
  decode_rest(d, true);
}
void decode_barrier(Decoder& d) { decode_rest(d, false); }

}  // namespace ptx_simulator
