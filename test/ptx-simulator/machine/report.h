// What a launch leaves behind: findings (bugs that a detector saw) and counters (the inputs of the
// performance tests).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace ptx_simulator {

enum class FindingKind : uint8_t {
  kSharedRace,     // two threads, one of them writing, nothing that orders them
  kAsyncCopyRace,  // a cp.async destination touched before its group was waited for
  kUninitialized,  // shared memory that was never written is read
  kOutOfBounds,    // outside of every allocation, or across the end of one
  kUseAfterFree,
  kMisaligned,
  kBarrierDivergence,   // a barrier or .sync operation that some of its threads never reach
  kOpenAsyncGroup,      // a thread ends with copies that it did not wait for
  kDeadlock,            // nothing can run any more, or nothing moves for too long
  kIllegalInstruction,  // operands that the instruction forbids (a shfl from outside its mask, ...)
};
const char* name_of(FindingKind kind);

struct Finding {
  FindingKind kind;
  std::string kernel;
  std::array<uint32_t, 3> block{};
  std::array<uint32_t, 3> thread{};
  int line = 0;         // of the PTX text
  int source_line = 0;  // of the CUDA source, 0 if unknown
  std::string text;     // what happened, with the other thread's place where there is one

  // One line: "shared race in kernel softmax, block (0,0,0), thread (33,0,0), PTX line 71: ..."
  std::string to_string() const;
};

enum class InstructionClass : uint8_t {
  kInteger,
  kFloat32,
  kFloat64,
  kHalf,  // f16, bf16, packed or not
  kConvert,
  kMove,  // mov, selp, prmt, cvta
  kSpecialFunction,
  kControl,
  kSync,  // barriers, shfl, vote, match, redux, fences
  kLoad,
  kStore,
  kAtomic,
  kAsyncCopy,
  kLdmatrix,
  kMma,
  kCount,
};
const char* name_of(InstructionClass kind);

struct Counters {
  // Each instruction counts once per warp, and once per thread whose guard holds.
  uint64_t warp_instructions = 0;
  uint64_t thread_instructions = 0;
  std::array<uint64_t, static_cast<size_t>(InstructionClass::kCount)> warp_instructions_of{};

  // Global memory. A sector is 32 aligned bytes; each one counts once per warp instruction that
  // touches it (no caches are modelled). cp.async counts as a read, an atomic as both.
  uint64_t global_read_bytes = 0;
  uint64_t global_read_sectors = 0;
  uint64_t global_write_bytes = 0;
  uint64_t global_write_sectors = 0;

  // Shared memory. A wavefront serves each of the 32 banks (4 bytes wide) once; ideal is how many a
  // conflict-free instruction that moves as many distinct bytes would need.
  uint64_t shared_wavefronts = 0;
  uint64_t shared_ideal_wavefronts = 0;

  uint64_t barriers = 0;           // per warp
  uint64_t mma_multiply_adds = 0;  // of all warps
  uint64_t local_bytes = 0;        // local memory read and written

  void add(const Counters& other);
};

struct LaunchReport {
  std::string kernel;
  std::array<uint32_t, 3> grid{};
  std::array<uint32_t, 3> block{};
  uint32_t dynamic_shared_bytes = 0;
  Counters counters;
  std::vector<Finding> findings;  // at most kMostFindings, the first of each kind and line
  bool stopped = false;           // a finding after which the kernel could not go on
};
inline constexpr size_t kMostFindings = 64;

}  // namespace ptx_simulator
