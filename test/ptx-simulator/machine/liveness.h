// Which registers hold a value that is still needed, at each op of a function; and how registers
// that are never needed at the same time share a place. PTX has a register for every value that is
// ever computed, a kernel hundreds of them, of which some dozens live at a time: a large GEMM
// kernel would need a megabyte for each warp, and shares 30 KB. All resident warps' registers then
// stay in the processor's caches (measured on such a kernel: 11 ns an instruction instead of 29).
//
// This is per thread, as the lanes of a slot are: lanes that diverged follow the same graph of ops,
// each on its own path.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ptx_simulator {

// Which registers an op reads and writes, by number, and where its lanes may go from there.
struct RegisterUse {
  std::vector<uint32_t> reads;
  std::vector<uint32_t> writes;
  std::vector<int32_t> successors;  // ops of the same function
  bool always_writes = true;        // it has no guard
};

// For each register the ops at which it must have its place to itself: those it is live into, and
// those that read or write it. So what an op writes never shares a place with what it reads, and an
// execution function may write early.
class Liveness {
 public:
  Liveness(const std::vector<RegisterUse>& ops, size_t registers);

  bool is_used(size_t reg) const { return lives_[reg].begin < lives_[reg].end; }
  // A place for each register of `chosen`: equal numbers share. Returns how many places there are.
  size_t share(const std::vector<uint32_t>& chosen, std::vector<uint32_t>& places) const;

 private:
  // A set of ops: one bit each, from word `begin` of all ops on to `end`.
  struct Life {
    size_t begin = 0;
    size_t end = 0;
    std::vector<uint64_t> bits;
  };
  void add(size_t reg, size_t op);

  size_t ops_;
  std::vector<Life> lives_;
};

}  // namespace ptx_simulator
