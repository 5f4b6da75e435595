#include "machine/shared_memory.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "machine/async_copies.h"
#include "machine/bank_conflicts.h"
#include "machine/shared_shadow.h"
#include "machine/warp.h"

namespace ptx_simulator {

namespace {

// What shared memory holds that nobody has written, and destinations of copies on their way: NaN in
// every float format.
constexpr int kUnwritten = 0xFF;

void count(Counters& counters, uint32_t mask, const uint32_t* addresses, int width) {
  const Wavefronts wavefronts = count_wavefronts(mask, addresses, width);
  counters.shared_wavefronts += wavefronts.actual;
  counters.shared_ideal_wavefronts += wavefronts.ideal;
}

}  // namespace

struct SharedMemory::Shadow {
  explicit Shadow(uint32_t size_bytes) : records(size_bytes) {}

  // Findings name warps and lanes of the block, whose size a warp knows.
  void start(const Warp& warp) {
    if (records.clocks().started()) return;
    const std::array<uint32_t, 3>& block = warp.block.launch.block;
    records.clocks().start(static_cast<int>(block[0] * block[1] * block[2]));
  }

  SharedShadow records;
  AsyncCopies copies;
};

SharedMemory::SharedMemory(uint32_t size_bytes)
    : size_bytes_(size_bytes),
      bytes_(new uint8_t[(size_bytes + 15) / 16 * 16]),
      shadow_(std::make_unique<Shadow>(size_bytes)) {
  std::memset(bytes_.get(), kUnwritten, size_bytes);
}

SharedMemory::~SharedMemory() = default;

void SharedMemory::reset() {
  shadow_->records.reset();
  shadow_->copies.reset();
  std::memset(bytes_.get(), kUnwritten, size_bytes_);
}

void SharedMemory::access(Warp& warp, const Op& op, uint32_t mask, const uint32_t* addresses,
                          int width, Access kind, const uint8_t* values) {
  shadow_->start(warp);
  count(warp.counters(), mask, addresses, width);
  shadow_->records.access({warp, op, mask, addresses, width, kind, values});
}

void SharedMemory::copy_begins(Warp& warp, const Op& op, uint32_t mask, const uint32_t* addresses,
                               int width, const uint8_t* const* sources,
                               const uint32_t* source_bytes) {
  shadow_->start(warp);
  count(warp.counters(), mask, addresses, width);
  shadow_->records.begin_copies({warp, op, mask, addresses, width, Access::kWrite, nullptr});

  AsyncCopies::Batch& batch = shadow_->copies.begin(warp.index, mask);
  batch.line = op.line;
  batch.width = width;
  batch.taken = (warp.random() >> 16 & 1) != 0;
  for_each_lane(mask, [&](int lane) {
    batch.address[lane] = addresses[lane];
    batch.source[lane] = sources[lane];
    batch.source_bytes[lane] = source_bytes[lane];
    if (batch.taken && source_bytes[lane] != 0) {
      std::memcpy(batch.data[lane].data(), sources[lane], source_bytes[lane]);
    }
    std::memset(bytes_.get() + addresses[lane], kUnwritten, width);
  });
}

void SharedMemory::commit_group(Warp& warp, uint32_t mask) {
  shadow_->copies.commit(warp.index, mask);
}

void SharedMemory::wait_group(Warp& warp, uint32_t mask, int pending_groups) {
  wait(warp, mask, pending_groups, false);
}

void SharedMemory::wait_all(Warp& warp, uint32_t mask) { wait(warp, mask, 0, true); }

void SharedMemory::wait(Warp& warp, uint32_t mask, int pending_groups, bool all) {
  const auto complete = [&](AsyncCopies::Batch& batch, uint32_t lanes) {
    for_each_lane(lanes, [&](int lane) {
      uint8_t* to = bytes_.get() + batch.address[lane];
      const uint8_t* from = batch.taken ? batch.data[lane].data() : batch.source[lane];
      const uint32_t n = batch.source_bytes[lane];
      if (n != 0) std::memcpy(to, from, n);  // else it may be null
      std::memset(to + n, 0, batch.width - n);
      shadow_->records.complete_copy(warp.index, lane, batch.line, batch.address[lane],
                                     batch.width);
    });
  };
  shadow_->copies.wait(warp.index, mask, pending_groups, all, complete);
}

void SharedMemory::arrive(int barrier, int warp) {
  shadow_->records.clocks().arrive(barrier, warp);
  shadow_->records.clocks_advanced();
}

void SharedMemory::barrier(int barrier, uint32_t syncing) {
  shadow_->records.clocks().barrier(barrier, syncing);
  shadow_->records.clocks_advanced();
}

void SharedMemory::warp_barrier(const Warp& warp, uint32_t lanes) {
  shadow_->start(warp);
  shadow_->records.clocks().warp_barrier(warp.index, lanes);
  shadow_->records.clocks_advanced();
}

void SharedMemory::threads_exit(Warp& warp, const Op& op, uint32_t mask) {
  shadow_->start(warp);
  shadow_->records.clocks().exit(warp.index, mask);
  const AsyncCopies::Dropped open = shadow_->copies.drop(warp.index, mask);
  if (open.lanes != 0) {
    warp.report(FindingKind::kOpenAsyncGroup, op, std::countr_zero(open.lanes),
                "the thread ends without having waited for its cp.async at PTX line " +
                    std::to_string(open.line));
  }
}

}  // namespace ptx_simulator
