#include "machine/bank_conflicts.h"

#include <algorithm>
#include <array>
#include <bit>

namespace ptx_simulator {

namespace {

// Banks are looked at in units as wide as the access, as an aligned access of 8 or 16 bytes takes
// two or four neighbouring banks at once: 32, 16 or 8 units a wavefront, and as many lanes a group.
template <int kUnits, int kShift>
Wavefronts count(uint32_t mask, const uint32_t* addresses) {
  constexpr int kGroups = 32 / kUnits;
  constexpr uint32_t kGroupMask = kUnits == 32 ? UINT32_MAX : (uint32_t{1} << (kUnits % 32)) - 1;

  // Nearly always each lane of a group has a bank of its own, and then nothing else matters.
  std::array<std::array<uint32_t, kUnits>, kGroups> unit_in;
  std::array<uint32_t, kGroups> seen{};
  Wavefronts result;
  uint32_t distinct = 0;
  bool conflict = false;
  for (int g = 0; g < kGroups; ++g) {
    const uint32_t group = mask >> (g * kUnits) & kGroupMask;
    const uint32_t* of_group = addresses + g * kUnits;
    for (uint32_t rest = group; rest != 0; rest &= rest - 1) {
      const uint32_t unit = of_group[std::countr_zero(rest)] >> kShift;
      const uint32_t bank = unit % kUnits;
      if ((seen[g] >> bank & 1) == 0) {
        seen[g] |= uint32_t{1} << bank;
        unit_in[g][bank] = unit;
      } else if (unit_in[g][bank] != unit) {
        conflict = true;
      }
    }
    result.actual += group != 0;
    distinct += std::popcount(seen[g]);
  }
  if (!conflict) {
    // Groups that ask for the same as an earlier one.
    for (int g = 1; g < kGroups; ++g) {
      for (uint32_t rest = seen[g]; rest != 0; rest &= rest - 1) {
        const int bank = std::countr_zero(rest);
        for (int h = 0; h < g; ++h) {
          if ((seen[h] >> bank & 1) != 0 && unit_in[h][bank] == unit_in[g][bank]) {
            --distinct;
            break;
          }
        }
      }
    }
    result.ideal = (distinct + kUnits - 1) / kUnits;
    return result;
  }

  result.actual = 0;
  std::array<uint32_t, 32> all;
  int n_all = 0;
  for (int g = 0; g < kGroups; ++g) {
    std::array<uint32_t, kUnits> units;
    std::array<uint8_t, kUnits> in_bank{};
    int n = 0;
    uint32_t worst = 0;
    for (uint32_t rest = mask >> (g * kUnits) & kGroupMask; rest != 0; rest &= rest - 1) {
      const uint32_t unit = addresses[g * kUnits + std::countr_zero(rest)] >> kShift;
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

}  // namespace

Wavefronts count_wavefronts(uint32_t mask, const uint32_t* addresses, int width) {
  if (width == 16) return count<8, 4>(mask, addresses);
  if (width == 8) return count<16, 3>(mask, addresses);
  return count<32, 2>(mask, addresses);
}

}  // namespace ptx_simulator
