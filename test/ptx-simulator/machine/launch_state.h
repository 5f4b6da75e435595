// What the host threads of one launch write together: its findings, and whether it has to stop.
#pragma once

#include <atomic>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "machine/report.h"

namespace ptx_simulator {

class LaunchState {
 public:
  // Keeps the first finding of each kind and line, up to kMostFindings.
  void add(Finding finding) {
    std::lock_guard lock(mutex_);
    if (findings_.size() >= kMostFindings) return;
    if (!known_.insert({finding.kind, finding.line}).second) return;
    findings_.push_back(std::move(finding));
  }
  std::vector<Finding> take_findings() {
    std::lock_guard lock(mutex_);
    return std::move(findings_);
  }

  void stop() { stopped_.store(true, std::memory_order_relaxed); }
  bool stopped() const { return stopped_.load(std::memory_order_relaxed); }

 private:
  std::atomic<bool> stopped_ = false;
  std::mutex mutex_;
  std::vector<Finding> findings_;
  std::set<std::pair<FindingKind, int>> known_;
};

}  // namespace ptx_simulator
