// The detectors of shared memory: each kind of bug is planted and found with every seed, and the
// same kernel without the bug is clean with every seed.
//
// A case is one text. Lines that begin with "BUG" are in the broken kernel only, with "FIX" in the
// right one only; the finding has to be at a line marked "// here" (which of two racing accesses
// comes second depends on the seed, so there may be several).
#include <cstdio>
#include <sstream>
#include <string>
#include <vector>

#include "check.h"
#include "tests/run_ptx.h"

namespace ptx_simulator::test {
namespace {

constexpr uint64_t kSeeds = 20;

// %r1 thread, %r2 lane, %r3 warp, %r4 4 * thread.
constexpr const char* kBegin = R"(
  .reg .pred %p<16>;
  .reg .b16 %h<8>;
  .reg .b32 %r<32>;
  .reg .b64 %rd<8>;
  .shared .align 16 .b8 data[8192];
  ld.param.u64 %rd1, [in];
  mov.u32 %r1, %tid.x;
  and.b32 %r2, %r1, 31;
  shr.u32 %r3, %r1, 5;
  mov.u32 %r20, data;  // at 0
  shl.b32 %r4, %r1, 2;
  mul.wide.u32 %rd2, %r1, 16;
  add.s64 %rd2, %rd1, %rd2;
  shl.b32 %r5, %r1, 4;
)";

struct Case {
  const char* name;
  FindingKind kind;
  const char* text;
  uint32_t threads = 128;
  FindingKind or_kind = kind;  // where it depends on the seed what is seen first
};

std::string version(const Case& c, bool broken) {
  std::istringstream lines(c.text);
  std::string line, body = kBegin;
  while (std::getline(lines, line)) {
    const size_t at = line.find_first_not_of(' ');
    const std::string tag = at == std::string::npos ? "" : line.substr(at, 3);
    if (tag == (broken ? "FIX" : "BUG")) line.clear();
    if (tag == (broken ? "BUG" : "FIX")) line = line.substr(at + 3);
    body += line + "\n";
  }
  return kernel(".param .u64 in", body + "  ret;\n");
}

bool marked(const std::string& text, int line) {
  std::istringstream lines(text);
  std::string content;
  for (int i = 0; i < line; ++i) std::getline(lines, content);
  return content.find("// here") != std::string::npos;
}

const std::vector<Case> kCases = {
    {"a barrier is missing between warps", FindingKind::kSharedRace, R"(
  st.shared.u32 [%r4], %r1;  // here
  FIX bar.sync 0;
  xor.b32 %r6, %r4, 256;
  ld.shared.u32 %r7, [%r6];  // here
  BUG bar.sync 0;
)"},
    {"the second barrier is missing: overwritten while others read", FindingKind::kSharedRace, R"(
  st.shared.u32 [%r4], %r1;
  bar.sync 0;
  xor.b32 %r6, %r4, 128;
  ld.shared.u32 %r7, [%r6];  // here
  FIX bar.sync 0;
  st.shared.u32 [%r4], %r7;  // here
)"},
    {"eight warps read, one of them overwrites", FindingKind::kSharedRace, R"(
  setp.eq.u32 %p1, %r1, 0;
  @%p1 st.shared.u32 [data], %r1;
  bar.sync 0;
  ld.shared.u32 %r7, [data];  // here
  FIX bar.sync 0;
  setp.eq.u32 %p2, %r1, 100;
  @%p2 st.shared.u32 [data], %r1;  // here
)",
     256},
    {"one thread overwrites what all lanes of its own warp read", FindingKind::kSharedRace, R"(
  setp.eq.u32 %p1, %r1, 31;
  @%p1 st.shared.u32 [data], %r1;
  bar.sync 0;
  ld.shared.u32 %r7, [data];
  FIX bar.warp.sync -1;
  @%p1 st.shared.u32 [data], %r7;  // here
)",
     32},
    {"one thread overwrites a byte that all lanes of its own warp read", FindingKind::kSharedRace,
     R"(
  setp.eq.u32 %p1, %r1, 31;
  @%p1 st.shared.u8 [data + 5], %r1;
  bar.sync 0;
  ld.shared.u8 %r7, [data + 5];
  FIX bar.warp.sync -1;
  @%p1 st.shared.u8 [data + 5], %r7;  // here
)",
     32},
    {"lane 2 knows of lane 0 through lane 1", FindingKind::kSharedRace, R"(
  setp.eq.u32 %p1, %r1, 0;
  setp.eq.u32 %p2, %r1, 2;
  setp.le.u32 %p3, %r1, 1;
  @%p1 st.shared.u32 [data], %r1;
  FIX @%p3 bar.warp.sync 3;
  sub.u32 %r7, %r1, 1;
  setp.le.u32 %p4, %r7, 1;
  @%p4 bar.warp.sync 6;
  @%p2 ld.shared.u32 %r7, [data];  // here
)",
     32},
    {"lanes exchange without bar.warp.sync", FindingKind::kSharedRace, R"(
  st.shared.u32 [%r4], %r1;
  FIX bar.warp.sync -1;
  xor.b32 %r6, %r4, 4;
  ld.shared.u32 %r7, [%r6];  // here
  bar.sync 0;
)"},
    {"a shuffle orders nothing", FindingKind::kSharedRace, R"(
  st.shared.u32 [%r4], %r1;
  shfl.sync.bfly.b32 %r8, %r1, 1, 31, -1;
  FIX bar.warp.sync -1;
  xor.b32 %r6, %r4, 4;
  ld.shared.u32 %r7, [%r6];  // here
)"},
    {"half warps synchronise, but exchange across", FindingKind::kSharedRace, R"(
  st.shared.u32 [%r4], %r1;
  and.b32 %r8, %r1, 16;
  mov.u32 %r9, 0xFFFF;
  shl.b32 %r9, %r9, %r8;
  bar.warp.sync %r9;
  FIX xor.b32 %r6, %r4, 32;
  BUG xor.b32 %r6, %r4, 64;
  ld.shared.u32 %r7, [%r6];  // here
)"},
    {"half warps take turns many times", FindingKind::kSharedRace, R"(
  and.b32 %r8, %r1, 16;
  mov.u32 %r9, 0xFFFF;
  shl.b32 %r9, %r9, %r8;
  mov.u32 %r10, 0;
again:
  st.shared.u32 [%r4], %r10;  // here
  bar.warp.sync %r9;
  xor.b32 %r6, %r4, 60;
  ld.shared.u32 %r7, [%r6];  // here
  FIX bar.warp.sync %r9;
  add.u32 %r10, %r10, 1;
  setp.lt.u32 %p1, %r10, 9;
  @%p1 bra again;
)"},
    {"two lanes write different values in one instruction", FindingKind::kSharedRace, R"(
  shr.u32 %r6, %r1, 1;
  shl.b32 %r6, %r6, 2;
  FIX shr.u32 %r7, %r1, 1;
  BUG mov.u32 %r7, %r1;
  st.shared.u32 [%r6], %r7;  // here
)"},
    {"two lanes write different halves of overlapping vectors", FindingKind::kSharedRace, R"(
  shr.u32 %r6, %r1, 1;
  shl.b32 %r6, %r6, 4;
  FIX mov.u32 %r7, 3;
  BUG and.b32 %r7, %r1, 1;
  st.shared.v4.u32 [%r6], {0, 1, 2, %r7};  // here
)"},
    {"all warps write the same flag", FindingKind::kSharedRace, R"(
  FIX setp.lt.u32 %p1, %r1, 32;
  BUG setp.lt.u32 %p1, %r1, 128;
  @%p1 st.shared.u32 [data], 1;  // here
)"},
    {"producers and consumers with named barriers", FindingKind::kSharedRace, R"(
  // Barrier 1: the buffer is full; barrier 2: it is empty. Warps 0 and 1 produce.
  mov.u32 %r10, 0;
  setp.ge.u32 %p1, %r3, 2;
  @%p1 bra consumer;
produce:
  bar.sync 2, 128;
  st.shared.u32 [%r4], %r10;  // here
  bar.arrive 1, 128;
  add.u32 %r10, %r10, 1;
  setp.lt.u32 %p2, %r10, 6;
  @%p2 bra produce;
  bra done;
consumer:
  bar.arrive 2, 128;
consume:
  bar.sync 1, 128;
  add.u32 %r10, %r10, 1;
  setp.lt.u32 %p2, %r10, 6;
  BUG @%p2 bar.arrive 2, 128;
  ld.shared.u32 %r7, [%r4 + -256];  // here
  FIX @%p2 bar.arrive 2, 128;
  @%p2 bra consume;
done:
)"},
    {"bar.arrive does not make anyone wait", FindingKind::kSharedRace, R"(
  st.shared.u32 [%r4], %r1;  // here
  xor.b32 %r6, %r4, 128;
  setp.ge.u32 %p1, %r3, 1;
  FIX bar.sync 3, 64;
  BUG @%p1 bar.arrive 3, 64;
  BUG @!%p1 bar.sync 3, 64;
  ld.shared.u32 %r7, [%r6];  // here
)",
     64},
    {"what follows bar.arrive is not ordered by it", FindingKind::kSharedRace, R"(
  setp.eq.u32 %p1, %r3, 0;
  @%p1 bra reader;
  FIX st.shared.u32 [%r4], %r1;
  bar.arrive 3, 64;
  BUG st.shared.u32 [%r4], %r1;  // here
  bra done;
reader:
  bar.sync 3, 64;
  ld.shared.u32 %r7, [%r4 + 128];  // here
done:
)",
     64},
    {"double buffering", FindingKind::kSharedRace, R"(
  mov.u32 %r10, 0;
loop:
  FIX and.b32 %r11, %r10, 1;
  BUG mov.u32 %r11, 0;
  shl.b32 %r11, %r11, 12;
  add.u32 %r12, %r11, %r4;
  st.shared.u32 [%r12], %r10;  // here
  bar.sync 0;
  xor.b32 %r13, %r12, 384;
  ld.shared.u32 %r7, [%r13];  // here
  add.u32 %r10, %r10, 1;
  setp.lt.u32 %p1, %r10, 8;
  @%p1 bra loop;
)"},
    {"bytes of neighbouring threads", FindingKind::kSharedRace, R"(
  st.shared.u8 [%r1], %r1;  // here
  BUG mov.u16 %h1, 7;
  BUG and.b32 %r6, %r1, -2;
  BUG st.shared.u16 [%r6], %h1;  // here
  FIX st.shared.u8 [%r1], 7;
  bar.sync 0;
  and.b32 %r7, %r4, 28;
  ld.shared.u32 %r8, [%r7];
)",
     32},
    {"halves of words, rewritten in place", FindingKind::kSharedRace, R"(
  shl.b32 %r6, %r1, 1;
  mov.u16 %h1, 5;
  st.shared.u16 [%r6], %h1;
  bar.sync 0;
  FIX ld.shared.u16 %h2, [%r6];
  BUG and.b32 %r7, %r6, -4;
  BUG ld.shared.u32 %r8, [%r7];  // here
  st.shared.u16 [%r6], %h1;  // here
  bar.sync 0;
  and.b32 %r7, %r5, 0xF0;
  ld.shared.v4.u32 {%r10, %r11, %r12, %r13}, [%r7];
)"},
    {"atomics, then a plain read", FindingKind::kSharedRace, R"(
  setp.eq.u32 %p1, %r1, 0;
  @%p1 st.shared.u32 [data], 0;
  bar.sync 0;
  atom.shared.add.u32 %r6, [data], %r1;  // here
  red.shared.max.u32 [data], %r1;        // here
  FIX bar.sync 0;
  ld.shared.u32 %r7, [data];             // here
)"},
    {"a thread reads its own sum while others add", FindingKind::kSharedRace, R"(
  setp.eq.u32 %p1, %r1, 0;
  @%p1 st.shared.u32 [data], 0;
  bar.warp.sync -1;
  red.shared.add.u32 [data], %r1;
  FIX bar.warp.sync -1;
  setp.eq.u32 %p2, %r2, 31;
  @%p2 ld.shared.u32 %r7, [data];  // here
)",
     32},
    {"atomics on what another thread writes", FindingKind::kSharedRace, R"(
  setp.eq.u32 %p1, %r1, 0;
  @%p1 st.shared.u32 [data], 0;           // here
  FIX bar.sync 0;
  atom.shared.cas.b32 %r6, [data], 0, 1;  // here
)",
     32},
    {"part of the array was never written", FindingKind::kUninitialized, R"(
  FIX setp.lt.u32 %p1, %r1, 128;
  BUG setp.lt.u32 %p1, %r1, 127;
  @%p1 st.shared.u32 [%r4], %r1;
  bar.sync 0;
  xor.b32 %r6, %r4, 508;
  ld.shared.u32 %r7, [%r6];  // here
)"},
    {"one byte of a word was never written", FindingKind::kUninitialized, R"(
  st.shared.u8 [%r4], %r1;
  st.shared.u8 [%r4 + 1], %r1;
  FIX st.shared.u8 [%r4 + 2], %r1;
  st.shared.u8 [%r4 + 3], %r1;
  ld.shared.u32 %r7, [%r4];  // here
)"},
    {"cp.async is read without waiting", FindingKind::kAsyncCopyRace, R"(
  cp.async.cg.shared.global [%r5], [%rd2], 16;
  cp.async.commit_group;
  FIX cp.async.wait_group 0;
  ld.shared.u32 %r7, [%r5];  // here
  BUG cp.async.wait_group 0;
)"},
    {"cp.async: what its destination held before is read", FindingKind::kAsyncCopyRace, R"(
  cp.async.cg.shared.global [%r5], [%rd2], 16;
  cp.async.wait_all;
  ld.shared.u32 %r7, [%r5];
  cp.async.cg.shared.global [%r5], [%rd2], 16;
  FIX cp.async.wait_all;
  ld.shared.u32 %r7, [%r5];  // here
  cp.async.wait_all;
)"},
    {"cp.async: one group too few is waited for", FindingKind::kAsyncCopyRace, R"(
  cp.async.ca.shared.global [%r5], [%rd2], 8;
  cp.async.commit_group;
  cp.async.ca.shared.global [%r5 + 8], [%rd2 + 8], 8;
  cp.async.commit_group;
  FIX cp.async.wait_group 0;
  BUG cp.async.wait_group 1;
  ld.shared.u32 %r6, [%r5];
  ld.shared.u32 %r7, [%r5 + 8];  // here
  cp.async.wait_all;
)"},
    {"cp.async: the group is not committed", FindingKind::kAsyncCopyRace, R"(
  cp.async.ca.shared.global [%r5], [%rd2], 4;
  FIX cp.async.commit_group;
  cp.async.wait_group 0;
  ld.shared.u32 %r7, [%r5];  // here
  cp.async.wait_all;
)"},
    {"cp.async: other lanes' copies without a barrier", FindingKind::kSharedRace, R"(
  cp.async.cg.shared.global [%r5], [%rd2], 16;
  bar.warp.sync -1;
  cp.async.wait_all;
  FIX bar.warp.sync -1;
  xor.b32 %r6, %r5, 16;
  ld.shared.u32 %r7, [%r6];  // here
)"},
    {"cp.async: the barrier comes before the wait", FindingKind::kSharedRace, R"(
  cp.async.cg.shared.global [%r5], [%rd2], 16;
  cp.async.commit_group;
  BUG bar.sync 0;
  cp.async.wait_group 0;
  FIX bar.sync 0;
  xor.b32 %r6, %r5, 512;
  ld.shared.u32 %r7, [%r6];  // here
)",
     64, FindingKind::kAsyncCopyRace},
    {"cp.async overwrites what others still read", FindingKind::kSharedRace, R"(
  mov.u32 %r10, 0;
loop:
  cp.async.cg.shared.global [%r5], [%rd2], 16;  // here
  cp.async.commit_group;
  cp.async.wait_group 0;
  bar.sync 0;
  xor.b32 %r6, %r5, 1024;
  ld.shared.v4.u32 {%r11, %r12, %r13, %r14}, [%r6];  // here
  FIX bar.sync 0;
  add.u32 %r10, %r10, 1;
  setp.lt.u32 %p1, %r10, 4;
  @%p1 bra loop;
)",
     128, FindingKind::kAsyncCopyRace},
    {"cp.async is open at the end", FindingKind::kOpenAsyncGroup, R"(
  setp.eq.u32 %p1, %r1, 77;
  @%p1 cp.async.cg.shared.global [%r5], [%rd2], 16;
  cp.async.commit_group;
  FIX cp.async.wait_group 0;
  BUG cp.async.wait_group 1;
  ret;  // here
)"},
    {"a store into a cp.async destination", FindingKind::kAsyncCopyRace, R"(
  cp.async.cg.shared.global [%r5], [%rd2], 16;
  FIX cp.async.wait_all;
  st.shared.u8 [%r5 + 9], %r1;  // here
  BUG cp.async.wait_all;
)"},
    {"ldmatrix reads rows of other lanes", FindingKind::kSharedRace, R"(
  st.shared.v4.u32 [%r5], {%r1, %r1, %r1, %r1};
  FIX bar.warp.sync -1;
  xor.b32 %r6, %r5, 16;
  ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r7, %r8, %r9, %r10}, [%r6];  // here
)"},
};

void test_case(const Case& c) {
  Buffer<uint32_t> in(1024, 1);
  for (const bool broken : {true, false}) {
    const std::string text = version(c, broken);
    const Kernel compiled(text);
    for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
      const LaunchReport report =
          run_ptx(compiled, {.grid = {2}, .block = {c.threads}, .seed = seed}, in);
      if (!broken) {
        CHECK(clean(report), "%s, without it, seed %d: %s", c.name, static_cast<int>(seed),
              describe(report).c_str());
        continue;
      }
      bool found_it = false;
      for (const Finding& f : report.findings) {
        found_it |= (f.kind == c.kind || f.kind == c.or_kind) && marked(text, f.line);
      }
      CHECK(found_it, "%s, seed %d: not found: %s", c.name, static_cast<int>(seed),
            describe(report).c_str());
    }
  }
}

// A message names both threads, the byte and both lines.
void test_message() {
  const std::string text = kernel("", R"(
  .reg .pred %p<2>;
  .reg .b32 %r<4>;
  .shared .align 16 .b8 data[1024];
  mov.u32 %r1, %tid.x;
  setp.lt.u32 %p1, %r1, 32;
  @%p1 bra read;
  st.shared.u32 [data + 132], 5;
  bar.sync 1, 32;
  bra done;
read:
  mov.u32 %r3, 0;
wait:
  add.u32 %r3, %r3, 1;
  setp.lt.u32 %p1, %r3, 20000;
  @%p1 bra wait;
  ld.shared.u8 %r2, [data + 133];
done:
  ret;
)");
  const LaunchReport report = run_ptx(text, {.block = {64}});
  CHECK(report.findings.size() == 1, "%s", describe(report).c_str());
  if (report.findings.empty()) return;
  const Finding& f = report.findings[0];
  const int wrote = line_of(text, "st.shared"), read = line_of(text, "ld.shared");
  const std::string expected = "(63,0,0) wrote byte 133 of shared memory at PTX line " +
                               std::to_string(wrote) + "; thread (0,0,0) reads it at line " +
                               std::to_string(read) + ", and no barrier lies between";
  CHECK(f.line == read && f.thread[0] == 0, "line %d, thread %u", f.line, f.thread[0]);
  CHECK(f.text.find(expected) != std::string::npos, "%s", f.text.c_str());
}

// More barriers than the detector's clock can count: it starts anew, which makes no findings, and
// finds what comes afterwards.
void test_end_of_time() {
  for (const bool broken : {false, true}) {
    const std::string text = kernel("", std::string(R"(
  .reg .pred %p<2>;
  .reg .b32 %r<8>;
  .shared .align 16 .b8 data[256];
  mov.u32 %r1, %tid.x;
  shl.b32 %r2, %r1, 2;
  mov.u32 %r3, data;
  add.u32 %r2, %r2, %r3;
  xor.b32 %r4, %r2, 64;
  mov.u32 %r5, 0;
  setp.ge.u32 %p1, %r1, 32;
  @%p1 st.shared.u32 [%r2], 5;
  @%p1 bra last;
loop:
  st.shared.u32 [%r2], %r5;
  bar.warp.sync -1;
  ld.shared.u32 %r6, [%r4];
  bar.warp.sync -1;
  add.u32 %r5, %r5, 1;
  setp.lt.u32 %p1, %r5, 300000;
  @%p1 bra loop;
last:
)") + (broken ? "" : "bar.sync 0;\n") + "  xor.b32 %r4, %r2, 128;\n  st.shared.u32 [%r4], 1;\n" +
                                            (broken ? "bar.sync 0;\n" : "") + "ret;");
    const LaunchReport report = run_ptx(text, {.block = {64}});
    CHECK(broken ? found(report, FindingKind::kSharedRace) : clean(report), "%s",
          describe(report).c_str());
  }
}

}  // namespace
}  // namespace ptx_simulator::test

int main() {
  for (const auto& c : ptx_simulator::test::kCases) ptx_simulator::test::test_case(c);
  ptx_simulator::test::test_message();
  ptx_simulator::test::test_end_of_time();
  std::printf("shared memory's detectors: %d failures\n", altiplano::test::failures);
  return altiplano::test::failures != 0;
}
