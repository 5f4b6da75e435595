#include "machine/happens_before.h"

#include <algorithm>

namespace ptx_simulator {

namespace {

template <class Times>
void raise(Times& to, const Times& from) {
  for (size_t i = 0; i < to.size(); ++i) to[i] = std::max(to[i], from[i]);
}

}  // namespace

HappensBefore::HappensBefore() = default;

void HappensBefore::start(int threads) {
  threads_ = threads;
  warps_ = (threads + 31) / 32;
  // Nothing is ever to be waited for from warps that do not exist.
  for (Times& times : known_) std::fill(times.begin() + warps_, times.end(), UINT32_MAX);
  for (int warp = 0; warp < warps_; ++warp) update_floor(warp);
  update_common_floor();
}

uint32_t HappensBefore::existing_lanes(int warp) const {
  const int lanes = std::min(threads_ - warp * 32, 32);
  return lanes >= 32 ? UINT32_MAX : (uint32_t{1} << lanes) - 1;
}

void HappensBefore::update_floor(int warp) {
  // Of a warp that has ended, and all of whose accesses this one has seen, nothing is to come.
  for (uint32_t rest = ended_; rest != 0; rest &= rest - 1) {
    const int ended = std::countr_zero(rest);
    if (known_[warp][ended] >= last_[ended]) known_[warp][ended] = UINT32_MAX;
  }
  floor_[warp] = *std::min_element(known_[warp].begin(), known_[warp].end());
}

void HappensBefore::update_common_floor() {
  uint32_t least = UINT32_MAX;
  for (int warp = 0; warp < warps_; ++warp) {
    if ((ended_ >> warp & 1) == 0) least = std::min(least, floor_[warp]);
  }
  common_floor_ = least == UINT32_MAX ? 0 : least;
}

void HappensBefore::arrive(int barrier, int warp) {
  raise(arrived_[barrier], known_[warp]);
  arrived_[barrier][warp] = time_;
  ++time_;
}

void HappensBefore::barrier(int barrier, uint32_t syncing) {
  Times& all = arrived_[barrier];
  for (uint32_t rest = syncing; rest != 0; rest &= rest - 1) {
    const int warp = std::countr_zero(rest);
    raise(all, known_[warp]);
    all[warp] = time_;
  }
  for (uint32_t rest = syncing; rest != 0; rest &= rest - 1) {
    const int warp = std::countr_zero(rest);
    raise(known_[warp], all);
    update_floor(warp);
  }
  all.fill(0);
  update_common_floor();
  ++time_;
}

void HappensBefore::warp_barrier(int warp, uint32_t lanes) {
  const uint32_t existing = existing_lanes(warp);
  if ((lanes & existing) == existing) {
    known_[warp][warp] = time_;
    update_floor(warp);
    update_common_floor();
  } else {
    if (!lanes_differ(warp)) lanes_[warp] = std::make_unique<LaneMatrix>();
    LaneMatrix& matrix = *lanes_[warp];
    Times all{};
    for (uint32_t rest = lanes; rest != 0; rest &= rest - 1) {
      const int lane = std::countr_zero(rest);
      raise(all, matrix[lane]);
      all[lane] = time_;
    }
    for (uint32_t rest = lanes; rest != 0; rest &= rest - 1) matrix[std::countr_zero(rest)] = all;
  }
  ++time_;
}

void HappensBefore::exit(int warp, uint32_t lanes) {
  exited_[warp] |= lanes;
  if ((exited_[warp] & existing_lanes(warp)) == existing_lanes(warp)) {
    ended_ |= uint32_t{1} << warp;
    for (int other = 0; other < warps_; ++other) update_floor(other);
    update_common_floor();
  }
}

void HappensBefore::restart() {
  threads_ = 0;
  warps_ = 32;
  for (Times& times : known_) times.fill(time_);
  floor_.fill(time_);
  common_floor_ = time_;
  ++time_;
  exited_.fill(0);
  last_.fill(0);
  ended_ = 0;
  for (Times& times : arrived_) times.fill(0);
  for (auto& matrix : lanes_) matrix.reset();
}

void HappensBefore::forget() {
  time_ = 1;
  for (Times& times : known_) times.fill(0);
  for (Times& times : arrived_) times.fill(0);
  for (auto& matrix : lanes_) matrix.reset();
  last_.fill(0);
  floor_.fill(0);
  common_floor_ = 0;
  if (started()) start(threads_);
}

}  // namespace ptx_simulator
