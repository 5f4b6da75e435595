// The expressions of host_functions.h, for every thread's operands.
#include "host_functions.h"

extern "C" __global__ void host_functions_kernel(const host_functions::Operands* operands,
                                                 uint64_t* results, uint32_t count) {
  const uint32_t thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (thread < count) host_functions::compute(operands[thread], results + thread, count);
}

extern "C" __global__ void close_functions_kernel(const float* operands, float* results,
                                                  uint32_t count) {
  const uint32_t thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (thread < count) host_functions::compute_close(operands[thread], results + thread, count);
}
