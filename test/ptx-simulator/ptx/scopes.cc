#include "ptx/scopes.h"

#include <charconv>

namespace ptx_simulator {

std::string Scopes::unique(std::string_view name) {
  std::string candidate(name);
  for (int suffix = 1; outer_.count(candidate) != 0 || !taken_.insert(candidate).second; ++suffix) {
    candidate = std::string(name) + "$" + std::to_string(suffix);
  }
  return candidate;
}

std::string Scopes::declare(std::string_view name, Name::Kind kind, Type type, int line) {
  Scope& scope = scopes_.back();
  if (scope.names.find(name) != scope.names.end()) {
    throw PtxError(line, "'" + std::string(name) + "' is declared twice");
  }
  return scope.names.emplace(name, Name{kind, type, unique(name)}).first->second.unique;
}

void Scopes::declare_register(std::string_view name, Type type, int line) {
  declare(name, Name::Kind::kRegister, type, line);
}

void Scopes::declare_registers(std::string_view prefix, uint64_t count, Type type, int line) {
  for (const Range& range : scopes_.back().ranges) {
    if (range.prefix == prefix) {
      throw PtxError(line, "registers '" + std::string(prefix) + "' are declared twice");
    }
  }
  scopes_.back().ranges.push_back({std::string(prefix), count, type});
}

std::string Scopes::declare_variable(std::string_view name, int line) {
  return declare(name, Name::Kind::kVariable, Type::kB8, line);
}

std::string Scopes::declare_label(std::string_view name, int line) {
  return declare(name, Name::Kind::kLabel, Type::kB8, line);
}

void Scopes::declare_alias(std::string_view name, std::string unique, int line) {
  if (!scopes_.back()
           .names.emplace(name, Name{Name::Kind::kVariable, Type::kB8, std::move(unique)})
           .second) {
    throw PtxError(line, "'" + std::string(name) + "' is declared twice");
  }
}

Scopes::Meaning Scopes::find(std::string_view name) {
  // What a range would call it: the number behind the last letter, without leading zeros.
  const size_t letters = name.find_last_not_of("0123456789") + 1;
  for (size_t i = scopes_.size(); i-- > 0;) {
    Scope& scope = scopes_[i];
    const auto found = scope.names.find(name);
    if (found != scope.names.end()) {
      const Name& meant = found->second;
      if (meant.kind == Name::Kind::kLabel) return {};
      if (meant.kind == Name::Kind::kVariable) return {Meaning::Kind::kVariable, meant.unique};
      function_.registers.emplace(meant.unique, meant.type);
      return {Meaning::Kind::kRegister, meant.unique};
    }
    for (const Range& range : scope.ranges) {
      // A prefix may end in digits itself: %r1<3> declares %r10, %r11 and %r12.
      const size_t prefix = range.prefix.size();
      if (prefix < letters || prefix >= name.size() || name.substr(0, prefix) != range.prefix ||
          (name[prefix] == '0' && name.size() > prefix + 1)) {
        continue;
      }
      uint64_t number = 0;
      const char* const end = name.data() + name.size();
      const auto [stop, error] = std::from_chars(name.data() + prefix, end, number);
      if (error != std::errc{} || stop != end || number >= range.count) continue;
      std::string own = unique(name);
      function_.registers.emplace(own, range.type);
      scope.names.emplace(name, Name{Name::Kind::kRegister, range.type, own});
      return {Meaning::Kind::kRegister, std::move(own)};
    }
  }
  return {};
}

void Scopes::may_name_label(std::string_view name, size_t instruction, size_t operand) {
  scopes_.back().uses.push_back({std::string(name), "", instruction, operand});
}

void Scopes::names_label(std::string_view name, const std::string& table, size_t entry) {
  scopes_.back().uses.push_back({std::string(name), table, 0, entry});
}

void Scopes::close() {
  Scope scope = std::move(scopes_.back());
  scopes_.pop_back();
  for (LabelUse& use : scope.uses) {
    const auto found = scope.names.find(use.name);
    if (found != scope.names.end() && found->second.kind == Name::Kind::kLabel) {
      const std::string& own = found->second.unique;
      if (use.table.empty()) {
        function_.instructions[use.instruction].operands[use.operand].name = own;
      } else {
        function_.branch_tables[use.table][use.operand] = own;
      }
    } else if (!scopes_.empty()) {
      scopes_.back().uses.push_back(std::move(use));
    }
    // What is left at the end of the function names something of the module, or nothing at all: the
    // decoder says so.
  }
}

}  // namespace ptx_simulator
