// Matrix multiplication with f32 activations, AVX-512.
#include "cpu/avx512.h"
#include "cpu/avx512_words.h"
#include "cpu/x86_matmul.h"

namespace altiplano::cpu::avx512 {

void matmul(const PackedMatrix& w, int64_t tile_begin, int64_t tile_end, const float* x,
            int64_t ldx, int64_t tokens, float* y, int64_t ldy, bool accumulate) {
  matmul_f32(w, tile_begin, tile_end, x, ldx, tokens, y, ldy, accumulate);
}

}  // namespace altiplano::cpu::avx512
