// Attention and the pages of the KV cache.
#include <algorithm>

#include "check.h"
#include "cpu/kv_page.h"
#include "cpu/scalar.h"

namespace altiplano::test {
namespace {

using cpu::AttendArgs;
using cpu::kKvPageTokens;
using cpu::KvType;

// Element `at` of a page, and the scale of the token at `offset`: of K, or of V.
double stored(KvType type, const uint8_t* page, int head_dim, int at, int scale_at) {
  if (type == KvType::kF32) return reinterpret_cast<const float*>(page)[at];
  if (type == KvType::kF16) {
    return cpu::f16_to_f32_one(reinterpret_cast<const uint16_t*>(page)[at]);
  }
  if (type == KvType::kBF16) {
    return cpu::bf16_to_f32_one(reinterpret_cast<const uint16_t*>(page)[at]);
  }
  float scale;
  std::memcpy(&scale, page + 2 * kKvPageTokens * head_dim + scale_at * sizeof(float), 4);
  return static_cast<double>(reinterpret_cast<const int8_t*>(page)[at]) * scale;
}
double stored_k(KvType type, const uint8_t* page, int head_dim, int offset, int d) {
  return stored(type, page, head_dim, d * kKvPageTokens + offset, offset);
}
double stored_v(KvType type, const uint8_t* page, int head_dim, int offset, int d) {
  const int at = head_dim * (kKvPageTokens + offset) + d;
  return stored(type, page, head_dim, at, kKvPageTokens + offset);
}

// A sequence of keys and values in pages that lie in the cache in random order, among other pages.
struct Cache {
  KvType type;
  int head_dim;
  int64_t length;
  size_t stride;
  std::vector<int32_t> block_table;
  Buffer bytes;
  std::vector<float> k, v;               // [length][head_dim] before rounding
  std::vector<double> exact_k, exact_v;  // [length][head_dim] as stored, in the cache's type

  Cache(const Kernels& kernels, KvType type, int head_dim, int64_t length, Random& random)
      : type(type),
        head_dim(head_dim),
        length(length),
        stride(kernels.kv_page_bytes(type, head_dim) + 128),
        block_table((length + kKvPageTokens - 1) / kKvPageTokens),
        // 0xff: unwritten slots are NaN in the float types, and so are int8's scales.
        bytes(stride * (2 * block_table.size() + 1), 0xff),
        k(random.normals(length * head_dim)),
        v(random.normals(length * head_dim)),
        exact_k(length * head_dim),
        exact_v(length * head_dim) {
    std::vector<int32_t> pages(2 * block_table.size() + 1);
    for (size_t i = 0; i < pages.size(); ++i) pages[i] = static_cast<int32_t>(i);
    for (size_t i = pages.size() - 1; i > 0; --i) {
      std::swap(pages[i], pages[random.integer(0, static_cast<int64_t>(i))]);
    }
    std::copy_n(pages.begin(), block_table.size(), block_table.begin());
    for (int64_t i = 0; i < length; ++i) store(kernels, i);
  }
  double v_scale(int64_t i) {
    float scale;
    std::memcpy(&scale,
                page(i / kKvPageTokens) + 2 * kKvPageTokens * head_dim +
                    (kKvPageTokens + i % kKvPageTokens) * sizeof(float),
                sizeof scale);
    return scale;
  }
  uint8_t* page(int64_t i) { return bytes.data() + block_table[i] * stride; }
  void store(const Kernels& kernels, int64_t i) {
    kernels.kv_store(type, page(i / kKvPageTokens), static_cast<int>(i % kKvPageTokens), head_dim,
                     k.data() + i * head_dim, v.data() + i * head_dim);
    const auto offset = static_cast<int>(i % kKvPageTokens);
    for (int d = 0; d < head_dim; ++d) {
      exact_k[i * head_dim + d] = stored_k(type, page(i / kKvPageTokens), head_dim, offset, d);
      exact_v[i * head_dim + d] = stored_v(type, page(i / kKvPageTokens), head_dim, offset, d);
    }
  }
};

// Queries [tokens][group * head_dim + gap]; token t sees visible[t] keys.
struct Queries {
  int64_t tokens;
  int group;
  int64_t stride;
  std::vector<float> q;
  std::vector<int32_t> visible;
};

Queries random_queries(const Cache& cache, int64_t tokens, int group, Random& random) {
  const int64_t stride = group * cache.head_dim + 5;
  Queries queries{tokens, group, stride, random.normals(tokens * stride), {}};
  for (int64_t t = 0; t < tokens; ++t) {  // the last tokens of the sequence, causal
    queries.visible.push_back(static_cast<int32_t>(cache.length - tokens + t + 1));
  }
  return queries;
}

std::vector<float> attend(const Kernels& k, Cache& cache, const Queries& queries, int64_t first,
                          int64_t tokens) {
  std::vector<float> out(tokens * queries.stride, -7.f);
  AttendArgs args;
  args.type = cache.type;
  args.head_dim = cache.head_dim;
  args.scale = 1.f / std::sqrt(static_cast<float>(cache.head_dim));
  args.pages = cache.bytes.data();
  args.page_stride = cache.stride;
  args.block_table = cache.block_table.data();
  args.tokens = tokens;
  args.group = queries.group;
  args.q = queries.q.data() + first * queries.stride;
  args.q_stride = queries.stride;
  args.visible = queries.visible.data() + first;
  args.out = out.data();
  args.out_stride = queries.stride;
  k.attend(args);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t i = queries.group * cache.head_dim; i < queries.stride; ++i) {
      CHECK(out[t * queries.stride + i] == -7.f, "attend wrote behind its heads");
    }
  }
  return out;
}

// The error of a score is that of a sum of head_dim products, and of exp's argument (score - max):
// d <= (head_dim + 5) u * 2 max sum |q||k| * scale (k as stored; int8's scale of a key is one
// product more). Weights are off by d and exp's 2 ulp each, in numerator and denominator; sums over
// keys and the rescaling add a rounding each per key or page, and int8's scale of a value one more.
//
// Tables but portable compute int8 with integers: q is off by half of 1/32767 of its largest, and
// so is, times the scale of its value, each weight by that share of the largest of its page (and
// both by a rounding: 1.01).
void check_attention(const Kernels& k, Cache& cache, const Queries& queries) {
  const std::vector<float> out = attend(k, cache, queries, 0, queries.tokens);
  const int head_dim = cache.head_dim;
  const double scale = 1.f / std::sqrt(static_cast<float>(head_dim));
  const bool integers = cache.type == KvType::kInt8 && std::strcmp(k.name, "portable") != 0;
  const double step = integers ? 1.01 / (2 * 32767) : 0;
  for (int64_t t = 0; t < queries.tokens; ++t) {
    const int64_t visible = queries.visible[t];
    for (int g = 0; g < queries.group; ++g) {
      const float* q = queries.q.data() + t * queries.stride + g * head_dim;
      std::vector<double> weights(visible);
      double most = -INFINITY, largest = 0, sum = 0, largest_q = 0, largest_k = 0;
      for (int d = 0; d < head_dim; ++d) largest_q = std::max<double>(largest_q, std::abs(q[d]));
      for (int64_t j = 0; j < visible; ++j) {
        double score = 0, magnitude = 0, keys = 0;
        for (int d = 0; d < head_dim; ++d) {
          const double term = q[d] * cache.exact_k[j * head_dim + d];
          score += term;
          magnitude += std::abs(term);
          keys += std::abs(cache.exact_k[j * head_dim + d]);
        }
        largest_k = std::max(largest_k, keys * scale);
        weights[j] = score * scale;
        most = std::max(most, weights[j]);
        largest = std::max(largest, magnitude * scale);
      }
      for (double& w : weights) sum += w = std::exp(w - most);
      const double score_error =
          (head_dim + 5) * kEps * 2 * largest + step * largest_q * 2 * largest_k;
      const double pages = static_cast<double>(cache.block_table.size());
      const double relative =
          2 * (score_error + 4 * kEps) + (static_cast<double>(visible) + 8 * pages + 9) * kEps;
      double weights_error = 0;  // of the rounded weights, times the largest code of their values
      for (int64_t first = 0; integers && first < visible; first += kKvPageTokens) {
        const int64_t end = std::min<int64_t>(visible, first + kKvPageTokens);
        double largest_weight = 0;
        for (int64_t j = first; j < end; ++j) {
          largest_weight = std::max(largest_weight, weights[j] / sum * cache.v_scale(j));
        }
        weights_error += static_cast<double>(end - first) * 127 * step * largest_weight;
      }
      for (int d = 0; d < head_dim; ++d) {
        double exact = 0, magnitude = 0;
        for (int64_t j = 0; j < visible; ++j) {
          exact += weights[j] / sum * cache.exact_v[j * head_dim + d];
          magnitude += weights[j] / sum * std::abs(cache.exact_v[j * head_dim + d]);
        }
        const double found = out[t * queries.stride + g * head_dim + d];
        const double bound = 1.05 * (relative * magnitude + weights_error) + 1e-37;
        CHECK(std::abs(found - exact) <= bound, "head_dim %d, %lld keys: %g, exactly %g, bound %g",
              head_dim, static_cast<long long>(visible), found, exact, bound);
      }
    }
  }
}

constexpr KvType kTypes[] = {KvType::kF32, KvType::kF16, KvType::kInt8, KvType::kBF16};

// How far a stored number may be from x: f32 is exact (16 bits are tested one by one); int8 half a
// scale, the scale being largest / 127 rounded once, and x / scale once: 127 u of a code each.
double kv_rounding(KvType type, const std::vector<float>& x) {
  if (type != KvType::kInt8) return 0;
  float largest = 0;
  for (float v : x) largest = std::max(largest, std::abs(v));
  return (0.5 + 2 * 127 * kEps) * largest / 127;
}

}  // namespace

void test_kv_store(const Kernels& k) {
  Random random(31);
  for (KvType type : kTypes) {
    for (int head_dim : {1, 7, 8, 64, 80, 129}) {
      const size_t bytes = k.kv_page_bytes(type, head_dim);
      CHECK(bytes % 64 == 0, "pages are multiples of 64 bytes");
      Buffer page(bytes, 0x11), portable(bytes, 0x11);
      for (int offset : {0, 1, 17, 31}) {
        const std::vector<float> key = random.normals(head_dim), value = random.normals(head_dim);
        k.kv_store(type, page.data(), offset, head_dim, key.data(), value.data());
        cpu::portable_kernels().kv_store(type, portable.data(), offset, head_dim, key.data(),
                                         value.data());
        const double k_bound = kv_rounding(type, key), v_bound = kv_rounding(type, value);
        for (int d = 0; d < head_dim; ++d) {
          const double k_stored = stored_k(type, page.data(), head_dim, offset, d);
          const double v_stored = stored_v(type, page.data(), head_dim, offset, d);
          if (type == KvType::kF16) {
            CHECK(k_stored == cpu::f16_to_f32_one(cpu::f32_to_f16_one(key[d])), "K at %d", d);
            CHECK(v_stored == cpu::f16_to_f32_one(cpu::f32_to_f16_one(value[d])), "V at %d", d);
          } else if (type == KvType::kBF16) {
            CHECK(k_stored == cpu::bf16_to_f32_one(cpu::f32_to_bf16_one(key[d])), "K at %d", d);
            CHECK(v_stored == cpu::bf16_to_f32_one(cpu::f32_to_bf16_one(value[d])), "V at %d", d);
          } else {
            CHECK(std::abs(k_stored - key[d]) <= k_bound, "K at %d", d);
            CHECK(std::abs(v_stored - value[d]) <= v_bound, "V at %d", d);
          }
        }
      }
      CHECK(std::memcmp(page.data(), portable.data(), bytes) == 0, "other slots were touched");
    }
  }
}

void test_kv_store_int8(const Kernels& k) {
  constexpr int kHeadDim = 19;  // two vectors and a tail
  constexpr float kLeast = 0x1p-149f;
  Random random(35);
  const size_t bytes = k.kv_page_bytes(KvType::kInt8, kHeadDim);
  Buffer page(bytes), portable(bytes);
  const auto store = [&](const std::vector<float>& key, const std::vector<float>& value) {
    k.kv_store(KvType::kInt8, page.data(), 5, kHeadDim, key.data(), value.data());
    cpu::portable_kernels().kv_store(KvType::kInt8, portable.data(), 5, kHeadDim, key.data(),
                                     value.data());
    CHECK(std::memcmp(page.data(), portable.data(), bytes) == 0, "other bytes than portable");
  };
  const auto k_code = [&](int d) { return static_cast<int8_t>(page.data()[d * 32 + 5]); };
  const auto v_code = [&](int d) {
    return static_cast<int8_t>(page.data()[kHeadDim * (32 + 5) + d]);
  };
  const auto scale = [&](int at) {
    float s;
    std::memcpy(&s, page.data() + 64 * kHeadDim + at * sizeof(float), sizeof s);
    return s;
  };

  // Any size of number: the largest magnitude is code 127, of its sign. Ties go to the even code
  // (sizes are powers of two, to make exact ties).
  for (float size : {1.f, 0x1p-67f, 0x1p-126f, 0x1p66f, 0x1p120f}) {
    std::vector<float> key(kHeadDim), value(kHeadDim);
    for (int d = 0; d < kHeadDim; ++d) key[d] = (static_cast<float>(d) - 9.5f) * size;
    key[3] = -127 * size;
    for (int d = 0; d < kHeadDim; ++d) value[d] = -key[d];
    store(key, value);
    CHECK(scale(5) == size && scale(32 + 5) == size, "scale %g, size %g", scale(5), size);
    for (int d = 0; d < kHeadDim; ++d) {
      const int even = d == 3 ? -127 : 2 * static_cast<int>(std::floor((d - 9) / 2.));
      CHECK(k_code(d) == even && v_code(d) == -even, "size %g, %d: code %d, expected %d", size, d,
            k_code(d), even);
    }
  }
  // Below f32's normal numbers the scale is rounded itself: at worst, 190 units of the least number
  // give the scale 1 instead of 1.496, and are cut off at 127.
  for (int units : {0, 1, 63, 64, 127, 190, 191, 5000}) {
    std::vector<float> key(kHeadDim, kLeast * static_cast<float>(units));
    key[1] = -key[0];
    key[2] = 0;
    store(key, key);
    for (int d = 0; d < kHeadDim; ++d) {
      const double error = std::abs(static_cast<double>(k_code(d)) * scale(5) - key[d]);
      CHECK(error <= 63 * static_cast<double>(kLeast), "%d units: error %g", units, error);
    }
    CHECK(k_code(0) == -k_code(1) && k_code(2) == 0, "%d units: not symmetric", units);
  }
  // What is not finite gives the scale NaN, wherever it stands, and only to its own vector.
  for (float bad : {NAN, -NAN, INFINITY, -INFINITY}) {
    for (int d = 0; d < kHeadDim; ++d) {
      const std::vector<float> good = random.normals(kHeadDim);
      std::vector<float> with_bad = good;
      with_bad[d] = bad;
      store(with_bad, good);
      CHECK(std::isnan(scale(5)) && std::isfinite(scale(32 + 5)), "%g in K at %d", bad, d);
      store(good, with_bad);
      CHECK(std::isfinite(scale(5)) && std::isnan(scale(32 + 5)), "%g in V at %d", bad, d);
    }
  }
}

// A query, key or value that is not finite reaches every dimension of every query that sees it, in
// all types (an infinite value may stay infinite): so the logits show it.
void test_attend_shows_what_is_not_finite(const Kernels& k) {
  Random random(36);
  for (KvType type : kTypes) {
    for (float bad : {NAN, INFINITY}) {
      for (bool in_value : {false, true}) {
        const int head_dim = 20;
        Cache cache(k, type, head_dim, 70, random);
        Queries queries = random_queries(cache, 8, 2, random);
        const int64_t seen_from = 65;  // position: tokens 62 .. 64 do not see it
        for (int d = 0; d < head_dim; ++d) {
          (in_value ? cache.v : cache.k)[seen_from * head_dim + d] = bad;
        }
        cache.store(k, seen_from);
        queries.q[2 * queries.stride + head_dim + 7] = bad;  // of token 2's second head
        const std::vector<float> out = attend(k, cache, queries, 0, queries.tokens);
        for (int64_t t = 0; t < queries.tokens; ++t) {
          for (int64_t i = 0; i < int64_t{queries.group} * head_dim; ++i) {
            const bool finite = std::isfinite(out[t * queries.stride + i]);
            if (t == 2 && i >= head_dim) {
              CHECK(!finite, "%g in q", bad);
              continue;
            }
            CHECK(finite == (queries.visible[t] <= seen_from), "%g in %s, token %lld", bad,
                  in_value ? "V" : "K", static_cast<long long>(t));
          }
        }
      }
    }
  }
}

void test_attend_error(const Kernels& k) {
  Random random(32);
  for (KvType type : kTypes) {
    for (int head_dim : {1, 6, 8, 17, 64, 80, 128, 256, 512, 514}) {
      for (int64_t length : {1, 2, 31, 32, 33, 64, 150}) {
        if (length > (quick || head_dim > 256 ? 64 : 150)) continue;
        Cache cache(k, type, head_dim, length, random);
        const int64_t tokens = random.integer(1, std::min<int64_t>(length, 9));
        const int group = static_cast<int>(random.integer(1, 9));
        check_attention(k, cache, random_queries(cache, tokens, group, random));
      }
    }
  }
}

void test_attend_is_the_same_for_any_batch(const Kernels& k) {
  Random random(33);
  for (KvType type : kTypes) {
    for (int head_dim : {8, 20, 64, 80, 128}) {
      for (int group : {1, 2, 5, 8}) {
        const int64_t length = quick ? 70 : 133, tokens = quick ? 40 : 100;
        Cache cache(k, type, head_dim, length, random);
        const Queries queries = random_queries(cache, tokens, group, random);
        const std::vector<float> together = attend(k, cache, queries, 0, tokens);
        std::vector<float> alone, chunked;
        for (int64_t t = 0; t < tokens; ++t) {
          const std::vector<float> one = attend(k, cache, queries, t, 1);
          alone.insert(alone.end(), one.begin(), one.end());
        }
        for (int64_t t = 0; t < tokens;) {
          const int64_t n = std::min(tokens - t, random.integer(1, 30));
          const std::vector<float> some = attend(k, cache, queries, t, n);
          chunked.insert(chunked.end(), some.begin(), some.end());
          t += n;
        }
        CHECK(same_bits(together, alone), "head_dim %d group %d: tokens alone differ", head_dim,
              group);
        CHECK(same_bits(together, chunked), "head_dim %d group %d: chunks differ", head_dim, group);
        // One head alone.
        Queries head{tokens, 1, queries.stride, queries.q, queries.visible};
        std::vector<float> first(tokens * queries.stride, -7.f);
        AttendArgs args{type,
                        head_dim,
                        1.f / std::sqrt(static_cast<float>(head_dim)),
                        cache.bytes.data(),
                        cache.stride,
                        cache.block_table.data(),
                        tokens,
                        1,
                        head.q.data(),
                        head.stride,
                        head.visible.data(),
                        first.data(),
                        head.stride};
        k.attend(args);
        bool same = true;
        for (int64_t t = 0; t < tokens; ++t) {
          same = same && std::memcmp(&first[t * head.stride], &together[t * head.stride],
                                     head_dim * sizeof(float)) == 0;
        }
        CHECK(same, "head_dim %d group %d: a head alone differs", head_dim, group);
      }
    }
  }
}

// Any size of numbers, in q and in V: one key, so that the result is the value. Where V is stored
// in f16, or its products leave f32, there is nothing to compare.
void test_attend_extremes(const Kernels& k) {
  Random random(38);
  for (KvType type : {KvType::kF32, KvType::kInt8, KvType::kBF16}) {
    for (float q_size : {0.f, 0x1p-149f, 1e-36f, 1e-20f, 1e15f}) {
      for (float v_size : {0.f, 1e-30f, 1e-20f, 1e30f}) {
        constexpr int kHeadDim = 20;
        Cache cache(k, type, kHeadDim, 1, random);
        for (float& v : cache.v) v *= v_size;
        cache.store(k, 0);
        Queries queries = random_queries(cache, 1, 3, random);
        for (float& q : queries.q) q *= q_size;
        const std::vector<float> out = attend(k, cache, queries, 0, 1);
        for (int i = 0; i < 3 * kHeadDim; ++i) {
          const double exact = cache.exact_v[i % kHeadDim];
          CHECK(std::abs(out[i] - exact) <= 4 * kEps * std::abs(exact),
                "q %g, V %g: %g, exactly %g", q_size, v_size, out[i], exact);
        }
      }
    }
  }
}

// Several KV heads in one call: each gets what it gets alone, wherever its pages lie.
void test_attend_heads(const Kernels& k) {
  Random random(37);
  for (KvType type : kTypes) {
    for (int head_dim : {8, 20, 128}) {
      for (int heads : {2, 7}) {
        for (int64_t tokens : {1, 5, 60}) {  // all heads go through the pages together, some, none
          for (int group : {1, 3}) {
            const int64_t length = 75, stride = int64_t{heads} * group * head_dim;
            const size_t page_bytes = k.kv_page_bytes(type, head_dim);
            const size_t head_stride = page_bytes + 64, page_stride = heads * head_stride + 192;
            const int32_t block_table[] = {4, 0, 3};
            Buffer pages(5 * page_stride, 0xff);
            for (int h = 0; h < heads; ++h) {
              for (int j = 0; j < length; ++j) {
                const std::vector<float> key = random.normals(head_dim);
                const std::vector<float> value = random.normals(head_dim);
                uint8_t* page = pages.data() + block_table[j / kKvPageTokens] * page_stride;
                k.kv_store(type, page + h * head_stride, j % kKvPageTokens, head_dim, key.data(),
                           value.data());
              }
            }
            const std::vector<float> q = random.normals(tokens * stride);
            std::vector<int32_t> visible;
            for (int64_t t = 0; t < tokens; ++t) {
              visible.push_back(static_cast<int32_t>(length - tokens + t + 1));
            }
            std::vector<float> together(tokens * stride, -7.f), alone(tokens * stride, -7.f);
            AttendArgs args{type,           head_dim,        0.3f,   pages.data(), page_stride,
                            block_table,    tokens,          group,  q.data(),     stride,
                            visible.data(), together.data(), stride, heads,        head_stride};
            k.attend(args);
            args.heads = 1;
            for (int h = 0; h < heads; ++h) {
              args.pages = pages.data() + h * head_stride;
              args.q = q.data() + h * group * head_dim;
              args.out = alone.data() + h * group * head_dim;
              k.attend(args);
            }
            CHECK(same_bits(together, alone), "head_dim %d, %d heads, %lld tokens, group %d",
                  head_dim, heads, static_cast<long long>(tokens), group);
          }
        }
      }
    }
  }
}

void test_attend_ignores_what_is_not_visible(const Kernels& k) {
  Random random(34);
  for (KvType type : kTypes) {
    for (int head_dim : {12, 64}) {
      const int64_t length = 77, tokens = 30;
      Cache cache(k, type, head_dim, length, random);
      const Queries queries = random_queries(cache, tokens, 3, random);
      const std::vector<float> before = attend(k, cache, queries, 0, tokens);
      CHECK(std::none_of(before.begin(), before.end(), [](float x) { return std::isnan(x); }),
            "unwritten slots, NaN, reached the result");
      // Tokens 0 .. t do not change when the keys behind token t's do.
      for (int64_t t = tokens - 1; t >= 0; t -= 7) {
        for (int64_t i = queries.visible[t]; i < length; ++i) {
          for (int d = 0; d < head_dim; ++d) {
            cache.k[i * head_dim + d] = i % 2 ? NAN : 1e30f;
            cache.v[i * head_dim + d] = i % 3 ? NAN : INFINITY;
          }
          cache.store(k, i);
        }
        const std::vector<float> after = attend(k, cache, queries, 0, tokens);
        const size_t bytes = (t + 1) * queries.stride * sizeof(float);
        CHECK(std::memcmp(after.data(), before.data(), bytes) == 0,
              "tokens up to %lld changed with later keys", static_cast<long long>(t));
      }
    }
  }
}

}  // namespace altiplano::test
