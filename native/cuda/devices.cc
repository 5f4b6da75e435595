#include "cuda/devices.h"

#include <exception>

#include "cuda/context.h"
#include "cuda/driver.h"

namespace altiplano::cuda {
namespace {

int attribute(CUdevice device, CUdevice_attribute which) {
  int value = 0;
  CUDA_CHECK(cuDeviceGetAttribute, &value, which, device);
  return value;
}

std::string problem_of(const DeviceProperties& p) {
  if (p.major < kLeastComputeMajor) {
    return "its compute capability is " + std::to_string(p.major) + "." + std::to_string(p.minor) +
           ", and " + std::to_string(kLeastComputeMajor) + ".0 (Ampere) or later is needed";
  }
  CUdevice device;
  CUDA_CHECK(cuDeviceGet, &device, p.ordinal);
  if (attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_MODE) == CU_COMPUTEMODE_PROHIBITED) {
    return "its compute mode prohibits any use (nvidia-smi -c 0 allows it)";
  }
  return "";
}

}  // namespace

DeviceProperties device_properties(int ordinal) {
  CUdevice device;
  CUDA_CHECK(cuDeviceGet, &device, ordinal);
  DeviceProperties p;
  p.ordinal = ordinal;
  char name[256] = "";
  CUDA_CHECK(cuDeviceGetName, name, static_cast<int>(sizeof(name)), device);
  p.name = name;
  CUDA_CHECK(cuDeviceTotalMem, &p.total_bytes, device);
  p.major = attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
  p.minor = attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
  p.multiprocessors = attribute(device, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
  p.shared_bytes_per_block =
      attribute(device, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
  p.shared_bytes_per_multiprocessor =
      attribute(device, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR);
  p.l2_bytes = attribute(device, CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE);
  return p;
}

Devices find_devices() {
  const DriverStatus& status = driver_status();
  Devices found = {status.library, status.version, status.problem, {}};
  if (status.driver == nullptr) return found;
  try {
    int count = 0;
    CUDA_CHECK(cuDeviceGetCount, &count);
    for (int ordinal = 0; ordinal < count; ++ordinal) {
      Device device;
      device.properties.ordinal = ordinal;
      try {
        device.properties = device_properties(ordinal);
        device.problem = problem_of(device.properties);
      } catch (const std::exception& e) {
        device.problem = e.what();
      }
      found.devices.push_back(device);
    }
    if (count == 0) found.problem = "the NVIDIA driver finds no GPU";
  } catch (const std::exception& e) {
    found.problem = e.what();
  }
  return found;
}

std::string describe(const DeviceProperties& device) {
  return "GPU " + std::to_string(device.ordinal) + " (" + device.name + ")";
}

size_t free_bytes(int ordinal) { return Context(ordinal).free_bytes(); }

}  // namespace altiplano::cuda
