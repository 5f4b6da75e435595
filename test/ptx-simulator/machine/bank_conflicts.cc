#include "machine/bank_conflicts.h"

#include <algorithm>
#include <array>

namespace ptx_simulator {

namespace {

// Banks are looked at in units as wide as the access, as an aligned access of 8 or 16 bytes takes
// two or four neighbouring banks at once: 32, 16 or 8 units a wavefront, and as many lanes a group.

template <int kUnits, int kShift>
Wavefronts count_conflicts(uint32_t mask, const uint32_t* addresses) {
  Wavefronts result;
  std::array<uint32_t, 32> all;
  int n_all = 0;
  for (int g = 0; g < 32; g += kUnits) {
    std::array<uint32_t, kUnits> units;
    std::array<uint8_t, kUnits> in_bank{};
    int n = 0;
    uint32_t worst = 0;
    for (int lane = g; lane < g + kUnits; ++lane) {
      if ((mask >> lane & 1) == 0) continue;
      const uint32_t unit = addresses[lane] >> kShift;
      if (std::find(units.begin(), units.begin() + n, unit) != units.begin() + n) continue;
      units[n++] = unit;
      worst = std::max<uint32_t>(worst, ++in_bank[unit % kUnits]);
      if (std::find(all.begin(), all.begin() + n_all, unit) == all.begin() + n_all) {
        all[n_all++] = unit;
      }
    }
    result.actual += worst;
  }
  result.ideal = (n_all + kUnits - 1) / kUnits;
  return result;
}

template <int kUnits, int kShift>
Wavefronts count(uint32_t mask, const uint32_t* addresses) {
  constexpr int kGroups = 32 / kUnits;
  // Nearly always all lanes are active and each of a group has a bank of its own.
  uint32_t seen = 0;
  for (int lane = 0; lane < 32; ++lane) {
    seen |= uint32_t{1} << (lane / kUnits * kUnits + (addresses[lane] >> kShift) % kUnits);
  }
  if (mask != UINT32_MAX || seen != UINT32_MAX)
    return count_conflicts<kUnits, kShift>(mask, addresses);
  if constexpr (kGroups == 1) return {1, 1};
  // What the groups ask for, by bank: some may ask for the same as an earlier one.
  std::array<std::array<uint32_t, kUnits>, kGroups> unit_in;
  for (int lane = 0; lane < 32; ++lane) {
    const uint32_t unit = addresses[lane] >> kShift;
    unit_in[lane / kUnits][unit % kUnits] = unit;
  }
  uint32_t distinct = kUnits;
  for (int g = 1; g < kGroups; ++g) {
    uint32_t again[kUnits] = {};
    for (int h = 0; h < g; ++h) {
      for (int bank = 0; bank < kUnits; ++bank) again[bank] |= unit_in[h][bank] == unit_in[g][bank];
    }
    for (const uint32_t repeated : again) distinct += 1 - repeated;
  }
  return {kGroups, (distinct + kUnits - 1) / kUnits};
}

}  // namespace

Wavefronts count_wavefronts(uint32_t mask, const uint32_t* addresses, int width) {
  if (width == 16) return count<8, 4>(mask, addresses);
  if (width == 8) return count<16, 3>(mask, addresses);
  return count<32, 2>(mask, addresses);
}

}  // namespace ptx_simulator
