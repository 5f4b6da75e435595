// How long memory instructions of a warp take with all detectors on, in processor time. The goal of
// the simulator is 100 million thread instructions a second, 320 ns for each warp instruction, over
// all of a GEMM kernel; the limits here are several times what was measured, to catch a slip in the
// fast paths but not a slow machine.
#include <cstdio>
#include <ctime>
#include <string>
#include <vector>

#include "check.h"
#include "tests/run_ptx.h"

namespace ptx_simulator::test {
namespace {

constexpr int kCopies = 8;  // of the measured instructions in the loop
constexpr int kThreads = 256;

// %r2: the thread's 16 bytes of shared memory, %r3: its word, %r4: a row of another warp for
// ldmatrix, padded; %rd1: the thread's 16 bytes of global memory, %rd2: its word.
std::string loop(const std::string& body, int iterations) {
  std::string text = R"(
  .reg .pred %p<2>;
  .reg .b16 %h<2>;
  .reg .b32 %r<16>;
  .reg .b64 %rd<8>;
  .shared .align 128 .b8 place[49152];
  mov.u32 %r1, %tid.x;
  ld.param.u64 %rd3, [data];
  mul.wide.u32 %rd1, %r1, 16;
  add.s64 %rd1, %rd3, %rd1;
  mul.wide.u32 %rd2, %r1, 4;
  add.s64 %rd2, %rd3, %rd2;
  mov.u32 %r5, place;
  mov.b16 %h1, 3;
  mov.u32 %r6, 0;
  shl.b32 %r3, %r1, 2;
  add.u32 %r3, %r3, %r5;
fill:
  st.shared.u32 [%r3], %r6;
  add.u32 %r3, %r3, 1024;
  add.u32 %r6, %r6, 1024;
  setp.lt.u32 %p1, %r6, 49152;
  @%p1 bra fill;
  shl.b32 %r2, %r1, 4;
  add.u32 %r2, %r2, %r5;
  shl.b32 %r3, %r1, 2;
  add.u32 %r3, %r3, %r5;
  xor.b32 %r4, %r1, 64;
  mul.lo.u32 %r4, %r4, 144;
  add.u32 %r4, %r4, %r5;
  shl.b32 %r14, %r1, 1;
  add.u32 %r14, %r14, %r5;
  mov.u32 %r6, 0;
  bar.sync 0;
again:
)";
  for (int i = 0; i < kCopies; ++i) text += body;
  text += "bar.sync 0;\nadd.u32 %r6, %r6, 1;\nsetp.lt.u32 %p1, %r6, " + std::to_string(iterations) +
          ";\n@%p1 bra again;\nret;";
  return kernel(".param .u64 data", text);
}

double seconds(const std::string& body, int iterations) {
  const Buffer<uint32_t> data(4096, 1);
  const Kernel compiled(loop(body, iterations));
  const clock_t begin = clock();
  const LaunchReport report = run_ptx(compiled, {.block = {kThreads}}, data);
  const double taken = static_cast<double>(clock() - begin) / CLOCKS_PER_SEC;
  CHECK(clean(report), "%s: %s", body.c_str(), describe(report).c_str());
  return taken;
}

void measure(const char* body, int instructions, double most_ns) {
  constexpr int kIterations = 1000;
  double best = 1e9;
  for (int i = 0; i < 3; ++i) {
    const double taken = seconds(body, kIterations) - seconds("", kIterations);
    best = std::min(best, taken);
  }
  const double ns = best * 1e9 / (double{kIterations} * kCopies * kThreads / 32 * instructions);
  std::printf("%6.0f ns  %s\n", ns, body);
  CHECK(ns < most_ns, "%.0f ns for %s", ns, body);
}

}  // namespace
}  // namespace ptx_simulator::test

int main() {
  using namespace ptx_simulator::test;
  measure("mov.u32 %r7, %r1;", 1, 100);
  measure("ld.global.u32 %r7, [%rd2];", 1, 800);
  measure("ld.global.v4.u32 {%r7, %r8, %r9, %r10}, [%rd1];", 1, 1000);
  measure("st.global.u32 [%rd2], %r1;", 1, 800);
  measure("st.global.v4.u32 [%rd1], {%r1, %r1, %r1, %r1};", 1, 1000);
  measure("ld.shared.u32 %r7, [%r3];", 1, 1000);
  measure("ld.shared.v4.u32 {%r7, %r8, %r9, %r10}, [%r2];", 1, 1500);
  measure("st.shared.u32 [%r3], %r1;", 1, 1500);
  measure("st.shared.v4.u32 [%r2], {%r1, %r1, %r1, %r1};", 1, 3000);
  measure("st.shared.u32 [%r3], %r1; bar.warp.sync -1;", 2, 1500);
  measure("st.shared.u16 [%r14], %h1; bar.sync 0;", 2, 5000);
  measure("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r7, %r8, %r9, %r10}, [%r4];", 1, 1500);
  measure("red.shared.add.u32 [%r3], 1;", 1, 4000);
  measure("red.global.add.u32 [%rd2], 1;", 1, 4000);
  measure(
      "cp.async.cg.shared.global [%r2], [%rd1], 16; cp.async.commit_group; cp.async.wait_group 0;"
      "bar.sync 0;",
      4, 1500);
  std::printf("speed of memory: %d failures\n", altiplano::test::failures);
  return altiplano::test::failures != 0;
}
