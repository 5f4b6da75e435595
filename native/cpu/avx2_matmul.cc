// Matrix multiplication with f32 activations, AVX2 with FMA and F16C.
#include "cpu/avx2.h"
#include "cpu/avx2_words.h"
#include "cpu/x86_matmul.h"

namespace altiplano::cpu::avx2 {

void matmul(const PackedMatrix& w, int64_t tile_begin, int64_t tile_end, const float* x,
            int64_t ldx, int64_t tokens, float* y, int64_t ldy, bool accumulate) {
  matmul_f32(w, tile_begin, tile_end, x, ldx, tokens, y, ldy, accumulate);
}

}  // namespace altiplano::cpu::avx2
