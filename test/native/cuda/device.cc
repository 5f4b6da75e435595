#include "device.h"

#include "cuda/driver.h"

namespace altiplano::test {

void simulate_devices(const char* count) {
  const auto set = simulator<decltype(ptx_simulator_set)>("ptx_simulator_set");
  if (set != nullptr) set("DEVICES", count);
}

CudaDevice::CudaDevice()
    : context_(std::make_shared<cuda::Context>(0)),
      current_(*context_),
      stream_(context_),
      kernels_(context_) {
  report_count_ = simulator<decltype(ptx_simulator_report_count)>("ptx_simulator_report_count");
  get_report_ = simulator<decltype(ptx_simulator_get_report)>("ptx_simulator_get_report");
  finding_ = simulator<decltype(ptx_simulator_finding)>("ptx_simulator_finding");
  clear_reports_ = simulator<decltype(ptx_simulator_clear_reports)>("ptx_simulator_clear_reports");
  set_ = simulator<decltype(ptx_simulator_set)>("ptx_simulator_set");
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
