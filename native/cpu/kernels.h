// The CPU kernels: one struct of function pointers over raw pointers. portable.cc fills all of it
// and is the reference; avx2.cc starts from portable and overrides; dispatch.cc alone asks cpuid.
//
// Determinism: every result depends on nothing but its own inputs. For matmul and attend this means
// that an output element is one fixed chain of operations, whatever tokens or rows are computed
// beside it, so that batches, chunks and threads never change a bit. Results may differ between
// tables, within the bounds that the tests state.
//
// Lengths may be any value >= 1 (odd tails included); pointers need no alignment unless said.
#pragma once

#include <cstddef>
#include <cstdint>

#include "util/kv_type.h"
#include "util/weight_format.h"

namespace altiplano::cpu {

using altiplano::kKvPageTokens;
using altiplano::KvType;

// A matrix packed by a table's pack_tile: tiles of tile_rows rows, one after the other.
struct PackedMatrix {
  WeightFormat format;
  int64_t rows = 0;
  int64_t cols = 0;
  const uint8_t* data = nullptr;  // 64-byte aligned; ceil(rows / tile_rows) tiles
  size_t tile_bytes = 0;          // packed_tile_bytes(format, cols), a multiple of 64
};

// Activations of one token in a group of 32 columns, as int8 dot products take them:
// x[k] is about codes[k] * scale. Codes are -127 .. 127, 0 behind the last column.
inline constexpr int kActivationGroup = 32;
struct ActivationGroup {
  int8_t codes[kActivationGroup];
  float origin;        // kOrigin * scale: see below
  int32_t sum;         // of the codes: what a zero point of the weights is multiplied with
  int32_t int4_start;  // bits of the origin - 8 * sum
  int32_t int8_start;  // bits of the origin - 128 * sum
};
// Scales are powers of two, so an integer becomes a float times the scale without a conversion and
// without a multiplication: kOrigin has the exponent at which the last bit of a float is 1, so the
// last bit of the origin is the scale. An integer sum that starts at the bits of the origin is the
// bits of origin + sum * scale, exactly while |sum| < 2^22, and origin is subtracted as a float.
// The other starts take off what weights stored as unsigned numbers add: 8 (int4), 128 (int8).
inline constexpr float kOrigin = 0x1.8p23f;
static_assert(255 * 127 * kActivationGroup < 1 << 22);
static inline float scale_of(const ActivationGroup& group) { return group.origin / kOrigin; }
static constexpr int64_t activation_groups(int64_t cols) {
  return (cols + kActivationGroup - 1) / kActivationGroup;
}

// Attention of consecutive tokens of one sequence over KV heads.
//   page p of this layer and KV head h starts at pages + p * page_stride + h * head_stride and
//   holds K [head_dim][kKvPageTokens] (transposed, so that scores of many keys are one vector)
//   followed by V [kKvPageTokens][head_dim]; for int8, by their scales (kv_page.h); kv_page_bytes
//   in all. softmax(q . K * scale) V with keys 0 .. visible[t]-1 for token t, online over pages in
//   order.
struct AttendArgs {
  KvType type = KvType::kF32;
  int head_dim = 0;
  float scale = 0;
  const uint8_t* pages = nullptr;
  size_t page_stride = 0;
  const int32_t* block_table = nullptr;  // pages of the sequence, in order
  int64_t tokens = 0;
  int group = 0;             // query heads of a KV head
  const float* q = nullptr;  // token t, KV head h, head g of it:
                             // q + t * q_stride + (h * group + g) * head_dim
  int64_t q_stride = 0;
  const int32_t* visible = nullptr;  // [tokens] keys that token t sees, >= 1
  float* out = nullptr;              // as q, with out_stride
  int64_t out_stride = 0;
  int heads = 1;           // KV heads
  size_t head_stride = 0;  // bytes
};

// A row of a reduction over logits.
struct LogSumExp {
  double one;     // log(sum(exp(x)))
  double scaled;  // log(sum(exp(x * inverse_temperature)))
  bool finite;    // no NaN and no +infinity among x, and not all -infinity
};

struct Kernels {
  const char* name;
  int tile_rows;  // rows of a tile: the unit of packing and of work

  // --- matrices -------------------------------------------------------------------------------
  size_t (*packed_tile_bytes)(WeightFormat format, int64_t cols);
  // rows.rows <= tile_rows; missing rows of the tile are filled so that they are harmless.
  void (*pack_tile)(const CanonicalRows& rows, uint8_t* tile);
  // out[cols] = row `row` of the matrix, exact.
  void (*unpack_row)(const PackedMatrix& w, int64_t row, float* out);
  // y[t * ldy + r] = sum over k of W[r][k] * x[t * ldx + k]  (+ y[t * ldy + r] if accumulate)
  // for the rows r of tiles tile_begin .. tile_end-1 and tokens t in 0 .. tokens-1.
  // Accumulates in f32; y and x do not overlap.
  void (*matmul)(const PackedMatrix& w, int64_t tile_begin, int64_t tile_end, const float* x,
                 int64_t ldx, int64_t tokens, float* y, int64_t ldy, bool accumulate);
  // x[n] of one token to out[activation_groups(n)]. The scale of a group is the least power of two,
  // at least 2^-96, of which its largest magnitude is at most 127; codes are rounded to nearest
  // even, so that an x is off by at most half a scale. A group with a NaN, an infinity or a
  // magnitude above 2^90 has the scale NaN, and so has the first group of the row then. All tables
  // give the same bits.
  void (*quantize_activations)(const float* x, int64_t n, ActivationGroup* out);
  // y[t * ldy + r] = W[r] . x[t] for int8 and int4 matrices, with int8 activations; token t's
  // groups are x[t * ldx ..]. One chain in order of the activation groups,
  //   total = fma(float(sum of (q - zero) * code), scale_w * scale_x, total),
  // whose integer sum is exact: all tables give the same bits.
  void (*matmul_int8)(const PackedMatrix& w, int64_t tile_begin, int64_t tile_end,
                      const ActivationGroup* x, int64_t ldx, int64_t tokens, float* y, int64_t ldy);

  // --- vectors --------------------------------------------------------------------------------
  // out[i] = weight[i] * (x[i] / sqrt(mean(x^2) + eps)); the mean square in f32 or wider.
  // out may be x.
  void (*rmsnorm)(const float* x, const float* weight, float eps, int64_t n, float* out);
  // Rotates the pairs (i, i + head_dim / 2) of one head by the angles of its position:
  // cos, sin [head_dim / 2]. In place; head_dim even.
  void (*rope)(float* head, const float* cos, const float* sin, int head_dim);
  // out[i] = gate[i] / (1 + exp(-gate[i])) * up[i]; out may be gate or up.
  void (*silu_mul)(const float* gate, const float* up, int64_t n, float* out);
  // x = exp(x - max) / sum, in place; -infinity gives 0.
  void (*softmax)(float* x, int64_t n);
  LogSumExp (*log_sum_exp)(const float* x, int64_t n, float inverse_temperature);

  // --- attention ------------------------------------------------------------------------------
  size_t (*kv_page_bytes)(KvType type, int head_dim);  // K and V of one KV head, multiple of 64
  // Stores one token's k and v [head_dim] at `offset` (0 .. kKvPageTokens-1) of a page. The bytes
  // are the same in all tables. int8: a k or v that is not finite makes every result of attend that
  // sees it NaN.
  void (*kv_store)(KvType type, uint8_t* page, int offset, int head_dim, const float* k,
                   const float* v);
  void (*attend)(const AttendArgs& args);

  // --- conversions ----------------------------------------------------------------------------
  // To f16 and bf16: round to nearest even; f16 overflow gives infinity; NaN stays NaN.
  void (*f16_to_f32)(const uint16_t* x, int64_t n, float* out);
  void (*bf16_to_f32)(const uint16_t* x, int64_t n, float* out);
  void (*f32_to_f16)(const float* x, int64_t n, uint16_t* out);
  void (*f32_to_bf16)(const float* x, int64_t n, uint16_t* out);
  // Quantizes `rows` rows of f32 into canonical int8 or int4. int8: symmetric without zero points
  // (scale from the largest magnitude), from minimum and maximum with them. int4: the scale and
  // zero point of the least squared error that a short search finds (int4_search.h), never a worse
  // one than so. Scales are finite f16 and chosen after rounding to f16; a zero group gets scale 0.
  // zeros may be null without zero points. docs/weight-formats.md says all of it.
  void (*quantize)(WeightFormat format, const float* x, int64_t rows, int64_t cols, void* values,
                   uint16_t* scales, uint8_t* zeros);
  // Canonical rows of any format to f32, exact. out [rows][cols].
  void (*dequantize)(const CanonicalRows& rows, float* out);
};

// The tables. Those for an instruction set must only be used where dispatch.cc finds it.
const Kernels& portable_kernels();
#if defined(ALTIPLANO_X86)
const Kernels& avx2_kernels();
const Kernels& avxvnni_kernels();  // where ALTIPLANO_AVXVNNI is defined
const Kernels& avx512_kernels();
#endif

}  // namespace altiplano::cpu
