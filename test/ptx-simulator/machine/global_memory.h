// Everything that a device address can point to: device memory, pinned host memory, and the global
// variables of modules. Addresses are host addresses, so that one space serves both (as unified
// addressing does); none is given out twice, so that a use after free is always seen.
#pragma once

#include <cstddef>
#include <cstdint>
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
  bool is_live = true;
  int device = 0;
  std::string name;  // "allocation 7", "pinned 2", "variable table"
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

 private:
  std::vector<Allocation> allocations_;
};

// All devices of the process together. Thread-safe.
class GlobalMemory {
 public:
  static GlobalMemory& instance();

  // Addresses are multiples of 512. Memory is zero-filled lazily by the kernel of the operating
  // system, but a caller that relies on that is wrong on a GPU: the first bytes hold a pattern.
  // Returns 0 if the machine has no memory left.
  uint64_t allocate(uint64_t size_bytes, Allocation description);
  // False if no live allocation begins there. The memory is given back, the addresses are not.
  bool release(uint64_t address);
  // Memory of the host's own (cuMemHostRegister); forgotten, not freed, by unregister_host.
  void register_host(uint64_t address, uint64_t size_bytes);
  bool unregister_host(uint64_t address);

  std::shared_ptr<const AllocationMap> snapshot() const;
  // Bytes of live device allocations.
  uint64_t live_bytes(int device) const;
  // How many device and pinned allocations are live (module variables apart): for leak tests.
  size_t live_allocations() const;
};

}  // namespace ptx_simulator
