// What cp.async and ldmatrix move, against their definitions; and that a kernel which reads too
// early does not only get a finding but computes something else.
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "check.h"
#include "tests/run_ptx.h"

namespace ptx_simulator::test {
namespace {

using altiplano::test::Random;

constexpr const char* kRegisters = R"(
  .reg .pred %p<8>;
  .reg .b32 %r<32>;
  .reg .b64 %rd<16>;
  .shared .align 16 .b8 place[4096];
  mov.u32 %r1, %tid.x;
  mov.u32 %r2, place;
)";

std::vector<uint8_t> random_bytes(size_t n) {
  Random random(11);
  std::vector<uint8_t> bytes(n);
  for (uint8_t& b : bytes) b = static_cast<uint8_t>(random.integer(0, 255));
  return bytes;
}

// 64 threads copy 16 bytes each into shared memory, in pieces of `width` bytes, of which the first
// few come from the source.
void test_copies() {
  constexpr uint32_t kThreads = 64;
  const std::vector<uint8_t> bytes = random_bytes(kThreads * 16);
  const Buffer<uint8_t> in(bytes);
  enum Form { kWhole, kSourceBytes, kIgnored, kNotIgnored };
  for (const int width : {4, 8, 16}) {
    for (const char* cache : {"ca", "cg"}) {
      if (cache[1] == 'g' && width != 16) continue;
      for (const Form form : {kWhole, kSourceBytes, kIgnored, kNotIgnored}) {
        for (const bool policy : {false, true}) {
          std::string body = std::string(kRegisters) + R"(
  ld.param.u64 %rd1, [in];
  ld.param.u64 %rd2, [out];
  mul.wide.u32 %rd3, %r1, 16;
  add.s64 %rd1, %rd1, %rd3;
  add.s64 %rd2, %rd2, %rd3;
  shl.b32 %r3, %r1, 4;
  add.u32 %r3, %r3, %r2;
  createpolicy.fractional.L2::evict_last.b64 %rd5, 1.0;
  rem.u32 %r4, %r1, )" + std::to_string(width + 1) +
                             ";\n  and.b32 %r5, %r1, 3;\n  setp.eq.u32 %p1, %r5, 0;\n";
          for (int at = 0; at < 16; at += width) {
            const std::string offset = std::to_string(at);
            body += std::string("cp.async.") + cache + ".shared.global" +
                    (policy ? ".L2::cache_hint.L2::128B" : "") + " [%r3 + " + offset +
                    "], [%rd1 + " + offset + "], " + std::to_string(width);
            if (form == kSourceBytes) body += ", %r4";
            if (form == kIgnored) body += ", %p1";
            if (form == kNotIgnored) body += ", !%p1";
            body += policy ? ", %rd5;\n" : ";\n";
          }
          body += R"(
  cp.async.commit_group;
  cp.async.wait_group 0;
  ld.shared.v4.u32 {%r8, %r9, %r10, %r11}, [%r3];
  st.global.v4.u32 [%rd2], {%r8, %r9, %r10, %r11};
  ret;)";
          const Kernel compiled(kernel(".param .u64 in, .param .u64 out", body));
          for (uint64_t seed = 1; seed <= 4; ++seed) {
            Buffer<uint8_t> out(kThreads * 16);
            const LaunchReport report =
                run_ptx(compiled, {.block = {kThreads}, .seed = seed}, in, out);
            CHECK(clean(report), "%s", describe(report).c_str());
            for (uint32_t i = 0; i < kThreads * 16; ++i) {
              const uint32_t thread = i / 16;
              const uint32_t first = form == kSourceBytes  ? thread % (width + 1)
                                     : form == kIgnored    ? (thread % 4 == 0 ? 0 : width)
                                     : form == kNotIgnored ? (thread % 4 == 0 ? width : 0)
                                                           : width;
              const uint8_t expected = i % width < first ? bytes[i] : 0;
              CHECK(out[i] == expected, "cp.async.%s of %d bytes, form %d, byte %u: %d, not %d",
                    cache, width, form, i, out[i], expected);
            }
          }
        }
      }
    }
  }
}

// Three groups on their way; each is complete when so many are waited for, and not before.
void test_groups() {
  std::vector<uint32_t> values(3 * 32);
  for (uint32_t i = 0; i < values.size(); ++i) values[i] = 1000 + i;
  const Buffer<uint32_t> in(values);
  std::string body = std::string(kRegisters) + R"(
  ld.param.u64 %rd1, [in];
  ld.param.u64 %rd2, [out];
  mul.wide.u32 %rd3, %r1, 4;
  add.s64 %rd1, %rd1, %rd3;
  add.s64 %rd2, %rd2, %rd3;
  shl.b32 %r3, %r1, 2;
  add.u32 %r3, %r3, %r2;
)";
  for (int group = 0; group < 3; ++group) {
    const std::string offset = std::to_string(128 * group);
    body += "cp.async.ca.shared.global [%r3 + " + offset + "], [%rd1 + " + offset + "], 4;\n";
    body += "cp.async.commit_group;\n";
  }
  for (int pending = 2; pending >= 0; --pending) {
    body += "cp.async.wait_group " + std::to_string(pending) + ";\n";
    for (int group = 0; group < 3; ++group) {
      const std::string to = std::to_string(128 * (3 * (2 - pending) + group));
      body += "ld.shared.u32 %r4, [%r3 + " + std::to_string(128 * group) + "];\n";
      body += "st.global.u32 [%rd2 + " + to + "], %r4;\n";
    }
  }
  const Kernel compiled(kernel(".param .u64 in, .param .u64 out", body + "ret;"));
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Buffer<uint32_t> out(9 * 32);
    const LaunchReport report = run_ptx(compiled, {.seed = seed}, in, out);
    CHECK(found(report, FindingKind::kAsyncCopyRace), "no finding for what is read too early");
    for (uint32_t stage = 0; stage < 3; ++stage) {
      for (uint32_t group = 0; group < 3; ++group) {
        for (uint32_t i = 0; i < 32; ++i) {
          const uint32_t expected = group <= stage ? values[group * 32 + i] : 0xFFFFFFFF;
          const uint32_t is = out[(stage * 3 + group) * 32 + i];
          CHECK(is == expected, "after %u waits, group %u: %u, not %u", stage + 1, group, is,
                expected);
        }
      }
    }
  }
}

// A source that changes between issue and wait: either value may arrive, and with enough seeds both
// do.
void test_time_of_read() {
  const std::string text = kernel(".param .u64 in, .param .u64 out", std::string(kRegisters) + R"(
  ld.param.u64 %rd1, [in];
  ld.param.u64 %rd2, [out];
  cp.async.ca.shared.global [%r2], [%rd1], 4;
  st.global.u32 [%rd1], 2;
  cp.async.wait_all;
  ld.shared.u32 %r4, [%r2];
  st.global.u32 [%rd2], %r4;
  ret;)");
  const Kernel compiled(text);
  int times[3] = {};
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    Buffer<uint32_t> in(1, 1), out(1);
    const LaunchReport report = run_ptx(compiled, {.block = {1}, .seed = seed}, in, out);
    CHECK(clean(report), "%s", describe(report).c_str());
    CHECK(out[0] == 1 || out[0] == 2, "%u", out[0]);
    ++times[out[0] % 3];
  }
  CHECK(times[1] > 0 && times[2] > 0, "%d times the old value, %d times the new one", times[1],
        times[2]);
}

// Row r of matrix i at the address of lane 8 i + r, rows in random order.
void test_ldmatrix() {
  Random random(4);
  std::vector<uint16_t> elements(2048);
  for (uint32_t i = 0; i < elements.size(); ++i) elements[i] = static_cast<uint16_t>(i);
  std::vector<uint32_t> row_of(32);
  for (uint32_t& row : row_of) row = static_cast<uint32_t>(random.integer(0, 255));
  const Buffer<uint16_t> in(elements);
  for (const int count : {1, 2, 4}) {
    for (const bool transposed : {false, true}) {
      for (const bool generic : {false, true}) {
        // Lanes whose addresses are not used have none that is valid.
        std::vector<uint32_t> offsets(32, 0xDEADBEE1);
        for (int lane = 0; lane < 8 * count; ++lane) offsets[lane] = row_of[lane] * 16;
        const Buffer<uint32_t> rows(offsets);
        std::string list;
        for (int i = 0; i < count; ++i) list += (i ? ", %r" : "%r") + std::to_string(8 + i);
        std::string body = std::string(kRegisters) + R"(
  ld.param.u64 %rd1, [in];
  ld.param.u64 %rd2, [rows];
  ld.param.u64 %rd3, [out];
  mul.wide.u32 %rd4, %r1, 4;
  add.s64 %rd2, %rd2, %rd4;
  add.s64 %rd3, %rd3, %rd4;
  shl.b32 %r3, %r1, 4;
  add.u32 %r3, %r3, %r2;
  mul.wide.u32 %rd5, %r1, 16;
  add.s64 %rd1, %rd1, %rd5;
)";
        for (int i = 0; i < 8; ++i) {  // 32 threads copy 512 bytes at a time
          const std::string at = std::to_string(512 * i);
          body += "ld.global.v4.u32 {%r4, %r5, %r6, %r7}, [%rd1 + " + at + "];\n";
          body += "st.shared.v4.u32 [%r3 + " + at + "], {%r4, %r5, %r6, %r7};\n";
        }
        body += "bar.sync 0;\nld.global.u32 %r3, [%rd2];\nadd.u32 %r3, %r3, %r2;\n";
        if (generic) {
          body += "cvt.u64.u32 %rd6, %r3;\ncvta.shared.u64 %rd6, %rd6;\n";
        }
        body += "ldmatrix.sync.aligned.m8n8.x" + std::to_string(count) +
                (transposed ? ".trans" : "") + (generic ? "" : ".shared") + ".b16 {" + list +
                "}, [" + (generic ? "%rd6" : "%r3") + "];\n";
        for (int i = 0; i < count; ++i) {
          body += "st.global.u32 [%rd3 + " + std::to_string(128 * i) + "], %r" +
                  std::to_string(8 + i) + ";\n";
        }
        Buffer<uint32_t> out(128);
        const LaunchReport report =
            run_ptx(kernel(".param .u64 in, .param .u64 rows, .param .u64 out", body + "ret;"), {},
                    in, rows, out);
        CHECK(clean(report), "%s", describe(report).c_str());
        for (int i = 0; i < count; ++i) {
          for (int lane = 0; lane < 32; ++lane) {
            for (int half = 0; half < 2; ++half) {
              const int row = transposed ? lane % 4 * 2 + half : lane / 4;
              const int column = transposed ? lane / 4 : lane % 4 * 2 + half;
              const auto expected = static_cast<uint16_t>(row_of[8 * i + row] * 8 + column);
              const auto is = static_cast<uint16_t>(out[i * 32 + lane] >> (16 * half));
              CHECK(is == expected, "x%d%s, matrix %d, lane %d, half %d: %d, not %d", count,
                    transposed ? ".trans" : "", i, lane, half, is, expected);
            }
          }
        }
      }
    }
  }
}

void test_refused() {
  for (const char* instruction :
       {"cp.async.cg.shared.global [%r2], [%rd1], 8;",
        "cp.async.ca.shared.global [%r2], [%rd1], 2;",
        "cp.async.ca.global.shared [%rd1], [%r2], 4;", "cp.async.mbarrier.arrive.shared.b64 [%r2];",
        "cp.async.bulk.commit_group;", "cp.async.wait_group %r2;",
        "stmatrix.sync.aligned.m8n8.x1.shared.b16 [%r2], {%r1};",
        "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r1, %r2}, [%r2];",
        "ldmatrix.sync.aligned.m8n8.x1.global.b16 {%r1}, [%rd1];"}) {
    int line = 0;
    const std::string text = kernel("", std::string(kRegisters) + instruction + "\nret;");
    try {
      const Kernel compiled(text);
    } catch (const PtxError& e) {
      line = e.line;
    }
    CHECK(line == line_of(text, instruction), "%s: refused at line %d", instruction, line);
  }
}

}  // namespace
}  // namespace ptx_simulator::test

int main() {
  using namespace ptx_simulator::test;
  test_copies();
  test_groups();
  test_time_of_read();
  test_ldmatrix();
  test_refused();
  std::printf("asynchronous copies and ldmatrix: %d failures\n", altiplano::test::failures);
  return altiplano::test::failures != 0;
}
