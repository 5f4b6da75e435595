// Modules and functions: what is outside of function bodies.
#include "ptx/parser.h"

#include <algorithm>

namespace ptx_simulator {

Module parse(std::string_view text) { return Parser(text).parse(); }

// --- tokens ---

bool Parser::take(std::string_view symbol) {
  if (!token().is(symbol)) return false;
  lexer_.advance();
  return true;
}

bool Parser::take_dotted(std::string_view name) {
  if (!token().is_dotted(name)) return false;
  lexer_.advance();
  return true;
}

void Parser::unexpected(const char* wanted) const {
  fail(std::string("expected ") + wanted + ", found " + token().describe());
}

void Parser::expect(std::string_view symbol) {
  if (!take(symbol)) unexpected(("'" + std::string(symbol) + "'").c_str());
}

std::string Parser::expect_name(const char* what) {
  if (token().kind != Token::Kind::kName) unexpected(what);
  std::string name(token().text);
  lexer_.advance();
  return name;
}

uint64_t Parser::expect_integer(const char* what, uint64_t most) {
  if (token().kind != Token::Kind::kInteger) unexpected(what);
  const uint64_t value = token().integer;
  if (value > most) fail(std::string(what) + " of " + std::string(token().text) + " is too large");
  lexer_.advance();
  return value;
}

void Parser::skip_braces() {
  expect("{");
  for (int depth = 1; depth > 0; lexer_.advance()) {
    if (token().kind == Token::Kind::kEnd) unexpected("'}'");
    if (token().is("{")) ++depth;
    if (token().is("}")) --depth;
  }
}

void Parser::skip_parentheses() {
  expect("(");
  for (int depth = 1; depth > 0; lexer_.advance()) {
    if (token().kind == Token::Kind::kEnd) unexpected("')'");
    if (token().is("(")) ++depth;
    if (token().is(")")) --depth;
  }
}

// --- modules ---

Module Parser::parse() {
  parse_version();
  while (token().kind != Token::Kind::kEnd) parse_module_item();
  return std::move(module_);
}

void Parser::parse_version() {
  if (!take_dotted("version")) unexpected("'.version'");
  // 8.5 reads as a float, but 8.10 is not 8.1.
  const std::string text(token().text);
  const size_t dot = text.find('.');
  const auto is_number = [](std::string_view digits) {
    return !digits.empty() && digits.size() <= 3 &&
           std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; });
  };
  if (token().kind != Token::Kind::kFloat || dot == std::string::npos ||
      !is_number(text.substr(0, dot)) || !is_number(text.substr(dot + 1))) {
    unexpected("a version such as 8.0");
  }
  module_.version_major = std::stoi(text.substr(0, dot));
  module_.version_minor = std::stoi(text.substr(dot + 1));
  lexer_.advance();
}

void Parser::parse_target() {
  const int at = line();
  do {
    const std::string name = expect_name("a target");
    if (name.rfind("sm_", 0) != 0) continue;  // debug, texmode_...
    int target = 0;
    for (size_t i = 3; i < name.size() && i < 7 && name[i] >= '0' && name[i] <= '9'; ++i) {
      target = target * 10 + (name[i] - '0');
    }
    module_.target = target;
  } while (take(","));
  if (module_.target == 0) throw PtxError(at, "a .target without sm_...");
}

void Parser::parse_file() {
  // Numbers are given from 1 on; anything far above is damage.
  const uint64_t number = expect_integer("a file number", 65536);
  if (token().kind != Token::Kind::kString) unexpected("a file name");
  if (number > 0) {
    if (module_.files.size() < number) module_.files.resize(number);
    module_.files[number - 1] = std::string(token().text);
  }
  lexer_.advance();
  while (take(",")) expect_integer("a time or size", UINT64_MAX);
}

// A second name for a function, which was declared by it.
void Parser::parse_alias() {
  const int at = line();
  std::string name = expect_name("a function");
  expect(",");
  const std::string original = expect_name("a function");
  expect(";");
  const auto is_original = [&](const Function& f) {
    return f.name == original && !f.is_declaration && !f.is_entry;
  };
  const auto found = std::find_if(module_.functions.begin(), module_.functions.end(), is_original);
  if (found == module_.functions.end()) {
    throw PtxError(at, "there is no function '" + original + "'");
  }
  if (!defined_.insert(name).second) {
    throw PtxError(at, "function '" + name + "' is defined twice");
  }
  Function copy = *found;
  copy.name = std::move(name);
  module_.functions.push_back(std::move(copy));
}

void Parser::parse_module_item() {
  if (take(";")) return;
  // Debug information of functions may have labels of its own out here.
  if (token().kind == Token::Kind::kName) {
    lexer_.advance();
    return expect(":");
  }
  if (take_dotted("target")) return parse_target();
  if (take_dotted("file")) return parse_file();
  if (take_dotted("loc")) return parse_location();
  if (take_dotted("alias")) return parse_alias();
  if (take_dotted("address_size")) {
    if (expect_integer("an address size", 64) != 64) fail("only .address_size 64 is known");
    return;
  }
  if (take_dotted("pragma")) {
    while (token().kind == Token::Kind::kString || token().is(",")) lexer_.advance();
    return expect(";");
  }
  if (take_dotted("section")) {
    if (token().kind != Token::Kind::kDotted) unexpected("a section");
    lexer_.advance();
    return skip_braces();
  }

  bool is_extern = false;
  while (true) {
    if (take_dotted("extern")) {
      is_extern = true;
    } else if (!take_dotted("visible") && !take_dotted("weak") && !take_dotted("common")) {
      break;
    }
  }
  if (take_dotted("entry")) return parse_function(true);
  if (take_dotted("func")) return parse_function(false);
  static constexpr struct {
    const char* name;
    StateSpace space;
  } kSpaces[] = {{"global", StateSpace::kGlobal},
                 {"shared", StateSpace::kShared},
                 {"local", StateSpace::kLocal},
                 {"const", StateSpace::kConst}};
  for (const auto& row : kSpaces) {
    if (!take_dotted(row.name)) continue;
    return parse_variables(row.space, is_extern, [&](Variable variable) {
      // A declaration may come before the definition.
      const auto same = [&](const Variable& other) { return other.name == variable.name; };
      const auto declared = std::find_if(module_.variables.begin(), module_.variables.end(), same);
      names_.insert(variable.name);
      if (declared == module_.variables.end()) {
        module_.variables.push_back(std::move(variable));
      } else if (declared->is_extern) {
        *declared = std::move(variable);
      } else if (!variable.is_extern) {
        throw PtxError(variable.line, "'" + variable.name + "' is declared twice");
      }
    });
  }
  if (token().kind == Token::Kind::kDotted) fail("unknown directive " + token().describe());
  unexpected("a directive");
}

// --- functions ---

Variable Parser::parse_parameter() {
  if (token().is_dotted("reg")) fail("parameters in registers are not known, only .param ones");
  if (!take_dotted("param")) unexpected("'.param'");
  Variable parameter = parse_variable_type(StateSpace::kParam);
  // What a pointer points to is of no interest here.
  if (take_dotted("ptr")) {
    while (token().kind == Token::Kind::kDotted) {
      if (take_dotted("align")) {
        parse_alignment();
      } else if (!take_dotted("global") && !take_dotted("shared") && !take_dotted("const") &&
                 !take_dotted("local")) {
        unexpected("a state space");
      }
    }
  }
  parse_variable_name(parameter);
  return parameter;
}

std::vector<Variable> Parser::parse_parameters() {
  std::vector<Variable> parameters;
  expect("(");
  if (take(")")) return parameters;
  do {
    parameters.push_back(parse_parameter());
  } while (take(","));
  expect(")");
  return parameters;
}

void Parser::parse_extents(int (&extents)[3]) {
  for (int& extent : extents) extent = 1;
  int i = 0;
  do {
    if (i == 3) fail("more than three extents");
    extents[i++] = static_cast<int>(expect_integer("a number of threads", INT32_MAX));
  } while (take(","));
}

void Parser::parse_performance_directives(Function& function) {
  while (token().kind == Token::Kind::kDotted) {
    if (take_dotted("maxntid")) {
      parse_extents(function.max_threads);
    } else if (take_dotted("reqntid")) {
      parse_extents(function.required_threads);
    } else if (take_dotted("minnctapersm")) {
      function.min_blocks = static_cast<int>(expect_integer("a number of blocks", INT32_MAX));
    } else if (take_dotted("maxnreg") || take_dotted("maxnctapersm") ||
               take_dotted("abi_preserve") || take_dotted("abi_preserve_control")) {
      expect_integer("a number", INT32_MAX);
    } else if (take_dotted("pragma")) {
      while (token().kind == Token::Kind::kString || token().is(",")) lexer_.advance();
      expect(";");
    } else if (!take_dotted("noreturn")) {
      fail("unknown directive " + token().describe() + " of a function");
    }
  }
}

void Parser::parse_function(bool is_entry) {
  Function function;
  function.is_entry = is_entry;
  function.line = line();
  if (take_dotted("attribute")) skip_parentheses();
  if (!is_entry && token().is("(")) function.returns = parse_parameters();
  function.name = expect_name("the name of a function");
  if (token().is("(")) function.parameters = parse_parameters();
  parse_performance_directives(function);

  names_.insert(function.name);
  function_ = &function;
  scopes_ = std::make_unique<Scopes>(function, names_);
  if (take(";")) {
    function.is_declaration = true;
  } else {
    if (!defined_.insert(function.name).second) {
      throw PtxError(function.line, "function '" + function.name + "' is defined twice");
    }
    for (std::vector<Variable>* list : {&function.returns, &function.parameters}) {
      for (Variable& parameter : *list) {
        parameter.name = scopes_->declare_variable(parameter.name, parameter.line);
      }
    }
    parse_body();
  }
  scopes_.reset();
  function_ = nullptr;
  module_.functions.push_back(std::move(function));
}

}  // namespace ptx_simulator
