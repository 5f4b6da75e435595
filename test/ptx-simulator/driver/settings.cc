#include "driver/settings.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <optional>

namespace ptx_simulator::driver {
namespace {

std::optional<uint64_t> number(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<uint64_t> bytes(std::string_view text) {
  int shift = 0;
  if (!text.empty()) {
    if (text.back() == 'K') shift = 10;
    if (text.back() == 'M') shift = 20;
    if (text.back() == 'G') shift = 30;
  }
  const auto value = number(shift == 0 ? text : text.substr(0, text.size() - 1));
  if (!value) return std::nullopt;
  return *value << shift;
}

constexpr const char* kNames[] = {
    "SEED",       "THREADS",         "DEVICES", "MEMORY", "DELAY_US",          "FAIL_LAUNCH",
    "FAIL",       "FAIL_ALLOCATION", "REPORT",  "STRICT", "MOST_INSTRUCTIONS", "ARITHMETIC",
    "CAPABILITY", "DRIVER_VERSION"};

}  // namespace

std::string_view without_version(std::string_view function) {
  const size_t at = function.rfind("_v");
  if (at == std::string_view::npos || !number(function.substr(at + 2))) return function;
  return function.substr(0, at);
}

Settings::Settings() {
  for (const char* name : kNames) {
    const char* value = std::getenv((std::string("PTX_SIMULATOR_") + name).c_str());
    if (value == nullptr || *value == 0) continue;
    if (!set(name, value))
      std::fprintf(stderr, "ptx-simulator: cannot understand PTX_SIMULATOR_%s=%s\n", name, value);
  }
}

bool Settings::set(std::string_view name, std::string_view value) {
  if (name == "REPORT") {
    report_path = value;
    return true;
  }
  if (name == "FAIL") return set_failing_calls(value);
  if (name == "CAPABILITY") return set_capabilities(value);
  const auto n = name == "MEMORY" ? bytes(value) : number(value);
  if (!n) return false;
  if (name == "SEED") {
    seed = *n;
  } else if (name == "THREADS" && *n <= 1024) {
    host_threads = static_cast<int>(*n);
  } else if (name == "ARITHMETIC") {
    arithmetic = *n;
  } else if (name == "DEVICES" && *n <= 64) {
    devices = static_cast<int>(*n);
  } else if (name == "MEMORY") {
    memory_bytes = *n;
  } else if (name == "DRIVER_VERSION" && *n <= 1'000'000) {
    driver_version = static_cast<int>(*n);
  } else if (name == "DELAY_US") {
    delay_us = *n;
  } else if (name == "FAIL_ALLOCATION") {
    allocations.set(*n);
  } else if (name == "FAIL_LAUNCH") {
    launches.set(*n);
  } else if (name == "MOST_INSTRUCTIONS") {
    most_warp_instructions = *n;
  } else if (name == "STRICT" && *n <= 1) {
    strict = *n == 1;
  } else {
    return false;
  }
  return true;
}

// name:n:code, separated by commas.
bool Settings::set_failing_calls(std::string_view list) {
  while (!list.empty()) {
    const std::string_view item = list.substr(0, list.find(','));
    list.remove_prefix(item.size() < list.size() ? item.size() + 1 : item.size());
    const size_t first = item.find(':');
    const size_t second = item.find(':', first + 1);
    if (first == std::string_view::npos || second == std::string_view::npos) return false;
    const auto n = number(item.substr(first + 1, second - first - 1));
    const auto code = number(item.substr(second + 1));
    if (!n || !code) return false;
    fail_call(item.substr(0, first), *n, static_cast<CUresult>(*code));
  }
  return true;
}

// Numbers, separated by commas.
bool Settings::set_capabilities(std::string_view list) {
  std::vector<int> values;
  for (size_t at = 0; at <= list.size(); ++at) {
    const std::string_view item = list.substr(at, list.find(',', at) - at);
    const auto value = number(item);
    if (!value || *value < 10 || *value > 999) return false;
    values.push_back(static_cast<int>(*value));
    at += item.size();
  }
  capabilities = std::move(values);
  return true;
}

int Settings::capability(int device) const {
  return capabilities[std::min<size_t>(device, capabilities.size() - 1)];
}

void Settings::fail_call(std::string_view function, uint64_t n, CUresult code) {
  if (n != 0) faults_.push_back({std::string(without_version(function)), n, code});
}

CUresult Settings::call_begins(std::string_view function) {
  function = without_version(function);
  ++all_calls_;
  auto found = calls_.find(function);
  if (found == calls_.end()) found = calls_.emplace(function, 0).first;
  ++found->second;
  CUresult result = CUDA_SUCCESS;
  for (Fault& fault : faults_) {
    if (fault.left == 0 || fault.function != function) continue;
    if (--fault.left == 0) result = fault.code;
  }
  return result;
}

uint64_t Settings::calls(std::string_view function) const {
  if (function.empty()) return all_calls_;
  const auto found = calls_.find(without_version(function));
  return found == calls_.end() ? 0 : found->second;
}

void Settings::clear_faults() {
  allocations.clear();
  launches.clear();
  faults_.clear();
  calls_.clear();
  all_calls_ = 0;
}

}  // namespace ptx_simulator::driver
