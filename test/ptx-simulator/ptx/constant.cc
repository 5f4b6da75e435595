// Constant expressions: C's operators on 64-bit integers, and floats with a sign.
#include <bit>
#include <cmath>

#include "ptx/parser.h"

namespace ptx_simulator {
namespace {

// Text may nest without end, the parser's stack may not.
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

}  // namespace

uint64_t bits_as(const Constant& value, Type type, int line) {
  const int bits = bits_of(type);
  const uint64_t mask = bits >= 64 ? UINT64_MAX : (uint64_t{1} << bits) - 1;
  if (!value.is_float) {
    if (type == Type::kF32 || type == Type::kF64) {
      throw PtxError(line, std::string("an integer where a .") + name_of(type) + " is wanted");
    }
    return value.bits & mask;
  }
  switch (type) {
    case Type::kF32:
      // Decimal constants are doubles that are rounded where they are used.
      if (!value.is_double) return value.bits;
      return std::bit_cast<uint32_t>(static_cast<float>(std::bit_cast<double>(value.bits)));
    case Type::kF64:
      if (value.is_double) return value.bits;
      break;
    case Type::kB32:
    case Type::kB64:
    case Type::kTf32:
      if (bits == (value.is_double ? 64 : 32)) return value.bits;
      break;
    default:
      break;
  }
  throw PtxError(line, std::string("a ") + (value.is_double ? "double" : "single") +
                           " precision constant where a ." + name_of(type) + " is wanted");
}

Constant Parser::parse_constant() { return parse_binary(1); }

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
      throw PtxError(at, "floats in an expression (only a sign is known)");
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
  if (depth_ >= kMostNesting) fail("an expression that is nested too deeply");
  struct Depth {
    explicit Depth(int& d) : depth(d) { ++depth; }
    ~Depth() { --depth; }
    int& depth;
  } const depth(depth_);
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
    const Constant value = parse_binary(1);
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
