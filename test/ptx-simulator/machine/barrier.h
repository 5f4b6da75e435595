// Barriers of a block: barrier.sync, .arrive and .red, and bar, their aligned form.
#pragma once

#include <array>
#include <cstdint>

#include "machine/warp.h"

namespace ptx_simulator {

enum class BarrierReduction : uint8_t { kNone, kPopc, kAnd, kOr };

// What a barrier instruction asks for; its results go to op.d[0].
struct BarrierVisit {
  uint32_t number = 0;
  uint32_t threads = 0;  // that it is for, a multiple of 32; 0: all of the block
  bool waits = true;     // not so for bar.arrive
  BarrierReduction reduction = BarrierReduction::kNone;
  uint32_t predicate = 0;  // the values to reduce
};

// From the first thread that comes until the last.
struct Block::Barrier {
  uint32_t arrived = 0;  // threads
  uint32_t expected = 0;
  bool whole_block = true;
  BarrierReduction reduction = BarrierReduction::kNone;
  uint32_t popc = 0;
  const Op* first_op = nullptr;  // of the first who came
  int first_thread = 0;
  uint32_t syncing = 0;                           // warps with waiting lanes
  std::array<uint32_t, kMostWarps> waiting{};     // lanes, by warp
  std::array<uint32_t, kMostWarps> arrived_by{};  // lanes that came, waiting or not
};

}  // namespace ptx_simulator
