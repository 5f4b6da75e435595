// How fast the machine is with all detectors on: gemm_nt of kernels/gemm_f16.cu, 128 x 128 x 256.
//   ptx_gemm_bench [host threads]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "kernel_files.h"
#include "kernel_inputs.h"
#include "simulated_device.h"

int main(int argc, char** argv) {
  using namespace ptx_simulator::test;
  constexpr int kM = 128, kN = 128, kK = 256, kRuns = 50;
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  SimulatedDevice device(kernel_file("gemm_f16.ptx"), {.host_threads = threads});
  Random random(1);
  const DeviceArray<uint16_t> a(device, normals_f16(random, kM * kK));
  const DeviceArray<uint16_t> b(device, normals_f16(random, kN * kK));
  const DeviceArray<float> d(device, std::vector<float>(kM * kN));
  double best = 1e9;
  for (int run = 0; run < kRuns; ++run) {
    const auto start = std::chrono::steady_clock::now();
    device.launch("gemm_nt", {{kN / 64, kM / 64, 1}, {128, 1, 1}, 32768},
                  {a.address(), b.address(), d.address(), kM, kN, kK, kK, kK});
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    best = std::min(best, time.count());
  }
  const auto& counters = device.reports().back().counters;
  std::printf("%d x %d x %d on %d threads: %.2f ms, %.0f million thread instructions a second\n",
              kM, kN, kK, threads, 1e3 * best,
              static_cast<double>(counters.thread_instructions) / best / 1e6);
  return device.findings().empty() ? 0 : 1;
}
