// Packs rows into a tile of layout.h: R rows to a tile, written once for every width of vectors.
// Internal linkage, see scalar.h.
#pragma once

#include <utility>

#include "cpu/kernels.h"
#include "cpu/layout.h"

namespace altiplano::cpu {
namespace {

// Vectors of words by their number.
template <int words>
struct VectorOf;
template <>
struct VectorOf<4> {
  typedef uint32_t Type __attribute__((vector_size(16)));
};
template <>
struct VectorOf<8> {
  typedef uint32_t Type __attribute__((vector_size(32)));
};
template <>
struct VectorOf<16> {
  typedef uint32_t Type __attribute__((vector_size(64)));
};

// From canonical words, in place: int8 stays; the eight columns of an int4 word get the order of a
// packed one. (References, as vectors wider than the processor's have no agreed way to be
// returned.)
template <bool int4, class Words>
inline void to_packed(Words& words) {
  if (!int4) return;
  Words halves[2] = {words & 0xffffu, words >> 16};
  for (Words& x : halves) {  // the nibbles of 16 bits, the lowest first, a byte each
    x = (x | x << 8) & 0x00ff00ffu;
    x = (x | x << 4) & 0x0f0f0f0fu;
  }
  words = halves[0] | halves[1] << 4;
}

// out = the lanes `i` of a and b, one behind the other.
template <class Words, int... i>
inline void shuffle(const Words& a, const Words& b, std::integer_sequence<int, i...>, Words* out) {
#if __has_builtin(__builtin_shufflevector)
  *out = __builtin_shufflevector(a, b, i...);
#else  // GCC before 12
  *out = __builtin_shuffle(a, b, Words{i...});
#endif
}

// What _mm_unpacklo_epi32 and its sisters do in each 16 bytes: a0 b0 a1 b1 and a2 b2 a3 b3, or, by
// pairs, a0 a1 b0 b1 and a2 a3 b2 b3.
template <bool high, bool pairs, int W, class Words>
inline void interleave(const Words& a, const Words& b, Words* out) {
  constexpr auto index = [](int i) {
    const int lane = i % 4, from_b = pairs ? lane / 2 : lane % 2;
    const int word = (high ? 2 : 0) + (pairs ? lane % 2 : lane / 2);
    return i - lane + word + from_b * W;
  };
  [&]<int... i>(std::integer_sequence<int, i...>) {
    shuffle(a, b, std::integer_sequence<int, index(i)...>{}, out);
  }
  (std::make_integer_sequence<int, W>{});
}

// 16 bytes of W / 4 rows, one behind the other. (Through memory it takes the processor twice as
// long: it cannot pass several stores on to one load.)
template <int W, class Words>
inline void load_rows(const uint8_t* in, int64_t stride, Words* out) {
  if constexpr (W == 4) {
    memcpy(out, in, sizeof(*out));
  } else {
    typename VectorOf<W / 2>::Type halves[2];
    load_rows<W / 2>(in, stride, &halves[0]);
    load_rows<W / 2>(in + W / 8 * stride, stride, &halves[1]);
#if __has_builtin(__builtin_shufflevector)
    [&]<int... i>(std::integer_sequence<int, i...>) {
      *out = __builtin_shufflevector(halves[0], halves[1], i...);
    }
    (std::make_integer_sequence<int, W>{});
#else
    memcpy(out, halves, sizeof(*out));
#endif
  }
}

// Four words of W rows (int4: in packed order), as steps[word], whose lanes are rows: in each 16
// bytes 4 x 4 words are transposed.
template <int W, bool int4, class Words>
inline void transpose(const uint8_t* in, int64_t row_bytes, Words (&steps)[4]) {
  Words rows[4], pairs[4];
  for (int i = 0; i < 4; ++i) {  // rows i, 4 + i, 8 + i ...
    load_rows<W>(in + i * row_bytes, 4 * row_bytes, &rows[i]);
    to_packed<int4>(rows[i]);
  }
  interleave<false, false, W>(rows[0], rows[1], &pairs[0]);
  interleave<false, false, W>(rows[2], rows[3], &pairs[1]);
  interleave<true, false, W>(rows[0], rows[1], &pairs[2]);
  interleave<true, false, W>(rows[2], rows[3], &pairs[3]);
  interleave<false, true, W>(pairs[0], pairs[1], &steps[0]);
  interleave<true, true, W>(pairs[0], pairs[1], &steps[1]);
  interleave<false, true, W>(pairs[2], pairs[3], &steps[2]);
  interleave<true, true, W>(pairs[2], pairs[3], &steps[3]);
}

// `bytes` of each of R rows become words of `out`, in [word][row].
template <int R, int W, bool int4>
void pack_group(const uint8_t* in, int64_t row_bytes, int64_t bytes, uint8_t* out) {
  constexpr int kStepBytes = R * sizeof(uint32_t);
  for (int64_t begin = 0; begin < bytes; begin += 16, in += 16, out += 4 * kStepBytes) {
    for (int first = 0; first < R; first += W) {
      typename VectorOf<W>::Type steps[4];
      transpose<W, int4>(in + first * row_bytes, row_bytes, steps);
      for (int i = 0; i < 4; ++i) {
        memcpy(out + i * kStepBytes + first * sizeof(uint32_t), &steps[i], sizeof(steps[i]));
      }
    }
  }
}

// The same for 16-bit elements, in [element][row].
template <int R, int W>
void pack_halves(const uint8_t* in, int64_t row_bytes, int64_t bytes, uint8_t* out) {
  typedef uint16_t Halves __attribute__((vector_size(W * sizeof(uint16_t))));
  constexpr int kColumnBytes = R * sizeof(uint16_t);
  for (int64_t begin = 0; begin < bytes; begin += 16, in += 16, out += 8 * kColumnBytes) {
    for (int first = 0; first < R; first += W) {
      typename VectorOf<W>::Type steps[4];
      transpose<W, false>(in + first * row_bytes, row_bytes, steps);
      for (int i = 0; i < 4; ++i) {
        const Halves even = __builtin_convertvector(steps[i] & 0xffffu, Halves);
        const Halves odd = __builtin_convertvector(steps[i] >> 16, Halves);
        uint8_t* to = out + 2 * i * kColumnBytes + first * sizeof(uint16_t);
        memcpy(to, &even, sizeof(even));
        memcpy(to + kColumnBytes, &odd, sizeof(odd));
      }
    }
  }
}

// Packs [R rows][cols] elements as [cols][R].
template <int R, int W, class Element>
void pack_float(const CanonicalRows& rows, uint8_t* tile) {
  const auto* in = static_cast<const uint8_t*>(rows.values);
  const auto row_bytes = static_cast<int64_t>(rows.cols * sizeof(Element));
  int64_t done = 0;
  if (rows.rows == R) {
    done = row_bytes / 16 * 16;
    if (sizeof(Element) == sizeof(uint32_t)) pack_group<R, W, false>(in, row_bytes, done, tile);
    if (sizeof(Element) == sizeof(uint16_t)) pack_halves<R, W>(in, row_bytes, done, tile);
  }
  for (int64_t r = 0; r < rows.rows; ++r) {
    for (int64_t at = done; at < row_bytes; at += sizeof(Element)) {
      memcpy(tile + at * R + r * sizeof(Element), in + r * row_bytes + at, sizeof(Element));
    }
  }
}

// Some columns of one row: those of a short group, whose last word is filled up with zero points,
// or those of a row that others are missing beside.
template <int R, bool int4>
void pack_row(const uint8_t* in, int columns, int zero, uint8_t* out) {
  using Words = VectorOf<4>::Type;
  constexpr int kMostBytes = 128;
  uint8_t bytes[kMostBytes];
  memset(bytes, int4 ? zero * 0x11 : zero, sizeof(bytes));
  memcpy(bytes, in, int4 ? columns / 2 : columns);
  if (int4 && columns % 2) {
    bytes[columns / 2] = static_cast<uint8_t>((in[columns / 2] & 15) | zero << 4);
  }
  const int word_columns = int4 ? 8 : 4;
  const int words = (columns + word_columns - 1) / word_columns;
  for (int i = 0; i < words; ++i) {
    Words four;
    memcpy(&four, bytes + i / 4 * sizeof(four), sizeof(four));
    to_packed<int4>(four);
    const uint32_t word = four[i % 4];
    memcpy(out + i * R * sizeof(word), &word, sizeof(word));
  }
}

template <int R, int W, bool int4>
void pack_quantized(const CanonicalRows& rows, const TileLayout& layout, uint8_t* tile) {
  const int64_t row_bytes = int4 ? (rows.cols + 1) / 2 : rows.cols;
  const int group_bytes = int4 ? layout.block / 2 : layout.block;
  const auto* values = static_cast<const uint8_t*>(rows.values);
  for (int64_t b = 0; b < layout.blocks; ++b) {
    uint8_t* block = tile + b * layout.block_bytes;
    const int columns = block_columns(layout, rows.cols, b);
    const uint8_t* in = values + b * group_bytes;
    const uint16_t* scales = rows.scales + b;
    if (columns == layout.block && rows.rows == R) {
      pack_group<R, W, int4>(in, row_bytes, group_bytes, block + layout.data_at);
      for (int r = 0; r < R; ++r) memcpy(block + 2 * r, scales + r * layout.blocks, 2);
      for (int r = 0; rows.format.zero_points && r < R; ++r) {
        block[layout.zeros_at + r] = rows.zeros[r * layout.blocks + b];
      }
      continue;
    }
    for (int64_t r = 0; r < rows.rows; ++r) {
      memcpy(block + 2 * r, scales + r * layout.blocks, 2);
      uint8_t zero = int4 ? kInt4DefaultZero : 0;
      if (rows.format.zero_points) {
        zero = rows.zeros[r * layout.blocks + b];
        block[layout.zeros_at + r] = zero;
      }
      pack_row<R, int4>(in + r * row_bytes, columns, zero,
                        block + layout.data_at + r * sizeof(uint32_t));
    }
  }
}

// W: the words of a vector, 4 to R.
template <int R, int W>
void pack_tile_of(const CanonicalRows& rows, uint8_t* tile) {
  const TileLayout layout = tile_layout(rows.format, rows.cols, R);
  // Zero bytes are harmless: weights or scales of 0, in missing rows and behind the last column.
  if (rows.rows < R || rows.cols % layout.block != 0) {
    memset(tile, 0, layout.tile_bytes);
  } else {
    const auto used = static_cast<size_t>(layout.blocks) * layout.block_bytes;
    memset(tile + used, 0, layout.tile_bytes - used);
  }
  switch (rows.format.type) {
    case WeightType::kF32:
      return pack_float<R, W, uint32_t>(rows, tile);
    case WeightType::kF16:
    case WeightType::kBF16:
      return pack_float<R, W, uint16_t>(rows, tile);
    case WeightType::kInt8:
      return pack_quantized<R, W, false>(rows, layout, tile);
    case WeightType::kInt4:
      return pack_quantized<R, W, true>(rows, layout, tile);
  }
}

}  // namespace
}  // namespace altiplano::cpu
