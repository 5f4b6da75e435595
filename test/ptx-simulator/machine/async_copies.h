// The cp.async operations of a block that are on their way, and the groups that they belong to.
//
// Until a thread has waited for a copy its destination holds 0xFF; the source is read when the copy
// begins or when it is waited for, at random: a kernel that touches either in between computes
// wrong results, not only a finding.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

namespace ptx_simulator {

class AsyncCopies {
 public:
  // The copies of one warp instruction.
  struct Batch {
    uint32_t open = 0;  // lanes that have not waited for theirs
    int line = 0;
    int width = 0;
    bool taken = false;                     // `data` holds the sources' bytes
    std::array<uint32_t, 32> group;         // of each lane: its n-th
    std::array<uint32_t, 32> address;       // in shared memory
    std::array<const uint8_t*, 32> source;  // may be null where no bytes are read
    std::array<uint32_t, 32> source_bytes;  // the rest of `width` is zeros
    std::array<std::array<uint8_t, 16>, 32> data;
  };

  // A batch for this warp, open for `mask`, whose other fields are the caller's to fill; its copies
  // belong to the groups that the lanes commit next.
  Batch& begin(int warp, uint32_t mask);
  void commit(int warp, uint32_t mask);
  // Calls complete(batch, lanes) for the copies in all but the last `pending` committed groups of
  // each lane, or for all copies, uncommitted ones too.
  template <class Complete>
  void wait(int warp, uint32_t mask, uint32_t pending, bool all, Complete complete);
  // Drops the copies of lanes that end: which of them had any, and the line of the first.
  struct Dropped {
    uint32_t lanes = 0;
    int line = 0;
  };
  Dropped drop(int warp, uint32_t mask);
  void reset();

 private:
  struct OfWarp {
    std::vector<std::unique_ptr<Batch>> batches;  // oldest first
    std::array<uint32_t, 32> committed{};         // groups of each lane
  };
  void remove_closed(OfWarp& w);

  std::array<OfWarp, 32> warps_;
  std::vector<std::unique_ptr<Batch>> unused_;
};

template <class Complete>
void AsyncCopies::wait(int warp, uint32_t mask, uint32_t pending, bool all, Complete complete) {
  OfWarp& w = warps_[warp];
  if (w.batches.empty()) return;
  bool closed = false;
  for (auto& batch : w.batches) {
    uint32_t lanes = batch->open & mask;
    if (!all) {
      uint32_t ready = 0;
      for (int lane = 0; lane < 32; ++lane) {
        ready |= static_cast<uint32_t>(batch->group[lane] + pending < w.committed[lane]) << lane;
      }
      lanes &= ready;
    }
    if (lanes == 0) continue;
    complete(*batch, lanes);
    batch->open &= ~lanes;
    closed |= batch->open == 0;
  }
  if (closed) remove_closed(w);
}

}  // namespace ptx_simulator
