// PTX text as tokens. Comments are left out; every token knows its line.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "ptx/module.h"

namespace ptx_simulator {

struct Token {
  enum class Kind : uint8_t {
    kEnd,
    kName,     // "add", "%r1", "$L__BB0_2", "_"
    kDotted,   // ".shared::cta": a directive or modifier; the text is without the first dot
    kInteger,  // integer
    kFloat,    // bits and is_double
    kString,   // the text between the quotes
    kSymbol,   // one or two characters: "{", "<<", "&&"
  };
  Kind kind = Kind::kEnd;
  std::string_view text;  // as written (kString and kDotted: see above)
  uint64_t integer = 0;
  uint64_t bits = 0;  // of a float, or of a double
  bool is_double = false;
  bool is_unsigned = false;       // an integer with a U behind it, or beyond the signed ones
  bool follows_directly = false;  // no white space before it, as in "%tid.x"
  int line = 1;

  bool is(std::string_view symbol) const { return kind == Kind::kSymbol && text == symbol; }
  bool is_dotted(std::string_view name) const { return kind == Kind::kDotted && text == name; }
  bool is_name(std::string_view name) const { return kind == Kind::kName && text == name; }
  // For messages: 'add', or "the end of the text".
  std::string describe() const;
};

class Lexer {
 public:
  explicit Lexer(std::string_view text) : text_(text) { advance(); }

  const Token& current() const { return token_; }
  // Makes the next token the current one. Throws PtxError.
  void advance();

 private:
  char at(size_t offset) const {
    return position_ + offset < text_.size() ? text_[position_ + offset] : '\0';
  }
  void skip_blanks();
  void lex_name();
  void lex_dotted();
  void lex_number();
  void lex_exact_float(int digits);
  void lex_decimal_float();
  void lex_integer();
  void lex_string();
  void lex_symbol();
  void finish(Token::Kind kind, size_t begin, size_t end);

  std::string_view text_;
  size_t position_ = 0;
  int line_ = 1;
  Token token_;
};

}  // namespace ptx_simulator
