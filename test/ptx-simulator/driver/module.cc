#include "driver/module.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "driver/attributes.h"
#include "driver/fatbin.h"
#include "driver/function.h"
#include "driver/machine_code.h"
#include "driver/memory.h"
#include "driver/queue.h"
#include "machine/global_memory.h"
#include "ptx/module.h"

namespace ptx_simulator::driver {
namespace {

bool is_in_memory(const Variable& variable) {
  return variable.space == StateSpace::kGlobal || variable.space == StateSpace::kConst;
}

// Module variables in device memory, with their first values. Gives back what it has if it fails.
class Variables {
 public:
  Variables(Call& call, const Module& ptx) {
    for (const Variable& variable : ptx.variables)
      if (is_in_memory(variable)) add(call, variable);
    for (const Variable& variable : ptx.variables)
      if (is_in_memory(variable)) refer(variable);
  }
  ~Variables() {
    for (const auto& [name, address] : addresses_) GlobalMemory::instance().release(address);
  }
  Variables(const Variables&) = delete;
  Variables& operator=(const Variables&) = delete;
  std::map<std::string, uint64_t> take() { return std::exchange(addresses_, {}); }
  const std::map<std::string, uint64_t>& addresses() const { return addresses_; }

 private:
  void add(Call& call, const Variable& variable) {
    if (variable.is_extern) throw PtxError(variable.line, variable.name + " is defined nowhere");
    const Settings& settings = call.state.settings;
    GlobalMemory& memory = GlobalMemory::instance();
    require(memory.live_bytes(call.context->device) + variable.size_bytes <= settings.memory_bytes,
            CUDA_ERROR_OUT_OF_MEMORY, "the device has no memory left for a module's variables");
    Allocation description;
    description.is_variable = true;
    description.is_constant = variable.space == StateSpace::kConst;
    description.device = call.context->device;
    description.name = "variable " + variable.name;
    const uint64_t address = memory.allocate(variable.size_bytes, description);
    require(address != 0, CUDA_ERROR_OUT_OF_MEMORY, "the machine has no memory left");
    addresses_[variable.name] = address;
    void* bytes = reinterpret_cast<void*>(address);
    std::memset(bytes, 0, variable.size_bytes);
    if (!variable.initial.empty())
      std::memcpy(bytes, variable.initial.data(), variable.initial.size());
  }

  void refer(const Variable& variable) {
    for (const Variable::Reference& reference : variable.references) {
      const auto target = addresses_.find(reference.symbol);
      if (target == addresses_.end())
        throw PtxError(variable.line, variable.name + " holds the address of " + reference.symbol +
                                          ", which is no variable in global or constant memory");
      const uint64_t value = target->second + static_cast<uint64_t>(reference.addend);
      std::memcpy(reinterpret_cast<std::byte*>(addresses_.at(variable.name)) + reference.offset,
                  &value, sizeof value);
    }
  }

  std::map<std::string, uint64_t> addresses_;
};

const Function* find_entry(const Module& ptx, const std::string& name) {
  for (const Function& function : ptx.functions)
    if (function.is_entry && function.name == name) return &function;
  return nullptr;
}

}  // namespace

PtxText ptx_of(const void* image) {
  try {
    const auto images = ptx_images(image);
    const bool is_compiled = images.empty() || images.front().target != 0;
    PtxText ptx{std::string(ptx_for_device(image, SIZE_MAX, kComputeCapability)), {}, is_compiled};
    for (const MachineCode& code : machine_code(image))
      if (code.target == kComputeCapability) ptx.registers.merge(registers_of(code.elf));
    return ptx;
  } catch (const ImageError& error) {
    fail(error.kind == ImageError::Kind::kNoPtx ? CUDA_ERROR_NO_BINARY_FOR_GPU
                                                : CUDA_ERROR_INVALID_IMAGE,
         error.what());
  }
}

namespace {

std::shared_ptr<ParsedPtx> parsed_once(Call& call, const std::string& text) {
  const auto known = call.state.parsed.find(text);
  if (known != call.state.parsed.end()) return known->second;
  call.lock.unlock();
  auto parsed = std::make_shared<ParsedPtx>(ParsedPtx{parse(text), {}});
  call.lock.lock();
  call.state.parsed.emplace(text, parsed);
  return parsed;
}

std::shared_ptr<const Program> program_of(const LoadedModule& module, const std::string& name) {
  if (!module.addresses.empty()) return decode(*module.ptx, name, module.addresses);
  auto& program = module.parsed->programs[name];
  if (program == nullptr) program = decode(*module.ptx, name, {});
  return program;
}

}  // namespace

std::shared_ptr<LoadedModule> load_module(Call& call, const PtxText& source) {
  const auto parsed = parsed_once(call, source.text);
  const std::shared_ptr<const Module> ptx(parsed, &parsed->ptx);
  if (ptx->target > kComputeCapability)
    fail(CUDA_ERROR_NO_BINARY_FOR_GPU,
         "the PTX is for sm_" + std::to_string(ptx->target) + ", the simulated device is sm_80");
  Variables variables(call, *ptx);
  if (!source.is_compiled) {
    call.lock.unlock();
    for (const Function& function : ptx->functions)
      if (function.is_entry && !function.is_declaration)
        decode(*ptx, function.name, variables.addresses());
    call.lock.lock();
  }
  auto module = std::make_shared<LoadedModule>();
  module->context = call.context;
  module->parsed = parsed;
  module->ptx = ptx;
  module->addresses = variables.take();
  module->registers = source.registers;
  call.state.modules.add(module);
  return module;
}

void unload_module(Call& call, CUmodule handle) {
  auto module = call.state.modules.find(handle);
  require(module != nullptr, CUDA_ERROR_INVALID_HANDLE, "no such module");
  // Kernels may still read its variables.
  wait_for_all(call.state, call.lock, module->context);
  call.state.functions.remove_if(
      [&](const LoadedFunction& function) { return function.module == module; });
  module->functions.clear();
  for (const auto& [name, address] : module->addresses) GlobalMemory::instance().release(address);
  call.state.modules.remove(handle);
}

std::shared_ptr<LoadedFunction> function_named(Call& call,
                                               const std::shared_ptr<LoadedModule>& module,
                                               const std::string& name) {
  const auto made = module->functions.find(name);
  if (made != module->functions.end()) return made->second;
  const Function* entry = find_entry(*module->ptx, name);
  if (entry == nullptr) fail(CUDA_ERROR_NOT_FOUND, "the module has no kernel " + name);
  auto function = std::make_shared<LoadedFunction>();
  function->module = module;
  function->name = name;
  function->program = program_of(*module, name);
  const int* bounds =
      entry->required_threads[0] != 0 ? entry->required_threads : entry->max_threads;
  function->max_threads = kMaxThreadsPerBlock;
  if (bounds[0] != 0)
    function->max_threads =
        std::min(kMaxThreadsPerBlock, bounds[0] * std::max(1, bounds[1]) * std::max(1, bounds[2]));
  const auto known = module->registers.find(name);
  if (known != module->registers.end()) {
    function->registers = known->second;
    function->max_threads = std::min(function->max_threads, most_threads_with(known->second));
  } else {
    function->registers = estimate_registers(*function->program, *entry);
  }
  function->max_dynamic_shared =
      std::max(0, kSharedPerBlock - static_cast<int>(function->program->static_shared_bytes));
  call.state.functions.add(function);
  module->functions[name] = function;
  return function;
}

}  // namespace ptx_simulator::driver
