// The parts of the AVX-VNNI table that live in files of their own; see kernels.h for what they do,
// and avx2.h for the rules of files that are compiled for an instruction set: here AVX2, FMA, F16C
// and AVX-VNNI, vpdpbusd on 256 bits without AVX-512 (Intel since Alder Lake).
#pragma once

#include "cpu/kernels.h"

namespace altiplano::cpu::avxvnni {

// avxvnni_int8.cc
void matmul_int8(const PackedMatrix& w, int64_t tile_begin, int64_t tile_end,
                 const ActivationGroup* x, int64_t ldx, int64_t tokens, float* y, int64_t ldy);

}  // namespace altiplano::cpu::avxvnni
