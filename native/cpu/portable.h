// The parts of the portable table that live in files of their own; see kernels.h for what they do.
#pragma once

#include "cpu/kernels.h"

namespace altiplano::cpu::portable {

// portable_matrix.cc. R rows to a tile: 8, or 16 for tables with wider vectors.
template <int R>
size_t packed_tile_bytes(WeightFormat format, int64_t cols);
template <int R>
void unpack_row(const PackedMatrix& w, int64_t row, float* out);
void pack_tile(const CanonicalRows& rows, uint8_t* tile);
void matmul(const PackedMatrix& w, int64_t tile_begin, int64_t tile_end, const float* x,
            int64_t ldx, int64_t tokens, float* y, int64_t ldy, bool accumulate);
void quantize_activations(const float* x, int64_t n, ActivationGroup* out);
void matmul_int8(const PackedMatrix& w, int64_t tile_begin, int64_t tile_end,
                 const ActivationGroup* x, int64_t ldx, int64_t tokens, float* y, int64_t ldy);

// portable_attend.cc
size_t kv_page_bytes(KvType type, int head_dim);
void kv_store(KvType type, uint8_t* page, int offset, int head_dim, const float* k, const float* v);
void attend(const AttendArgs& args);

// portable_convert.cc
void f16_to_f32(const uint16_t* x, int64_t n, float* out);
void bf16_to_f32(const uint16_t* x, int64_t n, float* out);
void f32_to_f16(const float* x, int64_t n, uint16_t* out);
void f32_to_bf16(const float* x, int64_t n, uint16_t* out);
void quantize(WeightFormat format, const float* x, int64_t rows, int64_t cols, void* values,
              uint16_t* scales, uint8_t* zeros);
void dequantize(const CanonicalRows& rows, float* out);

}  // namespace altiplano::cpu::portable
