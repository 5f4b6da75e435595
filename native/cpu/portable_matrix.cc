// Packing and matrix multiplication; portable. The layout and the chain of an element are in
// layout.h; matmul is written once, as a template over a weight format and a number of tokens.
#include "cpu/layout.h"
#include "cpu/portable.h"

namespace altiplano::cpu::portable {
namespace {

// A weight format: scale() and column() give the 8 rows' numbers. w = scale * column.
// `block` points at a block of the packed tile.
struct FloatFormat {
  static void scale(const uint8_t*, const TileLayout&, float* out) {
    for (int r = 0; r < kTileRows; ++r) out[r] = 1.f;
  }
};

struct F32 : FloatFormat {
  static void column(const uint8_t* block, const TileLayout&, int k, float* out) {
    memcpy(out, block + k * sizeof(float) * kTileRows, sizeof(float) * kTileRows);
  }
};

template <float (*to_f32)(uint16_t)>
struct Float16Bits : FloatFormat {
  static void column(const uint8_t* block, const TileLayout&, int k, float* out) {
    uint16_t bits[kTileRows];
    memcpy(bits, block + k * sizeof(bits), sizeof(bits));
    for (int r = 0; r < kTileRows; ++r) out[r] = to_f32(bits[r]);
  }
};

struct QuantizedFormat {
  static void scale(const uint8_t* block, const TileLayout&, float* out) {
    uint16_t bits[kTileRows];
    memcpy(bits, block, sizeof(bits));
    for (int r = 0; r < kTileRows; ++r) out[r] = f16_to_f32_one(bits[r]);
  }
};

template <bool zero_points>
struct Int8 : QuantizedFormat {
  static void column(const uint8_t* block, const TileLayout& layout, int k, float* out) {
    uint32_t words[kTileRows];
    memcpy(words, block + layout.data_at + k / 4 * kStepBytes, sizeof(words));
    const int shift = 24 - k % 4 * 8;  // brings the sign to the top, then back with it
    for (int r = 0; r < kTileRows; ++r) {
      const int zero = zero_points ? static_cast<int8_t>(block[layout.zeros_at + r]) : 0;
      out[r] = static_cast<float>((static_cast<int32_t>(words[r] << shift) >> 24) - zero);
    }
  }
};

template <bool zero_points>
struct Int4 : QuantizedFormat {
  static void column(const uint8_t* block, const TileLayout& layout, int k, float* out) {
    uint32_t words[kTileRows];
    memcpy(words, block + layout.data_at + k / 8 * kStepBytes, sizeof(words));
    const int shift = k % 8 * 4;
    for (int r = 0; r < kTileRows; ++r) {
      const int zero = zero_points ? block[layout.zeros_at + r] : kInt4DefaultZero;
      out[r] = static_cast<float>(static_cast<int>(words[r] >> shift & 15) - zero);
    }
  }
};

// Calls visit(Format{}) for a matrix format: the one table from formats to code.
template <class Visit>
void with_format(WeightFormat format, Visit visit) {
  switch (format.type) {
    case WeightType::kF32:
      return visit(F32{});
    case WeightType::kF16:
      return visit(Float16Bits<f16_to_f32_one>{});
    case WeightType::kBF16:
      return visit(Float16Bits<bf16_to_f32_one>{});
    case WeightType::kInt8:
      return format.zero_points ? visit(Int8<true>{}) : visit(Int8<false>{});
    case WeightType::kInt4:
      return format.zero_points ? visit(Int4<true>{}) : visit(Int4<false>{});
  }
}

// `tokens` tokens times the `rows` rows of one tile.
template <class Format, int tokens>
void multiply_tile(const uint8_t* tile, const TileLayout& layout, int64_t cols, int rows,
                   const float* x, int64_t ldx, float* y, int64_t ldy, bool accumulate) {
  float total[tokens][kTileRows] = {};
  if (accumulate) {
    for (int t = 0; t < tokens; ++t) {
      for (int r = 0; r < rows; ++r) total[t][r] = y[t * ldy + r];
    }
  }
  for (int64_t b = 0; b < layout.blocks; ++b) {
    const uint8_t* block = tile + b * layout.block_bytes;
    const int columns = block_columns(layout, cols, b);
    float sum[tokens][kTileRows] = {};
    for (int k = 0; k < columns; ++k) {
      float w[kTileRows];
      Format::column(block, layout, k, w);
      for (int t = 0; t < tokens; ++t) {
        const float xk = x[t * ldx + b * layout.block + k];
        for (int r = 0; r < kTileRows; ++r) sum[t][r] += w[r] * xk;
      }
    }
    float scale[kTileRows];
    Format::scale(block, layout, scale);
    for (int t = 0; t < tokens; ++t) {
      for (int r = 0; r < kTileRows; ++r) total[t][r] += scale[r] * sum[t][r];
    }
  }
  for (int t = 0; t < tokens; ++t) {
    for (int r = 0; r < rows; ++r) y[t * ldy + r] = total[t][r];
  }
}

// Packs [8 rows][cols] elements as [cols][8].
template <class Element>
void pack_float(const CanonicalRows& rows, uint8_t* tile) {
  for (int r = 0; r < rows.rows; ++r) {
    const uint8_t* in = static_cast<const uint8_t*>(rows.values) + r * rows.cols * sizeof(Element);
    uint8_t* out = tile + r * sizeof(Element);
    for (int64_t k = 0; k < rows.cols; ++k) {
      memcpy(out + k * kTileRows * sizeof(Element), in + k * sizeof(Element), sizeof(Element));
    }
  }
}

void pack_quantized(const CanonicalRows& rows, const TileLayout& layout, uint8_t* tile) {
  const WeightFormat format = rows.format;
  const bool int4 = format.type == WeightType::kInt4;
  const int64_t row_bytes = canonical_row_bytes(format, rows.cols);
  for (int64_t r = 0; r < rows.rows; ++r) {
    const uint8_t* in = static_cast<const uint8_t*>(rows.values) + r * row_bytes;
    for (int64_t b = 0; b < layout.blocks; ++b) {
      uint8_t* block = tile + b * layout.block_bytes;
      memcpy(block + r * sizeof(uint16_t), rows.scales + r * layout.blocks + b, sizeof(uint16_t));
      int zero = int4 ? kInt4DefaultZero : 0;
      if (format.zero_points) {
        zero = rows.zeros[r * layout.blocks + b];
        block[layout.zeros_at + r] = static_cast<uint8_t>(zero);
      }
      const int columns = block_columns(layout, rows.cols, b);
      const int words = columns / layout.word_columns;
      const uint8_t* from = in + b * (int4 ? layout.block / 2 : layout.block);
      uint8_t* to = block + layout.data_at + r * sizeof(uint32_t);
      for (int i = 0; i < words; ++i) memcpy(to + i * kStepBytes, from + i * 4, 4);
      if (words * layout.word_columns == columns) continue;
      uint8_t last[4];
      memset(last, int4 ? zero * 0x11 : zero, sizeof(last));
      const int left = columns - words * layout.word_columns;
      memcpy(last, from + words * 4, int4 ? left / 2 : left);
      if (int4 && left % 2) {
        last[left / 2] = static_cast<uint8_t>((from[words * 4 + left / 2] & 15) | zero << 4);
      }
      memcpy(to + words * kStepBytes, last, sizeof(last));
    }
  }
}

}  // namespace

size_t packed_tile_bytes(WeightFormat format, int64_t cols) {
  return tile_layout(format, cols).tile_bytes;
}

void pack_tile(const CanonicalRows& rows, uint8_t* tile) {
  const TileLayout layout = tile_layout(rows.format, rows.cols);
  // Zero bytes are harmless: weights or scales of 0, in missing rows and behind the last column.
  memset(tile, 0, layout.tile_bytes);
  switch (rows.format.type) {
    case WeightType::kF32:
      return pack_float<uint32_t>(rows, tile);
    case WeightType::kF16:
    case WeightType::kBF16:
      return pack_float<uint16_t>(rows, tile);
    case WeightType::kInt8:
    case WeightType::kInt4:
      return pack_quantized(rows, layout, tile);
  }
}

void unpack_row(const PackedMatrix& w, int64_t row, float* out) {
  const TileLayout layout = tile_layout(w.format, w.cols);
  const uint8_t* tile = w.data + row / kTileRows * w.tile_bytes;
  const int r = static_cast<int>(row % kTileRows);
  with_format(w.format, [&](auto format) {
    for (int64_t b = 0; b < layout.blocks; ++b) {
      const uint8_t* block = tile + b * layout.block_bytes;
      float scale[kTileRows], column[kTileRows];
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
  const TileLayout layout = tile_layout(w.format, w.cols);
  constexpr int kTokens = 4;  // of a register tile
  with_format(w.format, [&](auto format) {
    using Format = decltype(format);
    for (int64_t tile = tile_begin; tile < tile_end; ++tile) {
      const uint8_t* data = w.data + tile * w.tile_bytes;
      const int64_t row = tile * kTileRows;
      const int rows = static_cast<int>(w.rows - row < kTileRows ? w.rows - row : kTileRows);
      int64_t t = 0;
      for (; t + kTokens <= tokens; t += kTokens) {
        multiply_tile<Format, kTokens>(data, layout, w.cols, rows, x + t * ldx, ldx,
                                       y + t * ldy + row, ldy, accumulate);
      }
      for (; t < tokens; ++t) {
        multiply_tile<Format, 1>(data, layout, w.cols, rows, x + t * ldx, ldx, y + t * ldy + row,
                                 ldy, accumulate);
      }
    }
  });
}

}  // namespace altiplano::cpu::portable
