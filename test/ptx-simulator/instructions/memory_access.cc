#include "instructions/memory_access.h"

#include <algorithm>
#include <cstdio>
#include <string>

namespace ptx_simulator {

namespace {

// No process has memory there: an address that small is an offset from a null pointer.
constexpr uint64_t kNullPage = 65536;

std::string hexadecimal(uint64_t address) {
  char text[24];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(address));
  return text;
}

// "4,096 bytes"
std::string in_bytes(uint64_t n) {
  const std::string digits = std::to_string(n);
  std::string text;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text += n == 1 ? " byte" : " bytes";
}

std::string described(const Allocation& a) { return a.name + " (" + in_bytes(a.size_bytes) + ")"; }

bool is_write(AccessKind kind) {
  return kind != AccessKind::kRead && kind != AccessKind::kStrongRead;
}

void fail_misaligned(Warp& warp, const Op& op, int lane, uint64_t address, const char* space,
                     int bytes) {
  warp.fail(FindingKind::kMisaligned, op, lane,
            in_bytes(bytes) + " at " + space + hexadecimal(address) +
                ", which is not a multiple of " + std::to_string(bytes));
}

// Says why [address, address + bytes) is not in a live allocation.
void fail_unmapped(Warp& warp, const Op& op, int lane, uint64_t address, int bytes) {
  const AllocationMap& map = *warp.block.launch.allocations;
  const std::string access = in_bytes(bytes) + " at " + hexadecimal(address);
  const std::string are = bytes == 1 ? " is " : " are ";
  const Allocation* in = map.find(address);
  if (in == nullptr && address < kNullPage) {
    return warp.fail(FindingKind::kOutOfBounds, op, lane, access + ": a null pointer");
  }
  if (in != nullptr && !in->is_live) {
    return warp.fail(FindingKind::kUseAfterFree, op, lane,
                     access + are + "at byte " + std::to_string(address - in->begin) + " of " +
                         described(*in) + ", which was freed");
  }
  std::string where = are + "in no allocation";
  if (in != nullptr) {
    where = " cross the end of " + described(*in) + ", of which " + in_bytes(in->end() - address) +
            " are left there";
  } else {
    const Allocation* below = map.nearest_below(address);
    const Allocation* above = map.nearest_above(address);
    constexpr uint64_t kNear = uint64_t{1} << 32;
    const uint64_t behind = below != nullptr ? address - below->end() : kNear;
    const uint64_t before = above != nullptr ? above->begin - address : kNear;
    if (behind < kNear && behind <= before) {
      where = are + in_bytes(behind) + " behind the end of " + described(*below);
    } else if (before < kNear) {
      where = are + in_bytes(before) + " before the beginning of " + described(*above);
    }
  }
  warp.fail(FindingKind::kOutOfBounds, op, lane, access + where);
}

// Lane by lane, where the quick check of all together did not succeed.
bool check_global_lanes(Warp& warp, const Op& op, uint32_t mask, const Addresses& addresses,
                        int bytes, int alignment, AccessKind kind) {
  AllocationCache& cache = warp.block.allocation_cache;
  for (uint32_t rest = mask; rest != 0; rest &= rest - 1) {
    const int lane = std::countr_zero(rest);
    const uint64_t address = addresses[lane];
    if (address % alignment != 0) {
      fail_misaligned(warp, op, lane, address, "", alignment);
      return false;
    }
    const Allocation* a = cache.find(address, address + bytes - 1);
    if (a == nullptr) {
      a = warp.block.launch.allocations->find(address);
      if (a == nullptr || !a->is_live || a->end() - address < static_cast<uint64_t>(bytes)) {
        fail_unmapped(warp, op, lane, address, bytes);
        return false;
      }
      cache.add(a);
    }
    if (a->is_constant && is_write(kind)) {
      warp.fail(FindingKind::kIllegalInstruction, op, lane,
                in_bytes(bytes) + " at " + hexadecimal(address) + " are written, but " +
                    described(*a) + " is constant");
      return false;
    }
  }
  return true;
}

struct Range {
  uint64_t first, last, all_bits;
};

// Inactive lanes have a copy of an active one's address.
Range range_of(const Addresses& addresses) {
  Range range{addresses[0], addresses[0], 0};
  for (const uint64_t address : addresses) {
    range.first = std::min(range.first, address);
    range.last = std::max(range.last, address);
    range.all_bits |= address;
  }
  return range;
}

bool locate_global(Warp& warp, const Op& op, uint32_t mask, const Addresses& addresses, int bytes,
                   AccessKind kind, Pointers& pointers) {
  if (!check_global(warp, op, mask, addresses, bytes, bytes, kind)) return false;
  const uint32_t sectors = count_sectors(addresses);
  const uint32_t moved = std::popcount(mask) * bytes;
  Counters& counters = warp.counters();
  if (!is_write(kind) || kind == AccessKind::kAtomic) {
    counters.global_read_bytes += moved;
    counters.global_read_sectors += sectors;
  }
  if (is_write(kind)) {
    counters.global_write_bytes += moved;
    counters.global_write_sectors += sectors;
  }
  for_each_lane(mask,
                [&](int lane) { pointers[lane] = reinterpret_cast<uint8_t*>(addresses[lane]); });
  return true;
}

bool locate_constant(Warp& warp, const Op& op, uint32_t mask, const Addresses& addresses, int bytes,
                     AccessKind kind, Pointers& pointers) {
  if (!check_global(warp, op, mask, addresses, bytes, bytes, kind)) return false;
  for_each_lane(mask,
                [&](int lane) { pointers[lane] = reinterpret_cast<uint8_t*>(addresses[lane]); });
  return true;
}

bool locate_shared(Warp& warp, const Op& op, uint32_t mask, const Addresses& addresses, int bytes,
                   AccessKind kind, const uint8_t* values, Pointers& pointers) {
  if (!check_shared(warp, op, mask, addresses, bytes)) return false;
  SharedMemory& shared = warp.block.shared;
  std::array<uint32_t, kWarpSize> offsets;
  for (int lane = 0; lane < kWarpSize; ++lane) {
    offsets[lane] = static_cast<uint32_t>(addresses[lane]);
  }
  for_each_lane(mask, [&](int lane) { pointers[lane] = shared.bytes() + offsets[lane]; });
  shared.access(warp, op, mask, offsets.data(), bytes, kind, values);
  return true;
}

// Local memory of a thread, and the parameters of the kernel.
bool check_small(Warp& warp, const Op& op, uint32_t mask, const Addresses& addresses, int bytes,
                 uint64_t size, const char* space) {
  for (uint32_t rest = mask; rest != 0; rest &= rest - 1) {
    const int lane = std::countr_zero(rest);
    const uint64_t address = addresses[lane];
    if (address % bytes != 0) {
      fail_misaligned(warp, op, lane, address, space, bytes);
      return false;
    }
    if (address > size || size - address < static_cast<uint64_t>(bytes)) {
      warp.fail(FindingKind::kOutOfBounds, op, lane,
                in_bytes(bytes) + " at " + space + hexadecimal(address) + " are not in its " +
                    in_bytes(size));
      return false;
    }
  }
  return true;
}

bool locate_local(Warp& warp, const Op& op, uint32_t mask, const Addresses& addresses, int bytes,
                  Pointers& pointers) {
  const uint64_t size = warp.block.launch.program->local_bytes;
  if (!check_small(warp, op, mask, addresses, bytes, size, "local address ")) return false;
  warp.counters().local_bytes += std::popcount(mask) * bytes;
  auto* all = reinterpret_cast<uint8_t*>(warp.block.local.data());
  for_each_lane(
      mask, [&](int lane) { pointers[lane] = all + warp.thread(lane) * size + addresses[lane]; });
  return true;
}

bool locate_parameter(Warp& warp, const Op& op, uint32_t mask, const Addresses& addresses,
                      int bytes, AccessKind kind, Pointers& pointers) {
  const std::vector<std::byte>& parameters = warp.block.launch.parameters;
  if (is_write(kind)) {
    warp.fail(FindingKind::kIllegalInstruction, op, std::countr_zero(mask),
              "parameters of a kernel are read-only");
    return false;
  }
  if (!check_small(warp, op, mask, addresses, bytes, parameters.size(), "parameter address ")) {
    return false;
  }
  auto* all = const_cast<uint8_t*>(reinterpret_cast<const uint8_t*>(parameters.data()));
  for_each_lane(mask, [&](int lane) { pointers[lane] = all + addresses[lane]; });
  return true;
}

// Each lane's address says which space it means.
bool locate_generic(Warp& warp, const Op& op, uint32_t mask, const Addresses& addresses, int bytes,
                    AccessKind kind, const uint8_t* values, Pointers& pointers) {
  uint32_t in_shared = 0, in_local = 0;
  for (int lane = 0; lane < kWarpSize; ++lane) {
    const uint64_t window = addresses[lane] & ~(kWindowBytes - 1);
    in_shared |= static_cast<uint32_t>(window == kSharedWindow) << lane;
    in_local |= static_cast<uint32_t>(window == kLocalWindow) << lane;
  }
  in_shared &= mask;
  in_local &= mask;
  const uint32_t in_global = mask & ~in_shared & ~in_local;
  if (in_global == mask) return locate_global(warp, op, mask, addresses, bytes, kind, pointers);
  // The lanes of one space, with the addresses of that.
  const auto part = [&](uint32_t lanes, uint64_t window) {
    Addresses result;
    const uint64_t other = addresses[std::countr_zero(lanes)] - window;
    for (int lane = 0; lane < kWarpSize; ++lane) {
      result[lane] = (lanes >> lane & 1) != 0 ? addresses[lane] - window : other;
    }
    return result;
  };
  return (in_global == 0 ||
          locate_global(warp, op, in_global, part(in_global, 0), bytes, kind, pointers)) &&
         (in_shared == 0 || locate_shared(warp, op, in_shared, part(in_shared, kSharedWindow),
                                          bytes, kind, values, pointers)) &&
         (in_local == 0 ||
          locate_local(warp, op, in_local, part(in_local, kLocalWindow), bytes, pointers));
}

}  // namespace

Addresses lane_addresses(const Warp& warp, Slot base, int64_t offset, uint32_t mask) {
  Addresses addresses;
  if (base.bytes == 8) {
    const uint64_t* values = warp.values<uint64_t>(base);
    for (int lane = 0; lane < kWarpSize; ++lane) addresses[lane] = values[lane] + offset;
  } else {
    const uint32_t* values = warp.values<uint32_t>(base);
    const auto offset32 = static_cast<uint32_t>(offset);
    for (int lane = 0; lane < kWarpSize; ++lane) addresses[lane] = values[lane] + offset32;
  }
  if (mask != UINT32_MAX) {
    const uint64_t other = addresses[std::countr_zero(mask)];
    for (int lane = 0; lane < kWarpSize; ++lane) {
      addresses[lane] = (mask >> lane & 1) != 0 ? addresses[lane] : other;
    }
  }
  return addresses;
}

bool check_global(Warp& warp, const Op& op, uint32_t mask, const Addresses& addresses, int bytes,
                  int alignment, AccessKind kind) {
  const Range range = range_of(addresses);
  const Allocation* a = warp.block.allocation_cache.find(range.first, range.last + bytes - 1);
  if (a != nullptr && range.all_bits % alignment == 0 && !a->is_constant) [[likely]] {
    return true;
  }
  return check_global_lanes(warp, op, mask, addresses, bytes, alignment, kind);
}

bool check_shared(Warp& warp, const Op& op, uint32_t mask, const Addresses& addresses, int bytes) {
  const Range range = range_of(addresses);
  const uint64_t size = warp.block.shared.size_bytes();
  if (range.all_bits % bytes == 0 && range.last < size && size - range.last >= size_t(bytes))
      [[likely]] {
    return true;
  }
  for (uint32_t rest = mask; rest != 0; rest &= rest - 1) {
    const int lane = std::countr_zero(rest);
    const uint64_t address = addresses[lane];
    if (address % bytes != 0) {
      fail_misaligned(warp, op, lane, address, "shared address ", bytes);
      return false;
    }
    if (address >= size || size - address < static_cast<uint64_t>(bytes)) {
      warp.fail(FindingKind::kOutOfBounds, op, lane,
                in_bytes(bytes) + " at shared address " + hexadecimal(address) +
                    " are not in the block's " + in_bytes(size) + " of shared memory");
      return false;
    }
  }
  return true;
}

bool locate(Warp& warp, const Op& op, uint32_t mask, const Addresses& addresses, StateSpace space,
            int bytes, AccessKind kind, const uint8_t* values, Pointers& pointers) {
  switch (space) {
    case StateSpace::kGlobal:
      return locate_global(warp, op, mask, addresses, bytes, kind, pointers);
    case StateSpace::kShared:
      return locate_shared(warp, op, mask, addresses, bytes, kind, values, pointers);
    case StateSpace::kLocal:
      return locate_local(warp, op, mask, addresses, bytes, pointers);
    case StateSpace::kConst:
      return locate_constant(warp, op, mask, addresses, bytes, kind, pointers);
    case StateSpace::kParam:
      return locate_parameter(warp, op, mask, addresses, bytes, kind, pointers);
    case StateSpace::kGeneric:
      return locate_generic(warp, op, mask, addresses, bytes, kind, values, pointers);
  }
  return false;
}

uint32_t count_sectors(const Addresses& addresses) {
  std::array<uint64_t, kWarpSize> sectors;
  uint32_t n = 0;
  bool ascending = true;
  uint64_t last = UINT64_MAX;
  for (const uint64_t address : addresses) {
    const uint64_t sector = address / 32;
    ascending &= sector >= last || n == 0;
    sectors[n] = sector;
    n += sector != last;
    last = sector;
  }
  if (ascending) return n;
  // Runs of equal sectors, out of order: count those that did not appear before.
  uint32_t distinct = 0;
  for (uint32_t i = 0; i < n; ++i) {
    bool seen = false;
    for (uint32_t j = 0; j < i; ++j) seen |= sectors[j] == sectors[i];
    distinct += !seen;
  }
  return distinct;
}

bool has_cache_policy(const Decoder& decoder) {
  const std::vector<std::string>& modifiers = decoder.instruction().modifiers;
  return std::find(modifiers.begin(), modifiers.end(), "L2::cache_hint") != modifiers.end();
}

void take_cache_policy(Decoder& decoder, size_t index) {
  if (has_cache_policy(decoder)) decoder.source(index, Type::kB64);
}

}  // namespace ptx_simulator
