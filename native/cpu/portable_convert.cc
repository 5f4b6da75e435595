// Conversions between number formats, and quantization; portable.
#include "cpu/int4_search.h"
#include "cpu/layout.h"
#include "cpu/portable.h"

namespace altiplano::cpu::portable {
namespace {

inline float clamp(float v, float low, float high) {
  v = v > low ? v : low;
  return v < high ? v : high;
}

Int4Fit best_fit(const Int4Grid& grid, const float* x, int64_t n) {
  float xq[2 * kLanes], qq[2 * kLanes];
  for (int side = 0; side < 2; ++side) {
    float products[kLanes] = {}, squares[kLanes] = {};
    for (int64_t k = 0; k < n; ++k) {
#pragma GCC unroll 1
      for (int i = 0; i < kLanes; ++i) {
        const float q = clamp((x[k] * grid.inverse[i] + kRound) - kRound, grid.low[side][i],
                              grid.high[side][i]);
        products[i] += x[k] * q;
        squares[i] += q * q;
      }
    }
    for (int i = 0; i < kLanes; ++i) {
      xq[side * kLanes + i] = products[i];
      qq[side * kLanes + i] = squares[i];
    }
  }
  Int4Fit best{-1, 0.f};
  float most = 0.f;
  for (int i = 0; i < 2 * kLanes; ++i) {
    const float gain = xq[i] * xq[i] / qq[i];
    if (gain > most) {
      most = gain;
      best = {i, xq[i] / qq[i]};
    }
  }
  return best;
}

// Of equals the first.
int least_error(const Int4Trials& trials, const float* x, int64_t n) {
  float errors[kLanes] = {};
  for (int64_t k = 0; k < n; ++k) {
#pragma GCC unroll 1
    for (int i = 0; i < kLanes; ++i) {
      const float code = (x[k] * trials.inverse[i] + kRound) - kRound;
      const float error = x[k] - clamp(code, trials.low[i], trials.high[i]) * trials.scale[i];
      errors[i] += error * error;
    }
  }
  int best = 0;
  for (int i = 1; i < kLanes; ++i) best = errors[i] < errors[best] ? i : best;
  return best;
}

}  // namespace

void f16_to_f32(const uint16_t* x, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = f16_to_f32_one(x[i]);
}

void bf16_to_f32(const uint16_t* x, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = bf16_to_f32_one(x[i]);
}

void f32_to_f16(const float* x, int64_t n, uint16_t* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = f32_to_f16_one(x[i]);
}

void f32_to_bf16(const float* x, int64_t n, uint16_t* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = f32_to_bf16_one(x[i]);
}

void quantize(WeightFormat format, const float* x, int64_t rows, int64_t cols, void* values,
              uint16_t* scales, uint8_t* zeros) {
  const int64_t row_bytes = canonical_row_bytes(format, cols);
  for (int64_t row = 0; row < rows; ++row) {
    const float* in = x + row * cols;
    uint8_t* out = static_cast<uint8_t*>(values) + row * row_bytes;
    for (int64_t begin = 0; begin < cols; begin += format.group) {
      const int64_t end = begin + format.group < cols ? begin + format.group : cols;
      float low = 0, high = 0;
      for (int64_t k = begin; k < end; ++k) {
        low = in[k] < low ? in[k] : low;
        high = in[k] > high ? in[k] : high;
      }
      const GroupCodes codes =
          format.type == WeightType::kInt4
              ? search_int4<best_fit, least_error>(format, in + begin, end - begin, low, high)
              : choose_codes(format, low, high);
      *scales++ = codes.scale;
      if (format.zero_points) *zeros++ = static_cast<uint8_t>(codes.zero);
      if (format.type == WeightType::kInt8) {
        for (int64_t k = begin; k < end; ++k) out[k] = static_cast<uint8_t>(code_of(in[k], codes));
      } else {
        for (int64_t k = begin; k < end; k += 2) {
          const int even = code_of(in[k], codes);
          const int odd = k + 1 < end ? code_of(in[k + 1], codes) : 0;
          out[k / 2] = static_cast<uint8_t>(even | odd << 4);
        }
      }
    }
  }
}

void dequantize(const CanonicalRows& rows, float* out) {
  const WeightFormat format = rows.format;
  const int64_t cols = rows.cols;
  const int64_t groups = format.groups(cols);
  for (int64_t row = 0; row < rows.rows; ++row, out += cols) {
    const uint8_t* in =
        static_cast<const uint8_t*>(rows.values) + row * canonical_row_bytes(format, cols);
    switch (format.type) {
      case WeightType::kF32:
        memcpy(out, in, cols * sizeof(float));
        continue;
      case WeightType::kF16:
      case WeightType::kBF16:
        for (int64_t k = 0; k < cols; ++k) {
          uint16_t bits;
          memcpy(&bits, in + 2 * k, sizeof(bits));
          out[k] = format.type == WeightType::kF16 ? f16_to_f32_one(bits) : bf16_to_f32_one(bits);
        }
        continue;
      case WeightType::kInt8:
      case WeightType::kInt4:
        break;
    }
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t begin = g * format.group;
      const int64_t end = begin + format.group < cols ? begin + format.group : cols;
      const float scale = f16_to_f32_one(rows.scales[row * groups + g]);
      if (format.type == WeightType::kInt8) {
        const int zero = rows.zeros ? static_cast<int8_t>(rows.zeros[row * groups + g]) : 0;
        for (int64_t k = begin; k < end; ++k) {
          out[k] = static_cast<float>(static_cast<int8_t>(in[k]) - zero) * scale;
        }
      } else {
        const int zero = rows.zeros ? rows.zeros[row * groups + g] : kInt4DefaultZero;
        for (int64_t k = begin; k < end; ++k) {
          const int code = k % 2 ? in[k / 2] >> 4 : in[k / 2] & 15;
          out[k] = static_cast<float>(code - zero) * scale;
        }
      }
    }
  }
}

}  // namespace altiplano::cpu::portable
