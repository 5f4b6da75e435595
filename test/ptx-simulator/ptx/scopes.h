// The names of one function while it is parsed: nested { } scopes of registers, variables and
// labels. Inline assembly opens a scope per statement and declares the same names in each, so names
// are made unique here: the first to use one keeps it, the others become name$1, name$2, ...
#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "ptx/module.h"

namespace ptx_simulator {

class Scopes {
 public:
  // `outer` are names of the module: a name that hides one of them is renamed as well.
  Scopes(Function& function, const std::set<std::string>& outer)
      : function_(function), outer_(outer) {
    open();
  }

  void open() { scopes_.emplace_back(); }
  // Labels may be used before they are defined, so their users are looked up when a scope ends.
  void close();
  size_t depth() const { return scopes_.size(); }

  // Registers enter Function::registers when they are used.
  void declare_register(std::string_view name, Type type, int line);
  // .reg .b32 %r<5> declares %r0 to %r4.
  void declare_registers(std::string_view prefix, uint64_t count, Type type, int line);
  // These return the unique name.
  std::string declare_variable(std::string_view name, int line);
  std::string declare_label(std::string_view name, int line);
  // A variable of the body that is called otherwise in the module.
  void declare_alias(std::string_view name, std::string unique, int line);

  struct Meaning {
    enum class Kind { kUnknown, kRegister, kVariable } kind = Kind::kUnknown;
    std::string name;  // the unique one
  };
  Meaning find(std::string_view name);

  // Notes that an operand of an instruction, or entries of a branch table, may name a label.
  void may_name_label(std::string_view name, size_t instruction, size_t operand);
  void names_label(std::string_view name, const std::string& table, size_t entry);

 private:
  struct Name {
    enum class Kind { kRegister, kVariable, kLabel } kind;
    Type type;  // of a register
    std::string unique;
  };
  struct Range {
    std::string prefix;
    uint64_t count;
    Type type;
  };
  struct LabelUse {
    std::string name;
    std::string table;  // or empty
    size_t instruction;
    size_t operand;  // or entry of the table
  };
  struct Scope {
    std::map<std::string, Name, std::less<>> names;
    std::vector<Range> ranges;
    std::vector<LabelUse> uses;
  };
  std::string declare(std::string_view name, Name::Kind kind, Type type, int line);
  std::string unique(std::string_view name);

  Function& function_;
  const std::set<std::string>& outer_;
  std::vector<Scope> scopes_;
  std::set<std::string, std::less<>> taken_;
};

}  // namespace ptx_simulator
