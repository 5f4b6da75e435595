// What single instructions cost: nanoseconds for a warp, one core, all 32 lanes active (and, in the
// second column, half of them).
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>

#include "tests/run_ptx.h"

namespace ptx_simulator::test {
namespace {

constexpr int kCopies = 16, kRounds = 4000;

double nanoseconds(const std::string& instruction, bool half) {
  std::string loop;
  for (int i = 0; i < kCopies; ++i) loop += (half ? "@%p2 " : "") + instruction + "\n";
  const Kernel compiled(kernel("", R"(
  .reg .pred %p<8>;
  .reg .b16 %h<4>;
  .reg .b32 %r<8>;
  .reg .f32 %f<8>;
  .reg .b64 %l<8>;
  .reg .f64 %d<8>;
  mov.u32 %r0, 0;
  mov.u32 %r1, %tid.x;
  and.b32 %r2, %r1, 1;
  setp.eq.u32 %p2, %r2, 0;
  setp.eq.u32 %p3, %r2, 0;
  mov.b32 %r2, 0x3c003c00;
  mov.b32 %r3, 0x3555bc12;
  mov.b16 %h1, 0x3c00;
  cvt.rn.f32.u32 %f1, %r1;
  mov.f32 %f2, 0f3F800000;
  mov.f32 %f3, 0f40490FDB;
  mov.u64 %l1, 0x12345678abcdef;
  mov.u64 %l2, 77;
  mov.f64 %d1, 0d400921FB54442D18;
LOOP:
)" + loop + R"(
  add.u32 %r0, %r0, 1;
  setp.lt.u32 %p1, %r0, )" + std::to_string(kRounds) +
                                       R"(;
  @%p1 bra LOOP;
  ret;
)"));
  double best = 1e9;
  for (int run = 0; run < 3; ++run) {
    const auto start = std::chrono::steady_clock::now();
    run_ptx(compiled, Shape{});
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    best = std::min(best, time.count());
  }
  return best * 1e9 / (kCopies * kRounds);
}

}  // namespace
}  // namespace ptx_simulator::test

int main() {
  for (const char* instruction : {
           "add.s32 %r4, %r1, %r2;",
           "mad.lo.s32 %r4, %r1, %r2, %r3;",
           "mul.wide.s32 %l4, %r1, 4;",
           "add.s64 %l4, %l1, %l2;",
           "mul.lo.s64 %l4, %l1, %l2;",
           "div.s32 %r4, %r1, %r2;",
           "and.b32 %r4, %r1, %r2;",
           "lop3.b32 %r4, %r1, %r2, %r3, 0x6a;",
           "shl.b32 %r4, %r1, 3;",
           "shr.s32 %r4, %r1, %r1;",
           "shf.l.wrap.b32 %r4, %r1, %r2, 7;",
           "prmt.b32 %r4, %r1, %r2, 0x5410;",
           "bfe.u32 %r4, %r1, 4, 8;",
           "dp4a.s32.s32 %r4, %r1, %r2, %r3;",
           "setp.lt.s32 %p4, %r1, %r2;",
           "setp.lt.f32 %p4, %f1, %f2;",
           "selp.b32 %r4, %r1, %r2, %p3;",
           "mov.b32 %r4, {%h1, %h1};",
           "mov.b32 {%h2, %h3}, %r1;",
           "mov.b64 {%r4, %r5}, %l1;",
           "add.f32 %f4, %f1, %f2;",
           "fma.rn.f32 %f4, %f1, %f2, %f3;",
           "fma.rz.f32 %f4, %f1, %f2, %f3;",
           "max.f32 %f4, %f1, %f2;",
           "div.rn.f32 %f4, %f1, %f3;",
           "fma.rn.f64 %d4, %d1, %d1, %d1;",
           "ex2.approx.ftz.f32 %f4, %f2;",
           "rcp.approx.ftz.f32 %f4, %f3;",
           "rsqrt.approx.f32 %f4, %f3;",
           "lg2.approx.f32 %f4, %f3;",
           "sin.approx.f32 %f4, %f3;",
           "tanh.approx.f32 %f4, %f3;",
           "fma.rn.f16x2 %r4, %r2, %r3, %r2;",
           "add.f16x2 %r4, %r2, %r3;",
           "fma.rn.bf16x2 %r4, %r2, %r3, %r2;",
           "max.f16x2 %r4, %r2, %r3;",
           "cvt.rn.f32.s32 %f4, %r1;",
           "cvt.rzi.s32.f32 %r4, %f1;",
           "cvt.f32.f16 %f4, %h1;",
           "cvt.rn.f16.f32 %h2, %f1;",
           "cvt.rn.f16x2.f32 %r4, %f1, %f2;",
           "cvt.rn.bf16x2.f32 %r4, %f1, %f2;",
           "cvt.u64.u32 %l4, %r1;",
           "cvt.u32.u64 %r4, %l1;",
           "cvt.s32.s16 %r4, %h1;",
           "cvt.s16.s8 %h2, %h1;",
           "cvt.f64.f32 %d4, %f1;",
           "cvt.rn.f32.f64 %f4, %d1;",
       }) {
    std::printf("%-40s %7.1f %7.1f\n", instruction,
                ptx_simulator::test::nanoseconds(instruction, false),
                ptx_simulator::test::nanoseconds(instruction, true));
  }
}
