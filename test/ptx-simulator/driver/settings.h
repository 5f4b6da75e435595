// What a test can set: through the environment when the library is loaded, and later through
// simulator.h. Guarded by the driver's mutex, like all state of the driver.
#pragma once

#include <cuda.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace ptx_simulator::driver {

// Counts events and says when the chosen one has come.
class Countdown {
 public:
  void set(uint64_t n) { left_ = n; }
  // True for the n-th call after set(n).
  bool hit() {
    ++count_;
    return left_ != 0 && --left_ == 0;
  }
  uint64_t count() const { return count_; }
  void clear() { *this = {}; }

 private:
  uint64_t count_ = 0;
  uint64_t left_ = 0;
};

struct Settings {
  uint64_t seed = 1;
  int host_threads = 0;
  uint64_t arithmetic = 0;
  int devices = 1;
  uint64_t memory_bytes = uint64_t{80} << 30;
  std::vector<int> capabilities = {80};  // of the devices; the last one of all that follow
  int driver_version = 13000;
  uint64_t delay_us = 2000;
  uint64_t most_warp_instructions = uint64_t{20} * 1000 * 1000 * 1000;
  std::string report_path;
  bool strict = false;

  Countdown allocations;
  Countdown launches;

  Settings();  // from the environment
  // By the name without PTX_SIMULATOR_. False for an unknown name or value.
  bool set(std::string_view name, std::string_view value);

  int capability(int device) const;

  void fail_call(std::string_view function, uint64_t n, CUresult code);
  // Counts a call; the code it has to return, if it is one to fail.
  CUresult call_begins(std::string_view function);
  uint64_t calls(std::string_view function) const;  // "" for all
  void clear_faults();

 private:
  struct Fault {
    std::string function;
    uint64_t left;
    CUresult code;
  };
  bool set_failing_calls(std::string_view list);
  bool set_capabilities(std::string_view list);
  std::vector<Fault> faults_;
  std::map<std::string, uint64_t, std::less<>> calls_;
  uint64_t all_calls_ = 0;
};

// "cuMemAlloc" of "cuMemAlloc_v2".
std::string_view without_version(std::string_view function);

}  // namespace ptx_simulator::driver
