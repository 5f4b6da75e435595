// The parts of the AVX2 table that live in files of their own; see kernels.h for what they do.
// The files avx2*.cc are compiled for AVX2, FMA and F16C. They use no inline functions or templates
// with external linkage, nor objects with constructors at namespace scope: the former could become
// the copy that the linker keeps for everyone, the latter run on processors without AVX2.
#pragma once

#include "cpu/kernels.h"

namespace altiplano::cpu::avx2 {

// avx2_matmul.cc
void matmul(const PackedMatrix& w, int64_t tile_begin, int64_t tile_end, const float* x,
            int64_t ldx, int64_t tokens, float* y, int64_t ldy, bool accumulate);

// avx2_pack.cc
void pack_tile(const CanonicalRows& rows, uint8_t* tile);

// avx2_int8.cc
void quantize_activations(const float* x, int64_t n, ActivationGroup* out);
void matmul_int8(const PackedMatrix& w, int64_t tile_begin, int64_t tile_end,
                 const ActivationGroup* x, int64_t ldx, int64_t tokens, float* y, int64_t ldy);

// avx2_attend.cc
void kv_store(KvType type, uint8_t* page, int offset, int head_dim, const float* k, const float* v);
void attend(const AttendArgs& args);

// avx2_convert.cc
void f16_to_f32(const uint16_t* x, int64_t n, float* out);
void bf16_to_f32(const uint16_t* x, int64_t n, float* out);
void f32_to_f16(const float* x, int64_t n, uint16_t* out);
void f32_to_bf16(const float* x, int64_t n, uint16_t* out);
void quantize(WeightFormat format, const float* x, int64_t rows, int64_t cols, void* values,
              uint16_t* scales, uint8_t* zeros);

}  // namespace altiplano::cpu::avx2
