#include "cuda/devices.h"

#include <exception>

#include "cuda/context.h"
#include "cuda/driver.h"

namespace altiplano::cuda {
namespace {

// Calls of the driver about one device.
class Asking {
 public:
  explicit Asking(int ordinal) : ordinal_(ordinal) {
    checked(driver().cuDeviceGet(&device_, ordinal), "cuDeviceGet");
  }
  int attribute(CUdevice_attribute which) const {
    int value = 0;
    checked(driver().cuDeviceGetAttribute(&value, which, device_), "cuDeviceGetAttribute");
    return value;
  }
  std::string name() const {
    char name[256] = "";
    checked(driver().cuDeviceGetName(name, static_cast<int>(sizeof(name)), device_),
            "cuDeviceGetName");
    return name;
  }
  size_t total_bytes() const {
    size_t bytes = 0;
    checked(driver().cuDeviceTotalMem(&bytes, device_), "cuDeviceTotalMem");
    return bytes;
  }

 private:
  void checked(CUresult result, const char* call) const {
    check(result, call, [&] { return "GPU " + std::to_string(ordinal_); });
  }
  const int ordinal_;
  CUdevice device_ = 0;
};

std::string problem_of(const DeviceProperties& p) {
  if (p.major < kLeastComputeMajor) {
    return "its compute capability is " + std::to_string(p.major) + "." + std::to_string(p.minor) +
           ", and " + std::to_string(kLeastComputeMajor) + ".0 (Ampere) or later is needed";
  }
  if (Asking(p.ordinal).attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_MODE) == CU_COMPUTEMODE_PROHIBITED) {
    return "its compute mode prohibits any use (nvidia-smi -c 0 allows it)";
  }
  return "";
}

}  // namespace

DeviceProperties device_properties(int ordinal) {
  const Asking device(ordinal);
  DeviceProperties p;
  p.ordinal = ordinal;
  p.name = device.name();
  p.total_bytes = device.total_bytes();
  p.major = device.attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
  p.minor = device.attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
  p.multiprocessors = device.attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
  p.shared_bytes_per_block =
      device.attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
  p.shared_bytes_per_multiprocessor =
      device.attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR);
  p.l2_bytes = device.attribute(CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE);
  p.clock_khz = device.attribute(CU_DEVICE_ATTRIBUTE_CLOCK_RATE);
  p.memory_clock_khz = device.attribute(CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE);
  p.memory_bus_bits = device.attribute(CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH);
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
        device.problem = status.problem.empty() ? problem_of(device.properties) : status.problem;
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
