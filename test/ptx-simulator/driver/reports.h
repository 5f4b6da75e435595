// The reports of launches as the tests read them: kept, and as lines of JSON.
#pragma once

#include <deque>
#include <memory>
#include <string>

#include "machine/report.h"

namespace ptx_simulator::driver {

struct Context;
struct Driver;
struct RangeProblem;

// Guarded by the driver's mutex.
class Reports {
 public:
  struct Entry {
    LaunchReport report;
    std::deque<std::string> findings;  // as text; made when they are asked for
    std::string json;
  };
  void add(LaunchReport report) { entries_.push_back({std::move(report), {}, {}}); }
  size_t size() const { return entries_.size(); }
  // Null if there are not so many.
  Entry* at(size_t index) { return index < entries_.size() ? &entries_[index] : nullptr; }
  size_t findings() const;
  void clear() { entries_.clear(); }

 private:
  std::deque<Entry> entries_;  // entries stay where they are
};

std::string to_json(const LaunchReport& report);
// Appends a line in one write, so that several processes can share a file. False if it cannot.
bool append_line(const std::string& path, const std::string& line);

// Keeps a report and does what the settings say: appends it to the file, and under STRICT prints
// the findings and makes the context fail.
void note_report(Driver& state, const std::shared_ptr<Context>& context, LaunchReport report);
// The same for a finding about a call of the driver API.
void note_finding(Driver& state, const std::shared_ptr<Context>& context, const char* function,
                  const RangeProblem& problem);

}  // namespace ptx_simulator::driver
