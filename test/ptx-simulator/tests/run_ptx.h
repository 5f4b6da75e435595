// Runs a kernel that a test holds as PTX text: parses and decodes it, lays out its parameters and
// its module's variables, launches it and gives back the report.
//
//   Buffer<float> x({1, 2, 3});
//   LaunchReport report = run_ptx(text, {.grid = {2}, .block = {64}}, x, uint32_t{3}, 0.5f);
//   CHECK(clean(report), "%s", describe(report).c_str());
//   x[0] ...
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "machine/global_memory.h"
#include "machine/program.h"
#include "machine/report.h"
#include "machine/warp.h"
#include "ptx/module.h"

namespace ptx_simulator::test {

// The text of a module with one kernel, or with functions and variables before it.
inline std::string kernel(const std::string& parameters, const std::string& body,
                          const std::string& before = "") {
  return ".version 8.0\n.target sm_80\n.address_size 64\n" + before + "\n.visible .entry kernel(" +
         parameters + ")\n{\n" + body + "\n}\n";
}

// The line (from 1) of the first occurrence of `marker`, to compare with Finding::line.
inline int line_of(std::string_view text, std::string_view marker) {
  const size_t place = text.find(marker);
  if (place == std::string_view::npos) return -1;
  int line = 1;
  for (size_t i = 0; i < place; ++i) line += text[i] == '\n';
  return line;
}

// An array in the simulated device's memory; its elements are read and written in place.
template <class T>
class Buffer {
 public:
  explicit Buffer(std::vector<T> values) : size_(values.size()) {
    address_ = GlobalMemory::instance().allocate(size_ * sizeof(T), Allocation{});
    if (address_ == 0) throw std::runtime_error("no memory for a device buffer");
    if (size_ != 0) std::memcpy(data(), values.data(), size_ * sizeof(T));
  }
  explicit Buffer(size_t size, T value = T{}) : Buffer(std::vector<T>(size, value)) {}
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { GlobalMemory::instance().release(address_); }

  uint64_t address() const { return address_; }
  size_t size() const { return size_; }
  T* data() const { return reinterpret_cast<T*>(address_); }
  T& operator[](size_t i) const { return data()[i]; }
  std::vector<T> values() const { return std::vector<T>(data(), data() + size_); }

 private:
  size_t size_;
  uint64_t address_ = 0;
};

// A module's .global and .const variables in device memory, with their initial values.
class ModuleVariables {
 public:
  explicit ModuleVariables(const Module& module) {
    for (const Variable& v : module.variables) {
      if (v.space != StateSpace::kGlobal && v.space != StateSpace::kConst) continue;
      Allocation description;
      description.is_variable = true;
      description.is_constant = v.space == StateSpace::kConst;
      description.name = "variable " + v.name;
      const uint64_t address = GlobalMemory::instance().allocate(v.size_bytes, description);
      if (address == 0) throw std::runtime_error("no memory for " + v.name);
      addresses_[v.name] = address;
      auto* bytes = reinterpret_cast<uint8_t*>(address);
      std::memset(bytes, 0, v.size_bytes);
      if (!v.initial.empty()) std::memcpy(bytes, v.initial.data(), v.initial.size());
    }
    for (const Variable& v : module.variables) {
      for (const Variable::Reference& r : v.references) {
        const uint64_t value = addresses_.at(r.symbol) + static_cast<uint64_t>(r.addend);
        std::memcpy(reinterpret_cast<uint8_t*>(addresses_.at(v.name)) + r.offset, &value, 8);
      }
    }
  }
  ModuleVariables(const ModuleVariables&) = delete;
  ModuleVariables& operator=(const ModuleVariables&) = delete;
  ~ModuleVariables() {
    for (const auto& [name, address] : addresses_) GlobalMemory::instance().release(address);
  }
  const std::map<std::string, uint64_t>& addresses() const { return addresses_; }

 private:
  std::map<std::string, uint64_t> addresses_;
};

// A decoded kernel (the module's first, if no name is given), to be launched any number of times.
class Kernel {
 public:
  explicit Kernel(std::string_view text, std::string name = "")
      : module_(parse(text)), variables_(module_) {
    for (const Function& f : module_.functions) {
      if (name.empty() && f.is_entry) name = f.name;
    }
    program_ = decode(module_, name, variables_.addresses());
  }
  const Program& program() const { return *program_; }
  const Module& module() const { return module_; }
  uint64_t variable(const std::string& name) const { return variables_.addresses().at(name); }

 private:
  Module module_;
  ModuleVariables variables_;
  std::shared_ptr<const Program> program_;
};

struct Shape {
  std::array<uint32_t, 3> grid{1, 1, 1};
  std::array<uint32_t, 3> block{32, 1, 1};
  uint32_t dynamic_shared_bytes = 0;
  uint64_t seed = 1;
  int host_threads = 1;
  int multiprocessors = 108;
  uint64_t most_warp_instructions = 100 * 1000 * 1000;
  AccumulationOrder accumulation_order = AccumulationOrder::kBlocks;
  uint32_t approximation_seed = 1;
};

template <class T>
inline void append_argument(std::vector<std::byte>& bytes, const Program& program, size_t index,
                            const T& value) {
  const Program::Parameter& place = program.parameters.at(index);
  if (place.size_bytes != sizeof(T)) {
    throw std::invalid_argument("argument " + std::to_string(index) + " has " +
                                std::to_string(sizeof(T)) + " bytes, the parameter " +
                                std::to_string(place.size_bytes));
  }
  std::memcpy(bytes.data() + place.offset, &value, sizeof(T));
}
template <class T>
inline void append_argument(std::vector<std::byte>& bytes, const Program& program, size_t index,
                            const Buffer<T>& buffer) {
  append_argument(bytes, program, index, buffer.address());
}

// Arguments are buffers, or values as wide as the parameter.
template <class... Arguments>
LaunchReport run_ptx(const Kernel& kernel, Shape shape, const Arguments&... arguments) {
  const Program& program = kernel.program();
  if (program.parameters.size() != sizeof...(arguments)) {
    throw std::invalid_argument("the kernel has " + std::to_string(program.parameters.size()) +
                                " parameters");
  }
  LaunchContext context;
  context.program = &program;
  for (int i = 0; i < 3; ++i) {  // {64} leaves zeros behind
    context.grid[i] = shape.grid[i] == 0 ? 1 : shape.grid[i];
    context.block[i] = shape.block[i] == 0 ? 1 : shape.block[i];
  }
  context.shared_bytes = program.static_shared_bytes + shape.dynamic_shared_bytes;
  context.multiprocessors = shape.multiprocessors;
  context.parameters.resize(program.parameter_bytes);
  context.allocations = GlobalMemory::instance().snapshot();
  context.accumulation_order = shape.accumulation_order;
  [[maybe_unused]] size_t index = 0;
  (append_argument(context.parameters, program, index++, arguments), ...);
  context.approximation_seed = shape.approximation_seed;
  LaunchOptions options;
  options.host_threads = shape.host_threads;
  options.seed = shape.seed;
  options.most_warp_instructions = shape.most_warp_instructions;
  return run(context, options);
}
template <class... Arguments>
LaunchReport run_ptx(std::string_view text, Shape shape, const Arguments&... arguments) {
  return run_ptx(Kernel(text), shape, arguments...);
}

inline bool clean(const LaunchReport& report) { return report.findings.empty() && !report.stopped; }
// All findings, for the message of a failed check.
inline std::string describe(const LaunchReport& report) {
  std::string text = report.stopped ? "stopped; " : "";
  text += std::to_string(report.findings.size()) + " findings";
  for (const Finding& finding : report.findings) text += "\n    " + finding.to_string();
  return text;
}
// Whether there is a finding of this kind at this line (any line if it is 0).
inline bool found(const LaunchReport& report, FindingKind kind, int line = 0) {
  for (const Finding& finding : report.findings) {
    if (finding.kind == kind && (line == 0 || finding.line == line)) return true;
  }
  return false;
}

}  // namespace ptx_simulator::test
