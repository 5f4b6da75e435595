// Shared memory of a block, with a shadow that knows who touched each byte when.
//
// Two accesses by different threads, one of them a write, are a race unless a barrier (or, within a
// warp, a bar.warp.sync) lies between them. Order is tracked with vector clocks: of warps for
// barriers, of the lanes of a warp for bar.warp.sync; a record is ordered before an access if the
// accessing thread has seen the clock that the record was made at. Atomics do not race with each
// other, nor with relaxed, acquire and release accesses; that a release is seen by an acquire
// orders nothing here. Neither do shfl, vote and the like, as in PTX.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace ptx_simulator {

class Warp;
struct Op;

class SharedMemory {
 public:
  explicit SharedMemory(uint32_t size_bytes);
  ~SharedMemory();

  // As if new: nothing was ever written, whatever the bytes are (the next block of the same
  // launch).
  void reset();

  uint32_t size_bytes() const { return size_bytes_; }
  uint8_t* bytes() { return bytes_.get(); }

  // Strong ones are relaxed, acquire and release accesses.
  enum class Access : uint8_t { kRead, kWrite, kAtomic, kStrongRead, kStrongWrite };
  // Checks and records one access of a warp: addresses[lane] are offsets into shared memory, width
  // bytes each. Reports races, reads of bytes never written, unfinished asynchronous copies, and
  // counts wavefronts. Bounds and alignment have been checked. `values` are what a write is going
  // to write, width bytes for each lane: lanes that write the same to one place do not race.
  void access(Warp& warp, const Op& op, uint32_t mask, const uint32_t* addresses, int width,
              Access kind, const uint8_t* values = nullptr);

  // cp.async of `width` bytes to addresses[lane], of which the first source_bytes[lane] come from
  // sources[lane] and the rest are zeros; commit and wait of a thread's groups.
  void copy_begins(Warp& warp, const Op& op, uint32_t mask, const uint32_t* addresses, int width,
                   const uint8_t* const* sources, const uint32_t* source_bytes);
  void commit_group(Warp& warp, uint32_t mask);
  void wait_group(Warp& warp, uint32_t mask, int pending_groups);  // at most so many stay open
  void wait_all(Warp& warp, uint32_t mask);                        // uncommitted copies too

  // A warp executes bar.arrive: what it did until now comes before whatever follows the barrier.
  void arrive(int barrier, int warp);
  // A barrier is complete: the warps in `syncing` leave it.
  void barrier(int barrier, uint32_t syncing);
  // bar.warp.sync of these lanes.
  void warp_barrier(const Warp& warp, uint32_t lanes);
  // Threads end: reports asynchronous copies left open.
  void threads_exit(Warp& warp, const Op& op, uint32_t mask);

 private:
  void wait(Warp& warp, uint32_t mask, int pending_groups, bool all);

  uint32_t size_bytes_;
  std::unique_ptr<uint8_t[]> bytes_;
  struct Shadow;
  std::unique_ptr<Shadow> shadow_;
};

}  // namespace ptx_simulator
