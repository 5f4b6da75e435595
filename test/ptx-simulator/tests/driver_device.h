// Whatever libcuda.so.1 is found, as a place for test kernels: the simulator's (through
// LD_LIBRARY_PATH), or the driver of a GPU. Findings of the simulator are asked for by functions
// that no real driver has.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "kernel_device.h"

namespace ptx_simulator::test {

class DriverDevice : public KernelDevice {
 public:
  // Null where there is no driver or it has no device; `why` says so.
  static std::unique_ptr<DriverDevice> open(std::string& why);
  ~DriverDevice() override;

  bool is_simulated() const;
  const std::string& name() const { return name_; }
  // The module, a fat binary or PTX text, in which launch() looks for kernels from now on.
  void use_module(const std::string& image);
  // Findings since the last call, a line each.
  std::string findings();
  void set(const char* setting, const std::string& value);  // of the simulator

  uint64_t allocate(size_t bytes) override;
  void release(uint64_t address) override;
  void write(uint64_t to, const void* from, size_t bytes) override;
  void read(void* to, uint64_t from, size_t bytes) override;
  void launch(const std::string& kernel, const LaunchShape& shape,
              const std::vector<Argument>& arguments) override;

 private:
  struct Api;
  explicit DriverDevice(std::unique_ptr<Api> api);
  void check(int code, const char* what);

  std::unique_ptr<Api> api_;
  std::string name_;
  void* context_ = nullptr;
  void* module_ = nullptr;
};

}  // namespace ptx_simulator::test
