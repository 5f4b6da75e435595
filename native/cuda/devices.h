// Which GPUs there are, and why one cannot be used. Without cuda.h: what is outside of cuda/
// includes this and cuda_backend.h.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace altiplano::cuda {

// What the kernels are compiled for.
inline constexpr int kLeastComputeMajor = 8;

// What kernels and plans need to know of a device.
struct DeviceProperties {
  int ordinal = 0;
  std::string name;
  int major = 0, minor = 0;  // compute capability
  size_t total_bytes = 0;
  int multiprocessors = 0;
  int shared_bytes_per_block = 0;  // at most, where a kernel is allowed them
  int shared_bytes_per_multiprocessor = 0;
  int l2_bytes = 0;
  int clock_khz = 0;  // the highest; 0 where the driver does not tell, as with the two below
  int memory_clock_khz = 0;
  int memory_bus_bits = 0;
};

struct Device {
  DeviceProperties properties;
  std::string problem;  // why it cannot be used; empty if it can
};

// The driver and its devices, in its own order, which CUDA_VISIBLE_DEVICES changes.
struct Devices {
  std::string library;   // the driver's; empty if there is none
  int cuda_version = 0;  // that the driver offers (13000 is 13.0); 0: unknown
  std::string problem;   // why there is nothing to use at all; empty if there is
  std::vector<Device> devices;
};

// Does not throw for what is wrong with the driver or a device.
Devices find_devices();

// Throws Error.
DeviceProperties device_properties(int ordinal);

// Bytes of the device's memory that are free now. Takes the primary context for a moment, which
// takes memory and time if nothing else holds it. Throws Error.
size_t free_bytes(int ordinal);

// "GPU 0 (NVIDIA A100-SXM4-80GB)"
std::string describe(const DeviceProperties& device);

}  // namespace altiplano::cuda
