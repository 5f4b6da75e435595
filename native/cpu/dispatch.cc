#include "cpu/dispatch.h"

#include <cstdlib>
#include <cstring>

#include "util/error.h"

#if defined(ALTIPLANO_X86)
#include <cpuid.h>
#endif

namespace altiplano::cpu {
namespace {

#if defined(ALTIPLANO_X86)
// AVX2, FMA and F16C, and an operating system that saves the ymm registers.
bool has_avx2() {
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return false;
  constexpr unsigned kNeeded = bit_FMA | bit_OSXSAVE | bit_AVX | bit_F16C;
  if ((c & kNeeded) != kNeeded) return false;
  unsigned enabled, high;
  __asm__("xgetbv" : "=a"(enabled), "=d"(high) : "c"(0));
  constexpr unsigned kXmmAndYmm = 6;
  if ((enabled & kXmmAndYmm) != kXmmAndYmm) return false;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_AVX2);
}

Int8Dot find_int8_dot() {
  if (!has_avx2()) return Int8Dot::kNone;
  unsigned enabled, high;
  __asm__("xgetbv" : "=a"(enabled), "=d"(high) : "c"(0));
  constexpr unsigned kXmmToZmm = 0xe6;
  constexpr unsigned kAvx512F = 1u << 16, kAvx512Vnni = 1u << 11, kAvxVnni = 1u << 4;
  unsigned a, b, c, d;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & kAvx512F) && (c & kAvx512Vnni) &&
      (enabled & kXmmToZmm) == kXmmToZmm) {
    return Int8Dot::kAvx512Vnni;
  }
  if (__get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & kAvxVnni)) return Int8Dot::kAvxVnni;
  return Int8Dot::kAvx2;
}
#endif

}  // namespace

std::vector<const Kernels*> available_kernels() {
  std::vector<const Kernels*> tables = {&portable_kernels()};
#if defined(ALTIPLANO_X86)
  static const bool kAvx2 = has_avx2();  // once: cpuid is slow in a virtual machine
  if (kAvx2) tables.push_back(&avx2_kernels());
#endif
  return tables;
}

const Kernels& select_kernels() {
  const std::vector<const Kernels*> tables = available_kernels();
  const char* wanted = std::getenv("ALTIPLANO_ISA");
  if (!wanted || !*wanted) return *tables.back();
  std::string names;
  for (const Kernels* table : tables) {
    if (std::strcmp(table->name, wanted) == 0) return *table;
    names += names.empty() ? "" : ", ";
    names += table->name;
  }
  throw Error("ALTIPLANO_OUT_OF_RANGE", "ALTIPLANO_ISA: expected one of " + names +
                                            " (what this processor can run), found \"" + wanted +
                                            "\"");
}

Int8Dot int8_dot() {
#if defined(ALTIPLANO_X86)
  static const Int8Dot kBest = find_int8_dot();
  return kBest;
#else
  return Int8Dot::kNone;
#endif
}

}  // namespace altiplano::cpu
