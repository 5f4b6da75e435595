#include "cuda/matmul_plan.h"

#include <algorithm>
#include <cmath>

namespace altiplano::cuda {
namespace {

// Every block has 1 KiB for the system beside its own; static shared memory is rounded up to 128.
constexpr int kStaticBytes = 128;
constexpr int kReservedBytes = 1024 + kStaticBytes;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t row_tiles_of(int64_t rows, const Tile& tile) { return ceil_div(rows, tile.rows); }

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

// Blocks that may share a tile: S of them take units / S times the time of a unit to multiply, and
// then one of them S times the time of reading a partial sum. The sum of both is least at the root
// of their ratio. It matters for small matrices, which would be cut into more pieces than pay.
int64_t most_sharing(const MatmulPlan& plan, int64_t tokens) {
  constexpr double kUnitCycles = 1000;          // of a stage, when all multiprocessors read weights
  constexpr double kPartialBytesPerCycle = 64;  // from L2, of one multiprocessor
  const auto valid = static_cast<double>(std::min<int64_t>(tokens, plan.tile.tokens));
  const double partial_cycles = plan.tile.rows * valid * sizeof(float) / kPartialBytesPerCycle;
  return std::max<int64_t>(1, std::lround(std::sqrt(static_cast<double>(plan.tile_units) *
                                                    kUnitCycles / partial_cycles)));
}

}  // namespace

bool fits(const PlanDevice& device, MatmulKind kind, int tile_index) {
  return tile_of(kind, tile_index).shared_bytes(kind) + kStaticBytes <=
         device.shared_bytes_per_block;
}

// Up to 64 tokens: the smallest tile that holds them all. Weights are then read and unpacked once,
// and time is that of reading them.
//
// Beyond, arithmetic takes the time. Tiles of 256 x 128 move fewer bytes through shared memory and
// L2 for a multiply-add than those of 128 x 64, which is worth a fifth of the time
// (docs/cuda-kernels.md); they lose it again
//   - where padding to 128 tokens costs more than that (129 to 192 tokens, 257 to 320, ...),
//   - where so few of them cover the outputs that more than two blocks have to share each: their
//     partial sums, 128 KiB each, are then added up by one block while others wait for work,
//   - on devices whose shared memory holds no ring of them.
int choose_tile(const PlanDevice& device, MatmulKind kind, int64_t rows, int64_t tokens) {
  constexpr int kSmall = kTiles - 2, kLarge = kTiles - 1;
  constexpr double kSmallCost = 1.25;  // time for a multiply-add, that of the large tile is 1
  for (int index = 0; index <= kSmall; ++index) {
    if (tokens <= tile_of(kind, index).tokens) return index;
  }
  if (!fits(device, kind, kLarge)) return kSmall;
  const Tile small = tile_of(kind, kSmall), large = tile_of(kind, kLarge);
  const int64_t small_tiles = ceil_div(tokens, small.tokens);
  const int64_t large_tiles = ceil_div(tokens, large.tokens);
  const bool cheaper = static_cast<double>(large_tiles * large.tokens) <
                       static_cast<double>(small_tiles * small.tokens) * kSmallCost;
  const bool enough = row_tiles_of(rows, large) * large_tiles * 2 >= device.multiprocessors;
  return cheaper && enough ? kLarge : kSmall;
}

MatmulPlan plan_matmul(const PlanDevice& device, MatmulKind kind, int64_t rows, int64_t slices,
                       int64_t tokens) {
  MatmulPlan plan;
  plan.tile_index = choose_tile(device, kind, rows, tokens);
  plan.tile = tile_of(kind, plan.tile_index);
  plan.row_tiles = row_tiles_of(rows, plan.tile);
  plan.token_tiles = ceil_div(tokens, plan.tile.tokens);
  plan.tile_units = slices / plan.tile.slices;
  plan.slots =
      choose_slots(device, blocks_of_multiprocessor(device, kind, plan.tile_index), plan.units());
  // As many units for each block as if all slots were used, but no more blocks than that takes.
  const int64_t blocks = std::min(plan.slots, plan.tiles() * most_sharing(plan, tokens));
  plan.blocks = ceil_div(plan.units(), ceil_div(plan.units(), blocks));
  return plan;
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
      if (index > 0 && tokens <= tile_of(k, index - 1).tokens) continue;
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

  const int64_t shorter = plan.units() / plan.blocks, longer = plan.units() % plan.blocks;
  const auto block_of = [&](int64_t unit) {
    const int64_t of_longer = longer * (shorter + 1);
    return unit < of_longer ? unit / (shorter + 1) : longer + (unit - of_longer) / shorter;
  };
  for (int64_t index = 0; index < plan.tiles(); ++index) {
    const int64_t begin = index * plan.tile_units;
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

  const bool paired = work.epilogue == Epilogue::kSiluMulF16;
  const bool half = paired || work.epilogue == Epilogue::kStoreF16;
  t.outputs_written = work.tokens * work.rows / (paired ? 2 : 1) * (half ? 2 : 4);
  if (work.epilogue == Epilogue::kAddF32) t.outputs_read = t.outputs_written;
  return t;
}

}  // namespace altiplano::cuda
