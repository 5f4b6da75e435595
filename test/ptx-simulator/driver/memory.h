// Giving memory out and taking it back.
#pragma once

#include "driver/driver.h"

namespace ptx_simulator::driver {

// The address of new memory that belongs to the current context. Fails with OUT_OF_MEMORY.
uint64_t allocate(Call& call, size_t bytes, Memory::Kind kind, unsigned flags = 0,
                  std::shared_ptr<MemoryPool> pool = nullptr);
// Forgets memory and gives it back.
void release(Driver& state, uint64_t address);
// The memory that an address lies in: its entry, or the end of the map.
std::map<uint64_t, Memory>::iterator find_memory(Driver& state, uint64_t address);

}  // namespace ptx_simulator::driver
