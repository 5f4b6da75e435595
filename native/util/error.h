// The one exception type of the native code. `code` is one of the ALTIPLANO_... codes of
// lib/errors.ts; the addon turns it into a JavaScript error with that code.
#pragma once

#include <stdexcept>
#include <string>

namespace altiplano {

class Error : public std::runtime_error {
 public:
  Error(const char* code, const std::string& message) : std::runtime_error(message), code_(code) {}
  const char* code() const { return code_; }

 private:
  const char* code_;  // a string literal
};

}  // namespace altiplano
