// What one launch takes on the A100 of machine.h: from what its plan says that it moves and makes
// (native/cuda/matmul_plan.h, attention_plan.h), or from the loads of its source. Times are seconds
// without the node itself (kNode). Waiting is apart: loads that a kernel starts one after the other
// although nothing makes it, which the constants that are fixed do not know.
#pragma once

#include <string>

#include "cuda/attention_plan.h"
#include "cuda/matmul_plan.h"

namespace altiplano::a100 {

enum class LaunchKind { kMatmul, kAttention, kSmall, kCopy };

struct Launch {
  std::string name;
  LaunchKind kind = LaunchKind::kSmall;
  double work = 0;        // as long as bytes, products or instructions take
  double waiting = 0;     // for single loads
  double bytes = 0;       // from memory: weights, keys and values
  double operations = 0;  // useful FLOP of matrices
  double hidden = 0;      // what it would take longer if loading and computing did not overlap
};

// The limits that a multiplication has; the longest is its time, and then blocks add up their
// parts.
struct MatmulTimes {
  double memory = 0, l2 = 0, tensor = 0, shared = 0, issue = 0;
  double adding = 0;     // the parts of a shared tile, by its last block
  double meeting = 0;    // of the blocks of a shared tile: waiting, not work
  double rotations = 0;  // loads in turn at the end of a tile of q, k and v
  double waiting() const { return meeting + rotations; }
  double work() const;
  // What it would take longer if nothing overlapped: first the bytes, then the busiest unit of the
  // multiprocessors.
  double hidden() const;
  const char* limit() const;
};
MatmulTimes matmul_times(const cuda::MatmulWork& work, int64_t cols);

struct Times {
  double work = 0, waiting = 0;
};

// Decoding: `items` of `shape`, the longest with `pages` pages. Limited by memory; the last wave of
// blocks by what each of them has in flight. Where keys are split, the last block merges.
Times decode_times(const AttentionShape& shape, const std::vector<cuda::AttentionItem>& items,
                   int64_t pages);
double decode_bytes(const AttentionShape& shape, const std::vector<cuda::AttentionItem>& items);

// Cycles of a block of prefill that has a multiprocessor for itself: products, exponentials and
// other instructions, one after the other.
double prefill_block_cycles(const AttentionShape& shape, const cuda::AttentionItem& item);
// Blocks start in the order of the grid, wherever a place is free; two share a multiprocessor.
double prefill_work(const AttentionShape& shape, const std::vector<cuda::AttentionItem>& items);

// A kernel of `blocks` blocks, `at_once` of them on the device, whose threads wait for `trips`
// loads one after the other; `bytes` in all.
Times small_times(double blocks, double at_once, double trips, double bytes);

}  // namespace altiplano::a100
