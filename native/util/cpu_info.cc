#include "util/cpu_info.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <set>
#include <sstream>
#include <string>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

namespace altiplano {
namespace {

#if defined(__linux__)
// The quota of one cgroup folder in cores, infinity if it has none.
double folder_quota(const std::string& folder) {
  constexpr double kNone = std::numeric_limits<double>::infinity();
  std::string quota;
  double period = 0;
  if (std::ifstream v2(folder + "/cpu.max"); v2 >> quota >> period) {
    if (quota == "max" || period <= 0) return kNone;
    return std::strtod(quota.c_str(), nullptr) / period;
  }
  double v1_quota = 0;
  std::ifstream quota_file(folder + "/cpu.cfs_quota_us"),
      period_file(folder + "/cpu.cfs_period_us");
  if (quota_file >> v1_quota && period_file >> period && v1_quota > 0 && period > 0)
    return v1_quota / period;
  return kNone;
}

// The quota of a cgroup and of all its parents up to `mount`.
double tightest_quota(const std::string& mount, std::string path) {
  double quota = folder_quota(mount);
  while (path.size() > 1) {
    quota = std::min(quota, folder_quota(mount + path));
    path.resize(path.find_last_of('/'));
  }
  return quota;
}
#endif

}  // namespace

int physical_cores() {
#if defined(__linux__)
  cpu_set_t mask;
  CPU_ZERO(&mask);
  if (sched_getaffinity(0, sizeof mask, &mask) == 0) {
    std::set<std::string> cores;  // siblings of one core list the same processors
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (!CPU_ISSET(cpu, &mask)) continue;
      std::ifstream file("/sys/devices/system/cpu/cpu" + std::to_string(cpu) +
                         "/topology/thread_siblings_list");
      std::string siblings;
      cores.insert(file >> siblings ? siblings : "cpu" + std::to_string(cpu));
    }
    if (!cores.empty()) return static_cast<int>(cores.size());
  }
#endif
  return std::max(1u, std::thread::hardware_concurrency());
}

double quota_cores() {
  double quota = std::numeric_limits<double>::infinity();
#if defined(__linux__)
  std::ifstream file("/proc/self/cgroup");  // lines "id:controllers:path"
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string path = line.substr(second + 1);
    if (controllers.empty()) {
      quota = std::min(quota, tightest_quota("/sys/fs/cgroup", path));
    } else if (("," + controllers + ",").find(",cpu,") != std::string::npos) {
      quota = std::min(quota, tightest_quota("/sys/fs/cgroup/cpu", path));
    }
  }
#endif
  return quota;
}

int default_threads() {
  const double quota = quota_cores();
  const int cores = physical_cores();
  return quota < cores ? std::max(1, static_cast<int>(std::ceil(quota))) : cores;
}

}  // namespace altiplano
