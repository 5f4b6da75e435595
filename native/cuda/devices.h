// Which GPUs there are, and why one cannot be used.
#pragma once

#include <cuda.h>

#include <cstddef>
#include <string>
#include <vector>

#include "cuda/context.h"

namespace altiplano::cuda {

// What the kernels are compiled for.
inline constexpr int kLeastComputeMajor = 8;

struct Device {
  DeviceProperties properties;
  std::string problem;  // why it cannot be used; empty if it can
};

// In the driver's order, which CUDA_VISIBLE_DEVICES changes. Empty without a driver; does not throw
// for what is wrong with a device.
std::vector<Device> list_devices();

// "GPU 0 (NVIDIA A100-SXM4-80GB)"
std::string describe(const DeviceProperties& device);

// Throws Error.
DeviceProperties device_properties(int ordinal);

// Bytes of the device's memory that are free now. Takes the primary context for a moment, which
// takes memory and time if nothing else holds it. Throws Error.
size_t free_bytes(int ordinal);

}  // namespace altiplano::cuda
