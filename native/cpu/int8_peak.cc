// The loops are assembly: a compiler cannot spill the accumulators, drop work without a result, or
// ask for flags of an instruction set that would leak into the rest of the program. Eight to twelve
// independent accumulators cover the latency of the instructions (4 or 5 cycles, two a cycle). Only
// the registers 0 to 15 are used, which every compiler lets assembly name.
#include "cpu/int8_peak.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>

#include "cpu/dispatch.h"
#include "util/thread_pool.h"

namespace altiplano::cpu {
namespace {

#if defined(ALTIPLANO_X86)

// Four int8 numbers of the kind that kernels meet: power, and with it the clock, depend on the
// data.
constexpr uint32_t kWeights = 0x0b070e03;      // unsigned nibbles
constexpr uint32_t kActivations = 0x55c38e29;  // signed bytes

#define ALTIPLANO_CLOBBERS                                                                 \
  "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
      "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "cc"

// 12 x 64 multiply-adds a round.
void avx512_vnni(int64_t rounds) {
  __asm__ volatile(
      "vpbroadcastd %1, %%zmm12\n"
      "vpbroadcastd %2, %%zmm13\n"
      "0:\n"
      ".irp sum, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11\n"
      "vpdpbusd %%zmm13, %%zmm12, %%zmm\\sum\n"
      ".endr\n"
      "dec %0\n"
      "jnz 0b\n"
      "vzeroupper\n"
      : "+r"(rounds)
      : "m"(kWeights), "m"(kActivations)
      : ALTIPLANO_CLOBBERS);
}

// 12 x 32 multiply-adds a round. The instruction is written in bytes, since assemblers as old as
// the oldest compilers that build this (binutils 2.34) do not know its VEX form:
// vpdpbusd ymm<sum>, ymm12, ymm13 = C4, R'.1.0'.00010, 0.vvvv'=0011.1.01, 50, 11.sum.101.
void avx_vnni(int64_t rounds) {
  __asm__ volatile(
      "vpbroadcastd %1, %%ymm12\n"
      "vpbroadcastd %2, %%ymm13\n"
      "0:\n"
      ".irp sum, 0, 1, 2, 3, 4, 5, 6, 7\n"
      ".byte 0xc4, 0xc2, 0x1d, 0x50, 0xc5 + 8 * \\sum\n"
      ".endr\n"
      ".irp sum, 0, 1, 2, 3\n"
      ".byte 0xc4, 0x42, 0x1d, 0x50, 0xc5 + 8 * \\sum\n"  // ymm8 to ymm11
      ".endr\n"
      "dec %0\n"
      "jnz 0b\n"
      "vzeroupper\n"
      : "+r"(rounds)
      : "m"(kWeights), "m"(kActivations)
      : ALTIPLANO_CLOBBERS);
}

// 4 x 8 x 32 multiply-adds a round. Products of nibbles and bytes may be added up in 16 bits eight
// times (2 * 8 * 15 * 127 < 32768) before they must be widened: what the fastest kernel would do.
void avx2(int64_t rounds) {
  __asm__ volatile(
      "vpbroadcastd %1, %%ymm12\n"
      "vpbroadcastd %2, %%ymm13\n"
      "vpcmpeqw %%ymm14, %%ymm14, %%ymm14\n"
      "vpabsw %%ymm14, %%ymm14\n"  // ones
      "0:\n"
      // Sums in 16 bits: registers 4 to 7; in 32 bits: 0 to 3; products: 8 to 11.
      "vpmaddubsw %%ymm13, %%ymm12, %%ymm4\n"
      "vpmaddubsw %%ymm13, %%ymm12, %%ymm5\n"
      "vpmaddubsw %%ymm13, %%ymm12, %%ymm6\n"
      "vpmaddubsw %%ymm13, %%ymm12, %%ymm7\n"
      ".rept 7\n"
      "vpmaddubsw %%ymm13, %%ymm12, %%ymm8\n"
      "vpmaddubsw %%ymm13, %%ymm12, %%ymm9\n"
      "vpmaddubsw %%ymm13, %%ymm12, %%ymm10\n"
      "vpmaddubsw %%ymm13, %%ymm12, %%ymm11\n"
      "vpaddw %%ymm8, %%ymm4, %%ymm4\n"
      "vpaddw %%ymm9, %%ymm5, %%ymm5\n"
      "vpaddw %%ymm10, %%ymm6, %%ymm6\n"
      "vpaddw %%ymm11, %%ymm7, %%ymm7\n"
      ".endr\n"
      "vpmaddwd %%ymm14, %%ymm4, %%ymm4\n"
      "vpmaddwd %%ymm14, %%ymm5, %%ymm5\n"
      "vpmaddwd %%ymm14, %%ymm6, %%ymm6\n"
      "vpmaddwd %%ymm14, %%ymm7, %%ymm7\n"
      "vpaddd %%ymm4, %%ymm0, %%ymm0\n"
      "vpaddd %%ymm5, %%ymm1, %%ymm1\n"
      "vpaddd %%ymm6, %%ymm2, %%ymm2\n"
      "vpaddd %%ymm7, %%ymm3, %%ymm3\n"
      "dec %0\n"
      "jnz 0b\n"
      "vzeroupper\n"
      : "+r"(rounds)
      : "m"(kWeights), "m"(kActivations)
      : ALTIPLANO_CLOBBERS);
}

#undef ALTIPLANO_CLOBBERS

#endif

struct Loop {
  void (*run)(int64_t rounds);
  int64_t macs;  // a round
};

Loop loop_for(Int8Dot dot) {
  switch (dot) {
#if defined(ALTIPLANO_X86)
    case Int8Dot::kAvx512Vnni:
      return {avx512_vnni, 12 * 64};
    case Int8Dot::kAvxVnni:
      return {avx_vnni, 12 * 32};
    case Int8Dot::kAvx2:
      return {avx2, 4 * 8 * 32};
#endif
    default:
      return {nullptr, 0};
  }
}

}  // namespace

double measure_int8_peak(int threads) {
  const Loop loop = loop_for(int8_dot());
  if (loop.run == nullptr) return 0;
  // Pieces of about 100 microseconds: a thread that is held up is helped out, as in a matmul.
  constexpr int64_t kPieceMacs = int64_t{48} << 20;
  constexpr int64_t kPiecesPerThread = 128;
  const int64_t rounds = kPieceMacs / loop.macs;
  const int64_t pieces = kPiecesPerThread * threads;
  ThreadPool pool(threads);
  std::array<double, 6> rates;
  for (double& rate : rates) {
    const auto start = std::chrono::steady_clock::now();
    pool.parallel_for(pieces, [&](int64_t) { loop.run(rounds); });
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    rate = static_cast<double>(pieces * rounds * loop.macs) / elapsed.count();
  }
  // The first pass wakes the threads and the wide units.
  std::sort(rates.begin() + 1, rates.end());
  return rates[1 + (rates.size() - 1) / 2];
}

}  // namespace altiplano::cpu
