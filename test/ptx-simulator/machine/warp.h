// A warp and its block while a kernel runs.
//
// Every lane has its own program counter. A step of a warp takes the runnable lanes of the deepest
// call, of those the ones at the lowest program counter, and executes one instruction for all of
// them: lanes that diverged meet again at the first instruction that both reach, as compilers order
// blocks. Lanes that spin until another lane of their warp has done something are left for a while
// (independent thread scheduling). Which warp of which resident block runs next, and for how many
// steps, is random by seed.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "machine/block_storage.h"
#include "machine/global_memory.h"
#include "machine/program.h"
#include "machine/report.h"
#include "machine/shared_memory.h"

namespace ptx_simulator {

inline constexpr int kWarpSize = 32;
inline constexpr int kMostWarps = 32;
inline constexpr int kBarriers = 16;
inline constexpr int kMostCallDepth = 63;

class Block;
class LaunchState;    // findings, and whether to stop: launch_state.h
struct BarrierVisit;  // barrier.h

// How mma adds up (instructions/mma.cc). Not specified by PTX, but fixed for a device: equal
// operands give equal bits, in whatever launch.
enum class AccumulationOrder : uint8_t { kBlocks, kSequence, kTree, kNarrowBlocks };

// What all blocks of a launch share. Read-only while it runs.
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
  // The last bits of ex2, rsqrt, sin, ... within the errors that PTX allows: fixed likewise, so a
  // number for a device (instructions/approximate.cc).
  uint32_t approximation_seed = 1;
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

// The n-th lane of a mask, from 0.
inline int nth_lane(uint32_t mask, int n) {
  for (; n > 0; --n) mask &= mask - 1;
  return std::countr_zero(mask);
}

class Warp {
 public:
  Warp(Block& owner, int warp_index, std::byte* register_file);

  Block& block;
  const int index;                       // in the block
  uint32_t exists = 0;                   // lanes that are threads of the block
  uint32_t live = 0;                     // lanes that exist and have not exited
  uint32_t waiting = 0;                  // lanes that wait at a barrier or .sync instruction
  uint32_t carry = 0;                    // the carry flag of each lane (add.cc, addc, ...)
  std::byte* registers = nullptr;        // aligned to 64
  const std::byte* constants = nullptr;  // of the program
  std::minstd_rand random;               // of this warp, from the seed
  std::array<std::array<uint32_t, kWarpSize>, 3> thread_ids{};  // %tid.x, .y, .z of each lane

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
  // The same for what a kernel cannot survive: the launch stops. It returns to the instruction,
  // which must leave the lane out.
  void fail(FindingKind kind, const Op& op, int lane, std::string text);

  // --- for control.cc ---
  // These lanes go on at ops[target]; others that step together with them, at the next one.
  void jump(uint32_t mask, int32_t target) {
    if (mask == group_) {
      next_ = target;
    } else {
      scatter();
      for_each_lane(mask,
                    [&](int lane) { position_[lane] = depth_ | static_cast<uint32_t>(target); });
    }
  }
  void call(const Op& op, uint32_t mask, int32_t target);
  void ret(const Op& op, uint32_t mask);  // from the kernel itself: an exit
  void exit(const Op& op, uint32_t mask);
  void yield();  // the turn ends; afterwards, other lanes of the warp come first

  // --- for sync.cc ---
  // These lanes wait at `op` until all live lanes of `members` are there with the same members;
  // then `complete` runs for all of them at once.
  enum class Meet : uint8_t {
    kInstruction,  // at the same instruction
    kAnywhere,     // at any instruction with the same `complete`
    kWarp,         // the same instruction, for all lanes of the warp: aligned barriers
  };
  using Complete = void (*)(Warp& warp, const Op& op, uint32_t lanes);
  void synchronize(const Op& op, uint32_t mask, uint32_t members, Meet meet, Complete complete);

  // --- for block.cc ---
  void start(uint64_t seed);
  // Runs up to `steps` instructions, fewer if nothing is runnable; how many it were.
  int run(int steps);
  bool runnable() const { return (live & ~waiting) != 0; }
  void wait(uint32_t lanes);     // at a barrier of the block
  void release(uint32_t lanes);  // from it
  // The instruction that a lane waits at or has exited at, or, if it can run, runs next.
  const Op& op_of(int lane) const;
  // When nothing in the block can run: lanes at aligned barriers stop waiting for the rest of their
  // warp. False if there were none.
  bool give_up_alignment();
  std::string where() const;  // the places of all lanes, for messages

 private:
  static constexpr int kCounterBits = 25;
  static constexpr uint32_t kCounterMask = (1u << kCounterBits) - 1;
  static constexpr uint32_t depth_bits(int depth) {
    return static_cast<uint32_t>(kMostCallDepth - depth) << kCounterBits;
  }
  int depth() const { return kMostCallDepth - static_cast<int>(depth_ >> kCounterBits); }
  void scatter();
  bool gather();
  bool try_to_complete(int lane);

  const Op* ops_ = nullptr;
  // The lanes that step together, their program counter (an index into Program::ops), and where the
  // next of the other lanes stand, so that gather() is due: -1 asks for it at once.
  uint32_t group_ = 0;
  int32_t next_ = 0;
  int32_t meeting_ = -1;
  // Of the group: high bits of position_. A smaller position is a deeper call, or a lower counter.
  uint32_t depth_ = depth_bits(0);
  std::array<uint32_t, kWarpSize> position_{};           // of lanes that are not in the group
  std::vector<std::array<int32_t, kWarpSize>> returns_;  // by depth

  struct Wait {
    uint32_t members;
    Meet meet;
    Complete complete;
  };
  uint32_t synchronizing_ = 0;  // of `waiting`, the lanes in synchronize()
  std::array<Wait, kWarpSize> waits_{};

  bool ends_turn_ = false;
  bool others_first_ = false;  // lanes that are not at the lowest position get the next steps
  uint32_t favoured_ = 0;      // they are these,
  int favour_left_ = 0;        // for so many steps
  int diverged_steps_ = 0;     // since all runnable lanes stepped together
};

// A block that is resident: its warps, shared memory and barriers.
class Block {
 public:
  Block(const LaunchContext& context, LaunchState& state, const uint64_t& clock);
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  ~Block();

  const LaunchContext& launch;
  LaunchState& state;
  std::array<uint32_t, 3> index{};
  int multiprocessor = 0;  // %smid

 private:
  BlockStorage storage_;

 public:
  SharedMemory& shared;
  Counters counters;
  AllocationCache allocation_cache;
  std::vector<std::byte> local;  // Program::local_bytes for each thread, one after the other

  std::array<uint32_t, 3> thread_index(int thread) const;
  // Instructions of this host thread since the launch began: for %clock and %globaltimer.
  uint64_t clock() const { return clock_; }

  // --- for sync.cc ---
  void visit(Warp& warp, const Op& op, uint32_t lanes, const BarrierVisit& visit);

  // --- for launch.cc ---
  // Begins as this block of the grid, whatever it was before.
  void start(uint64_t linear_index, uint64_t seed);
  bool ended() const { return live_warps_ == 0; }
  // Runs a random warp for up to `steps` instructions; how many it were.
  int run(uint64_t random, int steps);
  std::string where() const;  // the places of all threads, for messages
  void report_endless();

 private:
  struct Barrier;
  void end();
  void open(Barrier& barrier);
  void resolve();  // nothing can run
  bool open_without_exited_threads();
  void report_stuck();

  const uint64_t& clock_;
  std::vector<Warp> warps_;
  std::unique_ptr<Barrier[]> barriers_;
  uint32_t runnable_ = 0;  // warps
  int live_warps_ = 0;
};

inline Counters& Warp::counters() { return block.counters; }

// Runs a kernel to its end on `threads` host threads (0: one per processor), several blocks at once
// on each. Blocks wait for each other only within what a GPU would hold at the same time.
struct LaunchOptions {
  int host_threads = 0;
  uint64_t seed = 1;
  // Stop with a kDeadlock finding after so many warp instructions without any block ending (or
  // after fewer, if no block does anything but wait).
  uint64_t most_warp_instructions = uint64_t{20} * 1000 * 1000 * 1000;
};
LaunchReport run(const LaunchContext& context, const LaunchOptions& options);

}  // namespace ptx_simulator
