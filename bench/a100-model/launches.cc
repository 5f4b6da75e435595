#include "launches.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <queue>

#include "cuda/kv_page.h"
#include "machine.h"

namespace altiplano::a100 {

using cuda::MatmulKind;
using cuda::Tile;

namespace {

// Instructions of a warp for a stage beside `mma` and ldmatrix, counted in the machine code of the
// tiles for 8 tokens (a warp has two strips of 16 rows), along the way of a stage that begins no
// tile and has no zero points: 78 (f16), 195 (int8), 355 (int4, two slices).
double stage_instructions(MatmulKind kind, const Tile& tile) {
  const double strips = tile.rows / tile.row_warps / 16.0;
  const double unpacking = kind == MatmulKind::kInt4 ? 71 : kind == MatmulKind::kInt8 ? 62 : 4;
  return 70 + tile.slices * strips * unpacking;
}

int element_bytes(const AttentionShape& shape) { return shape.kv_type == KvType::kInt8 ? 1 : 2; }

// A key and a value of one KV head, with their scales.
double token_bytes(const AttentionShape& shape) {
  return static_cast<double>(cuda::kv_head_bytes(shape.kv_type, shape.head_dim)) / kKvPageTokens;
}

int64_t pages_of(const cuda::AttentionItem& item) {
  return (item.visible + kKvPageTokens - 1) / kKvPageTokens;
}

}  // namespace

double MatmulTimes::work() const { return std::max({memory, l2, tensor, shared, issue}) + adding; }

double MatmulTimes::hidden() const {
  return memory + std::max({tensor, shared, issue}) + adding - work();
}

const char* MatmulTimes::limit() const {
  const double most = std::max({memory, l2, tensor, shared, issue});
  return most == memory   ? "memory"
         : most == tensor ? "tensor"
         : most == l2     ? "L2"
         : most == shared ? "shared"
                          : "issue";
}

MatmulTimes matmul_times(const cuda::MatmulWork& work, int64_t cols) {
  const cuda::PlanDevice device;
  const cuda::MatmulPlan plan = cuda::plan_matmul(device, work.kind, work.rows,
                                                  cols / cuda::slice_cols(work.kind), work.tokens);
  const cuda::MatmulTraffic t = cuda::traffic_of(plan, work);
  const Tile& tile = plan.tile;
  const double once = static_cast<double>(t.weights) / static_cast<double>(plan.token_tiles);
  const double x =
      static_cast<double>(work.tokens * cols) * (work.kind == MatmulKind::kW8A8 ? 1 : 2);
  const double outputs = static_cast<double>(t.outputs_read + t.outputs_written);
  const double moved =
      static_cast<double>(t.weights + t.activations + t.partials_written + t.partials_read) +
      outputs;
  // Units that the busiest multiprocessor works through.
  const double units = static_cast<double>(plan.most_block_units() * plan.slots) / kMultiprocessors;
  const double warps = tile.row_warps * tile.token_warps;
  const double products =
      static_cast<double>(tile.rows) * tile.tokens * tile.slices * cuda::slice_cols(work.kind);
  const double rate = work.kind == MatmulKind::kW8A8 ? 2 : 1;
  const double fragments =  // a warp reads its rows and its tokens once
      tile.token_warps * tile.weight_bytes(work.kind) + tile.row_warps * tile.activation_bytes();
  const double mma = products / rate / 2048 / warps;
  const double ldmatrix = tile.activation_bytes() / tile.token_warps / 512.0;
  MatmulTimes times;
  times.memory = (once + x + outputs) / kBandwidth;
  times.l2 = moved / kL2;
  times.tensor = units * products / rate / kTensor / kClock;
  times.shared = units * (fragments + tile.stage_bytes(work.kind)) / kShared / kClock;
  times.issue =
      units * warps * (mma + ldmatrix + stage_instructions(work.kind, tile)) / kIssue / kClock;
  if (t.shared_tiles > 0) {
    times.meeting = kMeeting;
    times.adding = static_cast<double>(t.partials_read) / static_cast<double>(t.shared_tiles) /
                   kOneBlock / kClock;
  }
  // Of the tokens of a tile of q and k first their positions, then their rotations.
  if (work.epilogue == cuda::Epilogue::kHeads) times.rotations = 2 * kTrip;
  return times;
}

double decode_bytes(const AttentionShape& shape, const std::vector<cuda::AttentionItem>& items) {
  double keys = 0, tokens = 0;
  for (const cuda::AttentionItem& item : items) keys += item.visible, tokens += item.tokens;
  const double q_and_out = 2.0 * 2 * shape.heads * shape.head_dim;
  return keys * shape.kv_heads * token_bytes(shape) + tokens * q_and_out;
}

Times decode_times(const AttentionShape& shape, const std::vector<cuda::AttentionItem>& items,
                   int64_t pages) {
  if (items.empty()) return {};
  const cuda::AttentionSplit split =
      cuda::split_keys(static_cast<int64_t>(items.size()), shape.kv_heads, pages,
                       static_cast<int>(kMultiprocessors));
  double blocks = 0;
  for (const cuda::AttentionItem& item : items) {
    blocks += std::ceil(static_cast<double>(pages_of(item)) / split.pages) * shape.kv_heads;
  }
  const double slots = cuda::kAttentionBlocks * kMultiprocessors;
  const double block_bytes = std::min<double>(split.pages, static_cast<double>(pages)) *
                             kKvPageTokens * token_bytes(shape);
  // All slots of the rings but one are in flight.
  const double in_flight = cuda::decode_rings_bytes(element_bytes(shape), shape.head_dim) *
                           (cuda::kDecodeSlots - 1.0) / cuda::kDecodeSlots;
  const double all = decode_bytes(shape, items) / kBandwidth;
  const double last_blocks = blocks - (std::ceil(blocks / slots) - 1) * slots;
  const double last = all * last_blocks / blocks;
  double work = all - last + std::max(last, block_bytes / in_flight * kLoadedLatency);

  double trips = 3;  // the item, its page, q
  if (split.splits > 1) {
    // The count, the maxima and sums of 32 splits at once, then rows of eight splits: a thread has
    // four numbers of them at a time.
    constexpr double kThreads = cuda::kDecodeWarps * 32.0;
    const double rows = items[0].tokens * shape.heads / shape.kv_heads;
    trips += 1 + std::ceil(rows / cuda::kDecodeWarps) * std::ceil(split.splits / 32.0) +
             std::ceil(rows * shape.head_dim / 4 / kThreads) * std::ceil(split.splits / 8.0);
    const double parts = split.splits * rows * (shape.head_dim + 2) * sizeof(float);
    work += parts / kOneBlock / kClock;
  }
  return {work, trips * kTrip};
}

double prefill_block_cycles(const AttentionShape& shape, const cuda::AttentionItem& item) {
  const int bytes = element_bytes(shape);
  const double tile = cuda::prefill_tile_keys(bytes, shape.head_dim);
  const double keys = std::ceil(item.visible / tile) * tile;
  const double scores = cuda::kPrefillRows * keys;
  constexpr double kScoreInstructions =
      6;  // scale, greatest, subtract, sum, half a conversion, mask
  constexpr double kCodeInstructions = 5;  // to unpack four codes
  constexpr double kWarps = 4, kLanes = 32;
  double cycles = 2 * scores * shape.head_dim / kTensor + scores / kExponentials +
                  scores * kScoreInstructions / kLanes / kIssue;
  if (bytes == 1) {  // each warp unpacks all keys and values
    cycles += kWarps * 2 * keys * shape.head_dim / 4 * kCodeInstructions / kLanes / kIssue;
  }
  return cycles;
}

double prefill_work(const AttentionShape& shape, const std::vector<cuda::AttentionItem>& items) {
  std::priority_queue<double, std::vector<double>, std::greater<>> free;  // when each place is
  for (int i = 0; i < cuda::kAttentionBlocks * kMultiprocessors; ++i) free.push(0);
  double end = 0;
  for (int head = 0; head < shape.kv_heads; ++head) {
    for (const cuda::AttentionItem& item : items) {
      const double ends = free.top() + cuda::kAttentionBlocks * prefill_block_cycles(shape, item);
      free.pop();
      free.push(ends);
      end = std::max(end, ends);
    }
  }
  return end / kClock;
}

Times small_times(double blocks, double at_once, double trips, double bytes) {
  const double work = bytes / kBandwidth;
  return {work, std::max(0.0, std::ceil(blocks / at_once) * trips * kTrip - work)};
}

}  // namespace altiplano::a100
