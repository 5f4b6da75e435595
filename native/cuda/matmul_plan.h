// Which kernel multiplies a matrix with so many tokens, how its work is cut, and what it will move.
// Plain arithmetic: no device, no driver.
#pragma once

#include <cstdint>

#include "cuda/matmul_parameters.h"

namespace altiplano::cuda {

// What a plan needs to know of a device; the defaults are an A100's.
struct PlanDevice {
  int multiprocessors = 108;
  int shared_bytes_per_block = 163 << 10;
  int shared_bytes_per_multiprocessor = 164 << 10;
};

// How the units of a launch are spread over its blocks (matmul_schedule.cuh).
struct MatmulPlan {
  int tile_index = 0;
  Tile tile = {};
  int64_t row_tiles = 0;
  int64_t token_tiles = 0;
  int64_t tile_units = 0;  // stages of a tile
  int64_t slots = 0;       // blocks that the device would hold at once
  int64_t blocks = 0;

  int64_t tiles() const { return row_tiles * token_tiles; }
  int64_t units() const { return tiles() * tile_units; }
  // Tiles that each block computes alone: all of them if they come out even, else one less than
  // there are full rounds, so that what is left can be cut into equal stretches.
  int64_t whole_tiles() const {
    if (tiles() % blocks == 0) return tiles() / blocks;
    return tiles() < 2 * blocks ? 0 : tiles() / blocks - 1;
  }
  int64_t line_units() const { return units() - whole_tiles() * blocks * tile_units; }
  int64_t most_block_units() const { return (units() + blocks - 1) / blocks; }
};

// Whether a block may have the shared memory for a tile's ring.
bool fits(const PlanDevice& device, MatmulKind kind, int tile_index);
// `slices`: of a packed row.
MatmulPlan plan_matmul(const PlanDevice& device, MatmulKind kind, int64_t rows, int64_t slices,
                       int64_t tokens);
// The share of the slots' time that is work, 0 to 1: all units, over those that could be done while
// the busiest block does its own.
double wave_efficiency(const MatmulPlan& plan);

// Bytes of partial sums, and how many blocks, that the largest plan for up to `tokens` can have.
uint64_t partials_bytes(const PlanDevice& device, int64_t tokens);
int64_t most_blocks(const PlanDevice& device);

// What a launch moves between L2 and its multiprocessors, in bytes. Exact, for columns that fill
// slices: the tests compare it with what the simulator counts.
struct MatmulTraffic {
  int64_t weights = 0;  // with scales and zero points
  int64_t activations = 0;
  int64_t partials_written = 0;
  int64_t partials_read = 0;
  int64_t outputs_read = 0;     // kAddF32
  int64_t outputs_written = 0;  // kHeads: as if the cache was f16
  int64_t sharing_blocks = 0;   // counted once for each tile that they share
  int64_t shared_tiles = 0;
};
struct MatmulWork {
  MatmulKind kind = MatmulKind::kF16;
  int group = 0;
  bool zero_points = false;
  int64_t rows = 0;
  int64_t tokens = 0;
  Epilogue epilogue = Epilogue::kStore16;
};
MatmulTraffic traffic_of(const MatmulPlan& plan, const MatmulWork& work);

}  // namespace altiplano::cuda
