// The machine itself as a place for test kernels: kernels from PTX text, the reports of their
// launches, and limits for kernels that may be broken.
#pragma once

#include <map>
#include <memory>
#include <stdexcept>

#include "kernel_device.h"
#include "run_ptx.h"

namespace ptx_simulator::test {

class SimulatedDevice : public KernelDevice {
 public:
  struct Options {
    uint64_t seed = 1;  // each launch has another one, which follows from it
    int host_threads = 1;
    uint64_t most_warp_instructions = uint64_t{1} << 40;
    uint64_t arithmetic = 0;  // what PTX leaves open: another number is another device
  };
  // The PTX text of one module.
  SimulatedDevice(const std::string& ptx, Options options)
      : options_(options), module_(parse(ptx)) {}
  ~SimulatedDevice() override {
    // After an exception arrays may be left.
    for (const uint64_t address : live_) GlobalMemory::instance().release(address);
  }

  uint64_t allocate(size_t bytes) override {
    const uint64_t address = GlobalMemory::instance().allocate(bytes, Allocation{});
    if (address == 0) throw std::runtime_error("no memory for " + std::to_string(bytes) + " bytes");
    live_.push_back(address);
    return address;
  }
  void release(uint64_t address) override {
    GlobalMemory::instance().release(address);
    std::erase(live_, address);
  }
  void write(uint64_t to, const void* from, size_t bytes) override {
    std::memcpy(reinterpret_cast<void*>(to), from, bytes);
  }
  void read(void* to, uint64_t from, size_t bytes) override {
    std::memcpy(to, reinterpret_cast<const void*>(from), bytes);
  }

  void launch(const std::string& kernel, const LaunchShape& shape,
              const std::vector<Argument>& arguments) override {
    std::shared_ptr<const Program>& program = programs_[kernel];
    if (!program) program = decode(module_, kernel, {});
    if (arguments.size() != program->parameters.size()) {
      throw std::runtime_error(kernel + " has " + std::to_string(program->parameters.size()) +
                               " parameters");
    }
    LaunchContext context;
    context.program = program.get();
    context.grid = shape.grid;
    context.block = shape.block;
    context.shared_bytes = program->static_shared_bytes + shape.dynamic_shared_bytes;
    context.parameters.resize(program->parameter_bytes);
    for (size_t i = 0; i < arguments.size(); ++i) {
      const Program::Parameter& place = program->parameters[i];
      if (place.size_bytes != arguments[i].size) {
        throw std::runtime_error("parameter " + std::to_string(i) + " of " + kernel + " has " +
                                 std::to_string(place.size_bytes) + " bytes");
      }
      std::memcpy(context.parameters.data() + place.offset, arguments[i].bytes.data(),
                  place.size_bytes);
    }
    context.allocations = GlobalMemory::instance().snapshot();
    context.approximation_seed = static_cast<uint32_t>(options_.arithmetic);
    context.accumulation_order = static_cast<AccumulationOrder>(options_.arithmetic % 4);
    LaunchOptions options;
    options.host_threads = options_.host_threads;
    options.seed = options_.seed * 1000 + reports_.size();
    options.most_warp_instructions = options_.most_warp_instructions;
    reports_.push_back(run(context, options));
  }

  const std::vector<LaunchReport>& reports() const { return reports_; }
  // All findings of all launches, a line each; empty if there are none.
  std::string findings() const {
    std::string text;
    for (const LaunchReport& report : reports_) {
      if (!clean(report)) text += describe(report) + "\n";
    }
    return text;
  }
  bool found(FindingKind kind) const {
    for (const LaunchReport& report : reports_) {
      if (test::found(report, kind)) return true;
    }
    return false;
  }

 private:
  Options options_;
  Module module_;
  std::map<std::string, std::shared_ptr<const Program>> programs_;
  std::vector<LaunchReport> reports_;
  std::vector<uint64_t> live_;
};

}  // namespace ptx_simulator::test
