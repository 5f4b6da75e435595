// The counters of memory: sectors, bytes and wavefronts of accesses that were worked out by hand,
// and of random ones against models that do what the definitions say, slowly.
#include <algorithm>
#include <cstdio>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "check.h"
#include "machine/bank_conflicts.h"
#include "tests/run_ptx.h"

namespace ptx_simulator::test {
namespace {

using altiplano::test::Random;

constexpr const char* kBegin = R"(
  .reg .pred %p<4>;
  .reg .b32 %r<16>;
  .reg .b64 %rd<16>;
  .shared .align 128 .b8 place[8192];
  .local .align 16 .b8 own[16];
  mov.u32 %r1, %tid.x;
  mov.u32 %r2, place;
  ld.param.u64 %rd1, [data];
)";

// The counters of one instruction of one warp: those of the kernel with it, less those without.
Counters counters_of(const std::string& setup, const std::string& instruction, uint64_t data) {
  const std::string begin = std::string(kBegin) + R"(
  shl.b32 %r3, %r1, 2;
fill:
  add.u32 %r4, %r3, %r2;
  st.shared.u32 [%r4], 0;
  add.u32 %r3, %r3, 128;
  setp.lt.u32 %p1, %r3, 8192;
  @%p1 bra fill;
  bar.sync 0;
)" + setup + "\n";
  const LaunchReport with = run_ptx(
      kernel(".param .u64 data", begin + instruction + "\ncp.async.wait_all;\nret;"), {}, data);
  const LaunchReport without =
      run_ptx(kernel(".param .u64 data", begin + "cp.async.wait_all;\nret;"), {}, data);
  CHECK(clean(with), "%s: %s", instruction.c_str(), describe(with).c_str());
  Counters c = with.counters;
  c.global_read_bytes -= without.counters.global_read_bytes;
  c.global_read_sectors -= without.counters.global_read_sectors;
  c.global_write_bytes -= without.counters.global_write_bytes;
  c.global_write_sectors -= without.counters.global_write_sectors;
  c.shared_wavefronts -= without.counters.shared_wavefronts;
  c.shared_ideal_wavefronts -= without.counters.shared_ideal_wavefronts;
  c.local_bytes -= without.counters.local_bytes;
  return c;
}

// %rd2 = data + thread * stride + offset
std::string global_address(int stride, int offset) {
  return "mul.wide.s32 %rd2, %r1, " + std::to_string(stride) + "; add.s64 %rd2, %rd1, %rd2; " +
         "add.s64 %rd2, %rd2, " + std::to_string(offset) + ";";
}

void test_global() {
  const Buffer<uint32_t> data(16384, 1);  // 512-byte aligned, so the first sector is whole
  struct Row {
    std::string setup;
    const char* instruction;
    uint64_t read_bytes, read_sectors, written_bytes, written_sectors;
  };
  const std::vector<Row> rows = {
      // 32 neighbouring words are 4 sectors, and 5 when they begin in the middle of one.
      {global_address(4, 0), "ld.global.u32 %r5, [%rd2];", 128, 4, 0, 0},
      {global_address(4, 16), "ld.global.u32 %r5, [%rd2];", 128, 5, 0, 0},
      {global_address(1, 0), "ld.global.u8 %r5, [%rd2];", 32, 1, 0, 0},
      {global_address(16, 0), "ld.global.v4.u32 {%r5, %r6, %r7, %r8}, [%rd2];", 512, 16, 0, 0},
      {global_address(8, 0), "st.global.u64 [%rd2], %rd1;", 0, 0, 256, 8},
      {global_address(0, 0), "ld.global.u32 %r5, [%rd2];", 128, 1, 0, 0},
      {global_address(64, 0), "ld.global.u32 %r5, [%rd2];", 128, 32, 0, 0},
      {global_address(-4, 236), "ld.global.u32 %r5, [%rd2];", 128, 5, 0, 0},
      {global_address(4, 0) + "setp.lt.u32 %p1, %r1, 9;", "@%p1 st.u32 [%rd2], 3;", 0, 0, 36, 2},
      // Lanes 0 to 15 and 16 to 31 read the same 64 bytes, in turn: two sectors.
      {"and.b32 %r5, %r1, 15; mul.wide.u32 %rd2, %r5, 4; add.s64 %rd2, %rd1, %rd2;",
       "ld.global.u32 %r5, [%rd2];", 128, 2, 0, 0},
      {"and.b32 %r5, %r1, 1; mul.wide.u32 %rd2, %r5, 2048; add.s64 %rd2, %rd1, %rd2;",
       "ld.global.u32 %r5, [%rd2];", 128, 2, 0, 0},
      {global_address(4, 0), "atom.global.add.u32 %r5, [%rd2], 1;", 128, 4, 128, 4},
      {global_address(0, 0), "red.global.add.u32 [%rd2], 1;", 128, 1, 128, 1},
      {global_address(16, 0) + "shl.b32 %r5, %r1, 4; add.u32 %r5, %r5, %r2;",
       "cp.async.cg.shared.global [%r5], [%rd2], 16;", 512, 16, 0, 0},
      {global_address(16, 0) + "shl.b32 %r5, %r1, 4; add.u32 %r5, %r5, %r2;" +
           "setp.lt.u32 %p1, %r1, 8; selp.u32 %r6, 12, 0, %p1;",
       "cp.async.cg.shared.global [%r5], [%rd2], 16, %r6;", 96, 4, 0, 0},
  };
  for (const Row& row : rows) {
    const Counters c = counters_of(row.setup, row.instruction, data.address());
    CHECK(c.global_read_bytes == row.read_bytes && c.global_read_sectors == row.read_sectors &&
              c.global_write_bytes == row.written_bytes &&
              c.global_write_sectors == row.written_sectors,
          "%s %s: read %d bytes, %d sectors, written %d, %d", row.setup.c_str(), row.instruction,
          static_cast<int>(c.global_read_bytes), static_cast<int>(c.global_read_sectors),
          static_cast<int>(c.global_write_bytes), static_cast<int>(c.global_write_sectors));
  }
}

void test_shared() {
  const Buffer<uint32_t> data(1024, 1);
  const auto address = [](int stride) {
    return "mul.lo.u32 %r5, %r1, " + std::to_string(stride) + "; add.u32 %r5, %r5, %r2;";
  };
  struct Row {
    std::string setup;
    const char* instruction;
    uint64_t wavefronts, ideal;
  };
  const std::vector<Row> rows = {
      {address(4), "ld.shared.u32 %r6, [%r5];", 1, 1},
      {address(0), "ld.shared.u32 %r6, [%r5];", 1, 1},     // everybody reads one word
      {address(8), "ld.shared.u32 %r6, [%r5];", 2, 1},     // every second bank
      {address(128), "ld.shared.u32 %r6, [%r5];", 32, 1},  // a column of a 32-wide matrix
      {address(132), "ld.shared.u32 %r6, [%r5];", 1, 1},   // padded
      {address(2), "ld.shared.u16 %r6, [%r5];", 1, 1},
      {address(64), "ld.shared.u8 %r6, [%r5];", 16, 1},
      {address(8), "st.shared.u64 [%r5], %rd1;", 2, 2},
      {address(16), "ld.shared.v4.u32 {%r6, %r7, %r8, %r9}, [%r5];", 4, 4},
      {address(32), "ld.shared.v4.u32 {%r6, %r7, %r8, %r9}, [%r5];", 8, 4},
      {address(144), "ld.shared.v4.u32 {%r6, %r7, %r8, %r9}, [%r5];", 4, 4},
      {address(0), "ld.shared.v4.u32 {%r6, %r7, %r8, %r9}, [%r5];", 4, 1},
      {address(16) + "setp.lt.u32 %p1, %r1, 8;",
       "@%p1 ld.shared.v4.u32 {%r6, %r7, %r8, %r9}, [%r5];", 1, 1},
      {address(4), "red.shared.add.u32 [%r5], 1;", 1, 1},
      // Rows of 128 bytes one below the other all begin in bank 0; 16 bytes of padding part them.
      {address(128), "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r6, %r7, %r8, %r9}, [%r5];", 32,
       4},
      {address(144), "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r6, %r7, %r8, %r9}, [%r5];", 4, 4},
      {address(144), "ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%r6, %r7}, [%r5];", 2, 2},
      {address(16), "cp.async.cg.shared.global [%r5], [%rd1], 16;", 4, 4},
      {address(128), "cp.async.ca.shared.global [%r5], [%rd1], 16;", 32, 4},
      {address(4), "cp.async.ca.shared.global [%r5], [%rd1], 4;", 1, 1},
  };
  for (const Row& row : rows) {
    const Counters c = counters_of(row.setup, row.instruction, data.address());
    CHECK(c.shared_wavefronts == row.wavefronts && c.shared_ideal_wavefronts == row.ideal,
          "%s %s: %d wavefronts, ideally %d", row.setup.c_str(), row.instruction,
          static_cast<int>(c.shared_wavefronts), static_cast<int>(c.shared_ideal_wavefronts));
  }
  const Counters local =
      counters_of("mov.u64 %rd3, own; setp.lt.u32 %p1, %r1, 5;",
                  "@%p1 st.local.u32 [%rd3], 1; @%p1 ld.local.u16 %r6, [%rd3];", data.address());
  CHECK(local.local_bytes == 5 * 6, "%d", static_cast<int>(local.local_bytes));
}

// By the definition: bank b of a wavefront serves one word; a group's lanes are served together.
Wavefronts slow_wavefronts(uint32_t mask, const uint32_t* addresses, int width) {
  const int group_lanes = width == 16 ? 8 : width == 8 ? 16 : 32;
  Wavefronts result;
  std::set<uint32_t> all_words;
  for (int first = 0; first < 32; first += group_lanes) {
    std::map<uint32_t, std::set<uint32_t>> words_of_bank;
    for (int lane = first; lane < first + group_lanes; ++lane) {
      if ((mask >> lane & 1) == 0) continue;
      for (int byte = 0; byte < width; ++byte) {
        const uint32_t word = (addresses[lane] + byte) / 4;
        words_of_bank[word % 32].insert(word);
        all_words.insert(word);
      }
    }
    size_t most = 0;
    for (const auto& [bank, words] : words_of_bank) most = std::max(most, words.size());
    result.actual += static_cast<uint32_t>(most);
  }
  result.ideal = static_cast<uint32_t>((all_words.size() + 31) / 32);
  return result;
}

void test_random_wavefronts() {
  Random random(2);
  for (int i = 0; i < 20000; ++i) {
    const int width = 1 << random.integer(0, 4);
    // From all lanes on one word to hardly ever two on the same; in order, strided or not.
    const int64_t range = int64_t{1} << random.integer(0, 13);
    const int64_t stride = random.integer(0, 40);
    const bool strided = random.integer(0, 1) != 0;
    uint32_t addresses[32];
    for (int lane = 0; lane < 32; ++lane) {
      const int64_t at = strided ? lane * stride : random.integer(0, range - 1);
      addresses[lane] = static_cast<uint32_t>(at * width % 65536);
    }
    uint32_t mask = static_cast<uint32_t>(random.integer(1, UINT32_MAX));
    if (i % 3 == 0) mask = UINT32_MAX;
    const Wavefronts fast = count_wavefronts(mask, addresses, width);
    const Wavefronts slow = slow_wavefronts(mask, addresses, width);
    CHECK(fast.actual == slow.actual && fast.ideal == slow.ideal,
          "width %d, mask %x: %u wavefronts (%u), not %u (%u)", width, mask, fast.actual,
          fast.ideal, slow.actual, slow.ideal);
  }
}

void test_random_sectors() {
  Random random(9);
  constexpr uint32_t kWords = 4096;
  const Buffer<uint32_t> data(kWords, 1);
  const Kernel compiled(kernel(".param .u64 data, .param .u64 at", R"(
  .reg .pred %p<2>;
  .reg .b32 %r<4>;
  .reg .b64 %rd<8>;
  mov.u32 %r1, %tid.x;
  ld.param.u64 %rd1, [data];
  ld.param.u64 %rd2, [at];
  mul.wide.u32 %rd3, %r1, 4;
  add.s64 %rd2, %rd2, %rd3;
  ld.global.u32 %r2, [%rd2];
  setp.ne.u32 %p1, %r2, -1;
  mul.wide.u32 %rd3, %r2, 4;
  add.s64 %rd1, %rd1, %rd3;
  @%p1 ld.global.u32 %r3, [%rd1];
  ret;)"));
  for (int i = 0; i < 500; ++i) {
    std::vector<uint32_t> words(32);
    std::set<uint32_t> sectors;
    const int64_t range = int64_t{1} << random.integer(0, 12);
    uint32_t active = 0;
    for (uint32_t& word : words) {
      word = static_cast<uint32_t>(random.integer(0, range - 1));
      if (random.integer(0, 7) == 0) word = UINT32_MAX;
      if (word == UINT32_MAX) continue;
      ++active;
      sectors.insert(word / 8);
    }
    if (i % 2 == 0) std::sort(words.begin(), words.end());
    const Buffer<uint32_t> at(words);
    const LaunchReport report = run_ptx(compiled, {}, data, at);
    CHECK(clean(report), "%s", describe(report).c_str());
    // 4 sectors and 128 bytes are of the addresses themselves.
    CHECK(report.counters.global_read_sectors == 4 + sectors.size() &&
              report.counters.global_read_bytes == 128 + 4 * active,
          "%d sectors, not %zu", static_cast<int>(report.counters.global_read_sectors),
          4 + sectors.size());
  }
}

}  // namespace
}  // namespace ptx_simulator::test

int main() {
  using namespace ptx_simulator::test;
  test_global();
  test_shared();
  test_random_wavefronts();
  test_random_sectors();
  std::printf("counters of memory: %d failures\n", altiplano::test::failures);
  return altiplano::test::failures != 0;
}
