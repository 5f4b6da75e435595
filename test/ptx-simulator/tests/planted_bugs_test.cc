// Bugs planted in the test kernels: each is found, as what it is, whatever the seed; the kernels
// without them are free of findings.
#include <cstdio>
#include <exception>

#include "kernel_cases.h"
#include "kernel_files.h"
#include "simulated_device.h"

namespace ptx_simulator::test {
namespace {

constexpr uint64_t kSeeds = 20;

struct Planted {
  const char* define;  // the variant's preprocessor define
  const char* module;
  const char* test_case;
  FindingKind kind;
};
constexpr Planted kPlanted[] = {
    {"MISSING_BARRIER", "rmsnorm", "rmsnorm_f32 2 x 136", FindingKind::kSharedRace},
    {"MISALIGNED_PACKS", "rmsnorm", "rmsnorm_f16 3 x 77", FindingKind::kMisaligned},
    {"READS_UNWRITTEN_TAIL", "softmax", "softmax_block 2 x 131", FindingKind::kUninitialized},
    {"BARRIER_IN_BRANCH", "softmax", "softmax_block 5 x 31", FindingKind::kBarrierDivergence},
    {"INDEX_OFF_BY_ONE", "softmax", "softmax_block 2 x 131", FindingKind::kOutOfBounds},
    {"LANES_LEAVE_EARLY", "softmax", "softmax_warp 5 x 31", FindingKind::kBarrierDivergence},
    {"MISSING_SYNCWARP", "softmax", "softmax_warp 2 x 131", FindingKind::kSharedRace},
    {"WAITS_ONE_GROUP_SHORT", "gemm_f16", "gemm_nt 65 x 66 x 197", FindingKind::kAsyncCopyRace},
    {"MISSING_RING_BARRIER", "gemm_f16", "gemm_nn 65 x 66 x 197", FindingKind::kSharedRace},
    {"LEAVES_COPIES_OPEN", "gemm_f16", "gemm_nt 64 x 64 x 32", FindingKind::kOpenAsyncGroup},
    {"MISSING_LAST_WAIT", "gemm_int4", "gemm_int4 27 x 67 x 192", FindingKind::kAsyncCopyRace},
    {"WAITS_FOR_ABSENT_BLOCK", "split_sum", "split_sum 300", FindingKind::kDeadlock},
};

const KernelCase& case_named(const std::string& name) {
  for (const KernelCase& each : kernel_cases()) {
    if (each.name == name) return each;
  }
  throw std::runtime_error("no case " + name);
}

SimulatedDevice::Options options(uint64_t seed) {
  return {.seed = seed, .most_warp_instructions = 300'000, .arithmetic = seed};
}

int problems = 0;
void complain(const std::string& what, uint64_t seed, const std::string& text) {
  if (++problems <= 20) {
    std::fprintf(stderr, "FAILED %s, seed %d: %s\n", what.c_str(), static_cast<int>(seed),
                 text.c_str());
  }
}

void test_planted() {
  for (const Planted& bug : kPlanted) {
    const std::string ptx = kernel_file(std::string(bug.module) + "." + bug.define + ".ptx");
    const KernelCase& test_case = case_named(bug.test_case);
    int found = 0;
    for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
      SimulatedDevice device(ptx, options(seed));
      test_case.run(device, static_cast<uint32_t>(seed));  // results may be right by chance
      if (device.found(bug.kind)) {
        ++found;
      } else {
        complain(bug.define, seed,
                 std::string("no ") + name_of(bug.kind) + "; " + device.findings());
      }
    }
    std::printf("%-24s %-20s found on %d of %d seeds\n", bug.define, name_of(bug.kind), found,
                static_cast<int>(kSeeds));
  }
}

// The host frees what a kernel still reads.
void test_use_after_free() {
  const std::string ptx = kernel_file("split_sum.ptx");
  int found = 0;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    SimulatedDevice device(ptx, options(seed));
    DeviceArray<float> x(device, std::vector<float>(300, 1.f));
    const DeviceArray<float> sums(device, std::vector<float>(3));
    x.release();
    device.launch("split_rows", {{3, 1, 1}, {64, 1, 1}}, {x.address(), 100, sums.address()});
    if (device.found(FindingKind::kUseAfterFree)) {
      ++found;
    } else {
      complain("use after free", seed, "not found; " + device.findings());
    }
  }
  std::printf("%-24s %-20s found on %d of %d seeds\n", "(freed by the host)",
              name_of(FindingKind::kUseAfterFree), found, static_cast<int>(kSeeds));
}

void test_clean() {
  int runs = 0;
  for (const std::string& module : kernel_modules()) {
    const std::string ptx = kernel_file(module + ".ptx");
    for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
      for (const KernelCase& each : kernel_cases()) {
        if (each.module != module || !each.is_small) continue;
        SimulatedDevice device(ptx, options(seed));
        const std::string problem = each.run(device, static_cast<uint32_t>(seed));
        if (!problem.empty()) complain(each.name, seed, problem);
        if (!device.findings().empty()) complain(each.name, seed, device.findings());
        ++runs;
      }
    }
  }
  std::printf("clean kernels: %d runs without a finding\n", runs - problems);
}

}  // namespace
}  // namespace ptx_simulator::test

int main() {
  using namespace ptx_simulator::test;
  try {
    test_clean();
    test_planted();
    test_use_after_free();
  } catch (const std::exception& error) {
    complain("planted bugs", 0, error.what());
  }
  return problems == 0 ? 0 : 1;
}
