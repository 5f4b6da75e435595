// Function bodies: statements, instructions and their operands.
#include <algorithm>

#include "ptx/parser.h"

namespace ptx_simulator {
namespace {

constexpr size_t kMostScopes = 256;
// What one .reg may declare, and how long a { } vector may be: far above what any compiler writes.
constexpr uint64_t kMostRegisters = 1 << 24;
constexpr size_t kMostElements = 64;

constexpr std::string_view kDimensions[] = {"x", "y", "z", "w"};
constexpr std::string_view kSpecialVectors[] = {"%tid",           "%ntid",          "%ctaid",
                                                "%nctaid",        "%clusterid",     "%nclusterid",
                                                "%cluster_ctaid", "%cluster_nctaid"};
constexpr std::string_view kSpecialScalars[] = {"%laneid",
                                                "%warpid",
                                                "%nwarpid",
                                                "%smid",
                                                "%nsmid",
                                                "%gridid",
                                                "%is_explicit_cluster",
                                                "%cluster_ctarank",
                                                "%cluster_nctarank",
                                                "%lanemask_eq",
                                                "%lanemask_le",
                                                "%lanemask_lt",
                                                "%lanemask_ge",
                                                "%lanemask_gt",
                                                "%clock",
                                                "%clock_hi",
                                                "%clock64",
                                                "%globaltimer",
                                                "%globaltimer_lo",
                                                "%globaltimer_hi",
                                                "%total_smem_size",
                                                "%aggr_smem_size",
                                                "%dynamic_smem_size",
                                                "%current_graph_exec"};
// With a number or word behind them.
constexpr std::string_view kSpecialPrefixes[] = {"%envreg", "%pm", "%reserved_smem_offset_"};

template <class List>
bool contains(const List& list, std::string_view name) {
  return std::find(std::begin(list), std::end(list), name) != std::end(list);
}

}  // namespace

// --- statements ---

void Parser::parse_body() {
  source_line_ = 0;
  const int begun = line();
  expect("{");
  // A loop with the scopes as its stack: text may nest without end.
  while (scopes_->depth() > 0) {
    if (token().kind == Token::Kind::kEnd) {
      throw PtxError(begun, "a function without an end");
    } else if (token().is("{")) {
      if (scopes_->depth() >= kMostScopes) fail("scopes that are nested too deeply");
      lexer_.advance();
      scopes_->open();
    } else if (token().is("}")) {
      // The brace of the function itself is the last of it.
      lexer_.advance();
      scopes_->close();
    } else {
      parse_statement();
    }
  }
}

void Parser::parse_statement() {
  if (take(";")) return;
  if (token().kind == Token::Kind::kDotted) return parse_body_directive();
  guard_.clear();
  guard_negated_ = false;
  const int begun = line();
  if (take("@")) {
    guard_negated_ = take("!");
    guard_ = expect_register("a predicate");
  }
  std::string name = expect_name("an instruction");
  if (guard_.empty() && take(":")) return parse_label(name, begun);
  parse_instruction(std::move(name), begun);
}

void Parser::parse_label(const std::string& name, int line) {
  const std::string label = scopes_->declare_label(name, line);
  if (take_dotted("branchtargets")) {
    std::vector<std::string>& table = function_->branch_tables[label];
    do {
      table.push_back(expect_name("a label"));
      scopes_->names_label(table.back(), label, table.size() - 1);
    } while (take(","));
    return expect(";");
  }
  if (take_dotted("calltargets") || take_dotted("callprototype")) {
    while (!token().is(";")) {
      if (token().kind == Token::Kind::kEnd) unexpected("';'");
      lexer_.advance();
    }
    return lexer_.advance();
  }
  function_->labels[label] = static_cast<int>(function_->instructions.size());
}

// .loc file line column [, function_name name [+ offset], inlined_at file line column]
void Parser::parse_location() {
  expect_integer("a file number", UINT64_MAX);
  source_line_ = static_cast<int>(expect_integer("a source line", INT32_MAX));
  expect_integer("a column", UINT64_MAX);
  while (take(",")) {
    const std::string what = expect_name("function_name or inlined_at");
    if (what == "function_name") {
      expect_name("a label");
      parse_offset();
    } else if (what == "inlined_at") {
      for (const char* number : {"a file number", "a source line", "a column"}) {
        expect_integer(number, UINT64_MAX);
      }
    } else {
      fail("'" + what + "' in a .loc");
    }
  }
}

void Parser::parse_registers() {
  if (token().is_dotted("v2") || token().is_dotted("v4"))
    fail("registers of vectors are not known");
  if (token().kind != Token::Kind::kDotted) unexpected("a type");
  const std::optional<Type> type = type_named(token().text);
  if (!type) unexpected("a type");
  lexer_.advance();
  do {
    const int at = line();
    const std::string name = expect_name("the name of a register");
    if (take("<")) {
      const uint64_t count = expect_integer("a number of registers", kMostRegisters);
      expect(">");
      scopes_->declare_registers(name, count, *type, at);
    } else {
      scopes_->declare_register(name, *type, at);
    }
  } while (take(","));
  expect(";");
}

void Parser::parse_body_directive() {
  if (take_dotted("reg")) return parse_registers();
  if (take_dotted("loc")) return parse_location();
  if (take_dotted("file")) return parse_file();
  if (take_dotted("pragma")) {
    while (token().kind == Token::Kind::kString || token().is(",")) lexer_.advance();
    return expect(";");
  }
  static constexpr struct {
    const char* name;
    StateSpace space;
  } kSpaces[] = {{"shared", StateSpace::kShared},
                 {"local", StateSpace::kLocal},
                 {"param", StateSpace::kParam},
                 {"global", StateSpace::kGlobal},
                 {"const", StateSpace::kConst}};
  const bool is_extern = take_dotted("extern");
  for (const auto& row : kSpaces) {
    if (!take_dotted(row.name)) continue;
    return parse_variables(row.space, is_extern, [&](Variable variable) {
      if (row.space == StateSpace::kGlobal || row.space == StateSpace::kConst) {
        // These outlive a launch: variables of the module, by a name that no other has (no name in
        // PTX has a dot).
        const std::string own =
            function_->name + "." + std::to_string(module_.variables.size()) + "." + variable.name;
        scopes_->declare_alias(variable.name, own, variable.line);
        variable.name = own;
        module_.variables.push_back(std::move(variable));
        return;
      }
      variable.name = scopes_->declare_variable(variable.name, variable.line);
      function_->variables.push_back(std::move(variable));
    });
  }
  fail("unknown directive " + token().describe());
}

// --- instructions ---

void Parser::parse_instruction(std::string opcode, int line) {
  Instruction instruction;
  instruction.opcode = std::move(opcode);
  instruction.guard = guard_;
  instruction.guard_negated = guard_negated_;
  instruction.line = line;
  instruction.source_line = source_line_;
  while (token().kind == Token::Kind::kDotted) {
    instruction.modifiers.emplace_back(token().text);
    lexer_.advance();
  }
  if (instruction.opcode == "call") {
    parse_call(instruction);
  } else if (!token().is(";")) {
    do {
      instruction.operands.push_back(parse_operand());
    } while (take(","));
  }
  expect(";");
  const size_t index = function_->instructions.size();
  for (size_t i = 0; i < instruction.operands.size(); ++i) {
    const Operand& operand = instruction.operands[i];
    if (operand.kind == Operand::Kind::kSymbol) {
      scopes_->may_name_label(operand.name, index, i);
    }
  }
  function_->instructions.push_back(std::move(instruction));
}

// call [(results),] function [, (arguments)] [, prototype or targets]
void Parser::parse_call(Instruction& instruction) {
  Operand results, arguments;
  results.kind = arguments.kind = Operand::Kind::kVector;
  if (token().is("(")) {
    results = parse_call_list();
    expect(",");
  }
  Operand callee = parse_operand();
  if (callee.kind != Operand::Kind::kSymbol && callee.kind != Operand::Kind::kRegister) {
    fail("a call of something that is no function");
  }
  const bool has_more = take(",");
  if (has_more && token().is("(")) {
    arguments = parse_call_list();
    if (take(",")) instruction.operands.push_back(parse_operand());
  } else if (has_more) {
    instruction.operands.push_back(parse_operand());
  }
  // The prototype, if there is one, goes last.
  instruction.operands.insert(instruction.operands.begin(),
                              {std::move(results), std::move(callee), std::move(arguments)});
}

Operand Parser::parse_call_list() {
  Operand list;
  list.kind = Operand::Kind::kVector;
  expect("(");
  if (take(")")) return list;
  do {
    list.parts.push_back(parse_single_operand());
  } while (take(","));
  expect(")");
  return list;
}

Operand Parser::parse_operand() {
  Operand first = parse_single_operand();
  if (!token().is("|")) return first;
  const auto can_pair = [](const Operand& operand) {
    return operand.kind == Operand::Kind::kRegister || operand.kind == Operand::Kind::kDiscard;
  };
  if (!can_pair(first)) unexpected("','");
  lexer_.advance();
  Operand second = parse_single_operand();
  if (!can_pair(second)) fail("a pair of something that is no register");
  Operand pair;
  pair.kind = Operand::Kind::kPair;
  pair.parts.push_back(std::move(first));
  pair.parts.push_back(std::move(second));
  return pair;
}

Operand Parser::constant_operand() {
  const Constant value = parse_constant();
  Operand operand;
  operand.kind = value.is_float ? Operand::Kind::kFloat : Operand::Kind::kInteger;
  operand.is_double = value.is_double;
  if (value.is_float) {
    operand.bits = value.bits;
  } else {
    operand.integer = static_cast<int64_t>(value.bits);
  }
  return operand;
}

Operand Parser::parse_single_operand() {
  if (token().is("{")) return parse_vector();
  if (token().is("[")) return parse_address();
  if (take("!")) {
    Operand operand;
    if (token().kind != Token::Kind::kName) {
      operand.kind = Operand::Kind::kInteger;
      operand.integer = parse_integer_constant() == 0;
      return operand;
    }
    operand.kind = Operand::Kind::kRegister;
    operand.negated = true;
    operand.name = expect_register("a predicate");
    return operand;
  }
  if (token().kind == Token::Kind::kName && !token().is_name("WARP_SZ")) {
    return parse_named_operand();
  }
  return constant_operand();
}

bool Parser::take_special_register(const std::string& name, Operand& operand) {
  operand.kind = Operand::Kind::kSpecial;
  operand.name = name;
  if (contains(kSpecialScalars, name)) return true;
  for (std::string_view prefix : kSpecialPrefixes) {
    if (name.compare(0, prefix.size(), prefix) == 0) return true;
  }
  if (!contains(kSpecialVectors, name)) return false;
  if (token().kind != Token::Kind::kDotted || !token().follows_directly ||
      !contains(kDimensions, token().text)) {
    unexpected((".x, .y or .z behind " + name).c_str());
  }
  operand.name += "." + std::string(token().text);
  lexer_.advance();
  return true;
}

Operand Parser::parse_named_operand() {
  const int at = line();
  const std::string name = expect_name("an operand");
  Operand operand;
  if (name == "_") return operand;  // kDiscard
  const Scopes::Meaning meaning = scopes_->find(name);
  if (meaning.kind == Scopes::Meaning::Kind::kRegister) {
    operand.kind = Operand::Kind::kRegister;
    operand.name = meaning.name;
    return operand;
  }
  if (meaning.kind == Scopes::Meaning::Kind::kUnknown && name[0] == '%') {
    if (take_special_register(name, operand)) return operand;
    throw PtxError(at, "register '" + name + "' is not declared");
  }
  operand.kind = Operand::Kind::kSymbol;
  operand.name = meaning.kind == Scopes::Meaning::Kind::kVariable ? meaning.name : name;
  operand.integer = parse_offset();
  return operand;
}

Operand Parser::parse_address() {
  Operand operand;
  operand.kind = Operand::Kind::kAddress;
  expect("[");
  if (token().kind == Token::Kind::kName && !token().is_name("WARP_SZ")) {
    const int at = line();
    const std::string name = expect_name("an address");
    const Scopes::Meaning meaning = scopes_->find(name);
    if (meaning.kind == Scopes::Meaning::Kind::kUnknown && (name[0] == '%' || name == "_")) {
      throw PtxError(at, "register '" + name + "' is not declared");
    }
    operand.names_register = meaning.kind == Scopes::Meaning::Kind::kRegister;
    operand.name = meaning.kind == Scopes::Meaning::Kind::kUnknown ? name : meaning.name;
    operand.integer = parse_offset();
  } else {
    operand.integer = parse_integer_constant();
  }
  expect("]");
  return operand;
}

Operand Parser::parse_vector() {
  Operand operand;
  operand.kind = Operand::Kind::kVector;
  expect("{");
  do {
    if (token().is("{") || token().is("[")) unexpected("a register or constant");
    if (operand.parts.size() == kMostElements) fail("a vector of too many elements");
    operand.parts.push_back(parse_single_operand());
  } while (take(","));
  expect("}");
  return operand;
}

std::string Parser::expect_register(const char* what) {
  const int at = line();
  const std::string name = expect_name(what);
  const Scopes::Meaning meaning = scopes_->find(name);
  if (meaning.kind != Scopes::Meaning::Kind::kRegister) {
    throw PtxError(at, "register '" + name + "' is not declared");
  }
  return meaning.name;
}

}  // namespace ptx_simulator
