// The search for an int4 group's scale and zero point with the least sum of squared errors,
// starting from round-to-nearest (choose_codes of quantize.h), which it replaces only by what is
// better.
//
// Two looks at the weights, 8 scales at a time, one to a vector lane:
//   1. a coarse grid of 8 scales with 2 ranges of codes each. Rounding the weights with one of them
//      gives codes q, and the best scale for these codes is sum(x q) / sum(q q); what it takes off
//      the error is sum(x q)^2 / sum(q q), so that two sums tell the best of the 16.
//   2. the true errors of that scale in f16, of 6 beside it, and of round-to-nearest.
// Every sum is one chain over the weights in ascending order, without contraction: all tables
// choose the same. How near this comes to trying every scale: docs/weight-formats.md.
#pragma once

#include "cpu/quantize.h"

namespace altiplano::cpu {
namespace {

constexpr int kLanes = 8;
constexpr float kRound = 0x1.8p23f;  // (v + kRound) - kRound rounds to nearest even, |v| <= 2^22

// What the first look tries: q = clamp(round(x * inverse), low, high), for two ranges of codes.
struct Int4Grid {
  float inverse[kLanes];
  float low[2][kLanes], high[2][kLanes];
};

// What it finds: the candidate [side * kLanes + lane] that takes most off the error, of equals the
// first, and the best scale for its codes. -1 if none takes anything off: when a weight is NaN, and
// all sums with it, or when weights are so small that their squares are 0.
struct Int4Fit {
  int candidate;
  float scale;
};

// What the second look tries. Number 0 is round-to-nearest.
struct Int4Trials {
  uint32_t bits[kLanes];  // of the scale in f16
  float scale[kLanes], inverse[kLanes];
  float low[kLanes], high[kLanes];
};

// The largest f16 marks groups that hold larger weights than int4 can (RowConverter refuses them);
// they stay as they are. So do groups of zeros.
inline bool worth_a_search(const GroupCodes& nearest) {
  const int magnitude = nearest.scale & 0x7fff;
  return magnitude != 0 && magnitude != 0x7bff;
}

// low <= 0 <= high as for choose_codes. Hardly any group of normal or heavier-tailed numbers has
// its best scale beyond the ends of the grids.
inline Int4Grid int4_grid(WeightFormat format, float low, float high) {
  Int4Grid grid;
  if (format.zero_points) {
    // The range spans 13.5 to 17 steps. What does not fit into 15 is cut off at both ends alike,
    // and 0 lies between two codes: both zero points are tried.
    const float inverse_range = 1.f / (high - low);
    for (int i = 0; i < kLanes; ++i) {
      grid.inverse[i] = (13.5f + 0.5f * static_cast<float>(i)) * inverse_range;
    }
    for (int side = 0; side < 2; ++side) {
      for (int i = 0; i < kLanes; ++i) {
        // 0.5 steps more on the range are 0.25 more at either end.
        const float cut = -0.75f + 0.25f * static_cast<float>(i) + (side == 0 ? 0.5f : -0.5f);
        // minus the zero point
        float least = ((low * grid.inverse[i] + cut) + kRound) - kRound;
        least = least < 0.f ? least : 0.f;
        least = least > -15.f ? least : -15.f;
        grid.low[side][i] = least;
        grid.high[side][i] = least + 15.f;
      }
    }
    return grid;
  }
  // The largest magnitude is 6.5 to 10 steps away from 0, on the side of the codes that reaches to
  // -8 (as round-to-nearest has it), or on the side that reaches to 7: then with the other sign of
  // the scale, and here, to share the rounding, with the signs of all codes turned.
  const float inverse_extreme = -1.f / (-low > high ? low : high);
  for (int i = 0; i < kLanes; ++i) {
    grid.inverse[i] = (6.5f + 0.5f * static_cast<float>(i)) * inverse_extreme;
    grid.low[0][i] = -8.f;
    grid.high[0][i] = 7.f;
    grid.low[1][i] = -7.f;
    grid.high[1][i] = 8.f;
  }
  return grid;
}

// fit.candidate >= 0
inline Int4Trials int4_trials(WeightFormat format, const GroupCodes& nearest, const Int4Grid& grid,
                              const Int4Fit& fit) {
  const int side = fit.candidate / kLanes, lane = fit.candidate % kLanes;
  const bool turned = !format.zero_points && side == 1;
  const float low = turned ? -8.f : grid.low[side][lane];
  const float high = turned ? 7.f : grid.high[side][lane];
  const uint32_t center = f32_to_f16_one(turned ? -fit.scale : fit.scale);
  const uint32_t sign = center & 0x8000;
  const int magnitude = static_cast<int>(center & 0x7fff);
  Int4Trials trials;
  for (int i = 0; i < kLanes; ++i) {
    // Neighbours are 12 units in the last place apart: 0.6 % to 1.2 % of the scale.
    int near = magnitude + 12 * (i - kLanes / 2);
    near = near > 1 ? near : 1;
    near = near < 0x7bfe ? near : 0x7bfe;
    trials.bits[i] = static_cast<uint32_t>(near) | sign;
    trials.scale[i] = float_of(static_cast<uint32_t>(near) << 13 | sign << 16) * 0x1p112f;
    trials.low[i] = low;
    trials.high[i] = high;
  }
  trials.bits[0] = nearest.scale;
  trials.scale[0] = f16_to_f32_one(nearest.scale);
  trials.low[0] = nearest.low;
  trials.high[0] = nearest.high;
  for (int i = 0; i < kLanes; ++i) trials.inverse[i] = 1.f / trials.scale[i];
  return trials;
}

inline GroupCodes codes_of_trial(const Int4Trials& trials, int i) {
  return {static_cast<uint16_t>(trials.bits[i]), trials.inverse[i], trials.low[i], trials.high[i],
          static_cast<int>(-trials.low[i])};
}

// The codes of a group: x [n] with its least and greatest weight as for choose_codes. The tables
// give the two looks: which candidate of the grid is best, and which trial has the least error, of
// equals the first.
template <Int4Fit (*best_fit)(const Int4Grid& grid, const float* x, int64_t n),
          int (*least_error)(const Int4Trials& trials, const float* x, int64_t n)>
inline GroupCodes search_int4(WeightFormat format, const float* x, int64_t n, float low,
                              float high) {
  const GroupCodes nearest = choose_codes(format, low, high);
  if (!worth_a_search(nearest)) return nearest;
  const Int4Grid grid = int4_grid(format, low, high);
  const Int4Fit fit = best_fit(grid, x, n);
  if (fit.candidate < 0) return nearest;
  const Int4Trials trials = int4_trials(format, nearest, grid, fit);
  return codes_of_trial(trials, least_error(trials, x, n));
}

}  // namespace
}  // namespace altiplano::cpu
