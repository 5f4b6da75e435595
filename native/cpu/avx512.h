// The parts of the AVX-512 table that live in files of their own; see kernels.h for what they do,
// and avx2.h for the rules of files that are compiled for an instruction set: here AVX-512 F, BW,
// DQ, VL and VNNI (and AVX2, FMA, F16C), what Intel has had since Ice Lake and AMD since Zen 4.
#pragma once

#include "cpu/kernels.h"

namespace altiplano::cpu::avx512 {

// avx512_matmul.cc
void matmul(const PackedMatrix& w, int64_t tile_begin, int64_t tile_end, const float* x,
            int64_t ldx, int64_t tokens, float* y, int64_t ldy, bool accumulate);

// avx512_attend.cc
void attend(const AttendArgs& args);

// avx512_pack.cc
void pack_tile(const CanonicalRows& rows, uint8_t* tile);

// avx512_int8.cc
void quantize_activations(const float* x, int64_t n, ActivationGroup* out);
void matmul_int8(const PackedMatrix& w, int64_t tile_begin, int64_t tile_end,
                 const ActivationGroup* x, int64_t ldx, int64_t tokens, float* y, int64_t ldy);

}  // namespace altiplano::cpu::avx512
