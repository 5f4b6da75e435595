// Constant expressions: C's operators on 64-bit integers, and arithmetic on doubles.
#include <bit>
#include <cstdlib>

#include "ptx/parser.h"

namespace ptx_simulator {
namespace {

constexpr int kMostNesting = 64;

struct Operator {
  const char* text;
  int precedence;
};
constexpr Operator kOperators[] = {
    {"||", 1}, {"&&", 2}, {"|", 3}, {"^", 4},  {"&", 5},  {"==", 6},
    {"!=", 6}, {"<", 7},  {">", 7}, {"<=", 7}, {">=", 7}, {"<<", 8},
    {">>", 8}, {"+", 9},  {"-", 9}, {"*", 10}, {"/", 10}, {"%", 10},
};

// Both operands as unsigned: two's complement makes +, -, * and the bitwise ones the same for both.
uint64_t apply(std::string_view text, uint64_t a, uint64_t b, bool is_unsigned, int line) {
  const int64_t sa = static_cast<int64_t>(a), sb = static_cast<int64_t>(b);
  if (text == "+") return a + b;
  if (text == "-") return a - b;
  if (text == "*") return a * b;
  if (text == "/" || text == "%") {
    if (b == 0) throw PtxError(line, "a division by zero");
    if (is_unsigned) return text == "/" ? a / b : a % b;
    if (sb == -1) return text == "/" ? 0 - a : 0;  // the lowest integer has no negative
    return static_cast<uint64_t>(text == "/" ? sa / sb : sa % sb);
  }
  if (text == "&") return a & b;
  if (text == "|") return a | b;
  if (text == "^") return a ^ b;
  if (text == "<<") return b > 63 ? 0 : a << b;
  if (text == ">>") {
    if (is_unsigned) return b > 63 ? 0 : a >> b;
    return static_cast<uint64_t>(sa >> (b > 63 ? 63 : b));
  }
  if (text == "&&") return a != 0 && b != 0;
  if (text == "||") return a != 0 || b != 0;
  if (text == "==") return a == b;
  if (text == "!=") return a != b;
  if (text == "<") return is_unsigned ? a < b : sa < sb;
  if (text == ">") return is_unsigned ? a > b : sa > sb;
  if (text == "<=") return is_unsigned ? a <= b : sa <= sb;
  return is_unsigned ? a >= b : sa >= sb;
}

// Doubles only: a 0f... constant stands alone.
Constant apply_to_floats(std::string_view text, Constant a, const Constant& b, int line) {
  const std::string_view known = "+-*/";
  if (!a.is_double || !b.is_double || text.size() != 1 || known.find(text) == known.npos) {
    throw PtxError(line, "floats that '" + std::string(text) + "' does not take");
  }
  const auto x = std::bit_cast<double>(a.bits), y = std::bit_cast<double>(b.bits);
  a.bits = std::bit_cast<uint64_t>(text == "+"   ? x + y
                                   : text == "-" ? x - y
                                   : text == "*" ? x * y
                                                 : x / y);
  return a;
}

// ".5" reads as a modifier.
bool is_fraction(const Token& token) {
  return token.kind == Token::Kind::kDotted &&
         token.text.find_first_not_of("0123456789") == std::string_view::npos;
}

}  // namespace

// Text may nest without end, the parser's stack may not.
struct Parser::Nesting {
  explicit Nesting(Parser& p) : parser(p) {
    if (parser.depth_ >= kMostNesting) parser.fail("an expression that is nested too deeply");
    ++parser.depth_;
  }
  ~Nesting() { --parser.depth_; }
  Parser& parser;
};

// As ptxas has it: floats are rounded to the type, .b types take floats of their own width only,
// and neither do integers become floats nor floats integers. There are no constants of 16-bit
// floats.
uint64_t bits_as(const Constant& value, Type type, int line) {
  const int bits = bits_of(type);
  const auto fail = [&](const char* what) {
    throw PtxError(line, std::string(what) + " constant where a ." + name_of(type) + " is wanted");
  };
  if (!value.is_float) {
    if (type >= Type::kF16) fail("an integer");
    return bits >= 64 ? value.bits : value.bits & ((uint64_t{1} << bits) - 1);
  }
  if (type == Type::kF32 && value.is_double) {
    return std::bit_cast<uint32_t>(static_cast<float>(std::bit_cast<double>(value.bits)));
  }
  if (type == Type::kF64 && !value.is_double) {
    const auto single = std::bit_cast<float>(static_cast<uint32_t>(value.bits));
    return std::bit_cast<uint64_t>(static_cast<double>(single));
  }
  const bool fits = value.is_double ? type == Type::kF64 || type == Type::kB64
                                    : type == Type::kF32 || type == Type::kB32;
  if (!fits) fail(value.is_double ? "a double-precision" : "a single-precision");
  return value.bits;
}

// A condition and its two values.
Constant Parser::parse_constant() {
  const Constant condition = parse_binary(1);
  if (!take("?")) return condition;
  const Nesting nesting(*this);
  const Constant first = parse_constant();
  expect(":");
  const Constant second = parse_constant();
  return condition.bits != 0 ? first : second;
}

int64_t Parser::parse_integer_constant() {
  const int at = line();
  const Constant value = parse_constant();
  if (value.is_float) throw PtxError(at, "a float where an integer is wanted");
  return static_cast<int64_t>(value.bits);
}

Constant Parser::parse_binary(int lowest_precedence) {
  Constant left = parse_unary();
  while (true) {
    const Operator* found = nullptr;
    for (const Operator& row : kOperators) {
      if (token().is(row.text)) found = &row;
    }
    if (found == nullptr || found->precedence < lowest_precedence) return left;
    const int at = line();
    lexer_.advance();
    const Constant right = parse_binary(found->precedence + 1);
    if (left.is_float || right.is_float) {
      left = apply_to_floats(found->text, left, right, at);
      continue;
    }
    // A shift has the type of its left operand; what compares is signed.
    const bool is_shift = found->precedence == 8;
    const bool is_unsigned = left.is_unsigned || (!is_shift && right.is_unsigned);
    left.bits = apply(found->text, left.bits, right.bits, is_unsigned, at);
    left.is_unsigned = is_unsigned && (found->precedence > 7 ||
                                       (found->precedence >= 3 && found->precedence <= 5));
  }
}

Constant Parser::parse_unary() {
  const Nesting nesting(*this);
  const int at = line();
  if (take("(")) {
    // A cast: (.s64) or (.u64).
    if (token().is_dotted("s64") || token().is_dotted("u64")) {
      const bool is_unsigned = token().is_dotted("u64");
      lexer_.advance();
      expect(")");
      Constant value = parse_unary();
      if (value.is_float) throw PtxError(at, "a float where an integer is wanted");
      value.is_unsigned = is_unsigned;
      return value;
    }
    const Constant value = parse_constant();
    expect(")");
    return value;
  }
  if (take("+")) return parse_unary();
  if (take("-")) {
    Constant value = parse_unary();
    if (value.is_float) {
      value.bits ^= uint64_t{1} << (value.is_double ? 63 : 31);
    } else {
      value.bits = 0 - value.bits;
    }
    return value;
  }
  const bool is_complement = token().is("~");
  if (take("~") || take("!")) {
    Constant value = parse_unary();
    if (value.is_float) throw PtxError(at, "a float where an integer is wanted");
    value.bits = is_complement ? ~value.bits : value.bits == 0;
    return value;
  }
  Constant value;
  if (token().kind == Token::Kind::kInteger) {
    value.bits = token().integer;
    value.is_unsigned = token().is_unsigned;
  } else if (token().kind == Token::Kind::kFloat) {
    value.is_float = true;
    value.is_double = token().is_double;
    value.bits = token().bits;
  } else if (token().is_name("WARP_SZ")) {
    value.bits = 32;
  } else if (is_fraction(token())) {
    value.is_float = value.is_double = true;
    value.bits =
        std::bit_cast<uint64_t>(std::strtod(("0." + std::string(token().text)).c_str(), nullptr));
  } else {
    unexpected("a constant");
  }
  lexer_.advance();
  return value;
}

int64_t Parser::parse_offset() {
  uint64_t offset = 0;
  while (token().is("+") || token().is("-")) {
    const bool minus = token().is("-");
    const int at = line();
    lexer_.advance();
    const Constant term = parse_binary(10);  // above + and -
    if (term.is_float) throw PtxError(at, "a float where an integer is wanted");
    offset = minus ? offset - term.bits : offset + term.bits;
  }
  return static_cast<int64_t>(offset);
}

}  // namespace ptx_simulator
