// The test kernels through the driver API, as an application launches them: with the simulator's
// libcuda.so.1 in front (LD_LIBRARY_PATH), every result within its bound and no finding, for
// several seeds; with a GPU's, the same results.
#include <cstdio>
#include <exception>

#include "driver_device.h"
#include "kernel_cases.h"
#include "kernel_files.h"

int main() {
  using namespace ptx_simulator::test;
  std::string why;
  const auto device = DriverDevice::open(why);
  if (device == nullptr) {
    std::fprintf(stderr, "no CUDA device: %s\n", why.c_str());
    return 1;
  }
  std::printf("on %s%s\n", device->name().c_str(), device->is_simulated() ? " (simulated)" : "");
  int passed = 0, failed = 0;
  for (const std::string& module : kernel_modules()) {
    for (uint32_t seed = 1; seed <= 4; ++seed) {
      device->set("SEED", std::to_string(seed));
      device->set("ARITHMETIC", std::to_string(seed));
      device->use_module(kernel_file(module + ".fatbin"));
      for (const KernelCase& each : kernel_cases()) {
        if (each.module != module) continue;
        std::string problem;
        try {
          problem = each.run(*device, seed);
          problem += device->findings();
        } catch (const std::exception& error) {
          problem = error.what();
        }
        ++(problem.empty() ? passed : failed);
        if (!problem.empty()) {
          std::fprintf(stderr, "FAILED %s, seed %u: %s\n", each.name.c_str(), seed,
                       problem.c_str());
        }
      }
    }
  }
  std::printf("kernels: %d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}
