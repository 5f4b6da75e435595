// The operations over vectors.
#include <algorithm>
#include <limits>

#include "check.h"

namespace altiplano::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The relative error of the tables' exp: 2 ulp, each at most 2^-23 of the value.
constexpr double kExpError = 2 * 0x1p-23;

void check_near(double found, double expected, double bound, const char* what, int64_t i) {
  CHECK(std::abs(found - expected) <= bound, "%s, element %lld: %.9g, exactly %.9g, bound %.3g",
        what, static_cast<long long>(i), found, expected, bound);
}

}  // namespace

void test_rmsnorm(const Kernels& k) {
  Random random(11);
  for (int64_t n = 1; n <= 300; n += n < 40 ? 1 : 37) {
    for (float size : {1e-6f, 1.f, 1e6f}) {
      std::vector<float> x = random.normals(n, size), weight = random.normals(n), out(n);
      const float eps = 1e-5f;
      k.rmsnorm(x.data(), weight.data(), eps, n, out.data());
      double sum = 0;
      for (float v : x) sum += static_cast<double>(v) * v;
      for (int64_t i = 0; i < n; ++i) {
        const double exact = weight[i] * (x[i] / std::sqrt(sum / n + eps));
        check_near(out[i], exact, 4 * kEps * std::abs(exact) + 0x1p-149, "rmsnorm", i);
      }
      k.rmsnorm(x.data(), weight.data(), eps, n, x.data());
      CHECK(same_bits(x, out), "rmsnorm in place differs");
    }
  }
}

void test_rope(const Kernels& k) {
  Random random(12);
  for (int head_dim : {2, 8, 10, 16, 18, 64, 80, 128, 256}) {
    std::vector<float> head = random.normals(head_dim), cos(head_dim / 2), sin(head_dim / 2);
    for (int i = 0; i < head_dim / 2; ++i) {
      const float angle = random.normal(3.f);
      cos[i] = std::cos(angle);
      sin[i] = std::sin(angle);
    }
    std::vector<float> out = head;
    k.rope(out.data(), cos.data(), sin.data(), head_dim);
    for (int i = 0; i < head_dim; ++i) {
      const int j = i % (head_dim / 2);
      const double a = head[j], b = head[j + head_dim / 2];
      const double exact = i < head_dim / 2 ? a * cos[j] - b * sin[j] : b * cos[j] + a * sin[j];
      check_near(out[i], exact, 2.1 * kEps * (std::abs(a) + std::abs(b)), "rope", i);
    }
  }
}

void test_silu_mul(const Kernels& k) {
  Random random(13);
  for (int64_t n = 1; n <= 1000; n += n < 40 ? 1 : 137) {
    std::vector<float> gate(n), up = random.normals(n), out(n);
    for (float& v : gate) v = random.normal(random.integer(0, 3) == 0 ? 60.f : 3.f);
    k.silu_mul(gate.data(), up.data(), n, out.data());
    for (int64_t i = 0; i < n; ++i) {
      const double exact = gate[i] / (1 + std::exp(-static_cast<double>(gate[i]))) * up[i];
      // exp, the addition, the division, the product. Below -88 exp overflows and the result is
      // -0 instead of a number below 89 e^-88 = 6e-37 in magnitude.
      check_near(out[i], exact, (kExpError + 3 * kEps) * std::abs(exact) + 6e-37 * std::abs(up[i]),
                 "silu_mul", i);
    }
    k.silu_mul(gate.data(), up.data(), n, gate.data());
    CHECK(same_bits(gate, out), "silu_mul in place differs");
  }
}

void test_softmax(const Kernels& k) {
  Random random(14);
  for (int64_t n = 1; n <= 1000; n += n < 40 ? 1 : 137) {
    for (float size : {1.f, 30.f}) {
      std::vector<float> x = random.normals(n, size);
      if (n > 3) x[n / 2] = -kInfinity;
      std::vector<float> out = x;
      k.softmax(out.data(), n);
      const double most = *std::max_element(x.begin(), x.end());
      double sum = 0;
      for (float v : x) sum += std::exp(v - most);
      for (int64_t i = 0; i < n; ++i) {
        const double exact = std::exp(x[i] - most) / sum;
        // exp of the difference (rounded) here and in the sum, the reciprocal, the product.
        const double relative =
            2 * kExpError + (std::isinf(x[i]) ? 0 : 2 * kEps * std::abs(x[i] - most)) + 8 * kEps;
        check_near(out[i], exact, relative * exact + 0x1p-148, "softmax", i);
      }
      if (n > 3) CHECK(out[n / 2] == 0, "softmax of -infinity is 0");
    }
  }
  // exp on its own: beside a 0, which gives 1 / sum, softmax shows exp(x) = y / y0.
  for (float x = 0; x > -103.f; x -= quick ? 0.37f : 0.0037f) {
    float y[9] = {0, x, x - 0.1f, x - 0.2f, x - 0.3f, x, x, x, x};
    const float in[3] = {y[1], y[2], y[3]};
    k.softmax(y, 9);
    for (int i = 0; i < 3; ++i) {
      const double exact = std::exp(static_cast<double>(in[i]));
      check_near(static_cast<double>(y[i + 1]) / y[0], exact,
                 exact * (kExpError + 2 * kEps) + 9 * 0x1.8p-149, "exp", i);
    }
  }
  float with_nan[11] = {0, 1, 2, 3, 4, NAN, 1, 1, 1, 1, 1};
  k.softmax(with_nan, 11);
  CHECK(std::isnan(with_nan[0]), "softmax hides a NaN");
}

void test_log_sum_exp(const Kernels& k) {
  Random random(15);
  for (int64_t n : {1, 2, 7, 8, 9, 31, 100, 1001, 32000}) {
    for (float inverse : {1.f, 1 / 0.6f, 0.5f, 100.f}) {
      for (float size : {0.01f, 5.f, 300.f}) {
        std::vector<float> x = random.normals(n, size);
        if (n > 5) x[5] = -kInfinity;
        const cpu::LogSumExp found = k.log_sum_exp(x.data(), n, inverse);
        const double most = *std::max_element(x.begin(), x.end());
        double one = 0, scaled = 0;
        for (float v : x) {
          one += std::exp(v - most);
          scaled += std::exp((v - most) * static_cast<double>(inverse));
        }
        // A term's error is that of exp and of its argument d, rounded twice: d exp(d) <= 1/e.
        const double bound = kExpError + 2 * kEps * 40;
        CHECK(found.finite, "finite numbers");
        check_near(found.one, most + std::log(one), bound, "log_sum_exp", n);
        check_near(found.scaled, most * inverse + std::log(scaled), bound, "scaled", n);
      }
    }
  }
  for (int64_t at : {0, 4, 12}) {
    for (float bad : {NAN, kInfinity}) {
      std::vector<float> x = random.normals(13);
      x[at] = bad;
      CHECK(!k.log_sum_exp(x.data(), 13, 1.f).finite, "NaN or infinity at %lld",
            static_cast<long long>(at));
    }
  }
  const std::vector<float> none(13, -kInfinity);
  CHECK(!k.log_sum_exp(none.data(), 13, 1.f).finite, "all -infinity");
}

}  // namespace altiplano::test
