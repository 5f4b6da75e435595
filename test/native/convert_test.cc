// Conversions between number formats.
#include <algorithm>

#include "check.h"

namespace altiplano::test {
namespace {

float from_bits(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}

uint32_t to_bits(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return bits;
}

}  // namespace

double f16_value(uint16_t h) {
  const int exponent = h >> 10 & 31, mantissa = h & 1023;
  const double magnitude =
      exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
  return h & 0x8000 ? -magnitude : magnitude;
}

bool f16_is_finite(uint16_t h) { return (h & 0x7c00) != 0x7c00; }

uint16_t nearest_f16(float x) {
  if (std::abs(x) >= 65520) return x < 0 ? 0xfc00 : 0x7c00;
  uint16_t below = 0, above = 0x7bff;  // magnitudes ascend with their bits
  const double magnitude = std::abs(static_cast<double>(x));
  while (above - below > 1) {
    const uint16_t middle = static_cast<uint16_t>((below + above) / 2);
    (f16_value(middle) <= magnitude ? below : above) = middle;
  }
  const double down = magnitude - f16_value(below), up = f16_value(above) - magnitude;
  const uint16_t nearest = down < up || (down == up && below % 2 == 0) ? below : above;
  return nearest | (std::signbit(x) ? 0x8000 : 0);
}

void test_conversions(const Kernels& k) {
  std::vector<uint16_t> all(65536), back(65536);
  for (int i = 0; i < 65536; ++i) all[i] = static_cast<uint16_t>(i);
  std::vector<float> wide(65536);
  k.f16_to_f32(all.data(), 65536, wide.data());
  for (int i = 0; i < 65536; ++i) {
    const uint16_t h = all[i];
    if (f16_is_finite(h)) {
      CHECK(wide[i] == f16_value(h) && std::signbit(wide[i]) == (h >> 15), "f16 %04x is %g", h,
            wide[i]);
    } else {
      CHECK(h & 0x3ff ? std::isnan(wide[i]) : std::isinf(wide[i]), "f16 %04x is %g", h, wide[i]);
    }
  }
  k.f32_to_f16(wide.data(), 65536, back.data());
  for (int i = 0; i < 65536; ++i) {
    const bool signaling = (i & 0x7c00) == 0x7c00 && (i & 0x3ff) && !(i & 0x200);
    CHECK(back[i] == (signaling ? i | 0x200 : i), "f16 %04x came back as %04x", i, back[i]);
  }
  k.bf16_to_f32(all.data(), 65536, wide.data());
  k.f32_to_bf16(wide.data(), 65536, back.data());
  for (int i = 0; i < 65536; ++i) {
    const bool signaling = (i & 0x7f80) == 0x7f80 && (i & 0x7f) && !(i & 0x40);
    CHECK(to_bits(wide[i]) == static_cast<uint32_t>(i) << 16, "bf16 %04x", i);
    CHECK(back[i] == (signaling ? i | 0x40 : i), "bf16 %04x came back as %04x", i, back[i]);
  }
  // Rounding: random bits of all kinds, and the ties between neighbours.
  Random random(21);
  const int n = 20003;  // an odd tail
  std::vector<float> x(n);
  for (int i = 0; i < n; ++i) {
    x[i] = from_bits(static_cast<uint32_t>(random.integer(0, 0xffffffffll)));
    if (i % 4 == 1) x[i] = from_bits(0x33000000u + (static_cast<uint32_t>(i) << 11));
    if (i % 4 == 2) x[i] = random.normal(0.01f);
    if (i % 4 == 3) {
      const uint16_t h = static_cast<uint16_t>(random.integer(0, 0x7bfe));
      x[i] = static_cast<float>((f16_value(h) + f16_value(static_cast<uint16_t>(h + 1))) / 2);
    }
  }
  std::vector<uint16_t> half(n), brain(n), brain_portable(n);
  k.f32_to_f16(x.data(), n, half.data());
  k.f32_to_bf16(x.data(), n, brain.data());
  for (int i = 0; i < n; ++i) {
    const uint32_t bits = to_bits(x[i]);
    if (std::isnan(x[i])) {
      CHECK((half[i] & 0x7e00) == 0x7e00 && (brain[i] & 0x7fc0) == 0x7fc0,
            "NaN %08x became %04x %04x", bits, half[i], brain[i]);
      continue;
    }
    CHECK(half[i] == nearest_f16(x[i]), "%a to f16: %04x, expected %04x", x[i], half[i],
          nearest_f16(x[i]));
    const uint32_t rest = bits & 0xffff;
    uint32_t expected = bits >> 16;
    if (rest > 0x8000 || (rest == 0x8000 && expected % 2)) ++expected;
    CHECK(brain[i] == expected, "%a to bf16: %04x, expected %04x", x[i], brain[i], expected);
  }
  // Tails of every length.
  for (int tail = 1; tail < 20; ++tail) {
    std::vector<uint16_t> a(tail), b(tail);
    std::vector<float> c(tail), d(tail);
    k.f32_to_f16(x.data(), tail, a.data());
    k.f32_to_bf16(x.data(), tail, b.data());
    CHECK(std::equal(a.begin(), a.end(), half.begin()) &&
              std::equal(b.begin(), b.end(), brain.begin()),
          "tail %d", tail);
    k.f16_to_f32(all.data(), tail, c.data());
    k.bf16_to_f32(all.data(), tail, d.data());
    for (int i = 0; i < tail; ++i) {
      CHECK(c[i] == f16_value(all[i]) && to_bits(d[i]) == static_cast<uint32_t>(i) << 16, "tail %d",
            tail);
    }
  }
}

// GGUF's blocks of 32: an f16 scale d, and w = d * q for int8 q, or w = d * (q - 8) for 4 bits.
// They are canonical rows of group 32 as they are: here through packing, with every code and with
// scales of every kind.
void test_lossless_blocks(const Kernels& k) {
  Random random(23);
  for (WeightType type : {WeightType::kInt8, WeightType::kInt4}) {
    const WeightFormat format{type, 32, false};
    Matrix m = random_matrix(format, 16, 512, random);
    for (size_t i = 0; i < m.scales.size(); ++i) {
      do {
        m.scales[i] = static_cast<uint16_t>(random.integer(0, 65535));
      } while (!f16_is_finite(m.scales[i]));
    }
    Buffer bytes(Matrix::packed_bytes(k, format, m.rows, m.cols));
    const cpu::PackedMatrix packed = m.pack(k, bytes);
    std::vector<float> row(m.cols);
    for (int64_t r = 0; r < m.rows; ++r) {
      k.unpack_row(packed, r, row.data());
      for (int64_t c = 0; c < m.cols; ++c) {
        const uint8_t byte =
            m.values[type == WeightType::kInt8 ? r * m.cols + c : (r * m.cols + c) / 2];
        const int q = type == WeightType::kInt8 ? static_cast<int8_t>(byte)
                                                : (c % 2 ? byte >> 4 : byte & 15) - 8;
        CHECK(row[c] == q * f16_value(m.scales[r * 16 + c / 32]), "%s: %g", describe(format),
              row[c]);
      }
    }
  }
}

}  // namespace altiplano::test
