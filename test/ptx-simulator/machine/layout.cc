#include "machine/layout.h"

#include <algorithm>
#include <cstring>

#include "machine/call_parameters.h"

namespace ptx_simulator {
namespace {

constexpr int kLanes = 32;
constexpr uint32_t kCacheLine = 64;
// Of a GPU: what a thread's local memory and a kernel's parameters may be at most.
constexpr uint64_t kMostLocalBytes = 512 * 1024;
constexpr uint64_t kMostParameterBytes = 4352;
constexpr size_t kMostNestedCalls = 256;
// No block of any GPU has more shared memory.
constexpr uint64_t kMostSharedBytes = 1 << 20;

uint64_t round_up(uint64_t value, uint64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

void collect_names(const Operand& operand, std::set<std::string>& names) {
  if (operand.kind == Operand::Kind::kSymbol ||
      (operand.kind == Operand::Kind::kAddress && !operand.names_register)) {
    names.insert(operand.name);
  }
  for (const Operand& part : operand.parts) collect_names(part, names);
}

}  // namespace

int32_t FunctionLayout::op_of_label(const std::string& label) const {
  const auto found = function.labels.find(label);
  return found == function.labels.end() ? -1
                                        : op_of_instruction[static_cast<size_t>(found->second)];
}

ProgramLayout::ProgramLayout(const Module& module, const std::string& entry,
                             const std::map<std::string, uint64_t>& addresses)
    : module_(module), addresses_(addresses) {
  for (const Function& function : module.functions) {
    if (!function.is_declaration) definitions_.emplace(function.name, &function);
  }
  const auto kernel = definitions_.find(entry);
  if (kernel == definitions_.end() || !kernel->second->is_entry) {
    throw PtxError(0, "there is no kernel '" + entry + "'");
  }
  program_->name = entry;
  std::copy_n(kernel->second->max_threads, 3, program_->max_threads);
  std::copy_n(kernel->second->required_threads, 3, program_->required_threads);
  add_function(*kernel->second);
  lay_out_ops();
  lay_out_parameters();
  lay_out_shared();
  lay_out_local();
  lay_out_registers();
  lay_out_branch_tables();
}

// A function, and then those that it calls.
void ProgramLayout::add_function(const Function& function) {
  if (std::find(callers_.begin(), callers_.end(), &function) != callers_.end()) {
    throw PtxError(
        function.line,
        "recursion is not modelled: '" + function.name + "' calls itself" +
            (callers_.back() == &function ? "" : " through '" + callers_.back()->name + "'"));
  }
  if (function_index_.count(function.name) != 0) return;
  if (callers_.size() >= kMostNestedCalls) {
    throw PtxError(function.line, "calls that are nested too deeply");
  }
  function_index_.emplace(function.name, functions_.size());
  functions_.emplace_back(function);
  callers_.push_back(&function);
  for (const Instruction& instruction : function.instructions) {
    for (const Operand& operand : instruction.operands) collect_names(operand, used_names_);
    if (instruction.opcode != "call") continue;
    const Operand& callee = instruction.operands[1];
    if (callee.kind != Operand::Kind::kSymbol) {
      throw PtxError(instruction.line,
                     "indirect calls are not modelled: " + to_string(instruction));
    }
    const auto found = definitions_.find(callee.name);
    if (found == definitions_.end() || found->second->is_entry) {
      throw PtxError(instruction.line,
                     "'" + callee.name + "' is no function with a body: " + to_string(instruction));
    }
    add_function(*found->second);
  }
  callers_.pop_back();
}

const FunctionLayout* ProgramLayout::find_function(const std::string& name) const {
  const auto found = function_index_.find(name);
  return found == function_index_.end() ? nullptr : &functions_[found->second];
}

bool ProgramLayout::is_function(const std::string& name) const {
  return std::any_of(module_.functions.begin(), module_.functions.end(),
                     [&](const Function& function) { return function.name == name; });
}

// Every instruction is one op, but for calls; behind the last one is an exit or return.
void ProgramLayout::lay_out_ops() {
  int32_t next = 0;
  for (FunctionLayout& layout : functions_) {
    for (const Instruction& instruction : layout.function.instructions) {
      layout.op_of_instruction.push_back(next);
      next += instruction.opcode == "call" ? static_cast<int32_t>(ops_of_call(instruction)) : 1;
    }
    layout.op_of_instruction.push_back(next++);
  }
}

void ProgramLayout::lay_out_parameters() {
  FunctionLayout& kernel = functions_.front();
  uint64_t next = 0;
  for (const Variable& parameter : kernel.function.parameters) {
    next = round_up(next, static_cast<uint64_t>(parameter.alignment));
    kernel.variables[parameter.name] = {StateSpace::kParam, next, true};
    if (next + parameter.size_bytes > kMostParameterBytes) {
      throw PtxError(parameter.line, "more parameters than a kernel can have");
    }
    program_->parameters.push_back(
        {static_cast<uint32_t>(next), static_cast<uint32_t>(parameter.size_bytes)});
    next += parameter.size_bytes;
  }
  program_->parameter_bytes = static_cast<uint32_t>(next);
}

// Variables of the module count if some function of the kernel names them, as ptxas does it. Those
// without a size lie where the dynamic part begins, all at the same place.
void ProgramLayout::lay_out_shared() {
  uint64_t next = 0;
  uint64_t alignment = program_->shared_alignment;
  uint64_t dynamic_alignment = 1;
  std::vector<Place*> dynamic;
  const auto add = [&](const Variable& variable, std::unordered_map<std::string, Place>& places) {
    Place& place = places[variable.name];
    place.space = StateSpace::kShared;
    const uint64_t own = static_cast<uint64_t>(variable.alignment);
    alignment = std::max(alignment, own);
    if (variable.is_extern) {
      dynamic.push_back(&place);
      dynamic_alignment = std::max(dynamic_alignment, own);
      return;
    }
    place.address = next = round_up(next, own);
    next += variable.size_bytes;
    if (next > kMostSharedBytes) {
      throw PtxError(variable.line, "more shared memory than a block can have");
    }
  };
  for (const Variable& variable : module_.variables) {
    if (used_names_.count(variable.name) == 0) continue;
    if (variable.space == StateSpace::kShared) {
      add(variable, variables_);
    } else if (variable.space == StateSpace::kLocal) {
      throw PtxError(variable.line, ".local outside of a function: " + variable.name);
    } else {
      const auto found = addresses_.find(variable.name);
      if (found == addresses_.end()) {
        throw PtxError(variable.line, "'" + variable.name + "' has no address");
      }
      variables_[variable.name] = {variable.space, found->second, false};
    }
  }
  for (FunctionLayout& layout : functions_) {
    for (const Variable& variable : layout.function.variables) {
      if (variable.space == StateSpace::kShared && used_names_.count(variable.name) != 0) {
        add(variable, layout.variables);
      }
    }
  }
  next = round_up(next, dynamic_alignment);
  for (Place* place : dynamic) place->address = next;
  program_->static_shared_bytes = static_cast<uint32_t>(next);
  program_->shared_alignment = static_cast<uint32_t>(alignment);
}

uint32_t ProgramLayout::place_local(uint64_t size_bytes, int alignment, int line) {
  const uint64_t begin = round_up(program_->local_bytes, static_cast<uint64_t>(alignment));
  if (begin + size_bytes > kMostLocalBytes) {
    throw PtxError(line, "more local memory than a thread can have");
  }
  program_->local_bytes = static_cast<uint32_t>(begin + size_bytes);
  return static_cast<uint32_t>(begin);
}

void ProgramLayout::lay_out_local() {
  uint64_t alignment = 16;
  for (FunctionLayout& layout : functions_) {
    const auto add = [&](const Variable& variable) {
      layout.variables[variable.name] = {
          StateSpace::kLocal, place_local(variable.size_bytes, variable.alignment, variable.line),
          variable.space == StateSpace::kParam};
      alignment = std::max(alignment, static_cast<uint64_t>(variable.alignment));
    };
    if (!layout.function.is_entry) {
      for (const Variable& variable : layout.function.returns) add(variable);
      for (const Variable& variable : layout.function.parameters) add(variable);
    }
    for (const Variable& variable : layout.function.variables) {
      if (variable.space == StateSpace::kLocal || variable.space == StateSpace::kParam) {
        add(variable);
      }
    }
  }
  // Threads' local memories lie behind each other, so all of them are aligned.
  program_->local_bytes = static_cast<uint32_t>(round_up(program_->local_bytes, alignment));
}

// The wide ones first, so that all are aligned without gaps; predicates last, 16 to a cache line.
void ProgramLayout::lay_out_registers() {
  uint64_t next = 0;
  const auto take = [&](int bytes_per_lane) {
    Slot slot;
    slot.offset = static_cast<uint32_t>(next);
    slot.bytes = static_cast<uint8_t>(bytes_per_lane);
    next += bytes_per_lane == 0 ? 4 : static_cast<uint64_t>(bytes_per_lane) * kLanes;
    if (next >= Slot::kNone) throw PtxError(0, "more registers than can be addressed");
    return slot;
  };
  for (const int bytes : {8, 4, 0}) {
    for (FunctionLayout& layout : functions_) {
      for (const auto& [name, type] : layout.function.registers) {
        const int bits = bits_of(type);
        const int own = type == Type::kPred ? 0 : bits >= 64 ? 8 : 4;
        if (own != bytes) continue;
        FunctionLayout::Register& place = layout.registers[name];
        place.type = type;
        place.slot = take(bytes);
        if (bits == 128) place.high = take(bytes);
      }
    }
  }
  program_->register_bytes = round_up(next, kCacheLine);
}

void ProgramLayout::lay_out_branch_tables() {
  for (FunctionLayout& layout : functions_) {
    for (const auto& [name, labels] : layout.function.branch_tables) {
      layout.branch_tables[name] = static_cast<int32_t>(program_->branch_tables.size());
      std::vector<int32_t>& table = program_->branch_tables.emplace_back();
      for (const std::string& label : labels) {
        table.push_back(layout.op_of_label(label));
        if (table.back() < 0) {
          throw PtxError(layout.function.line, "there is no label '" + label + "' in function '" +
                                                   layout.function.name + "'");
        }
      }
    }
  }
}

const Place* ProgramLayout::find_variable(const FunctionLayout& function,
                                          const std::string& name) const {
  for (const auto* places : {&function.variables, &variables_}) {
    const auto found = places->find(name);
    if (found != places->end()) return &found->second;
  }
  return nullptr;
}

Slot ProgramLayout::constant(uint64_t bits, int bytes_per_lane) {
  std::vector<std::byte>& all = program_->constants;
  const auto [found, is_new] = constants_.emplace(std::make_pair(bits, bytes_per_lane), 0);
  if (is_new) {
    all.resize(round_up(all.size(), kCacheLine));
    found->second = static_cast<uint32_t>(all.size());
    const size_t width = bytes_per_lane == 0 ? 4 : static_cast<size_t>(bytes_per_lane);
    const size_t lanes = bytes_per_lane == 0 ? 1 : kLanes;
    all.resize(all.size() + width * lanes);
    for (size_t lane = 0; lane < lanes; ++lane) {
      std::memcpy(&all[found->second + lane * width], &bits, width);
    }
  }
  Slot slot;
  slot.offset = found->second;
  slot.constant = true;
  slot.bytes = static_cast<uint8_t>(bytes_per_lane);
  return slot;
}

}  // namespace ptx_simulator
