// A warp and its block while a kernel runs.
//
// Every lane has its own program counter. A step of a warp takes the runnable lanes of the deepest
// call, of those the ones at the lowest program counter, and executes one instruction for all of
// them: lanes that diverged meet again at the first instruction that both reach, as compilers order
// blocks. Which warp of which resident block runs next, and for how many steps, is random by seed.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "machine/global_memory.h"
#include "machine/program.h"
#include "machine/report.h"
#include "machine/shared_memory.h"

namespace ptx_simulator {

inline constexpr int kWarpSize = 32;
inline constexpr int kMostWarps = 32;
inline constexpr int kBarriers = 16;

class Block;

// How mma adds up (instructions/mma.cc). Not specified by PTX, but fixed for a device: equal
// operands give equal bits, in whatever launch.
enum class AccumulationOrder : uint8_t { kBlocks, kSequence, kTree, kNarrowBlocks };

// What all blocks of a launch share. Read-only while it runs, but for `stop`.
struct LaunchContext {
  const Program* program = nullptr;
  std::array<uint32_t, 3> grid{};
  std::array<uint32_t, 3> block{};
  uint32_t shared_bytes = 0;  // static and dynamic
  std::vector<std::byte> parameters;
  std::shared_ptr<const AllocationMap> allocations;
  uint64_t seed = 0;
  int device = 0;
  int multiprocessors = 108;
  AccumulationOrder accumulation_order = AccumulationOrder::kBlocks;
};

class Warp {
 public:
  Block& block;
  const int index;       // in the block
  uint32_t live = 0;     // lanes that exist and have not exited
  uint32_t waiting = 0;  // lanes that wait at a barrier or .sync instruction
  uint32_t carry = 0;    // the carry flag of each lane (add.cc, addc, ...)
  std::array<int32_t, kWarpSize> pc{};
  std::byte* registers = nullptr;        // aligned to 64
  const std::byte* constants = nullptr;  // of the program
  std::minstd_rand random;               // of this warp, from the seed

  template <class T>
  T* lanes(Slot slot) {
    return reinterpret_cast<T*>(registers + slot.offset);
  }
  template <class T>
  const T* values(Slot slot) const {
    return reinterpret_cast<const T*>((slot.constant ? constants : registers) + slot.offset);
  }
  uint32_t predicate(Slot slot) const { return *values<uint32_t>(slot); }
  void set_predicate(Slot slot, uint32_t mask, uint32_t value) {
    uint32_t& all = *lanes<uint32_t>(slot);
    all = (all & ~mask) | (value & mask);
  }
  // The value of lane `lane` whatever the width of the slot.
  uint64_t value(Slot slot, int lane) const {
    return slot.bytes == 8 ? values<uint64_t>(slot)[lane] : values<uint32_t>(slot)[lane];
  }

  // The index of a lane's thread in its block (tid.x fastest).
  int thread(int lane) const { return index * kWarpSize + lane; }
  Counters& counters();
  // Notes a finding at this instruction, for a lane. A kernel goes on after it.
  void report(FindingKind kind, const Op& op, int lane, std::string text);
  // The same for what a kernel cannot survive: the launch stops.
  void fail(FindingKind kind, const Op& op, int lane, std::string text);

 protected:
  Warp(Block& owner, int warp_index) : block(owner), index(warp_index) {}
};

// Runs `body(lane)` for every lane in the mask; a full one is a plain loop.
template <class Body>
inline void for_each_lane(uint32_t mask, Body body) {
  if (mask == UINT32_MAX) {
    for (int lane = 0; lane < kWarpSize; ++lane) body(lane);
  } else {
    for (uint32_t rest = mask; rest != 0; rest &= rest - 1) body(std::countr_zero(rest));
  }
}

// A block that is resident: its warps, shared memory and barriers.
class Block {
 public:
  const LaunchContext& launch;
  const std::array<uint32_t, 3> index;
  SharedMemory shared;
  Counters counters;
  AllocationCache allocation_cache;
  std::vector<std::byte> local;  // Program::local_bytes for each thread, one after the other

  std::array<uint32_t, 3> thread_index(int thread) const;

 protected:
  Block(const LaunchContext& context, std::array<uint32_t, 3> block_index)
      : launch(context), index(block_index), shared(context.shared_bytes) {}
};

// Runs a kernel to its end on `threads` host threads (0: one per processor), several blocks at once
// on each. Blocks wait for each other only within what a GPU would hold at the same time.
struct LaunchOptions {
  int host_threads = 0;
  uint64_t seed = 1;
  // Stop with a kDeadlock finding after so many warp instructions without any block ending.
  uint64_t most_warp_instructions = uint64_t{20} * 1000 * 1000 * 1000;
};
LaunchReport run(const LaunchContext& context, const LaunchOptions& options);

}  // namespace ptx_simulator
