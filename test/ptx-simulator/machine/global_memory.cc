// One large reservation of addresses without memory behind them, from which allocations are cut in
// order. Nothing is cut twice, so a freed address stays recognisable for ever, and a wild access
// meets an unmapped gap rather than a neighbour.
#include "machine/global_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

namespace ptx_simulator {

namespace {

constexpr uint64_t kPage = 4096;
// An A100's allocations are aligned to at least 256 bytes; exactly 512 here, so that code which
// relies on more is found out.
constexpr uint64_t kAlignment = 512;
constexpr uint64_t kMostReserved = uint64_t{16} << 40;
constexpr uint64_t kLeastReserved = uint64_t{16} << 30;
// How much of a fresh allocation is filled: enough for whatever a kernel reads by mistake first,
// without touching the gigabytes of a weight buffer.
constexpr uint64_t kFilledAtBegin = uint64_t{1} << 20;
constexpr uint64_t kFilledAtEnd = kPage;
// Freed allocations that are remembered by name; each costs about 100 bytes in every snapshot.
constexpr size_t kMostFreed = 4096;

constexpr int kNoMemory = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;

uint64_t round_up(uint64_t bytes, uint64_t to) { return (bytes + to - 1) / to * to; }

}  // namespace

const Allocation* AllocationMap::nearest_below(uint64_t address) const {
  auto above = std::upper_bound(allocations_.begin(), allocations_.end(), address,
                                [](uint64_t a, const Allocation& b) { return a < b.begin; });
  return above == allocations_.begin() ? nullptr : &above[-1];
}

const Allocation* AllocationMap::nearest_above(uint64_t address) const {
  auto above = std::upper_bound(allocations_.begin(), allocations_.end(), address,
                                [](uint64_t a, const Allocation& b) { return a < b.begin; });
  return above == allocations_.end() ? nullptr : &*above;
}

const Allocation* AllocationMap::find(uint64_t address) const {
  const Allocation* below = nearest_below(address);
  return below != nullptr && address < below->end() ? below : nullptr;
}

GlobalMemory& GlobalMemory::instance() {
  // Never destroyed: launches may still run while the process ends.
  static GlobalMemory* memory = new GlobalMemory;
  return *memory;
}

GlobalMemory::GlobalMemory() {
  for (uint64_t size = kMostReserved; size >= kLeastReserved; size /= 2) {
    void* at = mmap(nullptr, size, PROT_NONE, kNoMemory, -1, 0);
    if (at == MAP_FAILED) continue;
    next_ = reinterpret_cast<uint64_t>(at);
    end_ = next_ + size;
    return;
  }
}

uint64_t GlobalMemory::allocate(uint64_t size_bytes, Allocation description) {
  std::lock_guard lock(mutex_);
  if (size_bytes == 0 || size_bytes > end_ - next_) return 0;
  const uint64_t mapped = round_up(kAlignment + size_bytes, kPage);
  if (mapped + kPage > end_ - next_) return 0;
  void* page = reinterpret_cast<void*>(next_);
  if (mmap(page, mapped, PROT_READ | PROT_WRITE, kNoMemory | MAP_FIXED, -1, 0) == MAP_FAILED) {
    return 0;
  }
  description.begin = next_ + kAlignment;
  description.size_bytes = size_bytes;
  description.is_live = true;
  if (description.name.empty()) {
    description.name = description.is_host ? "pinned " + std::to_string(++pinned_allocations_)
                                           : "allocation " + std::to_string(++device_allocations_);
  }
  // Freeing maps the addresses without memory again: they stay reserved.
  description.memory = std::shared_ptr<const void>(page, [mapped](const void* at) {
    mmap(const_cast<void*>(at), mapped, PROT_NONE, kNoMemory | MAP_FIXED, -1, 0);
  });
  auto* bytes = reinterpret_cast<uint8_t*>(description.begin);
  std::memset(bytes, 0xFF, std::min(size_bytes, kFilledAtBegin));
  const uint64_t tail = std::min(size_bytes, kFilledAtEnd);
  std::memset(bytes + size_bytes - tail, 0xFF, tail);

  next_ += mapped + kPage;
  snapshot_.reset();
  const uint64_t address = description.begin;
  allocations_.emplace(address, std::move(description));
  return address;
}

bool GlobalMemory::release(uint64_t address) {
  std::shared_ptr<const void> memory;  // unmapped after the lock is gone
  std::lock_guard lock(mutex_);
  auto found = allocations_.find(address);
  if (found == allocations_.end() || !found->second.is_live || !found->second.memory) return false;
  found->second.is_live = false;
  memory.swap(found->second.memory);
  freed_.emplace(serial_++, address);
  if (freed_.size() > kMostFreed) {
    allocations_.erase(freed_.begin()->second);
    freed_.erase(freed_.begin());
  }
  snapshot_.reset();
  return true;
}

bool GlobalMemory::register_host(uint64_t address, uint64_t size_bytes) {
  std::lock_guard lock(mutex_);
  if (size_bytes == 0 || address + size_bytes < address) return false;
  auto above = allocations_.lower_bound(address);
  if (above != allocations_.end() && above->second.begin < address + size_bytes) return false;
  if (above != allocations_.begin() && std::prev(above)->second.end() > address) return false;
  Allocation range;
  range.begin = address;
  range.size_bytes = size_bytes;
  range.is_host = true;
  range.name = "registered memory " + std::to_string(++registered_ranges_);
  allocations_.emplace(address, std::move(range));
  snapshot_.reset();
  return true;
}

bool GlobalMemory::unregister_host(uint64_t address) {
  std::lock_guard lock(mutex_);
  auto found = allocations_.find(address);
  // Memory of our own is released, not unregistered.
  if (found == allocations_.end() || !found->second.is_live || found->second.memory) return false;
  allocations_.erase(found);
  snapshot_.reset();
  return true;
}

std::shared_ptr<const AllocationMap> GlobalMemory::snapshot() const {
  std::lock_guard lock(mutex_);
  if (snapshot_ == nullptr) {
    std::vector<Allocation> all;
    all.reserve(allocations_.size());
    for (const auto& [begin, allocation] : allocations_) all.push_back(allocation);
    snapshot_ = std::make_shared<const AllocationMap>(std::move(all));
  }
  return snapshot_;
}

uint64_t GlobalMemory::live_bytes(int device) const {
  std::lock_guard lock(mutex_);
  uint64_t sum = 0;
  for (const auto& [begin, a] : allocations_) {
    if (a.is_live && !a.is_host && a.device == device) sum += a.size_bytes;
  }
  return sum;
}

size_t GlobalMemory::live_allocations() const {
  std::lock_guard lock(mutex_);
  return std::count_if(allocations_.begin(), allocations_.end(), [](const auto& entry) {
    return entry.second.is_live && !entry.second.is_variable;
  });
}

}  // namespace ptx_simulator
