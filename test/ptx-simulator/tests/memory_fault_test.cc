// Accesses that no memory stands behind: each is found where it happens and stops the launch, its
// message says what is wrong, and none of them harms the process.
#include <atomic>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "tests/run_ptx.h"

namespace ptx_simulator::test {
namespace {

using altiplano::test::Random;

constexpr const char* kRegisters = R"(
  .reg .pred %p<8>;
  .reg .b32 %r<16>;
  .reg .b64 %rd<16>;
  .shared .align 16 .b8 place[1000];
  .local .align 16 .b8 own[40];
  mov.u32 %r1, %tid.x;
  mov.u32 %r2, place;
  mov.u64 %rd9, own;
  ld.param.u64 %rd1, [at];
)";

std::string text_of(const std::string& body) {
  return kernel(".param .u64 at", std::string(kRegisters) + body + "\nret;",
                ".const .align 4 .u32 table[4] = {1, 2, 3, 4};");
}

void check_fault(const char* instruction, uint64_t at, FindingKind kind, uint32_t thread,
                 const std::string& message) {
  const std::string text = text_of(instruction);
  const LaunchReport report = run_ptx(text, {.block = {32}}, at);
  CHECK(report.stopped && report.findings.size() == 1, "%s: %s", instruction,
        describe(report).c_str());
  if (report.findings.empty()) return;
  const Finding& f = report.findings[0];
  // Of several instructions in one text the last one is meant.
  CHECK(f.kind == kind && f.thread[0] == thread, "%s: %s", instruction, f.to_string().c_str());
  CHECK(f.text.find(message) != std::string::npos, "%s: %s", instruction, f.text.c_str());
}

void test_each_kind() {
  auto& memory = GlobalMemory::instance();
  Allocation description;
  description.name = "the array";
  const uint64_t a = memory.allocate(4096, description);
  CHECK(a % 1024 == 512, "an allocation is aligned to %lx", static_cast<unsigned long>(a));
  check_fault("ld.global.u32 %r3, [%rd1 + 4096];", a, FindingKind::kOutOfBounds, 0,
              "are 0 bytes behind the end of the array (4,096 bytes)");
  check_fault("ld.global.v4.u32 {%r3, %r4, %r5, %r6}, [%rd1 + 4112];", a, FindingKind::kOutOfBounds,
              0, "are 16 bytes behind the end of the array");
  check_fault("st.global.u8 [%rd1 + -1], 3;", a, FindingKind::kOutOfBounds, 0,
              "is 1 byte before the beginning of the array");
  check_fault("mul.wide.u32 %rd2, %r1, 128; add.s64 %rd1, %rd1, %rd2; ld.global.u32 %r3, [%rd1];",
              a + 512, FindingKind::kOutOfBounds, 28, "behind the end of the array");
  check_fault("ld.global.u64 %rd2, [%rd1 + 4];", a, FindingKind::kMisaligned, 0,
              "which is not a multiple of 8");
  check_fault("st.global.v4.u32 [%rd1 + 8], {1, 2, 3, 4};", a, FindingKind::kMisaligned, 0,
              "16 bytes at");
  check_fault("ld.global.u32 %r3, [%rd1 + 16];", 0, FindingKind::kOutOfBounds, 0, "a null pointer");
  check_fault("ld.u32 %r3, [%rd1];", 0, FindingKind::kOutOfBounds, 0, "a null pointer");
  check_fault("red.global.add.u32 [%rd1], 1;", a + 8192, FindingKind::kOutOfBounds, 0,
              "4,096 bytes behind the end of the array");
  check_fault("ld.global.u32 %r3, [%rd1];", ~uint64_t{3}, FindingKind::kOutOfBounds, 0,
              "in no allocation");
  check_fault("cp.async.cg.shared.global [%r2], [%rd1], 16;", a + 4096, FindingKind::kOutOfBounds,
              0, "behind the end of the array");
  check_fault("cp.async.cg.shared.global [%r2], [%rd1], 16;", a + 4, FindingKind::kMisaligned, 0,
              "not a multiple of 16");
  check_fault("cp.async.cg.shared.global [%r2], [%rd1], 16, 17;", a,
              FindingKind::kIllegalInstruction, 0, "src-size of 17");
  check_fault("cp.async.ca.shared.global [%r2 + 2], [%rd1], 4;", a, FindingKind::kMisaligned, 0,
              "shared address");
  check_fault("st.global.u32 [%rd1], 1;", a + 4094 - 2048, FindingKind::kMisaligned, 0,
              "not a multiple of 4");
  check_fault("discard.global.L2 [%rd1], 128;", a + 4096 - 64, FindingKind::kMisaligned, 0,
              "not a multiple of 128");
  check_fault("mov.u64 %rd2, table; st.u32 [%rd2], 1;", a, FindingKind::kIllegalInstruction, 0,
              "is constant");
  check_fault("mov.u64 %rd2, table; ld.const.u32 %r3, [%rd2 + 16];", a, FindingKind::kOutOfBounds,
              0, "behind the end of variable table (16 bytes)");

  check_fault("shl.b32 %r3, %r1, 6; add.u32 %r3, %r3, %r2; st.shared.u32 [%r3], 1;", a,
              FindingKind::kOutOfBounds, 16,
              "4 bytes at shared address 0x400 are not in the block's 1,000 bytes");
  check_fault("st.shared.u32 [%r2 + 2], 1;", a, FindingKind::kMisaligned, 0,
              "shared address 0x2, which is not a multiple of 4");
  check_fault("ld.shared.u32 %r3, [%r2 + -4];", a, FindingKind::kOutOfBounds, 0, "0xfffffffc");
  check_fault(
      "mov.u64 %rd2, place; cvta.shared.u64 %rd2, %rd2; atom.add.u32 %r3, [%rd2 + 1000], 1;", a,
      FindingKind::kOutOfBounds, 0, "shared address 0x3e8");
  check_fault("add.u32 %r3, %r2, 992; ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r4}, [%r3];", a,
              FindingKind::kOutOfBounds, 0, "16 bytes at shared address 0x3e0");
  check_fault("add.u32 %r3, %r2, 8; ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r4}, [%r3];", a,
              FindingKind::kMisaligned, 0, "not a multiple of 16");
  check_fault("st.local.u32 [%rd9 + 64], 1;", a, FindingKind::kOutOfBounds, 0, "local address");
  check_fault("st.local.u64 [%rd9 + 4], 1;", a, FindingKind::kMisaligned, 0, "local address");
  check_fault("cvta.local.u64 %rd9, %rd9; ld.u32 %r3, [%rd9 + 4000];", a, FindingKind::kOutOfBounds,
              0, "local address");

  CHECK(memory.release(a) && !memory.release(a), "memory is freed once");
  check_fault("ld.global.u32 %r3, [%rd1 + 12];", a, FindingKind::kUseAfterFree, 0,
              "are at byte 12 of the array (4,096 bytes), which was freed");
}

// Only what a lane really reads counts: predicated-off lanes and ignored sources may point
// anywhere.
void test_harmless() {
  const Buffer<uint32_t> in(64, 5);
  const LaunchReport report = run_ptx(text_of(R"(
  setp.lt.u32 %p1, %r1, 64;
  mul.wide.u32 %rd2, %r1, 4;
  add.s64 %rd2, %rd1, %rd2;
  @%p1 ld.global.u32 %r3, [%rd2];
  @!%p1 ld.shared.u32 %r3, [%r2 + 4000];
  cp.async.ca.shared.global [%r2], [0], 4, 0;
  cp.async.wait_all;
  bar.sync 0;
  and.b32 %r4, %r1, -2;
  shl.b32 %r4, %r4, 2;
  add.u32 %r4, %r4, %r2;
  mul.wide.u32 %rd3, %r1, 1048576;
  add.s64 %rd3, %rd3, %rd1;
  prefetch.global.L1 [%rd3];
)"),
                                      {.block = {1}}, in);
  CHECK(clean(report), "%s", describe(report).c_str());
}

// Fresh memory is not zero at its beginning and end; freed addresses do not come back; snapshots
// keep what they saw readable.
void test_allocations() {
  auto& memory = GlobalMemory::instance();
  const size_t live_before = memory.live_allocations();
  const uint64_t bytes_before = memory.live_bytes(3);
  Allocation on_device;
  on_device.device = 3;
  constexpr uint64_t kSize = uint64_t{3} << 30;
  const uint64_t a = memory.allocate(kSize, on_device);
  const auto* bytes = reinterpret_cast<const uint8_t*>(a);
  CHECK(bytes[0] == 0xFF && bytes[1000000] == 0xFF && bytes[kSize - 1] == 0xFF, "no pattern");
  CHECK(memory.live_bytes(3) - bytes_before == kSize, "live bytes");
  const auto snapshot = memory.snapshot();
  memory.release(a);
  CHECK(memory.live_bytes(3) == bytes_before, "freed bytes");
  CHECK(bytes[0] == 0xFF, "a snapshot keeps memory");
  CHECK(snapshot->find(a + 5)->is_live && !memory.snapshot()->find(a + 5)->is_live, "snapshots");
  CHECK(snapshot->find(a + kSize) == nullptr, "the end is not part of it");
  std::vector<uint64_t> given;
  for (int i = 0; i < 300; ++i) {
    given.push_back(memory.allocate(1 + 37 * i, Allocation{}));
    CHECK(given.back() > a + kSize && given.back() % 512 == 0, "an address comes back");
    if (i > 0) CHECK(given[i] > given[i - 1] + 37 * (i - 1), "allocations overlap");
  }
  CHECK(memory.live_allocations() == live_before + 300, "%zu", memory.live_allocations());
  for (const uint64_t address : given) CHECK(memory.release(address), "release");
  CHECK(memory.live_allocations() == live_before, "%zu", memory.live_allocations());
  CHECK(memory.allocate(0, Allocation{}) == 0, "no bytes");
  CHECK(memory.allocate(uint64_t{1} << 60, Allocation{}) == 0, "more than there is");

  std::vector<uint32_t> own(64, 7);
  const auto host = reinterpret_cast<uint64_t>(own.data());
  CHECK(memory.register_host(host, 256) && !memory.register_host(host + 128, 512), "register");
  Kernel load(
      text_of("mul.wide.u32 %rd2, %r1, 4; add.s64 %rd1, %rd1, %rd2;"
              "ld.global.u32 %r3, [%rd1]; add.u32 %r3, %r3, %r1; st.global.u32 [%rd1], %r3;"));
  CHECK(clean(run_ptx(load, {.block = {64}}, host)) && own[63] == 70, "registered memory");
  CHECK(!memory.release(host) && memory.unregister_host(host) && !memory.unregister_host(host),
        "unregister");
  CHECK(run_ptx(load, {.block = {64}}, host).stopped && own[63] == 70, "forgotten memory");
}

// Snapshots and changes from several threads at once.
void test_threads() {
  auto& memory = GlobalMemory::instance();
  std::vector<std::thread> threads;
  std::atomic<int> wrong = 0;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i) {
        const uint64_t a = memory.allocate(100 + t, Allocation{});
        const Allocation* found = memory.snapshot()->find(a + 50);
        auto snapshot = memory.snapshot();
        found = snapshot->find(a + 50);
        if (found == nullptr || found->begin != a || !found->is_live) ++wrong;
        if (!memory.release(a)) ++wrong;
      }
    });
  }
  for (std::thread& t : threads) t.join();
  CHECK(wrong == 0, "%d", wrong.load());
}

// Random addresses of all kinds in all instructions, most of them wild.
void test_fuzz() {
  Random random(1);
  const Buffer<uint32_t> in(1024, 1);
  const char* instructions[] = {
      "ld.u8 %r3, [%rd2];",
      "ld.v4.u32 {%r3, %r4, %r5, %r6}, [%rd2];",
      "ld.global.u64 %rd4, [%rd2];",
      "ld.global.nc.v2.u64 {%rd4, %rd5}, [%rd2];",
      "ld.const.u16 %r3, [%rd2];",
      "ld.shared.u32 %r3, [%rd2];",
      "ld.shared.v2.u32 {%r3, %r4}, [%r7];",
      "ld.local.u32 %r3, [%rd2];",
      "ld.param.u32 %r3, [%rd2];",
      "st.u8 [%rd2], %r1;",
      "st.v2.u32 [%rd2], {%r1, %r1};",
      "st.shared.u16 [%r7], %r1;",
      "st.shared.v4.u32 [%r7], {%r1, %r1, %r1, %r1};",
      "st.local.u64 [%rd2], %rd2;",
      "st.global.u32 [%rd2], %r1;",
      "atom.add.u32 %r3, [%rd2], 1;",
      "atom.cas.b64 %rd4, [%rd2], %rd2, %rd2;",
      "red.shared.max.u32 [%r7], %r1;",
      "red.global.add.noftz.f16x2 [%rd2], %r1;",
      "cp.async.ca.shared.global [%r7], [%rd2], 8;",
      "cp.async.cg.shared.global [%r7], [%rd2], 16, %r8;",
      "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r3, %r4, %r5, %r6}, [%r7];",
      "ldmatrix.sync.aligned.m8n8.x2.trans.b16 {%r3, %r4}, [%rd2];",
      "discard.global.L2 [%rd2], 128;",
      "prefetch.global.L2 [%rd2];",
      "isspacep.const %p1, %rd2;",
  };
  int stopped = 0, launches = 0;
  for (const char* instruction : instructions) {
    const Kernel compiled(text_of(std::string(R"(
  mul.wide.u32 %rd3, %r1, 8;
  add.s64 %rd1, %rd1, %rd3;
  ld.global.u64 %rd2, [%rd1];
  cvt.u32.u64 %r7, %rd2;
  and.b32 %r8, %r7, 31;
)") + instruction + "\ncp.async.wait_all;"));
    for (int i = 0; i < 60; ++i) {
      std::vector<uint64_t> addresses(64);
      const int64_t kind = random.integer(0, 6);
      const uint64_t alignment = uint64_t{1} << random.integer(0, 5);
      for (uint64_t& address : addresses) {
        const auto half = [&] { return static_cast<uint64_t>(random.integer(0, UINT32_MAX)); };
        const uint64_t wild = half() << 32 | half();
        const uint64_t bases[] = {in.address(), kSharedWindow, kLocalWindow,     0,
                                  wild,         wild >> 20,    ~uint64_t{0} - 64};
        const uint64_t near = static_cast<uint64_t>(random.integer(0, 1200));
        address = bases[random.integer(0, 3) == 0 ? random.integer(0, 6) : kind] + near;
        if (random.integer(0, 15) != 0) address -= address % alignment;
      }
      const Buffer<uint64_t> at(addresses);
      const LaunchReport report =
          run_ptx(compiled, {.block = {64}, .seed = static_cast<uint64_t>(i + 1)}, at);
      stopped += report.stopped;
      ++launches;
      if (report.stopped) CHECK(!report.findings.empty(), "stopped without a finding");
    }
  }
  CHECK(stopped > launches / 4 && stopped < launches, "%d of %d launches stopped", stopped,
        launches);
}

}  // namespace
}  // namespace ptx_simulator::test

int main() {
  using namespace ptx_simulator::test;
  test_each_kind();
  test_harmless();
  test_allocations();
  test_threads();
  test_fuzz();
  std::printf("wild accesses: %d failures\n", altiplano::test::failures);
  return altiplano::test::failures != 0;
}
