// Block layouts of the quantized file types are those of ggml (ggml-common.h):
//   Q8_0  f16 scale d, 32 x int8 q                                      w = d q
//   Q4_0  f16 scale d, 16 bytes: low nibbles are q 0..15, high 16..31   w = d (q - 8)
//   Q6_K  128 bytes low 4 bits, 64 bytes high 2 bits, 16 x int8 scale of 16 weights, f16 scale d
//         w = d scale (q - 32)
#include "cpu/convert.h"

#include <cstring>
#include <string>

#include "util/error.h"

namespace altiplano::cpu {
namespace {

uint16_t load_u16(const uint8_t* p) {
  uint16_t v;
  std::memcpy(&v, p, 2);
  return v;
}

float half_to_float(const Kernels& k, uint16_t half) {
  float f;
  k.f16_to_f32(&half, 1, &f);
  return f;
}

// The nibbles of a Q4_0 block in order. Two neighbouring bytes hold columns 2i and 2i + 1 below, 16
// further above. As vectors, since compilers do not find them in a loop over bytes.
void store_int4(const uint8_t* nibbles, uint8_t* out) {
  typedef uint16_t Words __attribute__((vector_size(16)));
  typedef uint8_t Bytes __attribute__((vector_size(8)));
  Words pairs;
  std::memcpy(&pairs, nibbles, 16);
  const Bytes low = __builtin_convertvector((pairs & 0x0f) | (pairs >> 4 & 0xf0), Bytes);
  const Bytes high = __builtin_convertvector((pairs >> 4 & 0x0f) | (pairs >> 8 & 0xf0), Bytes);
  std::memcpy(out, &low, 8);
  std::memcpy(out + 8, &high, 8);
}

constexpr const char* kNotFinite = "NaN or infinite";

bool half_is_finite(uint16_t half) { return (half & 0x7c00) != 0x7c00; }

void q6_k_to_float(const Kernels& k, const uint8_t* block, float* out) {
  const uint8_t* low = block;
  const uint8_t* high = block + 128;
  const auto* scales = reinterpret_cast<const int8_t*>(block + 192);
  const float d = half_to_float(k, load_u16(block + 208));
  for (int half = 0; half < 2; ++half, low += 64, high += 32, scales += 8, out += 128) {
    for (int j = 0; j < 4; ++j) {
      const uint8_t* four_bits = low + j % 2 * 32;
      for (int i = 0; i < 32; i += 16) {
        const int scale = scales[j * 2 + i / 16];
        for (int c = i; c < i + 16; ++c) {  // with one scale, so that compilers make vectors of it
          const int q = (four_bits[c] >> j / 2 * 4 & 15) | (high[c] >> 2 * j & 3) << 4;
          // Exact in f32: d has 11 significant bits, scale 7 (or is -128), q - 32 five (or is -32).
          out[j * 32 + c] = d * static_cast<float>(scale * (q - 32));
        }
      }
    }
  }
}

}  // namespace

void RowConverter::fail(int64_t row, const std::string& what) const {
  throw Error("ALTIPLANO_CHECKPOINT_INVALID",
              "row " + std::to_string(first_row_ + row) + " holds a value that is " + what);
}

void to_float(const Kernels& k, FileType type, const uint8_t* raw, int64_t count, float* out) {
  switch (type) {
    case FileType::kF32:
      std::memcpy(out, raw, static_cast<size_t>(count) * 4);
      return;
    case FileType::kF16:
      k.f16_to_f32(reinterpret_cast<const uint16_t*>(raw), count, out);
      return;
    case FileType::kBF16:
      k.bf16_to_f32(reinterpret_cast<const uint16_t*>(raw), count, out);
      return;
    case FileType::kQ8_0:
      for (int64_t b = 0; b < count / 32; ++b, raw += 34, out += 32) {
        const float d = half_to_float(k, load_u16(raw));
        for (int i = 0; i < 32; ++i) out[i] = d * static_cast<int8_t>(raw[2 + i]);
      }
      return;
    case FileType::kQ4_0:
      for (int64_t b = 0; b < count / 32; ++b, raw += 18, out += 32) {
        const float d = half_to_float(k, load_u16(raw));
        for (int i = 0; i < 16; ++i) {
          out[i] = d * ((raw[2 + i] & 15) - 8);
          out[i + 16] = d * ((raw[2 + i] >> 4) - 8);
        }
      }
      return;
    case FileType::kQ6_K:
      for (int64_t b = 0; b < count / 256; ++b, raw += 210, out += 256) q6_k_to_float(k, raw, out);
      return;
  }
}

CanonicalRows RowConverter::convert(FileType type, const uint8_t* raw, int64_t rows, int64_t cols,
                                    WeightFormat format, int64_t first_row) {
  first_row_ = first_row;
  if (format.group == 32 && format.quantized()) {
    if (type == FileType::kQ8_0 && format.type == WeightType::kInt8) {
      return from_q8_0(raw, rows, cols, format);
    }
    if (type == FileType::kQ4_0) return from_q4_0(raw, rows, cols, format);
  }
  const bool same = (type == FileType::kF16 && format.type == WeightType::kF16) ||
                    (type == FileType::kBF16 && format.type == WeightType::kBF16);
  if (same) {
    // Infinity or NaN: an exponent of ones, and one more, carries into the sign. Without branches
    // compilers make vectors of it.
    const bool f16 = type == FileType::kF16;
    const uint16_t exponent = f16 ? 0x7c00 : 0x7f80, one = f16 ? 0x0400 : 0x0080;
    for (int64_t r = 0; r < rows; ++r) {
      uint16_t carries = 0;
      for (int64_t c = 0; c < cols; ++c) {
        carries |= static_cast<uint16_t>((load_u16(raw + 2 * (r * cols + c)) & exponent) + one);
      }
      if (carries >> 15) fail(r, kNotFinite);
    }
    return {format, rows, cols, raw, nullptr, nullptr};
  }
  floats_.resize(static_cast<size_t>(rows * cols));
  to_float(kernels_, type, raw, rows * cols, floats_.data());
  return from_floats(rows, cols, format);
}

CanonicalRows RowConverter::from_floats(int64_t rows, int64_t cols, WeightFormat format) {
  const int64_t count = rows * cols;
  for (int64_t r = 0; r < rows; ++r) {
    uint32_t carries = 0;
    for (int64_t c = 0; c < cols; ++c) {
      uint32_t bits;
      std::memcpy(&bits, &floats_[r * cols + c], 4);
      carries |= (bits & 0x7f800000) + 0x00800000;
    }
    if (carries >> 31) fail(r, kNotFinite);
  }
  if (format.type == WeightType::kF32)
    return {format, rows, cols, floats_.data(), nullptr, nullptr};

  values_.resize(static_cast<size_t>(rows * canonical_row_bytes(format, cols)));
  if (!format.quantized()) {
    auto* out = reinterpret_cast<uint16_t*>(values_.data());
    const bool f16 = format.type == WeightType::kF16;
    (f16 ? kernels_.f32_to_f16 : kernels_.f32_to_bf16)(floats_.data(), count, out);
    const uint16_t exponent = f16 ? 0x7c00 : 0x7f80;
    for (int64_t i = 0; i < count; ++i) {
      if ((out[i] & exponent) == exponent) {
        fail(i / cols, f16 ? "too large for f16: use bf16 or f32" : "too large for bf16");
      }
    }
    return {format, rows, cols, values_.data(), nullptr, nullptr};
  }
  const size_t groups = static_cast<size_t>(rows * format.groups(cols));
  scales_.resize(groups);
  zeros_.resize(format.zero_points ? groups : 0);
  uint8_t* zeros = format.zero_points ? zeros_.data() : nullptr;
  kernels_.quantize(format, floats_.data(), rows, cols, values_.data(), scales_.data(), zeros);
  for (size_t g = 0; g < groups; ++g) {
    // The largest f16: the group was clipped, or would be if its values were any larger.
    if ((scales_[g] & 0x7fff) == 0x7bff) {
      fail(static_cast<int64_t>(g) / format.groups(cols), "too large to quantize");
    }
  }
  return {format, rows, cols, values_.data(), scales_.data(), zeros};
}

CanonicalRows RowConverter::from_q8_0(const uint8_t* raw, int64_t rows, int64_t cols,
                                      WeightFormat format) {
  const int64_t blocks = rows * cols / 32;
  values_.resize(static_cast<size_t>(rows * cols));
  scales_.resize(static_cast<size_t>(blocks));
  zeros_.assign(format.zero_points ? static_cast<size_t>(blocks) : 0, 0);
  for (int64_t b = 0; b < blocks; ++b, raw += 34) {
    scales_[b] = load_u16(raw);
    if (!half_is_finite(scales_[b])) fail(b * 32 / cols, kNotFinite);
    std::memcpy(&values_[b * 32], raw + 2, 32);
  }
  return {format,         rows,           cols,
          values_.data(), scales_.data(), format.zero_points ? zeros_.data() : nullptr};
}

// To int4, or to int8 with q - 8 in its place: both hold Q4_0 exactly.
CanonicalRows RowConverter::from_q4_0(const uint8_t* raw, int64_t rows, int64_t cols,
                                      WeightFormat format) {
  const bool int4 = format.type == WeightType::kInt4;
  const int64_t blocks = rows * cols / 32;
  values_.resize(static_cast<size_t>(rows * canonical_row_bytes(format, cols)));
  scales_.resize(static_cast<size_t>(blocks));
  zeros_.assign(format.zero_points ? static_cast<size_t>(blocks) : 0, int4 ? kInt4DefaultZero : 0);
  for (int64_t b = 0; b < blocks; ++b, raw += 18) {
    scales_[b] = load_u16(raw);
    if (!half_is_finite(scales_[b])) fail(b * 32 / cols, kNotFinite);
    if (int4) {
      store_int4(raw + 2, &values_[b * 16]);
    } else {
      uint8_t* out = &values_[b * 32];
      for (int i = 0; i < 16; ++i) {
        out[i] = static_cast<uint8_t>((raw[2 + i] & 15) - 8);
        out[i + 16] = static_cast<uint8_t>((raw[2 + i] >> 4) - 8);
      }
    }
  }
  return {format,         rows,           cols,
          values_.data(), scales_.data(), format.zero_points ? zeros_.data() : nullptr};
}

}  // namespace altiplano::cpu
