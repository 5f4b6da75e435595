// How fast the machine steps: thread instructions (one PTX instruction executed by one thread) a
// second on one core, for small loops, and what a launch costs.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>

#include "tests/run_ptx.h"

namespace ptx_simulator::test {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The best of a few runs.
void measure_loop(const char* name, const std::string& loop, Shape shape) {
  const Kernel compiled(kernel(".param .u64 out", R"(
  .reg .pred %p<8>;
  .reg .b32 %r<32>;
  .reg .f32 %f<8>;
  .reg .b64 %rd<8>;
  .shared .align 4 .b8 values[4096];
  ld.param.u64 %rd1, [out];
  mov.u32 %r1, %tid.x;
  mov.u32 %r2, values;
  shl.b32 %r3, %r1, 2;
  add.s32 %r3, %r2, %r3;
  st.shared.u32 [%r3], %r1;
  mov.u32 %r4, 0;
  mov.u32 %r5, %r1;
  mov.f32 %f1, 0f3F800000;
  mov.f32 %f2, 0f3F000000;
LOOP:
)" + loop + R"(
  add.u32 %r4, %r4, 1;
  setp.lt.u32 %p1, %r4, 2000;
  @%p1 bra LOOP;
  cvt.rzi.u32.f32 %r6, %f1;
  add.u32 %r5, %r5, %r6;
  mul.wide.u32 %rd2, %r1, 4;
  add.s64 %rd1, %rd1, %rd2;
  st.global.u32 [%rd1], %r5;
  ret;
)"));
  Buffer<uint32_t> out(1024);
  double best = 1e9;
  uint64_t thread_instructions = 0;
  uint64_t warp_instructions = 0;
  for (int run = 0; run < 5; ++run) {
    const auto start = std::chrono::steady_clock::now();
    const LaunchReport report = run_ptx(compiled, shape, out);
    best = std::min(best, seconds_since(start));
    thread_instructions = report.counters.thread_instructions;
    warp_instructions = report.counters.warp_instructions;
    if (!clean(report)) std::printf("%s\n", describe(report).c_str());
  }
  std::printf("%-28s %7.0f million thread instructions/s, %5.1f ns a warp instruction\n", name,
              static_cast<double>(thread_instructions) / best / 1e6,
              best * 1e9 / static_cast<double>(warp_instructions));
}

void measure_launches() {
  const Kernel compiled(kernel(".param .u64 out", R"(
  .reg .b32 %r<4>;
  .reg .b64 %rd<4>;
  ld.param.u64 %rd1, [out];
  mov.u32 %r1, %tid.x;
  mul.wide.u32 %rd2, %r1, 4;
  add.s64 %rd1, %rd1, %rd2;
  st.global.u32 [%rd1], %r1;
  ret;
)"));
  Buffer<uint32_t> out(1024);
  for (const uint32_t shared_bytes : {0u, 96u * 1024}) {
    for (const uint32_t blocks : {1u, 2u, 32u}) {
      for (const int threads : {1, 0}) {
        const Shape shape{
            .grid = {blocks}, .dynamic_shared_bytes = shared_bytes, .host_threads = threads};
        constexpr int kLaunches = 1000;
        for (int i = 0; i < kLaunches / 10; ++i) run_ptx(compiled, shape, out);
        const auto start = std::chrono::steady_clock::now();
        for (int i = 0; i < kLaunches; ++i) run_ptx(compiled, shape, out);
        std::printf("a launch of %2u blocks, %2u KB shared memory, %s: %.1f us\n", blocks,
                    shared_bytes / 1024, threads == 1 ? "one host thread" : "all host threads",
                    seconds_since(start) / kLaunches * 1e6);
      }
    }
  }
}

}  // namespace
}  // namespace ptx_simulator::test

int main() {
  using namespace ptx_simulator::test;
  const Shape warp{.grid = {8}};
  const Shape block{.grid = {8}, .block = {256}};
  const std::string integers = R"(
  mad.lo.u32 %r5, %r5, 5, 1;
  xor.b32 %r6, %r5, %r4;
  shr.u32 %r7, %r6, 3;
  add.u32 %r5, %r5, %r7;
  min.u32 %r8, %r5, %r6;
  sub.u32 %r5, %r5, %r8;
)";
  measure_loop("integers, 1 warp", integers, warp);
  measure_loop("integers, 8 warps", integers, block);
  measure_loop("fma.f32, 8 warps", R"(
  fma.rn.f32 %f1, %f1, %f2, %f2;
  fma.rn.f32 %f3, %f1, %f2, %f2;
  fma.rn.f32 %f4, %f3, %f1, %f2;
  fma.rn.f32 %f1, %f4, %f2, %f2;
)",
               block);
  measure_loop("a branch of half the lanes", R"(
  and.b32 %r6, %r1, 1;
  setp.eq.u32 %p2, %r6, 0;
  @%p2 bra EVEN;
  add.u32 %r5, %r5, 1;
EVEN:
  add.u32 %r5, %r5, 2;
)",
               block);
  measure_loop("shfl.sync", "shfl.sync.bfly.b32 %r5, %r5, 1, 31, -1;", block);
  measure_loop("ld.shared", "ld.shared.u32 %r6, [%r3]; add.u32 %r5, %r5, %r6;", block);
  measure_loop("bar.sync", "bar.sync 0;", block);
  measure_launches();
}
