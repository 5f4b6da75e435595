#include "machine/block_storage.h"

#include <cstring>
#include <deque>
#include <new>
#include <utility>

namespace ptx_simulator {

namespace {

constexpr size_t kMostSpareBytes = 64 << 20;  // on each host thread
constexpr size_t kShadowFactor = 8;           // shared memory and its shadow, to shared memory

}  // namespace

// The last ones given back, the oldest first.
class BlockStorage::Spares {
 public:
  static Spares& of_this_thread() {
    static thread_local Spares spares;
    return spares;
  }
  std::deque<BlockStorage> all;
  size_t bytes = 0;
};

BlockStorage::BlockStorage(uint32_t shared_bytes, size_t register_bytes)
    : shared_(std::make_unique<SharedMemory>(shared_bytes)),
      registers_(static_cast<std::byte*>(std::aligned_alloc(64, (register_bytes + 63) / 64 * 64))),
      register_bytes_(register_bytes) {
  if (registers_ == nullptr) throw std::bad_alloc();
}

size_t BlockStorage::bytes() const {
  return register_bytes_ + kShadowFactor * shared_->size_bytes();
}

BlockStorage BlockStorage::take(uint32_t shared_bytes, size_t register_bytes) {
  Spares& spares = Spares::of_this_thread();
  const auto find = [&] {
    for (size_t i = spares.all.size(); i-- > 0;) {
      const BlockStorage& spare = spares.all[i];
      if (spare.register_bytes_ == register_bytes && spare.shared_->size_bytes() == shared_bytes) {
        BlockStorage found = std::move(spares.all[i]);
        spares.all.erase(spares.all.begin() + static_cast<std::ptrdiff_t>(i));
        spares.bytes -= found.bytes();
        return found;
      }
    }
    return BlockStorage(shared_bytes, register_bytes);
  };
  BlockStorage storage = find();
  std::memset(storage.registers(), 0, register_bytes);
  return storage;
}

void BlockStorage::give_back(BlockStorage storage) {
  Spares& spares = Spares::of_this_thread();
  spares.bytes += storage.bytes();
  spares.all.push_back(std::move(storage));
  while (spares.bytes > kMostSpareBytes) {
    spares.bytes -= spares.all.front().bytes();
    spares.all.pop_front();
  }
}

}  // namespace ptx_simulator
