// Matrix multiplication with int8 activations, AVX-VNNI. The loops are in avx2_int8.h.
//
// vpdpbusd multiplies four unsigned bytes of a lane with four signed bytes and adds the sum to the
// lane. Weights are unsigned here: int4 as it is, int8 with 128 added.
#include "cpu/avx2_int8.h"
#include "cpu/avxvnni.h"

namespace altiplano::cpu::avxvnni {
namespace {

struct Dot {
  using Weights = I;
  static constexpr int kTokens = 6;
  static constexpr bool kPrefetch = true;
  template <bool first>
  static I add(I sum, I w, I codes) {
    return _mm256_dpbusd_avx_epi32(first ? _mm256_setzero_si256() : sum, w, codes);
  }
  static I finish(I sum) { return sum; }
};

struct Int4 : Dot {
  static constexpr bool kUnpack = true;
  static constexpr int kGroupBytes = 4 * kStepBytes;
  template <int s>
  static I weights(const uint8_t* data) {
    return nibbles_at<s>(data);
  }
  static I start(const ActivationGroup& x) { return _mm256_set1_epi32(x.int4_start); }
  static I zeros(const uint8_t* at) { return _mm256_cvtepu8_epi32(eight_bytes_at(at)); }
};

struct Int8 : Dot {
  static constexpr bool kUnpack = false;
  static constexpr int kGroupBytes = 8 * kStepBytes;
  template <int s>
  static I weights(const uint8_t* data) {
    return _mm256_xor_si256(words_at(data + s * kStepBytes), _mm256_set1_epi8(-128));
  }
  static I start(const ActivationGroup& x) { return _mm256_set1_epi32(x.int8_start); }
  static I zeros(const uint8_t* at) {
    return _mm256_add_epi32(_mm256_cvtepi8_epi32(eight_bytes_at(at)), _mm256_set1_epi32(128));
  }
};

}  // namespace

void matmul_int8(const PackedMatrix& w, int64_t tile_begin, int64_t tile_end,
                 const ActivationGroup* x, int64_t ldx, int64_t tokens, float* y, int64_t ldy) {
  matmul_with_formats<Int4, Int8>(w, tile_begin, tile_end, x, ldx, tokens, y, ldy);
}

}  // namespace altiplano::cpu::avxvnni
