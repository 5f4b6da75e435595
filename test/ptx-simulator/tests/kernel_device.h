// Where the test kernels (kernels/*.cu) run: on the machine itself, with a seed and a report for
// every launch (simulated_device.h), or through whatever driver libcuda.so.1 is (driver_device.h),
// be that the simulator's or a GPU's.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace ptx_simulator::test {

struct LaunchShape {
  std::array<uint32_t, 3> grid{1, 1, 1};
  std::array<uint32_t, 3> block{1, 1, 1};
  uint32_t dynamic_shared_bytes = 0;
};

// A kernel's argument, as its bytes.
struct Argument {
  alignas(8) std::array<std::byte, 8> bytes{};
  size_t size = 0;

  template <class T>
  Argument(T value) : size(sizeof(T)) {  // NOLINT: arguments are listed like those of a call
    static_assert(sizeof(T) <= 8);
    std::memcpy(bytes.data(), &value, sizeof(T));
  }
};

// All functions throw std::runtime_error where a driver would return an error.
class KernelDevice {
 public:
  virtual ~KernelDevice() = default;
  virtual uint64_t allocate(size_t bytes) = 0;
  virtual void release(uint64_t address) = 0;
  virtual void write(uint64_t to, const void* from, size_t bytes) = 0;
  virtual void read(void* to, uint64_t from, size_t bytes) = 0;
  virtual void launch(const std::string& kernel, const LaunchShape& shape,
                      const std::vector<Argument>& arguments) = 0;
};

// Elements on the device, exactly as many as given, so that every access beyond them is seen.
template <class T>
class DeviceArray {
 public:
  DeviceArray(KernelDevice& device, const std::vector<T>& values)
      : device_(device), size_(values.size()), address_(device.allocate(bytes())) {
    if (size_ > 0) device_.write(address_, values.data(), bytes());
  }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  ~DeviceArray() { release(); }

  uint64_t address() const { return address_; }
  std::vector<T> values() const {
    std::vector<T> all(size_);
    if (size_ > 0) device_.read(all.data(), address_, bytes());
    return all;
  }
  void release() {
    if (is_live_) device_.release(address_);
    is_live_ = false;
  }

 private:
  size_t bytes() const { return size_ * sizeof(T); }

  KernelDevice& device_;
  size_t size_;
  uint64_t address_;
  bool is_live_ = true;
};

}  // namespace ptx_simulator::test
