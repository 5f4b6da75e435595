// The parser's insides, one file per part: parser.cc (modules and functions), body.cc (statements
// and instructions), constant.cc (constant expressions), variable.cc (variables and their values).
#pragma once

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "ptx/constant.h"
#include "ptx/lexer.h"
#include "ptx/module.h"
#include "ptx/scopes.h"

namespace ptx_simulator {

class Parser {
 public:
  explicit Parser(std::string_view text) : lexer_(text) {}
  Module parse();

 private:
  // --- tokens ---
  const Token& token() const { return lexer_.current(); }
  int line() const { return token().line; }
  bool take(std::string_view symbol);
  bool take_dotted(std::string_view name);
  void expect(std::string_view symbol);
  std::string expect_name(const char* what);
  uint64_t expect_integer(const char* what, uint64_t most);
  void skip_braces();       // { ... } and all that is in it
  void skip_parentheses();  // ( ... )
  [[noreturn]] void fail(const std::string& what) const { throw PtxError(line(), what); }
  [[noreturn]] void unexpected(const char* wanted) const;

  // --- parser.cc ---
  void parse_version();
  void parse_target();
  void parse_file();
  void parse_module_item();
  void parse_alias();
  void parse_function(bool is_entry);
  std::vector<Variable> parse_parameters();
  Variable parse_parameter();
  void parse_performance_directives(Function& function);
  void parse_extents(int (&extents)[3]);

  // --- variable.cc ---
  // Everything behind the state space, up to the semicolon; `add` gets each variable.
  void parse_variables(StateSpace space, bool is_extern, const std::function<void(Variable)>& add);
  Variable parse_variable_type(StateSpace space);
  // The name and [dimensions]; returns these.
  std::vector<uint64_t> parse_variable_name(Variable& variable);
  void parse_initial(Variable& variable, std::vector<uint64_t> dimensions);
  void parse_initial_list(Variable& variable, const std::vector<uint64_t>& dimensions, size_t level,
                          uint64_t first, uint64_t count);
  void parse_initial_value(Variable& variable, uint64_t index);
  void parse_masked_address(Variable& variable, uint64_t offset, uint64_t mask);
  Variable::Reference parse_reference(uint64_t offset);
  int parse_alignment();

  // --- constant.cc ---
  struct Nesting;
  Constant parse_constant();
  Constant parse_binary(int lowest_precedence);
  Constant parse_unary();
  int64_t parse_integer_constant();
  int64_t parse_offset();  // any number of + and - terms, or nothing

  // --- body.cc ---
  void parse_body();
  void parse_statement();
  void parse_body_directive();
  void parse_registers();
  void parse_location();
  void parse_label(const std::string& name, int line);
  void parse_instruction(std::string opcode, int line);
  void parse_call(Instruction& instruction);
  Operand parse_call_list();
  Operand parse_operand();
  Operand parse_single_operand();
  Operand parse_named_operand();
  Operand parse_address();
  Operand parse_vector();
  Operand constant_operand();
  bool take_special_register(const std::string& name, Operand& operand);
  std::string expect_register(const char* what);

  Lexer lexer_;
  Module module_;
  std::set<std::string> names_;    // of the module's variables and functions
  std::set<std::string> defined_;  // functions with a body
  int depth_ = 0;                  // of nested expressions
  // While a function is parsed:
  Function* function_ = nullptr;
  std::unique_ptr<Scopes> scopes_;
  int source_line_ = 0;
  std::string guard_;
  bool guard_negated_ = false;
};

}  // namespace ptx_simulator
