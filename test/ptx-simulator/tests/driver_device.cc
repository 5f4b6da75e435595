#include "driver_device.h"

#include <cuda.h>
#include <dlfcn.h>

#include <stdexcept>

#include "driver/simulator.h"

namespace ptx_simulator::test {

struct DriverDevice::Api {
  void* library = nullptr;
  decltype(&cuInit) init;
  decltype(&cuGetErrorName) error_name;
  decltype(&cuDeviceGetCount) device_count;
  decltype(&cuDeviceGetName) device_name;
  decltype(&cuDevicePrimaryCtxRetain) retain;
  decltype(&cuDevicePrimaryCtxRelease) release;
  decltype(&cuCtxSetCurrent) set_current;
  decltype(&cuCtxSynchronize) synchronize;
  decltype(&cuMemAlloc) allocate;
  decltype(&cuMemFree) free;
  decltype(&cuMemcpyHtoD) write;
  decltype(&cuMemcpyDtoH) read;
  decltype(&cuModuleLoadData) load;
  decltype(&cuModuleUnload) unload;
  decltype(&cuModuleGetFunction) function;
  decltype(&cuFuncSetAttribute) set_attribute;
  decltype(&cuLaunchKernel) launch;
  // Of the simulator only.
  decltype(&ptx_simulator_set) simulator_set = nullptr;
  decltype(&ptx_simulator_report_count) report_count = nullptr;
  decltype(&ptx_simulator_finding) finding = nullptr;
  decltype(&ptx_simulator_clear_reports) clear_reports = nullptr;
  decltype(&ptx_simulator_last_message) last_message = nullptr;

  template <class Function>
  bool find(Function& function, const char* name) {
    function = reinterpret_cast<Function>(dlsym(library, name));
    return function != nullptr;
  }
};

std::unique_ptr<DriverDevice> DriverDevice::open(std::string& why) {
  auto api = std::make_unique<Api>();
  api->library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (api->library == nullptr) {
    why = dlerror();
    return nullptr;
  }
  const bool complete =
      api->find(api->init, "cuInit") && api->find(api->error_name, "cuGetErrorName") &&
      api->find(api->device_count, "cuDeviceGetCount") &&
      api->find(api->device_name, "cuDeviceGetName") &&
      api->find(api->retain, "cuDevicePrimaryCtxRetain") &&
      api->find(api->release, "cuDevicePrimaryCtxRelease_v2") &&
      api->find(api->set_current, "cuCtxSetCurrent") &&
      api->find(api->synchronize, "cuCtxSynchronize") &&
      api->find(api->allocate, "cuMemAlloc_v2") && api->find(api->free, "cuMemFree_v2") &&
      api->find(api->write, "cuMemcpyHtoD_v2") && api->find(api->read, "cuMemcpyDtoH_v2") &&
      api->find(api->load, "cuModuleLoadData") && api->find(api->unload, "cuModuleUnload") &&
      api->find(api->function, "cuModuleGetFunction") &&
      api->find(api->set_attribute, "cuFuncSetAttribute") &&
      api->find(api->launch, "cuLaunchKernel");
  if (!complete) {
    why = std::string("libcuda.so.1 lacks a function: ") + dlerror();
    return nullptr;
  }
  api->find(api->simulator_set, "ptx_simulator_set");
  api->find(api->report_count, "ptx_simulator_report_count");
  api->find(api->finding, "ptx_simulator_finding");
  api->find(api->clear_reports, "ptx_simulator_clear_reports");
  api->find(api->last_message, "ptx_simulator_last_message");
  int devices = 0;
  if (api->init(0) != CUDA_SUCCESS || api->device_count(&devices) != CUDA_SUCCESS || devices == 0) {
    why = "libcuda.so.1 has no device";
    return nullptr;
  }
  return std::unique_ptr<DriverDevice>(new DriverDevice(std::move(api)));
}

DriverDevice::DriverDevice(std::unique_ptr<Api> api) : api_(std::move(api)) {
  char name[128] = "";
  check(api_->device_name(name, sizeof(name), 0), "cuDeviceGetName");
  name_ = name;
  CUcontext context;
  check(api_->retain(&context, 0), "cuDevicePrimaryCtxRetain");
  context_ = context;
  check(api_->set_current(context), "cuCtxSetCurrent");
}

DriverDevice::~DriverDevice() {
  if (module_ != nullptr) api_->unload(static_cast<CUmodule>(module_));
  if (context_ != nullptr) api_->release(0);
}

bool DriverDevice::is_simulated() const { return api_->finding != nullptr; }

void DriverDevice::check(int code, const char* what) {
  if (code == CUDA_SUCCESS) return;
  const char* name = nullptr;
  api_->error_name(static_cast<CUresult>(code), &name);
  std::string text = std::string(what) + ": " + (name ? name : std::to_string(code).c_str());
  if (api_->last_message != nullptr) text += std::string(": ") + api_->last_message();
  throw std::runtime_error(text);
}

void DriverDevice::use_module(const std::string& image) {
  if (module_ != nullptr) check(api_->unload(static_cast<CUmodule>(module_)), "cuModuleUnload");
  module_ = nullptr;
  CUmodule loaded;
  check(api_->load(&loaded, image.c_str()), "cuModuleLoadData");
  module_ = loaded;
}

std::string DriverDevice::findings() {
  std::string text;
  if (!is_simulated()) return text;
  for (size_t report = 0; report < api_->report_count(); ++report) {
    for (size_t i = 0; const char* line = api_->finding(report, i); ++i) {
      text += std::string(line) + "\n";
    }
  }
  api_->clear_reports();
  return text;
}

void DriverDevice::set(const char* setting, const std::string& value) {
  if (is_simulated() && api_->simulator_set(setting, value.c_str()) != 0) {
    throw std::runtime_error(std::string("the simulator does not know ") + setting + "=" + value);
  }
}

uint64_t DriverDevice::allocate(size_t bytes) {
  CUdeviceptr address;
  check(api_->allocate(&address, bytes), "cuMemAlloc");
  return address;
}
void DriverDevice::release(uint64_t address) { check(api_->free(address), "cuMemFree"); }
void DriverDevice::write(uint64_t to, const void* from, size_t bytes) {
  check(api_->write(to, from, bytes), "cuMemcpyHtoD");
}
void DriverDevice::read(void* to, uint64_t from, size_t bytes) {
  check(api_->read(to, from, bytes), "cuMemcpyDtoH");
}

void DriverDevice::launch(const std::string& kernel, const LaunchShape& shape,
                          const std::vector<Argument>& arguments) {
  CUfunction function;
  check(api_->function(&function, static_cast<CUmodule>(module_), kernel.c_str()),
        "cuModuleGetFunction");
  check(api_->set_attribute(function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                            static_cast<int>(shape.dynamic_shared_bytes)),
        "cuFuncSetAttribute");
  std::vector<void*> pointers;
  for (const Argument& argument : arguments) {
    pointers.push_back(const_cast<std::byte*>(argument.bytes.data()));
  }
  const auto& [grid, block, shared] = shape;
  check(api_->launch(function, grid[0], grid[1], grid[2], block[0], block[1], block[2], shared,
                     nullptr, pointers.data(), nullptr),
        "cuLaunchKernel");
  check(api_->synchronize(), "cuCtxSynchronize");
}

}  // namespace ptx_simulator::test
