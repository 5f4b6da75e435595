// What all instructions that access memory share: the lanes' addresses, the checks of each state
// space, and the counters.
#pragma once

#include <array>
#include <cstdint>

#include "machine/decoder.h"
#include "machine/shared_memory.h"
#include "machine/warp.h"

namespace ptx_simulator {

using AccessKind = SharedMemory::Access;
using Addresses = std::array<uint64_t, kWarpSize>;
using Pointers = std::array<uint8_t*, kWarpSize>;

// base + offset for every lane; lanes that are not in the mask get the address of one that is, so
// that loops over all lanes need not ask.
Addresses lane_addresses(const Warp& warp, Slot base, int64_t offset, uint32_t mask);

// Finds where in the host's memory the lanes of an access of `bytes` bytes lie, in the order:
// bounds and alignment, then the detectors of shared memory, then the counters. False if a lane's
// access is impossible: the launch has been stopped, and nothing must be touched. `values` as in
// SharedMemory::access.
[[nodiscard]] bool locate(Warp& warp, const Op& op, uint32_t mask, const Addresses& addresses,
                          StateSpace space, int bytes, AccessKind kind, const uint8_t* values,
                          Pointers& pointers);

// The checks of global memory alone, for cp.async, whose lanes differ in the bytes they read.
[[nodiscard]] bool check_global(Warp& warp, const Op& op, uint32_t mask, const Addresses& addresses,
                                int bytes, int alignment, AccessKind kind);
// The same for offsets in shared memory.
[[nodiscard]] bool check_shared(Warp& warp, const Op& op, uint32_t mask, const Addresses& addresses,
                                int bytes);
// Distinct 32-byte sectors that naturally aligned accesses of at most 32 bytes touch.
uint32_t count_sectors(const Addresses& addresses);

// If the instruction has the L2::cache_hint modifier, its last operand is a cache policy, which
// means nothing here.
bool has_cache_policy(const Decoder& decoder);
void take_cache_policy(Decoder& decoder, size_t index);

}  // namespace ptx_simulator
