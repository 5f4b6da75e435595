// Which kernel tables this processor can run, and which one is used.
#pragma once

#include <string>
#include <vector>

#include "cpu/kernels.h"

namespace altiplano::cpu {

// The tables that this processor (and its operating system) can run, best last.
std::vector<const Kernels*> available_kernels();

// The table named by ALTIPLANO_ISA, or else the best available one. Throws Error
// (ALTIPLANO_OUT_OF_RANGE) if the variable names a table that is unknown or not available.
const Kernels& select_kernels();

// The best instructions that this processor (and its operating system) has for dot products of int8
// numbers; whether a kernel table uses them is another matter.
enum class Int8Dot {
  kNone,        // or none that is known here
  kAvx2,        // vpmaddubsw and vpmaddwd, 256 bits
  kAvxVnni,     // vpdpbusd, 256 bits
  kAvx512Vnni,  // vpdpbusd, 512 bits
};
Int8Dot int8_dot();

}  // namespace altiplano::cpu
