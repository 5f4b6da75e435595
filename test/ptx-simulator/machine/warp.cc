// How a warp steps: which of its lanes come next, and how they meet again.
#include "machine/warp.h"

#include <algorithm>
#include <cstdio>

#include "machine/launch_state.h"

namespace ptx_simulator {

namespace {

// Lanes that run apart from others of their warp get so many steps before the others come first for
// a while: they may be waiting for them. Long enough that loops with different trip counts nearly
// always meet again before.
constexpr int kMostDivergedSteps = 4096;
constexpr int kFavouredSteps = 1024;
constexpr int32_t kNobody = INT32_MAX;
constexpr uint32_t kNowhere = UINT32_MAX;

std::string hexadecimal(uint32_t lanes) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%08x", lanes);
  return text;
}

}  // namespace

Warp::Warp(Block& owner, int warp_index, std::byte* register_file)
    : block(owner),
      index(warp_index),
      registers(register_file),
      constants(owner.launch.program->constants.data()),
      ops_(owner.launch.program->ops.data()) {
  const auto& size = owner.launch.block;
  const int threads = static_cast<int>(size[0] * size[1] * size[2]);
  for (int lane = 0; lane < kWarpSize; ++lane) {
    if (thread(lane) < threads) exists |= 1u << lane;
    const std::array<uint32_t, 3> id = owner.thread_index(thread(lane));
    for (int i = 0; i < 3; ++i) thread_ids[i][lane] = id[i];
  }
}

void Warp::start(uint64_t seed) {
  random.seed(static_cast<uint32_t>(seed ^ (seed >> 32)));
  live = group_ = exists;
  waiting = synchronizing_ = favoured_ = 0;
  carry = 0;
  next_ = 0;
  meeting_ = kNobody;
  depth_ = depth_bits(0);
  ends_turn_ = others_first_ = false;
  favour_left_ = diverged_steps_ = 0;
}

void Warp::report(FindingKind kind, const Op& op, int lane, std::string text) {
  Finding finding;
  finding.kind = kind;
  finding.kernel = block.launch.program->name;
  finding.block = block.index;
  finding.thread = block.thread_index(thread(lane));
  finding.line = op.line;
  finding.source_line = op.source_line;
  finding.text = std::move(text);
  block.state.add(std::move(finding));
}

void Warp::fail(FindingKind kind, const Op& op, int lane, std::string text) {
  report(kind, op, lane, std::move(text));
  block.state.stop();
  scatter();  // so that run() asks gather(), which sees the stop
}

int Warp::run(int steps) {
  Counters& count = block.counters;
  int left = steps;
  while (left > 0) {
    if (next_ >= meeting_) [[unlikely]] {
      if (ends_turn_ || !gather()) break;
    }
    const Op& op = ops_[next_++];
    --left;
    uint32_t mask = group_;
    if (!op.guard.none()) {
      const uint32_t guard = predicate(op.guard);
      mask &= op.guard_negated ? ~guard : guard;
    }
    ++count.warp_instructions_of[static_cast<size_t>(op.kind)];
    count.thread_instructions += static_cast<uint64_t>(std::popcount(mask));
    if (mask != 0) op.execute(*this, op, mask);
  }
  ends_turn_ = false;
  const int executed = steps - left;
  count.warp_instructions += static_cast<uint64_t>(executed);

  if (favoured_ != 0) {
    favour_left_ -= executed;
    if (favour_left_ <= 0) {
      favoured_ = 0;
      scatter();
    }
  } else if (group_ == (live & ~waiting)) {
    diverged_steps_ = 0;
  } else {
    diverged_steps_ += executed;
    if (diverged_steps_ > kMostDivergedSteps) {
      others_first_ = true;
      scatter();
    }
  }
  return executed;
}

// The lanes of the group get their own position; gather() comes before the next step.
void Warp::scatter() {
  const uint32_t position = depth_ | static_cast<uint32_t>(next_);
  for_each_lane(group_, [&](int lane) { position_[lane] = position; });
  group_ = 0;
  meeting_ = -1;
}

// Chooses the lanes that step next: those at the smallest position. False if none can run.
bool Warp::gather() {
  scatter();
  if (block.state.stopped()) return false;
  uint32_t candidates = live & ~waiting;
  if ((candidates & favoured_) != 0) {
    candidates &= favoured_;
  } else {
    favoured_ = 0;
  }
  if (candidates == 0) return false;

  std::array<uint32_t, kWarpSize> key;
  const auto lanes_at = [&](uint32_t position) {
    uint32_t lanes = 0;
    for (int lane = 0; lane < kWarpSize; ++lane) {
      lanes |= static_cast<uint32_t>(key[lane] == position) << lane;
    }
    return lanes;
  };
  uint32_t lowest = kNowhere;
  for (int lane = 0; lane < kWarpSize; ++lane) {
    key[lane] = (candidates >> lane & 1) != 0 ? position_[lane] : kNowhere;
    lowest = std::min(lowest, key[lane]);
  }
  group_ = lanes_at(lowest);

  if (others_first_) {
    others_first_ = false;
    diverged_steps_ = 0;
    if (const uint32_t others = candidates & ~group_; others != 0) {
      // Any of them, and those that stand with it.
      lowest = key[nth_lane(others, static_cast<int>(random() % std::popcount(others)))];
      group_ = favoured_ = candidates = lanes_at(lowest);
      favour_left_ = kFavouredSteps;
    }
  }

  uint32_t next_lowest = kNowhere;
  for (int lane = 0; lane < kWarpSize; ++lane) {
    const bool other = ((candidates & ~group_) >> lane & 1) != 0;
    next_lowest = std::min(next_lowest, other ? key[lane] : kNowhere);
  }
  next_ = static_cast<int32_t>(lowest & kCounterMask);
  depth_ = lowest & ~kCounterMask;
  // Those in shallower calls are met on return.
  meeting_ = next_lowest != kNowhere && (next_lowest & ~kCounterMask) == depth_
                 ? static_cast<int32_t>(next_lowest & kCounterMask)
                 : kNobody;
  return true;
}

void Warp::call(const Op& op, uint32_t mask, int32_t target) {
  const size_t level = static_cast<size_t>(depth());
  if (level == kMostCallDepth) {
    fail(FindingKind::kIllegalInstruction, op, std::countr_zero(mask),
         "calls are nested deeper than " + std::to_string(kMostCallDepth));
    return;
  }
  const int32_t behind = next_;
  const uint32_t position = depth_bits(static_cast<int>(level) + 1) | static_cast<uint32_t>(target);
  scatter();
  if (returns_.size() <= level) returns_.resize(level + 1);
  for_each_lane(mask, [&](int lane) {
    returns_[level][lane] = behind;
    position_[lane] = position;
  });
}

void Warp::ret(const Op& op, uint32_t mask) {
  const int level = depth() - 1;
  if (level < 0) return exit(op, mask);
  scatter();
  for_each_lane(mask, [&](int lane) {
    position_[lane] = depth_bits(level) | static_cast<uint32_t>(returns_[level][lane]);
  });
}

void Warp::exit(const Op& op, uint32_t mask) {
  block.shared.threads_exit(*this, op, mask);
  scatter();
  live &= ~mask;
  // Who waited only for these lanes waits for nobody now.
  for (uint32_t rest = synchronizing_; rest != 0; rest &= synchronizing_ & (rest - 1)) {
    try_to_complete(std::countr_zero(rest));
  }
}

void Warp::yield() {
  others_first_ = ends_turn_ = true;
  scatter();
}

void Warp::wait(uint32_t lanes) {
  scatter();
  waiting |= lanes;
}

void Warp::release(uint32_t lanes) {
  scatter();
  waiting &= ~lanes;
}

void Warp::synchronize(const Op& op, uint32_t mask, uint32_t members, Meet meet,
                       Complete complete) {
  if ((members & exists) == mask) return complete(*this, op, mask);
  wait(mask);
  synchronizing_ |= mask;
  for_each_lane(mask, [&](int lane) { waits_[lane] = {members, meet, complete}; });
  try_to_complete(std::countr_zero(mask));
}

bool Warp::try_to_complete(int lane) {
  const Wait wait = waits_[lane];
  uint32_t there = 0;
  for_each_lane(synchronizing_, [&](int other) {
    const Wait& w = waits_[other];
    const bool same_place = wait.meet == Meet::kAnywhere || position_[other] == position_[lane];
    if (w.members == wait.members && w.complete == wait.complete && same_place)
      there |= 1u << other;
  });
  if ((wait.members & live & ~there) != 0) return false;

  const Op& op = op_of(lane);
  // An aligned barrier is counted by the block, which misses the threads that exited.
  if (const uint32_t exited = wait.members & exists & ~live;
      exited != 0 && wait.meet != Meet::kWarp) {
    const int first = std::countr_zero(exited);
    report(FindingKind::kBarrierDivergence, op, lane,
           "lanes " + hexadecimal(exited) + " of the member mask " + hexadecimal(wait.members) +
               " never come: lane " + std::to_string(first) + " exited at PTX line " +
               std::to_string(op_of(first).line));
  }
  synchronizing_ &= ~there;
  release(there);
  wait.complete(*this, op, there);
  return true;
}

const Op& Warp::op_of(int lane) const {
  const int32_t next =
      (group_ >> lane & 1) != 0 ? next_ : static_cast<int32_t>(position_[lane] & kCounterMask);
  return ops_[(live & ~waiting) >> lane & 1 ? next : next - 1];
}

bool Warp::give_up_alignment() {
  uint32_t aligned = 0;
  for_each_lane(synchronizing_, [&](int lane) {
    if (waits_[lane].meet == Meet::kWarp) aligned |= 1u << lane;
  });
  if (aligned == 0) return false;
  const int lane = std::countr_zero(aligned);
  uint32_t same_place = 0;
  for_each_lane(aligned, [&](int other) {
    if (position_[other] == position_[lane]) same_place |= 1u << other;
  });
  const Op& op = op_of(lane);
  const int missing = std::countr_zero(live & ~same_place);
  report(FindingKind::kBarrierDivergence, op, lane,
         "an aligned barrier is executed by lanes " + hexadecimal(same_place) + " of warp " +
             std::to_string(index) + " only; lane " + std::to_string(missing) +
             " waits at PTX line " + std::to_string(op_of(missing).line));
  synchronizing_ &= ~same_place;
  release(same_place);
  waits_[lane].complete(*this, op, same_place);
  return true;
}

std::string Warp::where() const {
  std::string text;
  uint32_t rest = live;
  while (rest != 0) {
    const int first = std::countr_zero(rest);
    const bool waits = (waiting >> first & 1) != 0;
    uint32_t lanes = 0;
    for_each_lane(rest, [&](int lane) {
      if (((waiting >> lane & 1) != 0) == waits && &op_of(lane) == &op_of(first)) {
        lanes |= 1u << lane;
      }
    });
    text += std::string(text.empty() ? "" : ", ") + "lanes " + hexadecimal(lanes) +
            (waits ? " wait at PTX line " : " run at PTX line ") +
            std::to_string(op_of(first).line);
    rest &= ~lanes;
  }
  return "warp " + std::to_string(index) + ": " + text;
}

}  // namespace ptx_simulator
