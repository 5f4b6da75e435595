// Jumps of some lanes: that they compute the right thing, that lanes meet again where they should,
// and that no lane waits for another for ever because of the order in which they step.
#include <cstdio>
#include <string>

#include "check.h"
#include "tests/run_ptx.h"

namespace ptx_simulator::test {
namespace {

constexpr uint32_t kAllLanes = UINT32_MAX;
constexpr int kSeeds = 20;

// Parameter `out`; %r1 the thread, %r4 the thread of the grid, %rd2 its 8 bytes in out. The body
// leaves its result in %r10 and the lanes it was computed with in %r11.
std::string with_result(const std::string& body, const std::string& before = "") {
  return kernel(".param .u64 out", R"(
  .reg .pred %p<16>;
  .reg .b32 %r<64>;
  .reg .b64 %rd<16>;
  mov.u32 %r1, %tid.x;
  mov.u32 %r2, %ntid.x;
  mov.u32 %r3, %ctaid.x;
  mad.lo.s32 %r4, %r3, %r2, %r1;
  mov.u32 %r10, 0;
)" + body + R"(
  activemask.b32 %r11;
  ld.param.u64 %rd1, [out];
  mul.wide.u32 %rd2, %r4, 8;
  add.s64 %rd2, %rd1, %rd2;
  st.global.u32 [%rd2], %r10;
  st.global.u32 [%rd2+4], %r11;
  ret;
)",
                before);
}

template <class Model>
void check_results(const char* name, const std::string& text, uint32_t threads, Model model) {
  const Kernel compiled(text);
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    Buffer<uint32_t> out(2 * threads);
    const LaunchReport report = run_ptx(compiled, {.block = {threads}, .seed = seed}, out);
    CHECK(clean(report), "%s: %s", name, describe(report).c_str());
    for (uint32_t t = 0; t < threads; ++t) {
      const uint32_t expected = model(t);
      CHECK(out[2 * t] == expected, "%s, thread %u: %u, not %u", name, t, out[2 * t], expected);
      const uint32_t lanes = t / 32 * 32 + 32 <= threads ? kAllLanes : (1u << threads % 32) - 1;
      CHECK(out[2 * t + 1] == lanes, "%s, thread %u: lanes %08x do not meet", name, t,
            out[2 * t + 1]);
    }
  }
}

void test_nested_branches() {
  const std::string text = with_result(R"(
  and.b32 %r5, %r1, 1;
  setp.eq.u32 %p1, %r5, 0;
  and.b32 %r6, %r1, 2;
  setp.ne.u32 %p2, %r6, 0;
  @%p1 bra EVEN;
  @%p2 bra ODD_HIGH;
  add.u32 %r10, %r10, 1;
  bra.uni ODD_END;
ODD_HIGH:
  add.u32 %r10, %r10, 10;
ODD_END:
  add.u32 %r10, %r10, 100;
  bra.uni END;
EVEN:
  @!%p2 bra EVEN_END;
  add.u32 %r10, %r10, 1000;
EVEN_END:
  add.u32 %r10, %r10, 10000;
END:
  add.u32 %r10, %r10, %r1;
)");
  for (const uint32_t threads : {1u, 32u, 48u, 96u}) {
    check_results("nested branches", text, threads, [](uint32_t t) {
      const uint32_t odd = 100 + ((t & 2) != 0 ? 10 : 1);
      const uint32_t even = 10000 + ((t & 2) != 0 ? 1000 : 0);
      return t + ((t & 1) != 0 ? odd : even);
    });
  }
}

void test_loops_of_different_lengths() {
  // A loop in a loop: sum over i < t of the number of j <= i % 5.
  const std::string text = with_result(R"(
  mov.u32 %r5, 0;
OUTER:
  setp.ge.u32 %p1, %r5, %r1;
  @%p1 bra END;
  rem.u32 %r6, %r5, 5;
INNER:
  add.u32 %r10, %r10, 1;
  setp.ne.u32 %p2, %r6, 0;
  sub.u32 %r6, %r6, 1;
  @%p2 bra INNER;
  add.u32 %r5, %r5, 1;
  bra.uni OUTER;
END:
)");
  check_results("loops", text, 64, [](uint32_t t) {
    uint32_t sum = 0;
    for (uint32_t i = 0; i < t; ++i) sum += i % 5 + 1;
    return sum;
  });
}

// Longer than the patience of a warp with lanes that run apart (machine/warp.cc): the others may
// come first for a while, and the result stays the same.
void test_long_loop_of_one_lane() {
  const Kernel text(with_result(R"(
  setp.ne.u32 %p1, %r1, 7;
  @%p1 bra END;
LOOP:
  add.u32 %r10, %r10, 1;
  setp.lt.u32 %p2, %r10, 20000;
  @%p2 bra LOOP;
END:
  add.u32 %r10, %r10, %r1;
)"));
  Buffer<uint32_t> out(64);
  const LaunchReport report = run_ptx(text, {}, out);
  CHECK(clean(report), "%s", describe(report).c_str());
  for (uint32_t t = 0; t < 32; ++t) {
    CHECK(out[2 * t] == (t == 7 ? 20007 : t), "thread %u: %u", t, out[2 * t]);
  }
}

void test_branch_table() {
  const std::string text = with_result(R"(
  and.b32 %r5, %r1, 3;
  targets: .branchtargets CASE_C, CASE_A, CASE_B, CASE_A;
  brx.idx %r5, targets;
CASE_A:
  add.u32 %r10, %r10, 1;
  bra.uni END;
CASE_B:
  add.u32 %r10, %r10, 20;
CASE_C:
  add.u32 %r10, %r10, 300;
END:
)");
  check_results("brx.idx", text, 64, [](uint32_t t) {
    constexpr uint32_t kResults[] = {300, 1, 320, 1};
    return kResults[t % 4];
  });
}

void test_branch_index_out_of_range() {
  const std::string text = with_result(R"(
  targets: .branchtargets CASE_A, CASE_B;
  brx.idx %r1, targets;
CASE_A:
  add.u32 %r10, %r10, 1;
CASE_B:
  add.u32 %r10, %r10, 20;
)");
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Buffer<uint32_t> out(64);
    const LaunchReport report = run_ptx(text, {.seed = seed}, out);
    CHECK(report.stopped &&
              found(report, FindingKind::kIllegalInstruction, line_of(text, "brx.idx %r1")),
          "%s", describe(report).c_str());
    CHECK(report.findings.size() == 1 && report.findings[0].thread[0] == 2, "%s",
          describe(report).c_str());
  }
}

constexpr const char* kFunctions = R"(
.func (.param .b32 result) triple_and_one(.param .b32 x)
{
  .reg .b32 %a<4>;
  ld.param.b32 %a1, [x];
  mad.lo.s32 %a2, %a1, 3, 1;
  st.param.b32 [result], %a2;
  ret;
}
// The sum of triple_and_one(i) for i < x.
.func (.param .b32 result) sum(.param .b32 x)
{
  .reg .pred %q<2>;
  .reg .b32 %a<8>;
  ld.param.b32 %a1, [x];
  mov.u32 %a2, 0;
  mov.u32 %a3, 0;
SUM_LOOP:
  setp.ge.u32 %q1, %a2, %a1;
  @%q1 bra SUM_END;
  {
    .param .b32 argument;
    .param .b32 value;
    st.param.b32 [argument], %a2;
    call.uni (value), triple_and_one, (argument);
    ld.param.b32 %a4, [value];
  }
  add.u32 %a3, %a3, %a4;
  add.u32 %a2, %a2, 1;
  bra.uni SUM_LOOP;
SUM_END:
  st.param.b32 [result], %a3;
  ret;
}
)";

void test_calls_in_diverged_code() {
  const std::string call = R"(
  {
    .param .b32 argument;
    .param .b32 value;
    st.param.b32 [argument], %r1;
    call (value), FUNCTION, (argument);
    ld.param.b32 %r10, [value];
  }
)";
  const auto calls = [&](const std::string& function) {
    std::string text = call;
    return text.replace(text.find("FUNCTION"), 8, function);
  };
  const std::string text = with_result(R"(
  rem.u32 %r5, %r1, 3;
  setp.eq.u32 %p1, %r5, 0;
  setp.eq.u32 %p2, %r5, 1;
  @%p1 bra FIRST;
  @%p2 bra SECOND;
)" + calls("sum") + R"(
  bra.uni END;
FIRST:
)" + calls("triple_and_one") + R"(
  bra.uni END;
SECOND:
)" + calls("sum") + R"(
  add.u32 %r10, %r10, 7;
END:
)",
                                       kFunctions);
  check_results("calls", text, 64, [](uint32_t t) {
    uint32_t sum = 0;
    for (uint32_t i = 0; i < t; ++i) sum += 3 * i + 1;
    return t % 3 == 0 ? 3 * t + 1 : t % 3 == 1 ? sum + 7 : sum;
  });
}

// Lanes of a call's own end the kernel: exit differs from ret.
void test_exit_in_a_call() {
  const std::string text = with_result(R"(
  {
    .param .b32 argument;
    st.param.b32 [argument], %r1;
    call leave, (argument);
  }
  mov.u32 %r10, 5;
)",
                                       R"(
.func leave(.param .b32 x)
{
  .reg .pred %q<2>;
  .reg .b32 %a<2>;
  ld.param.b32 %a1, [x];
  setp.gt.u32 %q1, %a1, 9;
  @%q1 exit;
  ret;
}
)");
  Buffer<uint32_t> out(64, 1);
  const LaunchReport report = run_ptx(text, {}, out);
  CHECK(clean(report), "%s", describe(report).c_str());
  for (uint32_t t = 0; t < 32; ++t) {
    CHECK(out[2 * t] == (t <= 9 ? 5 : 1), "thread %u: %u", t, out[2 * t]);
    if (t <= 9) CHECK(out[2 * t + 1] == 0x3ff, "lanes %08x", out[2 * t + 1]);
  }
}

// The lane that has the lock stands behind the loop in which the others of its warp spin.
void test_lock_within_a_warp(const char* name, const std::string& pause) {
  const std::string text = kernel(".param .u64 lock, .param .u64 counter", R"(
  .reg .pred %p<4>;
  .reg .b32 %r<8>;
  .reg .b64 %rd<4>;
  ld.param.u64 %rd1, [lock];
  ld.param.u64 %rd2, [counter];
SPIN:
)" + pause + R"(
  atom.global.cas.b32 %r1, [%rd1], 0, 1;
  setp.ne.s32 %p1, %r1, 0;
  @%p1 bra SPIN;
  membar.gl;
  ld.volatile.global.u32 %r2, [%rd2];
  add.u32 %r2, %r2, 1;
  st.volatile.global.u32 [%rd2], %r2;
  membar.gl;
  atom.global.exch.b32 %r3, [%rd1], 0;
  ret;
)");
  const Kernel compiled(text);
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    Buffer<uint32_t> lock(1, 0), counter(1, 0);
    const LaunchReport report =
        run_ptx(compiled, {.grid = {3}, .block = {64}, .seed = seed}, lock, counter);
    CHECK(clean(report) && counter[0] == 192 && lock[0] == 0, "%s: counter %u; %s", name,
          counter[0], describe(report).c_str());
  }
}

void test_trap() {
  const std::string text = with_result(R"(
  setp.eq.u32 %p1, %r1, 40;
  @%p1 trap;
)");
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Buffer<uint32_t> out(128);
    const LaunchReport report = run_ptx(text, {.block = {64}, .seed = seed}, out);
    CHECK(report.stopped && found(report, FindingKind::kIllegalInstruction, line_of(text, "trap")),
          "%s", describe(report).c_str());
    CHECK(report.findings.size() == 1 && report.findings[0].thread[0] == 40, "%s",
          describe(report).c_str());
  }
}

// Instructions count once per warp, and for the threads whose guard holds.
void test_counters() {
  const std::string text = kernel("", R"(
  .reg .pred %p<4>;
  .reg .b32 %r<8>;
  mov.u32 %r1, %tid.x;
  setp.lt.u32 %p1, %r1, 8;
  @%p1 add.u32 %r2, %r1, 1;
  @!%p1 bra END;
  add.u32 %r2, %r2, 1;
END:
  ret;
)");
  const LaunchReport report = run_ptx(text, {.grid = {3}, .block = {48}});
  const Counters& c = report.counters;
  // Warp 0 takes all 6; warp 1 (16 threads) jumps: 5.
  CHECK(c.warp_instructions == 3 * 11, "%lu", static_cast<unsigned long>(c.warp_instructions));
  const uint64_t threads = (32 + 32 + 8 + 24 + 8 + 32) + (16 + 16 + 0 + 16 + 16);
  CHECK(c.thread_instructions == 3 * threads, "%lu",
        static_cast<unsigned long>(c.thread_instructions));
  const auto of = [&](InstructionClass kind) {
    return c.warp_instructions_of[static_cast<size_t>(kind)];
  };
  CHECK(of(InstructionClass::kControl) == 3 * 4, "control");
  CHECK(of(InstructionClass::kMove) == 3 * 2, "move");
  CHECK(of(InstructionClass::kInteger) == 3 * 5, "integer");
}

}  // namespace
}  // namespace ptx_simulator::test

int main() {
  using namespace ptx_simulator::test;
  test_nested_branches();
  test_loops_of_different_lengths();
  test_long_loop_of_one_lane();
  test_branch_table();
  test_branch_index_out_of_range();
  test_calls_in_diverged_code();
  test_exit_in_a_call();
  test_lock_within_a_warp("a lock", "");
  test_lock_within_a_warp("a lock with nanosleep", "  nanosleep.u32 100;");
  test_trap();
  test_counters();
  std::printf("control flow: %d failures\n", altiplano::test::failures);
  return altiplano::test::failures != 0;
}
