#include "cuda/matmul_plan.h"

#include <algorithm>
#include <cmath>

namespace altiplano::cuda {
namespace {

// Every block has 1 KiB for the system beside its own; static shared memory is rounded up to 128.
constexpr int kStaticBytes = 128;
constexpr int kReservedBytes = 1024 + kStaticBytes;

// Of a multiprocessor: from memory and from L2, when all read, and from L2 when it reads alone.
constexpr double kMemoryBytesPerCycle = 12;  // 1.8 TB/s of an A100
constexpr double kL2BytesPerCycle = 26;      // 4 TB/s
constexpr double kPartialBytesPerCycle = 64;

// The largest tile for few tokens, and the first of those that are compared for many.
constexpr int kManyTokens = 3;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t blocks_of_multiprocessor(const PlanDevice& device, MatmulKind kind, int tile_index) {
  const Tile tile = tile_of(kind, tile_index);
  const int by_memory =
      device.shared_bytes_per_multiprocessor / (tile.shared_bytes(kind) + kReservedBytes);
  return std::clamp(by_memory, 1, tile.blocks);
}

// Blocks of a multiprocessor share its time, so that what counts is the units of its blocks
// together. Of as many blocks as fit, or one less, whichever leaves less of a last wave; a single
// block where there could be two would often wait.
int64_t choose_slots(const PlanDevice& device, int64_t most, int64_t units) {
  int64_t chosen = most, least = INT64_MAX;
  for (int64_t blocks = most; blocks >= std::min<int64_t>(most, 2); --blocks) {
    const int64_t time = ceil_div(units, device.multiprocessors * blocks) * blocks;
    if (time < least) least = time, chosen = blocks;
  }
  return device.multiprocessors * chosen;
}

// Cycles of a unit's products on one multiprocessor. int8 has twice as many columns in a slice, and
// twice the rate.
double unit_arithmetic(const Tile& tile) {
  constexpr double kMultiplyAdds = 0.85 * 1024;
  return static_cast<double>(tile.rows * tile.tokens) * tile.slices * 64 / kMultiplyAdds;
}

// Cycles of reading a tile's partial sums of one block.
double partial_reading(const Tile& tile, int64_t tokens) {
  const auto valid = static_cast<double>(std::min<int64_t>(tokens, tile.tokens));
  return tile.rows * valid * sizeof(float) / kPartialBytesPerCycle;
}

// Blocks that may share a tile: S of them take units / S times the time of a unit to multiply, and
// then one of them S times the time of reading a partial sum. The sum of both is least at the root
// of their ratio. It matters for small matrices, which would be cut into more pieces than pay.
int64_t most_sharing(const MatmulPlan& plan, int64_t tokens) {
  constexpr double kReading = 1000;  // cycles of a unit, when all multiprocessors read weights
  const double unit = std::max(kReading, unit_arithmetic(plan.tile));
  return std::max<int64_t>(1, std::lround(std::sqrt(static_cast<double>(plan.tile_units) * unit /
                                                    partial_reading(plan.tile, tokens))));
}

// With the tile that is given.
MatmulPlan plan_tile(const PlanDevice& device, MatmulKind kind, int index, int64_t rows,
                     int64_t slices, int64_t tokens) {
  MatmulPlan plan;
  plan.tile_index = index;
  plan.tile = tile_of(kind, index);
  plan.row_tiles = ceil_div(rows, plan.tile.rows);
  plan.token_tiles = ceil_div(tokens, plan.tile.tokens);
  plan.tile_units = slices / plan.tile.slices;
  plan.slots = choose_slots(device, blocks_of_multiprocessor(device, kind, index), plan.units());
  // As many units for each block as if all slots were used, but no more blocks than that takes.
  const int64_t blocks = std::min(plan.slots, plan.tiles() * most_sharing(plan, tokens));
  plan.blocks = ceil_div(plan.units(), ceil_div(plan.units(), blocks));
  return plan;
}

// Roughly how long a plan for many tokens takes: arithmetic, L2 or memory, whichever is longest,
// and adding up a tile that blocks share: the sums of all but one are read. Only comparisons are
// made of it.
double cycles_of(const PlanDevice& device, MatmulKind kind, const MatmulPlan& plan) {
  const Tile& tile = plan.tile;
  const double slots = static_cast<double>(plan.slots) / device.multiprocessors;
  const double arithmetic =
      static_cast<double>(plan.most_block_units()) * slots * unit_arithmetic(tile);
  const auto sharing = static_cast<double>(plan.blocks) / static_cast<double>(plan.tiles());
  double partials = 0, adding = 0;
  if (plan.tiles() % plan.blocks != 0) {
    partials = 2.0 * tile.rows * tile.tokens * sizeof(float) * static_cast<double>(plan.blocks);
    adding = std::max(1.0, sharing) * partial_reading(tile, tile.tokens);
  }
  const double l2 = (static_cast<double>(plan.units() * tile.stage_bytes(kind)) + partials) /
                    (kL2BytesPerCycle * device.multiprocessors);
  const double memory =
      static_cast<double>(plan.row_tiles * plan.tile_units * tile.weight_bytes(kind)) /
      (kMemoryBytesPerCycle * device.multiprocessors);
  return std::max({arithmetic, l2, memory}) + adding;
}

}  // namespace

bool fits(const PlanDevice& device, MatmulKind kind, int tile_index) {
  return tile_of(kind, tile_index).shared_bytes(kind) + kStaticBytes <=
         device.shared_bytes_per_block;
}

// Up to 64 tokens: the smallest tile that holds them all. Weights are then read and unpacked once,
// and time is that of reading them.
//
// Beyond, arithmetic takes the time, or what it makes multiprocessors read from L2 and memory, and
// the largest tiles are compared: the larger a tile, the fewer bytes of L2 and of shared memory,
// and the fewer instructions, for a multiply-add; but it pads more tokens, and there are fewer,
// which more blocks then have to share. Of the advantages only the bytes of L2 are estimated, so a
// smaller tile must be clearly faster. Those are left out of which a device's shared memory holds
// no ring.
MatmulPlan plan_matmul(const PlanDevice& device, MatmulKind kind, int64_t rows, int64_t slices,
                       int64_t tokens) {
  constexpr double kClearly = 0.97;
  for (int index = 0; index <= kManyTokens; ++index) {
    if (tokens > tile_of(kind, index).tokens) continue;
    return plan_tile(device, kind, index, rows, slices, tokens);
  }
  MatmulPlan best;
  double least = 0;
  for (int index = kTiles - 1; index >= kManyTokens; --index) {
    if (!fits(device, kind, index)) continue;
    const MatmulPlan plan = plan_tile(device, kind, index, rows, slices, tokens);
    const double cycles = cycles_of(device, kind, plan);
    if (best.blocks == 0 || cycles < kClearly * least) least = cycles, best = plan;
  }
  return best;
}

double wave_efficiency(const MatmulPlan& plan) {
  return static_cast<double>(plan.units()) /
         static_cast<double>(plan.slots * plan.most_block_units());
}

uint64_t partials_bytes(const PlanDevice& device, int64_t tokens) {
  uint64_t most = 0;
  for (int kind = 0; kind < kMatmulKinds; ++kind) {
    for (int index = 0; index < kTiles; ++index) {
      const auto k = static_cast<MatmulKind>(kind);
      const Tile tile = tile_of(k, index);
      const int smaller = std::min(index, kManyTokens + 1) - 1;
      if (smaller >= 0 && tokens <= tile_of(k, smaller).tokens) continue;
      const auto blocks = static_cast<uint64_t>(device.multiprocessors *
                                                blocks_of_multiprocessor(device, k, index));
      most = std::max(most, 2 * blocks * tile.rows * tile.tokens * sizeof(float));
    }
  }
  return most;
}

int64_t most_blocks(const PlanDevice& device) {
  int64_t most = 0;
  for (int kind = 0; kind < kMatmulKinds; ++kind) {
    for (int index = 0; index < kTiles; ++index) {
      most = std::max(most,
                      device.multiprocessors *
                          blocks_of_multiprocessor(device, static_cast<MatmulKind>(kind), index));
    }
  }
  return most;
}

MatmulTraffic traffic_of(const MatmulPlan& plan, const MatmulWork& work) {
  const Tile& tile = plan.tile;
  MatmulTraffic t;
  t.weights = plan.units() * tile.weight_bytes(work.kind);
  if (has_groups(work.kind)) {
    const int stage_groups = std::max(1, tile.slices * slice_cols(work.kind) / work.group);
    t.weights += plan.units() * tile.rows * stage_groups * (work.zero_points ? 3 : 2);
  }
  t.activations = plan.row_tiles * plan.tile_units * work.tokens * tile.slices * kSliceBytes;

  const int64_t shorter = plan.line_units() / plan.blocks;
  const int64_t longer = plan.line_units() % plan.blocks;
  const auto block_of = [&](int64_t unit) {
    const int64_t of_longer = longer * (shorter + 1);
    return unit < of_longer ? unit / (shorter + 1) : longer + (unit - of_longer) / shorter;
  };
  const int64_t whole = plan.whole_tiles() * plan.blocks;
  for (int64_t index = whole; index < plan.tiles(); ++index) {
    const int64_t begin = (index - whole) * plan.tile_units;
    const int64_t sharing = block_of(begin + plan.tile_units - 1) - block_of(begin) + 1;
    if (sharing == 1) continue;
    // As matmul_schedule.cuh counts them.
    const int64_t band = index / (kBandTiles * plan.row_tiles);
    const int64_t width = std::min<int64_t>(kBandTiles, plan.token_tiles - band * kBandTiles);
    const int64_t token_tile =
        band * kBandTiles + (index - band * kBandTiles * plan.row_tiles) % width;
    const int64_t valid = std::min(work.tokens - token_tile * tile.tokens, int64_t{tile.tokens});
    t.partials_written += sharing * tile.rows * valid * 4;
    t.partials_read += (sharing - 1) * tile.rows * valid * 4;
    t.sharing_blocks += sharing;
    ++t.shared_tiles;
  }

  const bool paired = work.epilogue == Epilogue::kSiluMul;
  const bool half =
      paired || work.epilogue == Epilogue::kStore16 || work.epilogue == Epilogue::kHeads;
  t.outputs_written = work.tokens * work.rows / (paired ? 2 : 1) * (half ? 2 : 4);
  if (work.epilogue == Epilogue::kAddF32) t.outputs_read = t.outputs_written;
  return t;
}

}  // namespace altiplano::cuda
