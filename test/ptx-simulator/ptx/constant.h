// The value of a constant expression.
#pragma once

#include <cstdint>

#include "ptx/module.h"

namespace ptx_simulator {

// An integer, or the bits of a float.
struct Constant {
  bool is_float = false;
  bool is_double = false;    // of a float: 0d... or decimal
  bool is_unsigned = false;  // of an integer, as in C
  uint64_t bits = 0;
};

// The bits of `value` as a `type`, cut off or rounded as PTX does. Throws where there are none.
uint64_t bits_as(const Constant& value, Type type, int line);

}  // namespace ptx_simulator
