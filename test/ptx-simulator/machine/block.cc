// A resident block: its threads' storage, its barriers, and what becomes of it when none of its
// threads can run.
#include <algorithm>
#include <utility>

#include "machine/barrier.h"
#include "machine/launch_state.h"
#include "machine/warp.h"

namespace ptx_simulator {

namespace {

// Between the register files of warps, so that they do not fall on the same sets of a cache.
constexpr size_t kRegisterGap = 192;

size_t register_stride(const Program& program) {
  return (program.register_bytes + 63) / 64 * 64 + kRegisterGap;
}

int threads_of(const LaunchContext& launch) {
  return static_cast<int>(launch.block[0] * launch.block[1] * launch.block[2]);
}
int warps_of(const LaunchContext& launch) {
  return (threads_of(launch) + kWarpSize - 1) / kWarpSize;
}

std::string place_of(const std::array<uint32_t, 3>& i) {
  return "(" + std::to_string(i[0]) + "," + std::to_string(i[1]) + "," + std::to_string(i[2]) + ")";
}

uint64_t mix(uint64_t x) {  // splitmix64
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

}  // namespace

Block::Block(const LaunchContext& context, LaunchState& launch_state, const uint64_t& clock)
    : launch(context),
      state(launch_state),
      storage_(BlockStorage::take(context.shared_bytes,
                                  register_stride(*context.program) * warps_of(context))),
      shared(storage_.shared()),
      clock_(clock),
      barriers_(std::make_unique<Barrier[]>(kBarriers)) {
  // Registers and local memory of a later block hold what the block before it left, as on a GPU.
  local.resize(size_t{context.program->local_bytes} * static_cast<size_t>(threads_of(context)));
  const int warps = warps_of(context);
  const size_t stride = register_stride(*context.program);
  warps_.reserve(warps);
  for (int i = 0; i < warps; ++i) warps_.emplace_back(*this, i, storage_.registers() + stride * i);
}

Block::~Block() { BlockStorage::give_back(std::move(storage_)); }

std::array<uint32_t, 3> Block::thread_index(int thread) const {
  const uint32_t t = static_cast<uint32_t>(thread);
  const auto& size = launch.block;
  return {t % size[0], t / size[0] % size[1], t / size[0] / size[1]};
}

void Block::start(uint64_t linear_index, uint64_t seed) {
  const auto& grid = launch.grid;
  index = {static_cast<uint32_t>(linear_index % grid[0]),
           static_cast<uint32_t>(linear_index / grid[0] % grid[1]),
           static_cast<uint32_t>(linear_index / grid[0] / grid[1])};
  multiprocessor = static_cast<int>(linear_index % static_cast<uint64_t>(launch.multiprocessors));
  shared.reset();
  for (Warp& warp : warps_) warp.start(mix(mix(seed ^ mix(linear_index)) + warp.index));
  live_warps_ = static_cast<int>(warps_.size());
  runnable_ = live_warps_ == kMostWarps ? UINT32_MAX : (1u << live_warps_) - 1;
}

int Block::run(uint64_t random, int steps) {
  if (runnable_ == 0) {
    resolve();
    return 0;
  }
  const int chosen = nth_lane(runnable_, static_cast<int>(random % std::popcount(runnable_)));
  Warp& warp = warps_[chosen];
  const int executed = warp.run(steps);
  if (!warp.runnable()) {
    runnable_ &= ~(1u << chosen);
    if (warp.live == 0 && --live_warps_ == 0) end();
  }
  return executed;
}

void Block::end() {
  for (int i = 0; i < kBarriers; ++i) {
    Barrier& barrier = barriers_[i];
    if (barrier.arrived == 0) continue;
    Warp& warp = warps_[barrier.first_thread / kWarpSize];
    warp.report(FindingKind::kBarrierDivergence, *barrier.first_op,
                barrier.first_thread % kWarpSize,
                "barrier " + std::to_string(i) + ": " + std::to_string(barrier.arrived) + " of " +
                    std::to_string(barrier.expected) + " threads arrived when the block ended");
    barrier = {};
  }
}

void Block::visit(Warp& warp, const Op& op, uint32_t lanes, const BarrierVisit& visit) {
  Barrier& barrier = barriers_[visit.number];
  const uint32_t expected =
      visit.threads != 0 ? visit.threads : static_cast<uint32_t>(warps_.size()) * kWarpSize;
  const int first = std::countr_zero(lanes);
  const auto name = [&] { return "barrier " + std::to_string(visit.number); };
  if (barrier.arrived == 0) {
    barrier.expected = expected;
    barrier.whole_block = visit.threads == 0;
    barrier.reduction = visit.reduction;
    barrier.first_op = &op;
    barrier.first_thread = warp.thread(first);
  } else if (barrier.expected != expected) {
    warp.report(FindingKind::kBarrierDivergence, op, first,
                name() + " is for " + std::to_string(expected) + " threads here and for " +
                    std::to_string(barrier.expected) + " at PTX line " +
                    std::to_string(barrier.first_op->line));
  } else if (barrier.reduction != visit.reduction) {
    warp.report(FindingKind::kBarrierDivergence, op, first,
                name() + " does not reduce the same here as at PTX line " +
                    std::to_string(barrier.first_op->line));
  }
  if (const uint32_t again = barrier.arrived_by[warp.index] & lanes; again != 0) {
    warp.report(FindingKind::kBarrierDivergence, op, std::countr_zero(again),
                "a thread comes to " + name() + " a second time before it is complete");
  }

  // The lanes that a short last warp lacks come with its first.
  uint32_t coming = lanes;
  if ((lanes & 1) != 0) coming |= ~warp.exists;
  barrier.arrived += static_cast<uint32_t>(std::popcount(coming));
  barrier.arrived_by[warp.index] |= lanes;
  barrier.popc += static_cast<uint32_t>(std::popcount(visit.predicate & lanes));
  ++counters.barriers;
  if (visit.waits) {
    barrier.waiting[warp.index] |= lanes;
    barrier.syncing |= 1u << warp.index;
    warp.wait(lanes);
  } else {
    shared.arrive(static_cast<int>(visit.number), warp.index);
  }
  if (barrier.arrived < barrier.expected) return;
  if (barrier.arrived > barrier.expected) {
    warp.report(FindingKind::kBarrierDivergence, op, first,
                name() + " is for " + std::to_string(barrier.expected) + " threads, but " +
                    std::to_string(barrier.arrived) + " came");
  }
  open(barrier);
}

// Lets everyone go who waits.
void Block::open(Barrier& barrier) {
  shared.barrier(static_cast<int>(&barrier - barriers_.get()), barrier.syncing);
  uint32_t arrived = 0;
  for (const uint32_t lanes : barrier.arrived_by) arrived += std::popcount(lanes);
  for (uint32_t rest = barrier.syncing; rest != 0; rest &= rest - 1) {
    const int i = std::countr_zero(rest);
    Warp& warp = warps_[i];
    const uint32_t lanes = barrier.waiting[i];
    const bool reduces = barrier.reduction != BarrierReduction::kNone;
    for_each_lane(reduces ? lanes : 0, [&](int lane) {
      const Op& op = warp.op_of(lane);
      if (op.d.empty() || op.d[0].none()) return;
      if (barrier.reduction == BarrierReduction::kPopc) {
        warp.lanes<uint32_t>(op.d[0])[lane] = barrier.popc;
      } else {
        const bool all = barrier.popc == arrived;
        const bool value = barrier.reduction == BarrierReduction::kAnd ? all : barrier.popc != 0;
        warp.set_predicate(op.d[0], 1u << lane, value ? UINT32_MAX : 0);
      }
    });
    warp.release(lanes);
    runnable_ |= 1u << i;
  }
  barrier = {};
}

// No thread can run: all that live wait for each other. What can go on in spite of the bug does,
// so that later ones are found as well.
void Block::resolve() {
  if (open_without_exited_threads()) return;
  for (Warp& warp : warps_) {
    if (warp.give_up_alignment()) {
      if (warp.runnable()) runnable_ |= 1u << warp.index;
      return;
    }
  }
  report_stuck();
}

bool Block::open_without_exited_threads() {
  for (int i = 0; i < kBarriers; ++i) {
    Barrier& barrier = barriers_[i];
    if (barrier.arrived == 0 || !barrier.whole_block) continue;
    int exited = -1;
    bool complete = true;
    for (const Warp& warp : warps_) {
      const uint32_t missing = warp.exists & ~barrier.arrived_by[warp.index];
      if ((missing & warp.live) != 0) complete = false;
      if (missing != 0 && exited < 0) exited = warp.thread(std::countr_zero(missing));
    }
    if (!complete || exited < 0) continue;
    const Op& exit = warps_[exited / kWarpSize].op_of(exited % kWarpSize);
    warps_[barrier.first_thread / kWarpSize].report(
        FindingKind::kBarrierDivergence, *barrier.first_op, barrier.first_thread % kWarpSize,
        "barrier " + std::to_string(i) + " waits for " + std::to_string(barrier.expected) +
            " threads, " + std::to_string(barrier.arrived) + " came; thread " +
            place_of(thread_index(exited)) + " had exited at PTX line " +
            std::to_string(exit.line));
    open(barrier);
    return true;
  }
  return false;
}

void Block::report_stuck() {
  const std::string places = where();
  for (Warp& warp : warps_) {
    uint32_t rest = warp.live;
    while (rest != 0) {
      const int lane = std::countr_zero(rest);
      const Op& op = warp.op_of(lane);
      warp.fail(FindingKind::kBarrierDivergence, op, lane,
                "waits for threads that never come; " + places);
      for_each_lane(rest, [&](int other) {
        if (&warp.op_of(other) == &op) rest &= ~(1u << other);
      });
    }
  }
}

std::string Block::where() const {
  // Warps at the same places together.
  std::string text = "block " + place_of(index) + ": ";
  int shown = 0;
  for (const Warp& warp : warps_) {
    if (warp.live == 0) continue;
    text += (shown++ == 0 ? "" : "; ") + warp.where();
  }
  const int exited = static_cast<int>(warps_.size()) - live_warps_;
  if (exited != 0) text += "; " + std::to_string(exited) + " warps have ended";
  return text;
}

void Block::report_endless() {
  for (Warp& warp : warps_) {
    if (warp.live == 0) continue;
    const int lane = std::countr_zero(warp.live);
    warp.fail(FindingKind::kDeadlock, warp.op_of(lane), lane,
              "the blocks run, but none ends; " + where());
    return;
  }
}

}  // namespace ptx_simulator
