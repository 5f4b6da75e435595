// Matrix multiplication with f32 activations, over the layout and by the chains of layout.h, for
// every width of vectors: the including file has chosen Words. Internal linkage, see avx2.h.
//
// Few tokens (decode) stream the weights: 2 tiles at a time are unpacked in registers and
// multiplied with up to 4 tokens (4 tiles with a single token), which gives the processor 4 to 8
// independent chains; the next 4 tokens find these tiles in cache. What comes later is prefetched
// for several tokens only: of a single one processors follow the stream best by themselves. Many
// tokens share the work of unpacking: a panel of 2 tiles x 128 columns is unpacked into the
// first-level cache, then multiplied with all tokens in register tiles of 2 vectors of rows x 6
// tokens (12 with 32 registers).
//
// y itself holds the running totals between blocks, which is exact: so the loops over panels and
// tokens may be nested either way without a change to the chains.
#pragma once

#include <utility>

#include "cpu/layout.h"
#include "cpu/x86_formats.h"

namespace altiplano::cpu {
namespace {

// --- few tokens ----------------------------------------------------------------------------------

// f.operator()<0>(), f.operator()<1>() ... : loops that compilers must unroll, since they would
// leave arrays of vectors in memory otherwise.
template <class F, int... i>
ALWAYS_INLINE void each(std::integer_sequence<int, i...>, F f) {
  (f.template operator()<i>(), ...);
}
template <int n, class F>
ALWAYS_INLINE void each(F f) {
  each(std::make_integer_sequence<int, n>{}, f);
}

// sum + the first n (1 .. 7) columns of the step at k times x: the end of a row whose length is no
// multiple of 8. Rare, so kept apart and small.
template <class Format>
__attribute__((noinline)) F add_last_columns(const Format& format, int k, int n, const float* x,
                                             F sum) {
  const typename Format::Step step = format.step(k);
  F columns[8];
  each<8>([&]<int j>() { columns[j] = format.template column<j>(step); });
  for (int j = 0; j < n; ++j) {
    sum = Words::fmadd(columns[j], Words::broadcast(x + j), sum);
  }
  return sum;
}

// The block's columns of `tiles` (1, 2 or 4) neighbouring tiles times x [tokens][columns];
// totals[tile * tokens + token] += the product. For each column all chains in turn, so that a
// processor's window always holds all of them.
template <class Format, int tiles, int tokens>
ALWAYS_INLINE void multiply_block(const uint8_t* block, size_t tile_bytes, const TileLayout& layout,
                                  int columns, const float* x, int64_t ldx, F* totals) {
  const auto format = [&](int i) { return Format(block + i % tiles * tile_bytes, layout); };
  const Format formats[4] = {format(0), format(1), format(2),
                             format(3)};  // the first `tiles` count
  F sums[tiles * tokens];
  each<tiles * tokens>([&]<int i>() { sums[i] = Words::zero(); });
  int k = 0;
  for (; k + 8 <= columns; k += 8) {
    typename Format::Step steps[tiles];
    each<tiles>([&]<int i>() {
      if constexpr (tokens > 1) formats[i].prefetch(k);
      steps[i] = formats[i].step(k);
    });
    each<8>([&]<int j>() {
      F xs[tokens];
      each<tokens>([&]<int t>() { xs[t] = Words::broadcast(x + t * ldx + k + j); });
      each<tiles>([&]<int i>() {
        const F w = formats[i].template column<j>(steps[i]);
        each<tokens>(
            [&]<int t>() { sums[i * tokens + t] = Words::fmadd(w, xs[t], sums[i * tokens + t]); });
      });
    });
  }
  each<tiles * tokens>([&]<int i>() {
    const Format& f = formats[i / tokens];
    F sum = sums[i];
    if (k < columns) sum = add_last_columns(f, k, columns - k, x + i % tokens * ldx + k, sum);
    totals[i] = Words::fmadd(f.scale(), sum, totals[i]);
  });
}

// `tiles` neighbouring tiles times `tokens` tokens. y [tokens][tiles * 8] has the totals so far; of
// its rows the first `rows` exist.
template <class Format, int tiles, int tokens>
void multiply_tiles(const uint8_t* tile, size_t tile_bytes, const TileLayout& layout, int64_t cols,
                    int64_t rows, const float* x, int64_t ldx, float* y, int64_t ldy) {
  constexpr int kTiledRows = tiles * kRows;
  const size_t bytes = (rows < kTiledRows ? rows : kTiledRows) * sizeof(float);
  alignas(64) float edge[tokens][kTiledRows] = {};
  for (int t = 0; t < tokens; ++t) memcpy(edge[t], y + t * ldy, bytes);
  F totals[tiles * tokens];
  each<tiles * tokens>(
      [&]<int i>() { totals[i] = Words::load(edge[i % tokens] + i / tokens * kRows); });
  for (int64_t b = 0; b < layout.blocks; ++b) {
    multiply_block<Format, tiles, tokens>(tile + b * layout.block_bytes, tile_bytes, layout,
                                          block_columns(layout, cols, b), x + b * layout.block, ldx,
                                          totals);
  }
  each<tiles * tokens>(
      [&]<int i>() { Words::store(edge[i % tokens] + i / tokens * kRows, totals[i]); });
  for (int t = 0; t < tokens; ++t) memcpy(y + t * ldy, edge[t], bytes);
}

// Two tiles (four with a single token) at a time, and up to four tokens at a time while these tiles
// are in cache. A tile that is left over is multiplied token by token.
template <class Format>
void stream_tiles(const PackedMatrix& w, const TileLayout& layout, int64_t tile_begin,
                  int64_t tile_end, const float* x, int64_t ldx, int64_t tokens, float* y,
                  int64_t ldy) {
  const int together = tokens == 1 ? 4 : 2;
  for (int64_t tile = tile_begin; tile < tile_end;) {
    const int tiles = tile_end - tile >= together ? together : 1;
    const int64_t rows = w.rows - tile * kRows;
    const auto multiply = [&]<int tiles, int tokens>(int64_t t) {
      multiply_tiles<Format, tiles, tokens>(w.data + tile * w.tile_bytes, w.tile_bytes, layout,
                                            w.cols, rows, x + t * ldx, ldx,
                                            y + t * ldy + tile * kRows, ldy);
    };
    for (int64_t t = 0; t < tokens;) {
      // Parts of as equal size as can be: 5 tokens are 3 and 2, not 4 and 1.
      const int64_t left = tokens - t;
      const int64_t n = tiles == 1             ? 1
                        : left > 4 && left < 8 ? (left + 1) / 2
                        : left < 4             ? left
                                               : 4;
      if (tiles == 4) multiply.template operator()<4, 1>(t);
      if (tiles == 2 && n == 4) multiply.template operator()<2, 4>(t);
      if (tiles == 2 && n == 3) multiply.template operator()<2, 3>(t);
      if (tiles == 2 && n == 2) multiply.template operator()<2, 2>(t);
      if (tiles == 2 && n == 1) multiply.template operator()<2, 1>(t);
      if (tiles == 1) multiply.template operator()<1, 1>(t);
      t += tiles == 4 ? 1 : n;
    }
    tile += tiles;
  }
}

// --- many tokens --------------------------------------------------------------------------------

constexpr int kPanelColumns = 128;  // whole blocks of every format
constexpr int kPanelBlocks = kPanelColumns / 32;
constexpr int kRegisterTokens = Words::kRegisters == 32 ? 12 : 6;
constexpr int kFewTokens = 16;  // that are streamed; beyond, panels are faster
// Their x is copied panel by panel, that it stays in cache.
constexpr int kChunkTokens = 96;

// One panel of `tiles` (1 or 2) neighbouring tiles, unpacked.
struct Panel {
  alignas(64) float columns[kPanelColumns][2 * kRows];  // [k][tiles * 8]
  F scales[kPanelBlocks][2];
};

template <class Format>
void unpack_panel(const uint8_t* tile, const TileLayout& layout, int64_t cols, int64_t first_block,
                  int tile_index, Panel* panel) {
  float* out = panel->columns[0] + tile_index * kRows;
  constexpr int kStride = 2 * kRows;
  for (int i = 0; i * layout.block < kPanelColumns && first_block + i < layout.blocks; ++i) {
    const Format format(tile + (first_block + i) * layout.block_bytes, layout);
    panel->scales[i][tile_index] = format.scale();
    // Whole steps: the columns behind the last are unpacked too (the packing has them), not used.
    for (int k = 0; k < block_columns(layout, cols, first_block + i); k += 8) {
      const typename Format::Step step = format.step(k);
      float* at = out + (i * layout.block + k) * kStride;
      Words::store(at + 0 * kStride, format.template column<0>(step));
      Words::store(at + 1 * kStride, format.template column<1>(step));
      Words::store(at + 2 * kStride, format.template column<2>(step));
      Words::store(at + 3 * kStride, format.template column<3>(step));
      Words::store(at + 4 * kStride, format.template column<4>(step));
      Words::store(at + 5 * kStride, format.template column<5>(step));
      Words::store(at + 6 * kStride, format.template column<6>(step));
      Words::store(at + 7 * kStride, format.template column<7>(step));
    }
  }
}

// y [tokens][tiles * 8] += the panel's blocks times x [tokens][columns].
template <int tiles, int tokens>
void multiply_panel(const Panel& panel, int block, int columns, const float* x, int64_t ldx,
                    float* y, int64_t ldy) {
  for (int i = 0, begin = 0; begin < columns; ++i, begin += block) {
    const int end = begin + block < columns ? begin + block : columns;
    F sums[tokens][tiles];
    for (int t = 0; t < tokens; ++t) {
      for (int r = 0; r < tiles; ++r) sums[t][r] = Words::zero();
    }
    for (int k = begin; k < end; ++k) {
      F w[tiles];
      for (int r = 0; r < tiles; ++r) w[r] = Words::load(panel.columns[k] + r * kRows);
      for (int t = 0; t < tokens; ++t) {
        const F xk = Words::broadcast(x + t * ldx + k);
        for (int r = 0; r < tiles; ++r) sums[t][r] = Words::fmadd(w[r], xk, sums[t][r]);
      }
    }
    for (int t = 0; t < tokens; ++t) {
      for (int r = 0; r < tiles; ++r) {
        float* at = y + t * ldy + r * kRows;
        Words::store(at, Words::fmadd(panel.scales[i][r], sums[t][r], Words::load(at)));
      }
    }
  }
}

// All tokens, in register tiles of as equal size as can be (7 tokens: 4 and 3, not 6 and 1).
template <int tiles>
void multiply_panel_tokens(const Panel& panel, int block, int columns, const float* x, int64_t ldx,
                           int64_t tokens, float* y, int64_t ldy) {
  while (tokens > 0) {
    int64_t n = tokens;
    if (n > kRegisterTokens) n = n < 2 * kRegisterTokens ? (n + 1) / 2 : kRegisterTokens;
    each<kRegisterTokens>([&]<int i>() {
      if (n == i + 1) multiply_panel<tiles, i + 1>(panel, block, columns, x, ldx, y, ldy);
    });
    tokens -= n;
    x += n * ldx;
    y += n * ldy;
  }
}

// The columns from `column` on (a panel) of one or two tiles, times all tokens. x points at the
// panel's first column, y at the first tile's first row.
template <class Format>
void multiply_tile_pair(const PackedMatrix& w, const TileLayout& layout, int64_t tile, int tiles,
                        int64_t column, const float* x, int64_t ldx, int64_t tokens, float* y,
                        int64_t ldy) {
  Panel panel;
  const int64_t first_block = column / layout.block;
  const uint8_t* data = w.data + tile * w.tile_bytes;
  for (int i = 0; i < tiles; ++i) {
    unpack_panel<Format>(data + i * w.tile_bytes, layout, w.cols, first_block, i, &panel);
  }
  const int64_t left = w.cols - column;
  const int columns = static_cast<int>(left < kPanelColumns ? left : kPanelColumns);
  const auto multiply = [&](float* to, int64_t ld) {
    if (tiles == 2) {
      multiply_panel_tokens<2>(panel, layout.block, columns, x, ldx, tokens, to, ld);
    } else {
      multiply_panel_tokens<1>(panel, layout.block, columns, x, ldx, tokens, to, ld);
    }
  };
  const int64_t rows = w.rows - tile * kRows;
  if (rows >= tiles * kRows) return multiply(y, ldy);
  // The last tile has missing rows: nothing behind the last row of y may be touched.
  float edge[kChunkTokens][2 * kRows] = {};
  for (int64_t t = 0; t < tokens; ++t) memcpy(edge[t], y + t * ldy, rows * sizeof(float));
  multiply(edge[0], 2 * kRows);
  for (int64_t t = 0; t < tokens; ++t) memcpy(y + t * ldy, edge[t], rows * sizeof(float));
}

template <class Format>
void multiply_many_tokens(const PackedMatrix& w, const TileLayout& layout, int64_t tile_begin,
                          int64_t tile_end, const float* x, int64_t ldx, int64_t tokens, float* y,
                          int64_t ldy) {
  // A power of two as ldx would put the tokens' activations into few sets of the cache; side by
  // side they do not evict each other.
  alignas(64) float near_x[kChunkTokens][kPanelColumns];
  const size_t panel_bytes = kPanelColumns / layout.block * layout.block_bytes;
  for (int64_t column = 0; column < w.cols; column += kPanelColumns) {
    const int64_t left = w.cols - column;
    const int64_t columns = left < kPanelColumns ? left : kPanelColumns;
    for (int64_t t = 0; t < tokens; ++t) {
      memcpy(near_x[t], x + t * ldx + column, columns * sizeof(float));
    }
    for (int64_t tile = tile_begin; tile < tile_end; tile += 2) {
      const int tiles = tile_end - tile > 1 ? 2 : 1;
      // The next tiles' part of this panel lies a whole tile ahead, out of a hardware
      // prefetcher's sight. (Prefetching past the end is harmless.)
      for (int i = 0; i < 2; ++i) {
        const uint8_t* next =
            w.data + (tile + 2 + i) * w.tile_bytes + column / layout.block * layout.block_bytes;
        for (size_t at = 0; at < panel_bytes; at += 64) __builtin_prefetch(next + at);
      }
      multiply_tile_pair<Format>(w, layout, tile, tiles, column, near_x[0], kPanelColumns, tokens,
                                 y + tile * kRows, ldy);
    }
  }
}

template <class Format>
void multiply(const PackedMatrix& w, int64_t tile_begin, int64_t tile_end, const float* x,
              int64_t ldx, int64_t tokens, float* y, int64_t ldy) {
  const TileLayout layout = tile_layout(w.format, w.cols, kRows);
  if (tokens <= kFewTokens) {
    stream_tiles<Format>(w, layout, tile_begin, tile_end, x, ldx, tokens, y, ldy);
  } else {
    for (int64_t t = 0; t < tokens; t += kChunkTokens) {
      const int64_t n = tokens - t < kChunkTokens ? tokens - t : kChunkTokens;
      multiply_many_tokens<Format>(w, layout, tile_begin, tile_end, x + t * ldx, ldx, n,
                                   y + t * ldy, ldy);
    }
  }
}

void matmul_f32(const PackedMatrix& w, int64_t tile_begin, int64_t tile_end, const float* x,
                int64_t ldx, int64_t tokens, float* y, int64_t ldy, bool accumulate) {
  if (!accumulate) {
    const int64_t row = tile_begin * kRows;
    const int64_t end = tile_end * kRows < w.rows ? tile_end * kRows : w.rows;
    for (int64_t t = 0; t < tokens; ++t) memset(y + t * ldy + row, 0, (end - row) * sizeof(float));
  }
  const auto run = [&]<class Format>() {
    multiply<Format>(w, tile_begin, tile_end, x, ldx, tokens, y, ldy);
  };
  switch (w.format.type) {
    case WeightType::kF32:
      return run.template operator()<F32>();
    case WeightType::kF16:
      return run.template operator()<Float16Bits<false>>();
    case WeightType::kBF16:
      return run.template operator()<Float16Bits<true>>();
    case WeightType::kInt8:
      return w.format.zero_points ? run.template operator()<Int8<true>>()
                                  : run.template operator()<Int8<false>>();
    case WeightType::kInt4:
      return w.format.zero_points ? run.template operator()<Int4<true>>()
                                  : run.template operator()<Int4<false>>();
  }
}

}  // namespace
}  // namespace altiplano::cpu
