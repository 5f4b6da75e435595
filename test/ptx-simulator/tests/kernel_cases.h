// The test kernels with shapes, random inputs, and references in f64 with derived error bounds.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "kernel_device.h"

namespace ptx_simulator::test {

struct KernelCase {
  std::string name;    // "gemm_nt 65 x 33 x 40"
  std::string module;  // "gemm_f16" of gemm_f16.cu
  bool is_small;       // few thousand instructions: for tests that repeat it hundreds of times
  // Runs on inputs of this seed. Empty if the result is right, else what is wrong.
  std::function<std::string(KernelDevice& device, uint32_t seed)> run;
};

const std::vector<KernelCase>& kernel_cases();
// The modules that the cases need, each once.
std::vector<std::string> kernel_modules();

// The multiplication of other shapes, for measurements. Empty if right.
std::string run_gemm(KernelDevice& device, bool transposed, int m, int n, int k, uint32_t seed);

}  // namespace ptx_simulator::test
