// Unpacking, for tiles of 8 and of 16 rows (R), and matrix multiplication; portable. The layout and
// the chain of an element are in layout.h; matmul is written once, as a template over a weight
// format and a number of tokens.
#include "cpu/activations.h"
#include "cpu/layout.h"
#include "cpu/pack_tile.h"
#include "cpu/portable.h"

namespace altiplano::cpu::portable {
namespace {

// A weight format: scale() and column() give the R rows' numbers. w = scale * column. The quantized
// formats also give code() = q - zero as integers. `block` points at a block of the packed tile.
template <int R>
struct FloatFormat {
  static void scale(const uint8_t*, const TileLayout&, float* out) {
    for (int r = 0; r < R; ++r) out[r] = 1.f;
  }
};

template <int R>
struct F32 : FloatFormat<R> {
  static void column(const uint8_t* block, const TileLayout&, int k, float* out) {
    memcpy(out, block + k * sizeof(float) * R, sizeof(float) * R);
  }
};

template <int R, float (*to_f32)(uint16_t)>
struct Float16Bits : FloatFormat<R> {
  static void column(const uint8_t* block, const TileLayout&, int k, float* out) {
    uint16_t bits[R];
    memcpy(bits, block + k * sizeof(bits), sizeof(bits));
    for (int r = 0; r < R; ++r) out[r] = to_f32(bits[r]);
  }
};

template <int R, class Codes>
struct QuantizedFormat {
  static void scale(const uint8_t* block, const TileLayout&, float* out) {
    uint16_t bits[R];
    memcpy(bits, block, sizeof(bits));
    for (int r = 0; r < R; ++r) out[r] = f16_to_f32_one(bits[r]);
  }
  static void column(const uint8_t* block, const TileLayout& layout, int k, float* out) {
    int32_t codes[R];
    Codes::codes(block, layout, k, codes);
    for (int r = 0; r < R; ++r) out[r] = static_cast<float>(codes[r]);
  }
};

template <int R, bool zero_points>
struct Int8 : QuantizedFormat<R, Int8<R, zero_points>> {
  static void codes(const uint8_t* block, const TileLayout& layout, int k, int32_t* out) {
    uint32_t words[R];
    memcpy(words, block + layout.data_at + k / 4 * sizeof(words), sizeof(words));
    const int shift = 24 - k % 4 * 8;  // brings the sign to the top, then back with it
    for (int r = 0; r < R; ++r) {
      const int zero = zero_points ? static_cast<int8_t>(block[layout.zeros_at + r]) : 0;
      out[r] = (static_cast<int32_t>(words[r] << shift) >> 24) - zero;
    }
  }
};

template <int R, bool zero_points>
struct Int4 : QuantizedFormat<R, Int4<R, zero_points>> {
  static void codes(const uint8_t* block, const TileLayout& layout, int k, int32_t* out) {
    uint32_t words[R];
    memcpy(words, block + layout.data_at + k / 8 * sizeof(words), sizeof(words));
    const int shift = k % 4 * 8 + k % 8 / 4 * 4;
    for (int r = 0; r < R; ++r) {
      const int zero = zero_points ? block[layout.zeros_at + r] : kInt4DefaultZero;
      out[r] = static_cast<int>(words[r] >> shift & 15) - zero;
    }
  }
};

// Calls visit(Format{}) for a matrix format: the one table from formats to code.
template <int R, class Visit>
void with_quantized_format(WeightFormat format, Visit visit) {
  if (format.type == WeightType::kInt8) {
    return format.zero_points ? visit(Int8<R, true>{}) : visit(Int8<R, false>{});
  }
  return format.zero_points ? visit(Int4<R, true>{}) : visit(Int4<R, false>{});
}

template <int R, class Visit>
void with_format(WeightFormat format, Visit visit) {
  switch (format.type) {
    case WeightType::kF32:
      return visit(F32<R>{});
    case WeightType::kF16:
      return visit(Float16Bits<R, f16_to_f32_one>{});
    case WeightType::kBF16:
      return visit(Float16Bits<R, bf16_to_f32_one>{});
    case WeightType::kInt8:
    case WeightType::kInt4:
      return with_quantized_format<R>(format, visit);
  }
}

// `tokens` tokens times the `rows` rows of one tile.
template <int R, class Format, int tokens>
void multiply_tile(const uint8_t* tile, const TileLayout& layout, int64_t cols, int rows,
                   const float* x, int64_t ldx, float* y, int64_t ldy, bool accumulate) {
  float total[tokens][R] = {};
  if (accumulate) {
    for (int t = 0; t < tokens; ++t) {
      for (int r = 0; r < rows; ++r) total[t][r] = y[t * ldy + r];
    }
  }
  for (int64_t b = 0; b < layout.blocks; ++b) {
    const uint8_t* block = tile + b * layout.block_bytes;
    const int columns = block_columns(layout, cols, b);
    float sum[tokens][R] = {};
    for (int k = 0; k < columns; ++k) {
      float w[R];
      Format::column(block, layout, k, w);
      for (int t = 0; t < tokens; ++t) {
        const float xk = x[t * ldx + b * layout.block + k];
        for (int r = 0; r < R; ++r) sum[t][r] += w[r] * xk;
      }
    }
    float scale[R];
    Format::scale(block, layout, scale);
    for (int t = 0; t < tokens; ++t) {
      for (int r = 0; r < R; ++r) total[t][r] += scale[r] * sum[t][r];
    }
  }
  for (int t = 0; t < tokens; ++t) {
    for (int r = 0; r < rows; ++r) y[t * ldy + r] = total[t][r];
  }
}

// `tokens` tokens times the `rows` rows of one tile, with int8 activations.
template <int R, class Format>
void multiply_tile_int8(const uint8_t* tile, const TileLayout& layout, int64_t cols, int rows,
                        const ActivationGroup* x, float* y) {
  float total[R] = {};
  const int64_t groups = activation_groups(cols);
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t column = g * kActivationGroup;
    const uint8_t* block = tile + column / layout.block * layout.block_bytes;
    const int first = static_cast<int>(column % layout.block);
    const int64_t left = cols - column;
    int32_t sum[R] = {};
    for (int k = 0; k < kActivationGroup && k < left; ++k) {
      int32_t codes[R];
      Format::codes(block, layout, first + k, codes);
      for (int r = 0; r < R; ++r) sum[r] += codes[r] * x[g].codes[k];
    }
    float scale[R];
    Format::scale(block, layout, scale);
    for (int r = 0; r < R; ++r) {
      total[r] = __builtin_fmaf(static_cast<float>(sum[r]), scale[r] * scale_of(x[g]), total[r]);
    }
  }
  for (int r = 0; r < rows; ++r) y[r] = total[r];
}

}  // namespace

template <int R>
size_t packed_tile_bytes(WeightFormat format, int64_t cols) {
  return tile_layout(format, cols, R).tile_bytes;
}

template <int R>
void unpack_row(const PackedMatrix& w, int64_t row, float* out) {
  const TileLayout layout = tile_layout(w.format, w.cols, R);
  const uint8_t* tile = w.data + row / R * w.tile_bytes;
  const int r = static_cast<int>(row % R);
  with_format<R>(w.format, [&](auto format) {
    for (int64_t b = 0; b < layout.blocks; ++b) {
      const uint8_t* block = tile + b * layout.block_bytes;
      float scale[R], column[R];
      format.scale(block, layout, scale);
      for (int k = 0; k < block_columns(layout, w.cols, b); ++k) {
        format.column(block, layout, k, column);
        out[b * layout.block + k] = column[r] * scale[r];
      }
    }
  });
}

void matmul(const PackedMatrix& w, int64_t tile_begin, int64_t tile_end, const float* x,
            int64_t ldx, int64_t tokens, float* y, int64_t ldy, bool accumulate) {
  constexpr int R = kTileRows;
  const TileLayout layout = tile_layout(w.format, w.cols, R);
  constexpr int kTokens = 4;  // of a register tile
  with_format<R>(w.format, [&](auto format) {
    using Format = decltype(format);
    for (int64_t tile = tile_begin; tile < tile_end; ++tile) {
      const uint8_t* data = w.data + tile * w.tile_bytes;
      const int64_t row = tile * R;
      const int rows = static_cast<int>(w.rows - row < R ? w.rows - row : R);
      int64_t t = 0;
      for (; t + kTokens <= tokens; t += kTokens) {
        multiply_tile<R, Format, kTokens>(data, layout, w.cols, rows, x + t * ldx, ldx,
                                          y + t * ldy + row, ldy, accumulate);
      }
      for (; t < tokens; ++t) {
        multiply_tile<R, Format, 1>(data, layout, w.cols, rows, x + t * ldx, ldx, y + t * ldy + row,
                                    ldy, accumulate);
      }
    }
  });
}

void quantize_activations(const float* x, int64_t n, ActivationGroup* out) {
  ActivationGroup* const first = out;
  bool all_finite = true;
  for (int64_t begin = 0; begin < n; begin += kActivationGroup, ++out) {
    const int count = static_cast<int>(n - begin < kActivationGroup ? n - begin : kActivationGroup);
    float most = 0;
    bool finite = true;
    for (int k = 0; k < count; ++k) {
      const float size = __builtin_fabsf(x[begin + k]);
      most = size > most ? size : most;
      finite = finite && size <= kMostActivation;
    }
    memset(out->codes, 0, sizeof(out->codes));
    const float scale = activation_scale(most, finite);
    const float inverse = 1.f / scale;
    int32_t sum = 0;
    for (int k = 0; finite && k < count; ++k) {
      const auto code = static_cast<int8_t>((x[begin + k] * inverse + 0x1.8p23f) - 0x1.8p23f);
      out->codes[k] = code;
      sum += code;
    }
    finish_group(out, scale, sum);
    all_finite = all_finite && finite;
  }
  if (!all_finite) make_nan(first);
}

void matmul_int8(const PackedMatrix& w, int64_t tile_begin, int64_t tile_end,
                 const ActivationGroup* x, int64_t ldx, int64_t tokens, float* y, int64_t ldy) {
  constexpr int R = kTileRows;
  const TileLayout layout = tile_layout(w.format, w.cols, R);
  with_quantized_format<R>(w.format, [&](auto format) {
    for (int64_t tile = tile_begin; tile < tile_end; ++tile) {
      const int64_t row = tile * R;
      const int rows = static_cast<int>(w.rows - row < R ? w.rows - row : R);
      for (int64_t t = 0; t < tokens; ++t) {
        multiply_tile_int8<R, decltype(format)>(w.data + tile * w.tile_bytes, layout, w.cols, rows,
                                                x + t * ldx, y + t * ldy + row);
      }
    }
  });
}

void pack_tile(const CanonicalRows& rows, uint8_t* tile) { pack_tile_of<kTileRows, 4>(rows, tile); }

// Both heights of tiles; AVX-512 takes the second.
template size_t packed_tile_bytes<kTileRows>(WeightFormat, int64_t);
template size_t packed_tile_bytes<kWideTileRows>(WeightFormat, int64_t);
template void unpack_row<kTileRows>(const PackedMatrix&, int64_t, float*);
template void unpack_row<kWideTileRows>(const PackedMatrix&, int64_t, float*);

}  // namespace altiplano::cpu::portable
