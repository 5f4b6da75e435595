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
// Which of the registers the operating system saves (XCR0); 0 if the processor cannot say.
unsigned saved_registers() {
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return 0;
  unsigned enabled, high;
  __asm__("xgetbv" : "=a"(enabled), "=d"(high) : "c"(0));
  return enabled;
}

// AVX2, FMA and F16C.
bool has_avx2() {
  constexpr unsigned kXmmAndYmm = 0x6;
  if ((saved_registers() & kXmmAndYmm) != kXmmAndYmm) return false;
  unsigned a, b, c, d;
  constexpr unsigned kNeeded = bit_FMA | bit_AVX | bit_F16C;
  if (!__get_cpuid(1, &a, &b, &c, &d) || (c & kNeeded) != kNeeded) return false;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_AVX2);
}

// AVX-512 as avx512.h needs it; AVX2 presumed.
bool has_avx512() {
  constexpr unsigned kMasksAndZmm = 0xe0;
  if ((saved_registers() & kMasksAndZmm) != kMasksAndZmm) return false;
  unsigned a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  constexpr unsigned kNeeded = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
  return (b & kNeeded) == kNeeded && (c & bit_AVX512VNNI);
}

// AVX-VNNI; AVX2 presumed.
bool has_avxvnni() {
  constexpr unsigned kAvxVnni = 1u << 4;
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & kAvxVnni);
}

Int8Dot find_int8_dot() {
  if (!has_avx2()) return Int8Dot::kNone;
  if (has_avx512()) return Int8Dot::kAvx512Vnni;
  return has_avxvnni() ? Int8Dot::kAvxVnni : Int8Dot::kAvx2;
}
#endif

}  // namespace

std::vector<const Kernels*> available_kernels() {
  std::vector<const Kernels*> tables = {&portable_kernels()};
#if defined(ALTIPLANO_X86)
  static const bool kAvx2 = has_avx2();  // once: cpuid is slow in a virtual machine
  static const bool kAvx512 = kAvx2 && has_avx512();
  if (kAvx2) tables.push_back(&avx2_kernels());
#if defined(ALTIPLANO_AVXVNNI)
  static const bool kAvxVnni = kAvx2 && has_avxvnni();
  if (kAvxVnni) tables.push_back(&avxvnni_kernels());
#endif
  if (kAvx512) tables.push_back(&avx512_kernels());
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
