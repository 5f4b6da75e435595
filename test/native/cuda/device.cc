#include "device.h"

#include <dlfcn.h>

#include "cuda/driver.h"

namespace altiplano::test {
namespace {

// Null if the driver has no such function: it is a real one.
template <class Function>
void find(Function& function, const char* name) {
  void* const library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
  function = library == nullptr ? nullptr : reinterpret_cast<Function>(dlsym(library, name));
}

}  // namespace

CudaDevice::CudaDevice()
    : context_(std::make_shared<cuda::Context>(0)),
      current_(*context_),
      stream_(context_),
      kernels_(context_) {
  find(report_count_, "ptx_simulator_report_count");
  find(get_report_, "ptx_simulator_get_report");
  find(finding_, "ptx_simulator_finding");
  find(clear_reports_, "ptx_simulator_clear_reports");
  find(set_, "ptx_simulator_set");
}

void CudaDevice::copy_in(const cuda::DeviceMemory& to, const void* from, size_t bytes) const {
  if (bytes == 0) return;
  cuda::PinnedMemory pinned(context_, bytes, "a test");
  std::memcpy(pinned.data(), from, bytes);
  cuda::copy_to_device(stream_, to.get(), pinned.data(), bytes);
  stream_.synchronize();
}

void CudaDevice::copy_out(void* to, const cuda::DeviceMemory& from, size_t bytes) const {
  if (bytes == 0) return;
  cuda::PinnedMemory pinned(context_, bytes, "a test");
  cuda::copy_to_host(stream_, pinned.data(), from.get(), bytes);
  stream_.synchronize();
  std::memcpy(to, pinned.data(), bytes);
}

void CudaDevice::set_seed(int seed) const {
  if (set_ != nullptr) set_("SEED", std::to_string(seed).c_str());
}

void CudaDevice::set_arithmetic(int arithmetic) const {
  if (set_ != nullptr) set_("ARITHMETIC", std::to_string(arithmetic).c_str());
}

std::vector<ptx_simulator_report> CudaDevice::launches() const {
  stream_.synchronize();
  std::vector<ptx_simulator_report> reports;
  if (!simulated()) return reports;
  for (size_t i = 0; i < report_count_(); ++i) {
    ptx_simulator_report report;
    get_report_(i, &report);
    reports.push_back(report);
    for (size_t f = 0; f < report.findings; ++f) CHECK(false, "%s", finding_(i, f));
    CHECK(report.stopped == 0, "%s did not run to its end", report.kernel);
  }
  // The names outlive the reports: kernels' names are the tests' own to know.
  for (ptx_simulator_report& report : reports) report.kernel = "";
  clear_reports_();
  return reports;
}

}  // namespace altiplano::test
