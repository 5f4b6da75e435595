// Everything that a device address can point to: device memory, pinned host memory, and the global
// variables of modules. Addresses are host addresses, so that one space serves both (as unified
// addressing does); none is given out twice, so that a use after free is always seen.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace ptx_simulator {

// Windows of generic addresses that stand for the shared and local memory of whoever uses them. No
// host address lies there.
inline constexpr uint64_t kSharedWindow = uint64_t{1} << 56;
inline constexpr uint64_t kLocalWindow = uint64_t{2} << 56;
inline constexpr uint64_t kWindowBytes = uint64_t{1} << 32;

struct Allocation {
  uint64_t begin = 0;
  uint64_t size_bytes = 0;
  bool is_host = false;      // pinned
  bool is_constant = false;  // .const variables
  bool is_variable = false;  // .global and .const variables of a module
  bool is_live = true;
  int device = 0;
  std::string name;  // "variable table"; if empty, allocate() makes it "allocation 7" or "pinned 2"
  // Held by every snapshot, so that memory freed while a launch runs stays readable for it.
  std::shared_ptr<const void> memory;
  uint64_t end() const { return begin + size_bytes; }
};

// The allocations at one moment, freed ones included, ordered by address. Launches look addresses
// up in the snapshot that they began with.
class AllocationMap {
 public:
  explicit AllocationMap(std::vector<Allocation> allocations)
      : allocations_(std::move(allocations)) {}
  // The allocation, live or freed, that holds `address`, or null.
  const Allocation* find(uint64_t address) const;
  // The nearest one that begins at or below `address`, for messages; or null.
  const Allocation* nearest_below(uint64_t address) const;
  // The nearest one that begins above it, or null.
  const Allocation* nearest_above(uint64_t address) const;

 private:
  std::vector<Allocation> allocations_;
};

// The live allocations that a block used last: spares the search in nearly every access.
class AllocationCache {
 public:
  // One that holds all of [first, last], or null.
  const Allocation* find(uint64_t first, uint64_t last) const {
    for (const Allocation* a : recent_) {
      if (a != nullptr && first >= a->begin && last < a->end() && first <= last) return a;
    }
    return nullptr;
  }
  void add(const Allocation* allocation) { recent_[next_++ % recent_.size()] = allocation; }

 private:
  std::array<const Allocation*, 4> recent_{};
  uint32_t next_ = 0;
};

// All devices of the process together. Thread-safe.
class GlobalMemory {
 public:
  static GlobalMemory& instance();

  // Addresses are odd multiples of 512. Memory is zero-filled lazily by the kernel of the operating
  // system, but a caller that relies on that is wrong on a GPU: the first bytes (and the last) hold
  // 0xFF, which is a NaN in every float format. Returns 0 if the machine has no memory left.
  uint64_t allocate(uint64_t size_bytes, Allocation description);
  // False if no live allocation begins there. The memory is given back when no snapshot holds it
  // any more, the addresses never.
  bool release(uint64_t address);
  // Memory of the host's own (cuMemHostRegister); forgotten, not freed, by unregister_host. False
  // if some of it is registered already.
  bool register_host(uint64_t address, uint64_t size_bytes);
  bool unregister_host(uint64_t address);

  std::shared_ptr<const AllocationMap> snapshot() const;
  // Bytes of live device allocations, module variables included.
  uint64_t live_bytes(int device) const;
  // How many device and pinned allocations are live, and registered ranges (module variables
  // apart): for leak tests.
  size_t live_allocations() const;

 private:
  GlobalMemory();

  mutable std::mutex mutex_;
  uint64_t next_ = 0;  // addresses from here to end_ were never given out
  uint64_t end_ = 0;
  std::map<uint64_t, Allocation> allocations_;  // by address, freed ones included
  std::map<uint64_t, uint64_t> freed_;          // when -> address: the oldest are forgotten
  uint64_t serial_ = 0;
  int device_allocations_ = 0;  // ever made, for their names
  int pinned_allocations_ = 0;
  int registered_ranges_ = 0;
  mutable std::shared_ptr<const AllocationMap> snapshot_;  // null after a change
};

}  // namespace ptx_simulator
