// Barriers of a block: what they order and reduce, and that threads which never reach one are
// found, where they are, whatever the order in which warps run.
#include <cstdio>
#include <string>

#include "check.h"
#include "tests/run_ptx.h"

namespace ptx_simulator::test {
namespace {

using altiplano::test::Random;

constexpr uint64_t kSeeds = 20;

constexpr const char* kRegisters = R"(
  .reg .pred %p<16>;
  .reg .b32 %r<32>;
  .reg .b64 %rd<8>;
  .shared .align 4 .b8 values[4096];
  mov.u32 %r1, %tid.x;
  mov.u32 %r2, %ntid.x;
  mov.u32 %r3, values;
  shl.b32 %r4, %r1, 2;
  add.s32 %r4, %r3, %r4;
)";
constexpr const char* kStore = R"(
  ld.param.u64 %rd1, [out];
  mul.wide.u32 %rd2, %r1, 4;
  add.s64 %rd1, %rd1, %rd2;
  st.global.u32 [%rd1], %r10;
  ret;
)";
std::string with_out(const std::string& body) {
  return kernel(".param .u64 out", kRegisters + body + kStore);
}

template <class Model>
void check_values(const char* name, const std::string& body, uint32_t threads, Model model) {
  const Kernel compiled(with_out(body));
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Buffer<uint32_t> out(threads);
    const LaunchReport report = run_ptx(compiled, {.block = {threads}, .seed = seed}, out);
    CHECK(clean(report), "%s: %s", name, describe(report).c_str());
    for (uint32_t t = 0; t < threads; ++t) {
      CHECK(out[t] == model(t), "%s, seed %lu, thread %u: %u, not %u", name,
            static_cast<unsigned long>(seed), t, out[t], model(t));
    }
  }
}

// Every thread reads what the last thread before it wrote, many times.
void test_exchange() {
  for (const char* barrier :
       {"bar.sync 0;", "barrier.cta.sync 3;", "bar.cta.sync 2, %r5;", "barrier.sync.aligned 15;"}) {
    for (const uint32_t threads : {64u, 256u, 48u, 1000u}) {
      std::string body = R"(
  add.u32 %r5, %r2, 31;
  and.b32 %r5, %r5, -32;
  mov.u32 %r10, %r1;
  add.u32 %r6, %r1, 1;
  rem.u32 %r6, %r6, %r2;
  shl.b32 %r6, %r6, 2;
  add.s32 %r6, %r3, %r6;
  mov.u32 %r7, 0;
LOOP:
  st.shared.u32 [%r4], %r10;
  BARRIER
  ld.shared.u32 %r10, [%r6];
  BARRIER
  add.u32 %r7, %r7, 1;
  setp.lt.u32 %p1, %r7, 5;
  @%p1 bra LOOP;
)";
      for (size_t at; (at = body.find("BARRIER")) != std::string::npos;) {
        body.replace(at, 7, barrier);
      }
      check_values(barrier, body, threads, [&](uint32_t t) { return (t + 5) % threads; });
    }
  }
}

void test_reductions() {
  Random random(3);
  for (int trial = 0; trial < 8; ++trial) {
    // Thread t votes yes if bit t % 32 of `bits` is set; all, none and one no among the trials.
    uint32_t bits = static_cast<uint32_t>(random.integer(0, UINT32_MAX));
    if (trial == 0) bits = UINT32_MAX;
    if (trial == 1) bits = 0;
    if (trial == 2) bits = UINT32_MAX - 16;
    const std::string vote = "  mov.u32 %r5, " + std::to_string(bits) + R"(;
  and.b32 %r6, %r1, 31;
  shr.u32 %r5, %r5, %r6;
  and.b32 %r5, %r5, 1;
  setp.ne.u32 %p1, %r5, 0;
)";
    for (const uint32_t threads : {96u, 40u}) {
      uint32_t yes = 0;
      for (uint32_t t = 0; t < threads; ++t) yes += bits >> t % 32 & 1;
      const std::string select = "  selp.u32 %r10, 1, 0, %p2;\n";
      for (const std::string op : {"bar.red", "barrier.cta.red", "barrier.red"}) {
        check_values("popc", vote + op + ".popc.u32 %r10, 1, %p1;\n", threads,
                     [&](uint32_t) { return yes; });
        check_values("popc of no", vote + op + ".popc.u32 %r10, 1, !%p1;\n", threads,
                     [&](uint32_t) { return threads - yes; });
        check_values("and", vote + op + ".and.pred %p2, 0, %p1;\n" + select, threads,
                     [&](uint32_t) { return yes == threads; });
        check_values("or", vote + op + ".or.pred %p2, 0, %p1;\n" + select, threads,
                     [&](uint32_t) { return yes != 0; });
      }
      if (threads % 32 != 0) continue;
      check_values("popc with a count", vote + "bar.red.popc.u32 %r10, 1, %r2, %p1;\n", threads,
                   [&](uint32_t) { return yes; });
    }
  }
}

// Warp 0 produces, warp 1 consumes, with two buffers and four barriers.
void test_producer_and_consumer() {
  const std::string text = with_out(R"(
  mov.u32 %r10, 0;
  mov.u32 %r5, 0;
  and.b32 %r6, %r4, 127;
  add.s32 %r6, %r3, %r6;
  setp.ge.u32 %p1, %r1, 32;
  @%p1 bra CONSUMER;
PRODUCER:
  and.b32 %r7, %r5, 1;
  add.u32 %r8, %r7, 3;
  setp.lt.u32 %p2, %r5, 2;
  @%p2 bra FREE;
  bar.sync %r8, 64;
FREE:
  shl.b32 %r9, %r7, 7;
  add.u32 %r9, %r6, %r9;
  mad.lo.u32 %r11, %r5, 100, %r1;
  st.shared.u32 [%r9], %r11;
  add.u32 %r8, %r7, 1;
  bar.arrive %r8, 64;
  add.u32 %r5, %r5, 1;
  setp.lt.u32 %p3, %r5, 10;
  @%p3 bra PRODUCER;
  bra END;
CONSUMER:
  and.b32 %r7, %r5, 1;
  add.u32 %r8, %r7, 1;
  bar.sync %r8, 64;
  shl.b32 %r9, %r7, 7;
  add.u32 %r9, %r6, %r9;
  xor.b32 %r9, %r9, 4;
  ld.shared.u32 %r11, [%r9];
  add.u32 %r10, %r10, %r11;
  setp.ge.u32 %p2, %r5, 8;
  @%p2 bra LAST;
  add.u32 %r8, %r7, 3;
  bar.arrive %r8, 64;
LAST:
  add.u32 %r5, %r5, 1;
  setp.lt.u32 %p3, %r5, 10;
  @%p3 bra CONSUMER;
END:
)");
  const Kernel compiled(text);
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Buffer<uint32_t> out(64);
    const LaunchReport report = run_ptx(compiled, {.block = {64}, .seed = seed}, out);
    CHECK(clean(report), "%s", describe(report).c_str());
    for (uint32_t t = 32; t < 64; ++t) {
      const uint32_t expected = 4500 + 10 * ((t - 32) ^ 1);
      CHECK(out[t] == expected, "thread %u: %u, not %u", t, out[t], expected);
    }
  }
}

// Even and odd threads of two warps meet at different barriers, with one instruction.
void test_barriers_of_half_warps() {
  check_values("half warps", R"(
  and.b32 %r5, %r1, 1;
  add.u32 %r6, %r5, 4;
  setp.ne.u32 %p1, %r5, 0;
  st.shared.u32 [%r4], %r1;
  barrier.sync %r6, 32;
  xor.b32 %r7, %r1, 62;
  shl.b32 %r7, %r7, 2;
  add.u32 %r7, %r3, %r7;
  ld.shared.u32 %r10, [%r7];
  @%p1 bra END;
  barrier.sync 9, 32;
END:
)",
               64, [](uint32_t t) { return t ^ 62; });
}

// --- planted bugs ---

enum class Stops { kNo, kYes, kEither };

void check_planted(const char* name, const std::string& body, Stops stops, uint32_t threads = 64) {
  const std::string text = kernel("", kRegisters + body + "\n  ret;\n");
  const Kernel compiled(text);
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const LaunchReport report = run_ptx(compiled, {.grid = {2}, .block = {threads}, .seed = seed});
    CHECK(found(report, FindingKind::kBarrierDivergence, line_of(text, "/*here*/")),
          "%s, seed %lu: %s", name, static_cast<unsigned long>(seed), describe(report).c_str());
    CHECK(stops == Stops::kEither || report.stopped == (stops == Stops::kYes), "%s: stopped %d",
          name, report.stopped);
  }
}

void test_planted_divergence() {
  check_planted("a branch skips the barrier", R"(
  setp.ge.u32 %p1, %r1, 16;
  @%p1 bra END;
  /*here*/ bar.sync 0;
END:)",
                Stops::kNo);
  check_planted("a warp skips the barrier", R"(
  setp.ge.u32 %p1, %r1, 32;
  @%p1 bra END;
  /*here*/ bar.sync 0;
END:)",
                Stops::kNo);
  check_planted("a thread exits before the barrier", R"(
  setp.eq.u32 %p1, %r1, 5;
  @%p1 exit;
  /*here*/ bar.sync 0;)",
                Stops::kNo);
  check_planted("a guarded barrier", R"(
  setp.ne.u32 %p1, %r1, 63;
  @%p1 /*here*/ bar.sync 0;)",
                Stops::kNo);
  check_planted("a barrier in each branch", R"(
  setp.ge.u32 %p1, %r1, 16;
  @%p1 bra HIGH;
  /*here*/ bar.sync 0;
  bra END;
HIGH:
  bar.sync 0;
END:)",
                Stops::kNo);
  check_planted("a loop of different lengths", R"(
LOOP:
  /*here*/ bar.sync 0;
  setp.eq.u32 %p1, %r1, 0;
  sub.u32 %r1, %r1, 1;
  @!%p1 bra LOOP;)",
                Stops::kNo, 40);
  check_planted("warps at different barriers", R"(
  setp.ge.u32 %p1, %r1, 32;
  @%p1 bra HIGH;
  /*here*/ bar.sync 1, 64;
  bra END;
HIGH:
  bar.sync 2, 64;
END:)",
                Stops::kYes);
  check_planted("different numbers of threads", R"(
  setp.ge.u32 %p1, %r1, 32;
  selp.u32 %r5, 64, 96, %p1;
  /*here*/ bar.sync 1, %r5;)",
                Stops::kEither, 96);
  check_planted("more threads than there are", "  /*here*/ bar.sync 1, 96;", Stops::kYes);
  check_planted("arrivals that nobody waits for", "  /*here*/ bar.arrive 3, 128;", Stops::kNo);
  check_planted("a thread that comes twice", R"(
  bar.arrive 3, 128;
  /*here*/ bar.arrive 3, 128;)",
                Stops::kNo);
}

// The message says where the others are.
void test_places_in_messages() {
  const std::string text = kernel("", std::string(kRegisters) + R"(
  setp.eq.u32 %p1, %r1, 37;
  @%p1 exit; // gone
  bar.sync 0;
  ret;
)");
  const LaunchReport report = run_ptx(text, {.block = {64}});
  CHECK(report.findings.size() == 1, "%s", describe(report).c_str());
  const std::string message = describe(report);
  const std::string place =
      "thread (37,0,0) had exited at PTX line " + std::to_string(line_of(text, "// gone"));
  CHECK(message.find(place) != std::string::npos, "%s", message.c_str());

  const std::string stuck = kernel("", std::string(kRegisters) + R"(
  setp.ge.u32 %p1, %r1, 32;
  @%p1 bra HIGH;
  bar.sync 1, 64; // low
  ret;
HIGH:
  bar.sync 2, 64; // high
  ret;
)");
  const LaunchReport report2 = run_ptx(stuck, {.block = {64}});
  const std::string message2 = describe(report2);
  for (const char* marker : {"// low", "// high"}) {
    const std::string line = "wait at PTX line " + std::to_string(line_of(stuck, marker));
    CHECK(message2.find(line) != std::string::npos, "%s", message2.c_str());
  }
}

void test_illegal_operands() {
  for (const char* barrier : {"bar.sync 16;", "bar.sync 1, 40;", "bar.sync %r2;"}) {
    const LaunchReport report =
        run_ptx(kernel("", std::string(kRegisters) + barrier + " ret;\n"), {.block = {64}});
    CHECK(found(report, FindingKind::kIllegalInstruction) && report.stopped, "%s: %s", barrier,
          describe(report).c_str());
  }
}

}  // namespace
}  // namespace ptx_simulator::test

int main() {
  using namespace ptx_simulator::test;
  test_exchange();
  test_reductions();
  test_producer_and_consumer();
  test_barriers_of_half_warps();
  test_planted_divergence();
  test_places_in_messages();
  test_illegal_operands();
  std::printf("barriers: %d failures\n", altiplano::test::failures);
  return altiplano::test::failures != 0;
}
