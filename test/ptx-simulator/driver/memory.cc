#include "driver/memory.h"

#include <algorithm>

#include "machine/global_memory.h"

namespace ptx_simulator::driver {

uint64_t allocate(Call& call, size_t bytes, Memory::Kind kind, unsigned flags,
                  std::shared_ptr<MemoryPool> pool) {
  Driver& state = call.state;
  require(bytes > 0, "nothing to allocate");
  require(!state.settings.allocations.hit(), CUDA_ERROR_OUT_OF_MEMORY, "injected fault");
  const bool is_host = kind == Memory::Kind::kPinned;
  GlobalMemory& memory = GlobalMemory::instance();
  const int device = call.context->device;
  if (!is_host) {
    const uint64_t used = memory.live_bytes(device);
    const uint64_t total = state.settings.memory_bytes;
    require(used <= total && bytes <= total - used, CUDA_ERROR_OUT_OF_MEMORY,
            "the device has no memory left");
  }
  if (pool != nullptr && pool->max_bytes != 0)
    require(bytes <= pool->max_bytes - std::min(pool->max_bytes, pool->used_bytes),
            CUDA_ERROR_OUT_OF_MEMORY, "the pool has no memory left");
  Memory entry;
  entry.context = call.context;
  entry.size_bytes = bytes;
  entry.flags = flags;
  entry.number = state.next_id++;
  entry.kind = kind;
  entry.pool = std::move(pool);
  Allocation description;
  description.is_host = is_host;
  description.device = device;
  description.name = (is_host ? "pinned " : "allocation ") + std::to_string(entry.number);
  const uint64_t address = memory.allocate(bytes, description);
  require(address != 0, CUDA_ERROR_OUT_OF_MEMORY, "the machine has no memory left");
  if (entry.pool != nullptr) {
    MemoryPool& used = *entry.pool;
    used.used_bytes += bytes;
    used.most_used_bytes = std::max(used.most_used_bytes, used.used_bytes);
  }
  state.memory.emplace(address, std::move(entry));
  return address;
}

void release(Driver& state, uint64_t address) {
  const auto found = state.memory.find(address);
  // Its context may have been destroyed meanwhile.
  if (found == state.memory.end()) return;
  if (found->second.pool != nullptr) found->second.pool->used_bytes -= found->second.size_bytes;
  state.memory.erase(found);
  GlobalMemory::instance().release(address);
}

std::map<uint64_t, Memory>::iterator find_memory(Driver& state, uint64_t address) {
  auto found = state.memory.upper_bound(address);
  if (found == state.memory.begin()) return state.memory.end();
  --found;
  return address - found->first < found->second.size_bytes ? found : state.memory.end();
}

}  // namespace ptx_simulator::driver
