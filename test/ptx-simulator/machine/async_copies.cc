#include "machine/async_copies.h"

#include <algorithm>
#include <bit>

namespace ptx_simulator {

AsyncCopies::Batch& AsyncCopies::begin(int warp, uint32_t mask) {
  OfWarp& w = warps_[warp];
  if (unused_.empty()) unused_.push_back(std::make_unique<Batch>());
  w.batches.push_back(std::move(unused_.back()));
  unused_.pop_back();
  Batch& batch = *w.batches.back();
  batch.open = mask;
  batch.group = w.committed;
  return batch;
}

void AsyncCopies::commit(int warp, uint32_t mask) {
  for (int lane = 0; lane < 32; ++lane) warps_[warp].committed[lane] += mask >> lane & 1;
}

AsyncCopies::Dropped AsyncCopies::drop(int warp, uint32_t mask) {
  OfWarp& w = warps_[warp];
  Dropped dropped;
  for (auto& batch : w.batches) {
    const uint32_t lanes = batch->open & mask;
    if (lanes != 0 && dropped.lanes == 0) dropped.line = batch->line;
    dropped.lanes |= lanes;
    batch->open &= ~mask;
  }
  if (dropped.lanes != 0) remove_closed(w);
  return dropped;
}

void AsyncCopies::remove_closed(OfWarp& w) {
  auto kept = w.batches.begin();
  for (auto& batch : w.batches) {
    if (batch->open != 0) {
      std::swap(*kept++, batch);
    } else {
      unused_.push_back(std::move(batch));
    }
  }
  w.batches.erase(kept, w.batches.end());
}

void AsyncCopies::reset() {
  for (OfWarp& w : warps_) {
    for (auto& batch : w.batches) unused_.push_back(std::move(batch));
    w.batches.clear();
    w.committed.fill(0);
  }
}

}  // namespace ptx_simulator
