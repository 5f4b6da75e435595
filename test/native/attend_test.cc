// Attention and the pages of the KV cache.
#include <algorithm>

#include "check.h"
#include "cpu/scalar.h"

namespace altiplano::test {
namespace {

using cpu::AttendArgs;
using cpu::kKvPageTokens;
using cpu::KvType;

// A sequence of keys and values in pages that lie in the cache in random order, among other pages.
struct Cache {
  KvType type;
  int head_dim;
  int64_t length;
  size_t stride;
  std::vector<int32_t> block_table;
  Buffer bytes;
  std::vector<float> k, v;  // [length][head_dim] as stored (rounded to f16 if so)

  Cache(const Kernels& kernels, KvType type, int head_dim, int64_t length, Random& random)
      : type(type),
        head_dim(head_dim),
        length(length),
        stride(kernels.kv_page_bytes(type, head_dim) + 128),
        block_table((length + kKvPageTokens - 1) / kKvPageTokens),
        // 0xff: unwritten slots are NaN in both types.
        bytes(stride * (2 * block_table.size() + 1), 0xff),
        k(random.normals(length * head_dim)),
        v(random.normals(length * head_dim)) {
    std::vector<int32_t> pages(2 * block_table.size() + 1);
    for (size_t i = 0; i < pages.size(); ++i) pages[i] = static_cast<int32_t>(i);
    for (size_t i = pages.size() - 1; i > 0; --i) {
      std::swap(pages[i], pages[random.integer(0, static_cast<int64_t>(i))]);
    }
    std::copy_n(pages.begin(), block_table.size(), block_table.begin());
    if (type == KvType::kF16) {
      for (float& x : k) x = cpu::f16_to_f32_one(cpu::f32_to_f16_one(x));
      for (float& x : v) x = cpu::f16_to_f32_one(cpu::f32_to_f16_one(x));
    }
    for (int64_t i = 0; i < length; ++i) store(kernels, i);
  }
  uint8_t* page(int64_t i) { return bytes.data() + block_table[i] * stride; }
  void store(const Kernels& kernels, int64_t i) {
    kernels.kv_store(type, page(i / kKvPageTokens), static_cast<int>(i % kKvPageTokens), head_dim,
                     k.data() + i * head_dim, v.data() + i * head_dim);
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
// d <= (head_dim + 4) u * 2 max sum |q||k| * scale. Weights are off by d and exp's 2 ulp each, in
// numerator and denominator; sums over keys and the rescaling add a rounding each per key or page.
void check_attention(const Kernels& k, Cache& cache, const Queries& queries) {
  const std::vector<float> out = attend(k, cache, queries, 0, queries.tokens);
  const int head_dim = cache.head_dim;
  const double scale = 1.f / std::sqrt(static_cast<float>(head_dim));
  for (int64_t t = 0; t < queries.tokens; ++t) {
    const int64_t visible = queries.visible[t];
    for (int g = 0; g < queries.group; ++g) {
      const float* q = queries.q.data() + t * queries.stride + g * head_dim;
      std::vector<double> weights(visible);
      double most = -INFINITY, largest = 0, sum = 0;
      for (int64_t j = 0; j < visible; ++j) {
        double score = 0, magnitude = 0;
        for (int d = 0; d < head_dim; ++d) {
          const double term = static_cast<double>(q[d]) * cache.k[j * head_dim + d];
          score += term;
          magnitude += std::abs(term);
        }
        weights[j] = score * scale;
        most = std::max(most, weights[j]);
        largest = std::max(largest, magnitude * scale);
      }
      for (double& w : weights) sum += w = std::exp(w - most);
      const double score_error = (head_dim + 4) * kEps * 2 * largest;
      const double pages = static_cast<double>(cache.block_table.size());
      const double relative =
          2 * (score_error + 4 * kEps) + (static_cast<double>(visible) + 8 * pages + 8) * kEps;
      for (int d = 0; d < head_dim; ++d) {
        double exact = 0, magnitude = 0;
        for (int64_t j = 0; j < visible; ++j) {
          exact += weights[j] / sum * cache.v[j * head_dim + d];
          magnitude += weights[j] / sum * std::abs(cache.v[j * head_dim + d]);
        }
        const double found = out[t * queries.stride + g * head_dim + d];
        CHECK(std::abs(found - exact) <= 1.05 * relative * magnitude + 1e-37,
              "head_dim %d, %lld keys: %g, exactly %g, bound %g", head_dim,
              static_cast<long long>(visible), found, exact, relative * magnitude);
      }
    }
  }
}

constexpr KvType kTypes[] = {KvType::kF32, KvType::kF16};

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
        for (int d = 0; d < head_dim; ++d) {
          const int64_t k_at = d * kKvPageTokens + offset;
          const int64_t v_at = head_dim * kKvPageTokens + offset * head_dim + d;
          if (type == KvType::kF32) {
            const float* stored = reinterpret_cast<const float*>(page.data());
            CHECK(stored[k_at] == key[d] && stored[v_at] == value[d], "f32 at %d", d);
          } else {
            const uint16_t* stored = reinterpret_cast<const uint16_t*>(page.data());
            CHECK(stored[k_at] == cpu::f32_to_f16_one(key[d]) &&
                      stored[v_at] == cpu::f32_to_f16_one(value[d]),
                  "f16 at %d", d);
          }
        }
      }
      CHECK(std::memcmp(page.data(), portable.data(), bytes) == 0, "other slots were touched");
    }
  }
}

void test_attend_error(const Kernels& k) {
  Random random(32);
  for (KvType type : kTypes) {
    for (int head_dim : {1, 6, 8, 17, 64, 80, 128, 256}) {
      for (int64_t length : {1, 2, 31, 32, 33, 64, 150}) {
        if (quick && length > 64) continue;
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
