// Launches: blocks that wait for each other, deadlocks, repeatable schedules, many at once.
#include <algorithm>
#include <cstdio>
#include <set>
#include <string>
#include <thread>

#include "check.h"
#include "tests/run_ptx.h"

namespace ptx_simulator::test {
namespace {

constexpr uint64_t kSeeds = 20;

// Every block adds up its part of `in`; the last one to end, by a counter, adds up the parts.
constexpr const char* kSplitReduction = R"(
  .reg .pred %p<8>;
  .reg .b32 %r<16>;
  .reg .b64 %rd<16>;
  .shared .align 4 .b8 is_last[4];
  ld.param.u64 %rd1, [in];
  ld.param.u64 %rd2, [parts];
  ld.param.u64 %rd3, [counter];
  ld.param.u64 %rd4, [out];
  mov.u32 %r1, %tid.x;
  mov.u32 %r2, %ctaid.x;
  mov.u32 %r3, %nctaid.x;
  shl.b32 %r4, %r2, 5;
  add.u32 %r4, %r4, %r1;
  mul.wide.u32 %rd5, %r4, 4;
  add.s64 %rd5, %rd1, %rd5;
  ld.global.u32 %r5, [%rd5];
  redux.sync.add.u32 %r5, %r5, 0xffffffff;
  mul.wide.u32 %rd6, %r2, 4;
  add.s64 %rd6, %rd2, %rd6;
  setp.ne.u32 %p1, %r1, 0;
  @%p1 bra WAIT;
  st.global.u32 [%rd6], %r5;
  membar.gl;
  atom.global.add.u32 %r6, [%rd3], 1;
  add.u32 %r6, %r6, 1;
  setp.eq.u32 %p2, %r6, %r3;
  selp.u32 %r7, 1, 0, %p2;
  st.shared.u32 [is_last], %r7;
WAIT:
  bar.sync 0;
  ld.shared.u32 %r7, [is_last];
  setp.eq.u32 %p3, %r7, 0;
  @%p3 ret;
  membar.gl;
  mov.u32 %r8, 0;
  mov.u32 %r9, %r1;
LOOP:
  setp.ge.u32 %p4, %r9, %r3;
  @%p4 bra END;
  mul.wide.u32 %rd7, %r9, 4;
  add.s64 %rd7, %rd2, %rd7;
  ld.volatile.global.u32 %r10, [%rd7];
  add.u32 %r8, %r8, %r10;
  add.u32 %r9, %r9, 32;
  bra.uni LOOP;
END:
  redux.sync.add.u32 %r8, %r8, -1;
  @!%p1 st.global.u32 [%rd4], %r8;
  ret;
)";

void test_split_reduction() {
  const Kernel compiled(kernel(
      ".param .u64 in, .param .u64 parts, .param .u64 counter, .param .u64 out", kSplitReduction));
  for (const uint32_t blocks : {1u, 7u, 300u}) {
    std::vector<uint32_t> values(32 * blocks);
    uint32_t sum = 0;
    for (uint32_t i = 0; i < values.size(); ++i) sum += values[i] = i * 2654435761u >> 7;
    Buffer<uint32_t> in(values);
    for (const int threads : {1, 4}) {
      for (uint64_t seed = 1; seed <= 5; ++seed) {
        Buffer<uint32_t> parts(blocks), counter(1), out(1);
        const LaunchReport report =
            run_ptx(compiled, {.grid = {blocks}, .seed = seed, .host_threads = threads}, in, parts,
                    counter, out);
        CHECK(clean(report) && out[0] == sum, "%u blocks: %u, not %u; %s", blocks, out[0], sum,
              describe(report).c_str());
      }
    }
  }
}

// A lock that all blocks take, one after the other.
void test_lock_between_blocks() {
  const Kernel compiled(kernel(".param .u64 lock, .param .u64 counter", R"(
  .reg .pred %p<4>;
  .reg .b32 %r<8>;
  .reg .b64 %rd<4>;
  ld.param.u64 %rd1, [lock];
  ld.param.u64 %rd2, [counter];
  mov.u32 %r1, %tid.x;
  setp.ne.u32 %p1, %r1, 0;
  @%p1 bra WAIT;
SPIN:
  atom.global.cas.b32 %r2, [%rd1], 0, 1;
  setp.ne.s32 %p2, %r2, 0;
  @%p2 bra SPIN;
WAIT:
  bar.sync 0;
  membar.gl;
  setp.ne.u32 %p3, %r1, 31;
  @%p3 bra NEXT;
  ld.volatile.global.u32 %r3, [%rd2];
  add.u32 %r3, %r3, 1;
  st.volatile.global.u32 [%rd2], %r3;
  membar.gl;
NEXT:
  bar.sync 0;
  @!%p1 atom.global.exch.b32 %r4, [%rd1], 0;
  ret;
)"));
  for (const int threads : {1, 3}) {
    for (uint64_t seed = 1; seed <= 5; ++seed) {
      Buffer<uint32_t> lock(1), counter(1);
      const LaunchReport report =
          run_ptx(compiled, {.grid = {50}, .block = {64}, .seed = seed, .host_threads = threads},
                  lock, counter);
      CHECK(clean(report) && counter[0] == 50, "%u of 50; %s", counter[0],
            describe(report).c_str());
    }
  }
}

// Each block waits for the one behind it: all of them have to be resident.
const std::string& chain() {
  static const std::string text = kernel(".param .u64 flags", R"(
  .reg .pred %p<4>;
  .reg .b32 %r<8>;
  .reg .b64 %rd<4>;
  ld.param.u64 %rd1, [flags];
  mov.u32 %r1, %tid.x;
  setp.ne.u32 %p1, %r1, 0;
  @%p1 bra END;
  mov.u32 %r2, %ctaid.x;
  mul.wide.u32 %rd2, %r2, 4;
  add.s64 %rd2, %rd1, %rd2;
SPIN:
  ld.volatile.global.u32 %r3, [%rd2+4]; // waits
  setp.eq.u32 %p2, %r3, 0;
  @%p2 bra SPIN; // spins
  membar.gl;
  add.u32 %r3, %r3, 1;
  st.volatile.global.u32 [%rd2], %r3;
END:
  ret;
)");
  return text;
}

void test_blocks_that_wait_for_later_ones() {
  const Kernel compiled(chain());
  for (const int threads : {1, 4}) {
    constexpr uint32_t kBlocks = 200;
    Buffer<uint32_t> flags(kBlocks + 1);
    flags[kBlocks] = 1;
    const LaunchReport report =
        run_ptx(compiled, {.grid = {kBlocks}, .host_threads = threads}, flags);
    CHECK(clean(report) && flags[0] == kBlocks + 1, "%u; %s", flags[0], describe(report).c_str());
  }
}

// What a GPU does not hold at once is a deadlock: blocks of 1024 threads, two to a multiprocessor.
void test_more_blocks_than_a_gpu_holds() {
  const Kernel compiled(chain());
  for (const uint32_t blocks : {4u, 5u}) {
    Buffer<uint32_t> flags(blocks + 1);
    flags[blocks] = 1;
    const LaunchReport report = run_ptx(compiled,
                                        {.grid = {blocks},
                                         .block = {1024},
                                         .multiprocessors = 2,
                                         .most_warp_instructions = 1000 * 1000},
                                        flags);
    CHECK(clean(report) == (blocks == 4), "%u blocks: %s", blocks, describe(report).c_str());
    CHECK(found(report, FindingKind::kDeadlock) == (blocks == 5), "%u blocks: %s", blocks,
          describe(report).c_str());
  }
  // Shared memory bounds it as well: 100 KB leave room for one block.
  for (const uint32_t blocks : {2u, 3u}) {
    Buffer<uint32_t> flags(blocks + 1);
    flags[blocks] = 1;
    const LaunchReport report = run_ptx(compiled,
                                        {.grid = {blocks},
                                         .dynamic_shared_bytes = 100 * 1024,
                                         .multiprocessors = 2,
                                         .most_warp_instructions = 1000 * 1000},
                                        flags);
    CHECK(clean(report) == (blocks == 2), "%u blocks: %s", blocks, describe(report).c_str());
  }
}

bool contains(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

void test_endless_loop() {
  const Kernel compiled(chain());
  const int first = line_of(chain(), "// waits");
  const int last = line_of(chain(), "// spins");
  for (const int threads : {1, 2}) {
    for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
      Buffer<uint32_t> flags(4);  // nobody sets the last
      const LaunchReport report = run_ptx(compiled,
                                          {.grid = {3},
                                           .block = {64},
                                           .seed = seed,
                                           .host_threads = threads,
                                           .most_warp_instructions = 50 * 1000},
                                          flags);
      CHECK(report.stopped && !report.findings.empty(), "%s", describe(report).c_str());
      int at_the_loop = 0;
      for (const Finding& finding : report.findings) {
        CHECK(finding.kind == FindingKind::kDeadlock, "%s", finding.to_string().c_str());
        at_the_loop += finding.thread[0] == 0 && finding.line >= first && finding.line <= last &&
                       contains(finding.text, "warp 0: lanes 0x00000001 run at PTX line") &&
                       contains(finding.text, "1 warps have ended");
      }
      // A second host thread may not have got round to its blocks.
      CHECK(
          threads == 1 ? at_the_loop == static_cast<int>(report.findings.size()) : at_the_loop > 0,
          "%s", describe(report).c_str());
    }
  }
}

// A warp spins on a flag in shared memory that nobody sets, the others wait at a barrier.
void test_endless_loop_in_a_block() {
  const std::string text = kernel("", R"(
  .reg .pred %p<4>;
  .reg .b32 %r<8>;
  .shared .align 4 .b8 flag[4];
  mov.u32 %r1, %tid.x;
  setp.eq.u32 %p1, %r1, 0;
  mov.u32 %r2, 0;
  @%p1 st.shared.u32 [flag], %r2;
  bar.sync 0;
  setp.ge.u32 %p2, %r1, 32;
  @%p2 bra WAIT;
SPIN:
  ld.volatile.shared.u32 %r3, [flag];
  setp.eq.u32 %p3, %r3, 0;
  @%p3 bra SPIN;
WAIT:
  bar.sync 0; // for ever
  ret;
)");
  const Kernel compiled(text);
  const std::string waiting =
      "warp 2: lanes 0xffffffff wait at PTX line " + std::to_string(line_of(text, "// for ever"));
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const LaunchReport report =
        run_ptx(compiled, {.block = {96}, .seed = seed, .most_warp_instructions = 10 * 1000});
    CHECK(report.stopped && report.findings.size() == 1 &&
              report.findings[0].kind == FindingKind::kDeadlock &&
              report.findings[0].line >= line_of(text, "ld.volatile") &&
              report.findings[0].line <= line_of(text, "bra SPIN") &&
              contains(report.findings[0].text, waiting.c_str()),
          "%s", describe(report).c_str());
  }
}

// Every warp draws tickets: their order is the schedule.
void test_schedules() {
  const std::string text = kernel(".param .u64 counter, .param .u64 out", R"(
  .reg .pred %p<4>;
  .reg .b32 %r<16>;
  .reg .b64 %rd<8>;
  ld.param.u64 %rd1, [counter];
  ld.param.u64 %rd2, [out];
  mov.u32 %r1, %tid.x;
  mov.u32 %r2, %ctaid.x;
  and.b32 %r3, %r1, 31;
  setp.ne.u32 %p1, %r3, 0;
  @%p1 ret;
  shr.u32 %r4, %r1, 5;
  shl.b32 %r5, %r2, 2;
  add.u32 %r5, %r5, %r4;
  mul.wide.u32 %rd3, %r5, 40;
  add.s64 %rd3, %rd2, %rd3;
  mov.u32 %r6, 0;
LOOP:
  atom.global.add.u32 %r7, [%rd1], 1;
  st.global.u32 [%rd3], %r7;
  add.s64 %rd3, %rd3, 4;
  add.u32 %r6, %r6, 1;
  setp.lt.u32 %p2, %r6, 10;
  @%p2 bra LOOP;
  ret;
)");
  const Kernel compiled(text);
  const auto tickets = [&](uint64_t seed, int threads) {
    Buffer<uint32_t> counter(1), out(12 * 4 * 10);
    const LaunchReport report =
        run_ptx(compiled, {.grid = {12}, .block = {128}, .seed = seed, .host_threads = threads},
                counter, out);
    CHECK(clean(report), "%s", describe(report).c_str());
    return out.values();
  };
  std::set<std::vector<uint32_t>> different;
  bool overtakes = false;  // a later warp of a block, and a later block, may come first
  bool interleaves = false;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    std::vector<uint32_t> once = tickets(seed, 1);
    CHECK(once == tickets(seed, 1), "seed %lu gives two schedules",
          static_cast<unsigned long>(seed));
    overtakes = overtakes || (once[10] < once[0] && once[40] < once[0]);
    interleaves = interleaves || (once[40] > once[0] && once[40] < once[9]);
    different.insert(once);
    std::sort(once.begin(), once.end());
    for (uint32_t i = 0; i < once.size(); ++i) CHECK(once[i] == i, "ticket %u", i);
    tickets(seed, 3);
  }
  CHECK(different.size() == kSeeds, "%zu schedules", different.size());
  CHECK(overtakes && interleaves, "warps run in order: %d %d", overtakes, interleaves);
}

// Streams launch from several host threads.
void test_launches_at_the_same_time() {
  const Kernel compiled(kernel(
      ".param .u64 in, .param .u64 parts, .param .u64 counter, .param .u64 out", kSplitReduction));
  constexpr uint32_t kBlocks = 20;
  Buffer<uint32_t> in(std::vector<uint32_t>(32 * kBlocks, 3));
  std::vector<int> right(4);
  std::vector<std::thread> streams;
  for (int stream = 0; stream < 4; ++stream) {
    streams.emplace_back([&, stream] {
      for (uint64_t i = 0; i < 50; ++i) {
        Buffer<uint32_t> parts(kBlocks), counter(1), out(1);
        const LaunchReport report = run_ptx(
            compiled, {.grid = {kBlocks}, .seed = i, .host_threads = 3}, in, parts, counter, out);
        right[stream] += clean(report) && out[0] == 32 * kBlocks * 3;
      }
    });
  }
  for (std::thread& stream : streams) stream.join();
  for (const int count : right) CHECK(count == 50, "%d of 50 launches", count);
}

// Grids and blocks of three dimensions: every thread writes its own place, once.
void test_dimensions() {
  const Kernel compiled(kernel(".param .u64 out", R"(
  .reg .b32 %r<32>;
  .reg .b64 %rd<4>;
  mov.u32 %r1, %tid.x;
  mov.u32 %r2, %tid.y;
  mov.u32 %r3, %tid.z;
  mov.u32 %r4, %ntid.x;
  mov.u32 %r5, %ntid.y;
  mov.u32 %r6, %ntid.z;
  mov.u32 %r7, %ctaid.x;
  mov.u32 %r8, %ctaid.y;
  mov.u32 %r9, %ctaid.z;
  mov.u32 %r10, %nctaid.x;
  mov.u32 %r11, %nctaid.y;
  mad.lo.u32 %r12, %r9, %r11, %r8;
  mad.lo.u32 %r12, %r12, %r10, %r7;
  mad.lo.u32 %r12, %r12, %r6, %r3;
  mad.lo.u32 %r12, %r12, %r5, %r2;
  mad.lo.u32 %r12, %r12, %r4, %r1;
  ld.param.u64 %rd1, [out];
  mul.wide.u32 %rd2, %r12, 4;
  add.s64 %rd1, %rd1, %rd2;
  atom.global.add.u32 %r13, [%rd1], 1;
  ret;
)"));
  constexpr uint32_t kThreads = 5 * 3 * 4 * 7 * 3 * 2;
  Buffer<uint32_t> out(kThreads);
  const LaunchReport report =
      run_ptx(compiled, {.grid = {5, 3, 4}, .block = {7, 3, 2}, .host_threads = 2}, out);
  CHECK(clean(report), "%s", describe(report).c_str());
  for (uint32_t i = 0; i < kThreads; ++i) CHECK(out[i] == 1, "place %u: %u", i, out[i]);
  CHECK(report.grid[1] == 3 && report.block[2] == 2 && report.kernel == "kernel", "report");
}

}  // namespace
}  // namespace ptx_simulator::test

int main() {
  using namespace ptx_simulator::test;
  test_dimensions();
  test_split_reduction();
  test_lock_between_blocks();
  test_blocks_that_wait_for_later_ones();
  test_more_blocks_than_a_gpu_holds();
  test_endless_loop();
  test_endless_loop_in_a_block();
  test_schedules();
  test_launches_at_the_same_time();
  std::printf("launches: %d failures\n", altiplano::test::failures);
  return altiplano::test::failures != 0;
}
