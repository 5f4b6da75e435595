#include "ptx/lexer.h"

#include <bit>
#include <charconv>

namespace ptx_simulator {
namespace {

// The locale has no say in what a letter is, so not <cctype>.
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_name_start(char c) { return is_letter(c) || c == '_' || c == '$' || c == '%'; }
bool is_name_part(char c) { return is_letter(c) || is_digit(c) || c == '_' || c == '$'; }

int digit_of(char c) {
  if (is_digit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return 16;
}

}  // namespace

std::string Token::describe() const {
  switch (kind) {
    case Kind::kEnd:
      return "the end of the text";
    case Kind::kDotted:
      return "'." + std::string(text) + "'";
    case Kind::kString:
      return "a string";
    default:
      return "'" + std::string(text) + "'";
  }
}

void Lexer::finish(Token::Kind kind, size_t begin, size_t end) {
  token_.kind = kind;
  token_.text = text_.substr(begin, end - begin);
}

void Lexer::skip_blanks() {
  while (position_ < text_.size()) {
    const char c = text_[position_];
    if (c == '\n') {
      ++line_;
      ++position_;
    } else if (c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v') {
      ++position_;
    } else if (c == '/' && at(1) == '/') {
      while (position_ < text_.size() && text_[position_] != '\n') ++position_;
    } else if (c == '/' && at(1) == '*') {
      const int begun = line_;
      position_ += 2;
      while (!(at(0) == '*' && at(1) == '/')) {
        if (position_ >= text_.size()) throw PtxError(begun, "a comment without an end");
        if (text_[position_++] == '\n') ++line_;
      }
      position_ += 2;
    } else {
      return;
    }
  }
}

void Lexer::advance() {
  const size_t before = position_;
  skip_blanks();
  token_ = Token{};
  token_.follows_directly = before == position_ && before != 0;
  token_.line = line_;
  if (position_ >= text_.size()) return;
  const char c = text_[position_];
  // A lone % is the operator of constant expressions.
  if (is_name_start(c) && (c != '%' || is_name_part(at(1)))) return lex_name();
  if (is_digit(c)) return lex_number();
  if (c == '.' && is_name_part(at(1))) return lex_dotted();
  if (c == '"') return lex_string();
  lex_symbol();
}

void Lexer::lex_name() {
  const size_t begin = position_++;
  while (is_name_part(at(0))) ++position_;
  finish(Token::Kind::kName, begin, position_);
}

// ".L2::128B" is one token, so that modifiers stay as they are written.
void Lexer::lex_dotted() {
  const size_t begin = ++position_;
  while (is_name_part(at(0))) ++position_;
  while (at(0) == ':' && at(1) == ':' && is_name_part(at(2))) {
    position_ += 2;
    while (is_name_part(at(0))) ++position_;
  }
  finish(Token::Kind::kDotted, begin, position_);
}

void Lexer::lex_number() {
  const char second = at(1);
  if (at(0) == '0' && (second == 'f' || second == 'F')) return lex_exact_float(8);
  if (at(0) == '0' && (second == 'd' || second == 'D')) return lex_exact_float(16);
  size_t end = 0;
  while (is_digit(at(end))) ++end;
  const char next = at(end);
  // "1." and "1.5", but not the modifier in "L:1.x" (no such text is PTX, but none may crash).
  if ((next == '.' && !is_letter(at(end + 1))) ||
      ((next == 'e' || next == 'E') && second != 'x' && second != 'X')) {
    return lex_decimal_float();
  }
  lex_integer();
}

void Lexer::lex_exact_float(int digits) {
  const size_t begin = position_;
  position_ += 2;
  for (int i = 0; i < digits; ++i) {
    const int digit = digit_of(at(0));
    if (digit == 16) throw PtxError(line_, "a hexadecimal float with too few digits");
    token_.bits = token_.bits << 4 | static_cast<uint64_t>(digit);
    ++position_;
  }
  if (is_name_part(at(0))) throw PtxError(line_, "a hexadecimal float with too many digits");
  token_.is_double = digits == 16;
  finish(Token::Kind::kFloat, begin, position_);
}

void Lexer::lex_decimal_float() {
  double value = 0;
  const char* const begin = text_.data() + position_;
  const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), value);
  // Out of range are only values beyond the largest double, or below the smallest.
  if (error != std::errc{}) throw PtxError(line_, "a float that no double holds");
  const size_t first = position_;
  position_ += static_cast<size_t>(end - begin);
  if (is_name_part(at(0))) throw PtxError(line_, "letters behind a float");
  token_.bits = std::bit_cast<uint64_t>(value);
  token_.is_double = true;
  finish(Token::Kind::kFloat, first, position_);
}

void Lexer::lex_integer() {
  const size_t begin = position_;
  int base = 10;
  if (at(0) == '0') {
    if (at(1) == 'x' || at(1) == 'X') {
      base = 16;
      position_ += 2;
    } else if (at(1) == 'b' || at(1) == 'B') {
      base = 2;
      position_ += 2;
    } else {
      base = 8;
    }
  }
  const size_t digits = position_;
  uint64_t value = 0;
  for (; digit_of(at(0)) < base; ++position_) {
    const uint64_t digit = static_cast<uint64_t>(digit_of(at(0)));
    if (value > (UINT64_MAX - digit) / static_cast<uint64_t>(base)) {
      throw PtxError(line_, "an integer beyond 64 bits");
    }
    value = value * static_cast<uint64_t>(base) + digit;
  }
  if (position_ == digits) throw PtxError(line_, "an integer without digits");
  token_.integer = value;
  token_.is_unsigned = value > INT64_MAX;
  if (at(0) == 'U') {
    token_.is_unsigned = true;
    ++position_;
  }
  if (is_name_part(at(0))) throw PtxError(line_, "letters or wrong digits behind an integer");
  finish(Token::Kind::kInteger, begin, position_);
}

void Lexer::lex_string() {
  const size_t begin = ++position_;
  while (at(0) != '"') {
    if (position_ >= text_.size() || text_[position_] == '\n') {
      throw PtxError(line_, "a string without an end");
    }
    position_ += at(0) == '\\' && at(1) == '"' ? 2 : 1;
  }
  finish(Token::Kind::kString, begin, position_++);
}

void Lexer::lex_symbol() {
  static constexpr std::string_view kPairs[] = {"<<", ">>", "==", "!=", "<=", ">=", "&&", "||"};
  const size_t begin = position_;
  for (std::string_view pair : kPairs) {
    if (text_.substr(position_, 2) != pair) continue;
    position_ += 2;
    return finish(Token::Kind::kSymbol, begin, position_);
  }
  static constexpr std::string_view kSingle = "{}()[]<>,;:=+-*/%!~&|^?@.";
  const char c = at(0);
  if (kSingle.find(c) == std::string_view::npos) {
    const bool printable = c > ' ' && c < 127;
    throw PtxError(line_, printable ? std::string("unexpected '") + c + "'"
                                    : "a character that is not of PTX: code " +
                                          std::to_string(static_cast<unsigned char>(c)));
  }
  ++position_;
  finish(Token::Kind::kSymbol, begin, position_);
}

}  // namespace ptx_simulator
