// Where everything lies that a kernel uses: the functions it may call, one behind the other in one
// array of ops; their registers; constants; variables in shared and local memory; parameters.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "machine/program.h"

namespace ptx_simulator {

// What a symbol stands for. Addresses in shared memory count from the beginning of the block's, in
// local memory from the beginning of the thread's; kParam is the kernel's parameter buffer.
struct Place {
  StateSpace space = StateSpace::kGlobal;
  uint64_t address = 0;
  bool is_parameter = false;  // .param: in kLocal if of a .func or call
};

// One function of a program. No function is active twice (recursion is refused), so registers and
// local variables have fixed places.
class FunctionLayout {
 public:
  struct Register {
    Type type;
    Slot slot;
    Slot high;  // the upper half of a kB128
  };

  explicit FunctionLayout(const Function& f) : function(f) {}

  const Function& function;
  std::vector<int32_t> op_of_instruction;  // and one more: the op at the end
  std::unordered_map<std::string, Place> variables;
  std::unordered_map<std::string, Register> registers;
  std::map<std::string, int32_t> branch_tables;

  int32_t first_op() const { return op_of_instruction.front(); }
  // The op that a label names, or -1.
  int32_t op_of_label(const std::string& label) const;
};

class ProgramLayout {
 public:
  ProgramLayout(const Module& module, const std::string& entry,
                const std::map<std::string, uint64_t>& addresses);

  Program& program() { return *program_; }
  std::shared_ptr<Program> take_program() { return program_; }
  std::vector<FunctionLayout>& functions() { return functions_; }

  // The functions of this program by name, or null.
  const FunctionLayout* find_function(const std::string& name) const;
  // Any function of the module.
  bool is_function(const std::string& name) const;
  // Null if there is no such variable.
  const Place* find_variable(const FunctionLayout& function, const std::string& name) const;

  // A slot of 32 equal lanes of 4 or 8 bytes, or a predicate (0).
  Slot constant(uint64_t bits, int bytes_per_lane);

 private:
  void add_function(const Function& function);
  void lay_out_ops();
  void lay_out_parameters();
  void lay_out_shared();
  void lay_out_local();
  void lay_out_registers();  // one place each, until register_sharing.h
  void lay_out_branch_tables();
  uint32_t place_local(uint64_t size_bytes, int alignment, int line);

  const Module& module_;
  const std::map<std::string, uint64_t>& addresses_;
  std::shared_ptr<Program> program_ = std::make_shared<Program>();
  std::map<std::string, const Function*> definitions_;
  std::vector<FunctionLayout> functions_;  // the kernel is the first
  std::map<std::string, size_t> function_index_;
  std::vector<const Function*> callers_;  // while functions are collected: the calls so far
  std::set<std::string> used_names_;      // that any operand of any function names
  std::unordered_map<std::string, Place> variables_;  // of the module
  std::map<std::pair<uint64_t, int>, uint32_t> constants_;
};

}  // namespace ptx_simulator
