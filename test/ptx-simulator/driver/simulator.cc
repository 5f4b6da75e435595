// The test interface (simulator.h), and what happens when the process ends.
#include "driver/simulator.h"

#include <cstdio>

#include "driver/driver.h"

using namespace ptx_simulator;          // NOLINT: C functions are in no namespace
using namespace ptx_simulator::driver;  // NOLINT

namespace {

ptx_simulator_objects count(const Driver& state) {
  ptx_simulator_objects objects{};
  objects.contexts = state.contexts.size();
  objects.allocations = state.memory.size();
  for (const auto& [address, memory] : state.memory) objects.allocated_bytes += memory.size_bytes;
  objects.streams = state.streams.size();
  objects.events = state.events.size();
  objects.modules = state.modules.size();
  for (const auto& [handle, graph] : state.graphs) objects.graphs += graph->is_child ? 0 : 1;
  objects.graph_execs = state.graph_execs.size();
  objects.pending = state.pending;
  objects.abandoned = state.abandoned;
  return objects;
}

// The end of the process, after the application's static objects: work that is left does not go on,
// and is not waited for. Workers that run a kernel are stopped by the process's end.
__attribute__((destructor)) void process_ends() {
  Driver& state = ptx_simulator::driver::driver();
  const Lock lock(state.mutex);
  state.exiting = true;
  state.changed.notify_all();
  if (state.settings.report_path.empty()) return;
  const ptx_simulator_objects o = count(state);
  char line[512];
  std::snprintf(
      line, sizeof line,
      "{\"exit\":true,\"contexts\":%llu,\"allocations\":%llu,\"allocatedBytes\":%llu,"
      "\"streams\":%llu,\"events\":%llu,\"modules\":%llu,\"graphs\":%llu,"
      "\"graphExecs\":%llu,\"pending\":%llu,\"abandoned\":%llu}",
      static_cast<unsigned long long>(o.contexts), static_cast<unsigned long long>(o.allocations),
      static_cast<unsigned long long>(o.allocated_bytes),
      static_cast<unsigned long long>(o.streams), static_cast<unsigned long long>(o.events),
      static_cast<unsigned long long>(o.modules), static_cast<unsigned long long>(o.graphs),
      static_cast<unsigned long long>(o.graph_execs), static_cast<unsigned long long>(o.pending),
      static_cast<unsigned long long>(o.abandoned));
  append_line(state.settings.report_path, line);
}

// The state, locked.
class State {
 public:
  State() : state_(ptx_simulator::driver::driver()), lock_(state_.mutex) {}
  Driver* operator->() { return &state_; }
  Driver& operator*() { return state_; }

 private:
  Driver& state_;
  Lock lock_;
};

}  // namespace

extern "C" {

int ptx_simulator_set(const char* name, const char* value) {
  return State()->settings.set(name, value) ? 0 : -1;
}

void ptx_simulator_fail_allocation(uint64_t n) { State()->settings.allocations.set(n); }
void ptx_simulator_fail_launch(uint64_t n) { State()->settings.launches.set(n); }
void ptx_simulator_fail_call(const char* function, uint64_t n, int code) {
  State()->settings.fail_call(function, n, static_cast<CUresult>(code));
}
void ptx_simulator_clear_faults(void) { State()->settings.clear_faults(); }
uint64_t ptx_simulator_allocations(void) { return State()->settings.allocations.count(); }
uint64_t ptx_simulator_launches(void) { return State()->settings.launches.count(); }
uint64_t ptx_simulator_calls(const char* function) { return State()->settings.calls(function); }

void ptx_simulator_live(ptx_simulator_objects* objects) { *objects = count(*State()); }

size_t ptx_simulator_report_count(void) { return State()->reports.size(); }

int ptx_simulator_get_report(size_t index, ptx_simulator_report* report) {
  State state;
  const Reports::Entry* entry = state->reports.at(index);
  if (entry == nullptr || report == nullptr) return -1;
  const LaunchReport& from = entry->report;
  const Counters& c = from.counters;
  *report = {from.kernel.c_str(),
             {from.grid[0], from.grid[1], from.grid[2]},
             {from.block[0], from.block[1], from.block[2]},
             from.dynamic_shared_bytes,
             from.stopped ? 1 : 0,
             from.findings.size(),
             c.warp_instructions,
             c.thread_instructions,
             c.global_read_bytes,
             c.global_read_sectors,
             c.global_write_bytes,
             c.global_write_sectors,
             c.shared_wavefronts,
             c.shared_ideal_wavefronts,
             c.barriers,
             c.mma_multiply_adds,
             c.local_bytes};
  return 0;
}

const char* ptx_simulator_finding(size_t report, size_t index) {
  State state;
  Reports::Entry* entry = state->reports.at(report);
  if (entry == nullptr || index >= entry->report.findings.size()) return nullptr;
  while (entry->findings.size() <= index)
    entry->findings.push_back(entry->report.findings[entry->findings.size()].to_string());
  return entry->findings[index].c_str();
}

size_t ptx_simulator_finding_count(void) { return State()->reports.findings(); }

const char* ptx_simulator_report_json(size_t index) {
  State state;
  Reports::Entry* entry = state->reports.at(index);
  if (entry == nullptr) return nullptr;
  if (entry->json.empty()) entry->json = to_json(entry->report);
  return entry->json.c_str();
}

int ptx_simulator_write_reports(const char* path) {
  State state;
  for (size_t i = 0; i < state->reports.size(); ++i)
    if (!append_line(path, to_json(state->reports.at(i)->report))) return -1;
  return 0;
}

void ptx_simulator_clear_reports(void) { State()->reports.clear(); }

const char* ptx_simulator_last_message(void) { return thread_state().message.c_str(); }

}  // extern "C"
