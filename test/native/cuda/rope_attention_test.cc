// Rotary positions and the paged cache together with attention, step after step: ragged batches of
// prompts and single tokens, on pages in any order, against float64 from the numbers that the
// device was given.
#include <algorithm>
#include <numeric>

#include "cuda/kv_page.h"
#include "cuda/operations.h"
#include "cuda/step_inputs.h"
#include "device.h"
#include "halves.h"

namespace altiplano::test {
namespace {

// Every type of cache beside every type of activations.
std::vector<std::pair<ActivationType, KvType>> all_types() {
  std::vector<std::pair<ActivationType, KvType>> all;
  for (const ActivationType activations : {ActivationType::kF16, ActivationType::kBF16}) {
    for (const KvType kv : {KvType::kF32, KvType::kF16, KvType::kInt8, KvType::kBF16}) {
      all.push_back({activations, kv});
    }
  }
  return all;
}

// The type of 16 bits that a cache is kept in.
ActivationType half_type(KvType type) {
  return type == KvType::kBF16 ? ActivationType::kBF16 : ActivationType::kF16;
}

// Sequences that grow step by step; what a step computes is checked against all of their tokens.
class AttentionProblem {
 public:
  AttentionProblem(CudaDevice& device, ActivationType activations, KvType type, int heads,
                   int kv_heads, int head_dim, uint32_t seed)
      : device_(device),
        random_(seed),
        shape_(make_shape(activations, type, heads, kv_heads, head_dim)),
        operations_(device.kernels(), shape_),
        attention_(device.stream(), device.kernels(), shape_),
        inputs_(device.context(), 64, 16,
                cuda::has_attention_tiles(shape_) ? heads / kv_heads : 0) {
    cache_.head_bytes = static_cast<int64_t>(cuda::kv_head_bytes(type, head_dim));
    cache_.page_bytes = cache_.head_bytes * kv_heads;
    cache_.layer_bytes = cache_.page_bytes * shape_.kv_pages;
    // NaN everywhere: what is read without having been written shows.
    memory_ = device.upload(std::vector<uint8_t>(2 * cache_.layer_bytes, 0xff));
    cache_.pages = memory_.get();
    std::vector<float> rotations;
    for (int position = 0; position < shape_.max_positions; ++position) {
      for (int i = 0; i < head_dim / 2; ++i) {
        const double angle = position / std::pow(100., 2. * i / head_dim);
        rotations.push_back(static_cast<float>(std::cos(angle)));
        rotations.push_back(static_cast<float>(std::sin(angle)));
      }
    }
    rotations_ = rotations;
    rotations_memory_ = device.upload(rotations);
    free_pages_.resize(shape_.kv_pages);
    std::iota(free_pages_.begin(), free_pages_.end(), 0);
    for (size_t i = free_pages_.size() - 1; i > 0; --i) {
      std::swap(free_pages_[i], free_pages_[random_.integer(0, static_cast<int64_t>(i))]);
    }
  }

  // Each sequence (its index) takes so many further tokens.
  void step(const std::vector<std::pair<size_t, int>>& parts) {
    Batch batch;
    batch.sequence_starts = batch.block_starts = batch.id_starts = {0};
    std::vector<std::pair<size_t, int>> of_token;  // sequence, position
    for (const auto& [index, count] : parts) {
      sequences_.resize(std::max(sequences_.size(), index + 1));
      Sequence& s = sequences_[index];
      for (int i = 0; i < count; ++i) {
        const auto position = static_cast<int>(s.keys.size()) + i;
        if (position / kKvPageTokens >= static_cast<int>(s.pages.size())) {
          s.pages.push_back(free_pages_.back());
          free_pages_.pop_back();
        }
        batch.tokens.push_back(0);
        batch.positions.push_back(position);
        batch.slots.push_back(s.pages[position / kKvPageTokens] * kKvPageTokens +
                              position % kKvPageTokens);
        of_token.push_back({index, position});
      }
      batch.block_table.insert(batch.block_table.end(), s.pages.begin(), s.pages.end());
      batch.sequence_starts.push_back(static_cast<int32_t>(batch.tokens.size()));
      batch.block_starts.push_back(static_cast<int32_t>(batch.block_table.size()));
    }
    inputs_.set(device_.stream(), batch);

    const size_t tokens = of_token.size();
    const int64_t d = shape_.head_dim, q_cols = shape_.heads * d, kv_cols = shape_.kv_heads * d;
    const int64_t stride = (q_cols + 2 * kv_cols + 7) / 8 * 8, out_stride = (q_cols + 7) / 8 * 8;
    const ActivationType type = shape_.activations;
    const std::vector<uint16_t> halves = to_halves(random_.normals(tokens * stride, 1.5f), type);
    const cuda::DeviceMemory qkv = device_.upload(halves);
    const cuda::DeviceMemory out(device_.context(), tokens * out_stride * 2, "out");
    const cuda::StepTokens& step = inputs_.step_tokens();
    constexpr int kLayer = 1;
    operations_.rope_and_store(device_.stream(), step, qkv.get(), stride, rotations_memory_.get(),
                               cache_, kLayer);
    attention_.launch(device_.stream(), step, qkv.get(), stride, cache_, kLayer, out.get(),
                      out_stride);
    const auto rotated = from_halves(device_.download<uint16_t>(qkv, tokens * stride), type);
    const auto found = from_halves(device_.download<uint16_t>(out, tokens * out_stride), type);
    const auto pages = device_.download<uint8_t>(memory_, memory_.bytes());

    const std::vector<double> given = from_halves(halves, type);
    for (size_t t = 0; t < tokens; ++t) {
      const double* row = &given[t * stride];
      check_query(row, &rotated[t * stride], of_token[t].second);
      Sequence& s = sequences_[of_token[t].first];
      s.keys.push_back(read_back(pages, batch.slots[t], 0));
      s.values.push_back(read_back(pages, batch.slots[t], 1));
      check_stored(row, of_token[t].second, s.keys.back(), s.values.back());
    }
    for (size_t t = 0; t < tokens; ++t) {
      check_attention(&rotated[t * stride], of_token[t].second, sequences_[of_token[t].first],
                      &found[t * out_stride]);
    }
  }

 private:
  struct Sequence {
    std::vector<int32_t> pages;
    std::vector<std::vector<double>> keys,
        values;  // [position][kv heads * d] as the cache has them
  };

  static AttentionShape make_shape(ActivationType activations, KvType type, int heads, int kv_heads,
                                   int head_dim) {
    AttentionShape shape;
    shape.heads = heads;
    shape.kv_heads = kv_heads;
    shape.head_dim = head_dim;
    shape.layers = 2;
    shape.max_positions = 200;
    shape.kv_type = type;
    shape.activations = activations;
    shape.kv_pages = 16;
    return shape;
  }

  // Element i of a head at a position, rotated.
  double rotated_element(const double* head, int position, int64_t i) const {
    const int64_t half = shape_.head_dim / 2, pair = i % half;
    const double cosine = rotations_[(position * half + pair) * 2];
    const double sine = rotations_[(position * half + pair) * 2 + 1];
    const double a = head[pair], b = head[pair + half];
    return i < half ? a * cosine - b * sine : b * cosine + a * sine;
  }

  // Two products and a sum in f32 (3 roundings of at most |a| + |b|), then 16 bits.
  void check_query(const double* given, const double* found, int position) const {
    for (int64_t h = 0; h < shape_.heads; ++h) {
      for (int64_t i = 0; i < shape_.head_dim; ++i) {
        const double* head = given + h * shape_.head_dim;
        const double exact = rotated_element(head, position, i);
        const double at = found[h * shape_.head_dim + i];
        CHECK(is_near(at, exact, 3 * kEps * 20, shape_.activations), "q rotated: %g, expected %g",
              at, exact);
      }
    }
  }

  // Keys (which = 0) or values of one token of layer 1, as floats.
  std::vector<double> read_back(const std::vector<uint8_t>& bytes, int32_t slot, int which) const {
    const int64_t d = shape_.head_dim;
    const int64_t page = slot / kKvPageTokens, offset = slot % kKvPageTokens;
    std::vector<double> result;
    for (int64_t h = 0; h < shape_.kv_heads; ++h) {
      const uint8_t* head =
          bytes.data() + cache_.layer_bytes + page * cache_.page_bytes + h * cache_.head_bytes;
      const int64_t first = (which * kKvPageTokens + offset) * d;
      float scale = 1;
      if (shape_.kv_type == KvType::kInt8) {
        std::memcpy(&scale, head + 2 * kKvPageTokens * d + (which * kKvPageTokens + offset) * 4, 4);
      }
      for (int64_t i = 0; i < d; ++i) {
        if (shape_.kv_type == KvType::kF32) {
          float value;
          std::memcpy(&value, head + (first + i) * 4, 4);
          result.push_back(value);
        } else if (shape_.kv_type != KvType::kInt8) {
          uint16_t half;
          std::memcpy(&half, head + (first + i) * 2, 2);
          result.push_back(from_bits(half_type(shape_.kv_type), half));
        } else {
          result.push_back(static_cast<double>(static_cast<int8_t>(head[first + i])) * scale);
        }
      }
    }
    return result;
  }

  // f32: as check_query. f16, bf16: rounded. int8: off by half a scale, largest / 254, and a
  // rounding.
  void check_stored(const double* given, int position, const std::vector<double>& keys,
                    const std::vector<double>& values) const {
    const int64_t d = shape_.head_dim;
    for (int64_t h = 0; h < shape_.kv_heads; ++h) {
      const double* key = given + (shape_.heads + h) * d;
      const double* value = key + shape_.kv_heads * d;
      std::vector<double> exact_key, exact_value(value, value + d);
      for (int64_t i = 0; i < d; ++i) exact_key.push_back(rotated_element(key, position, i));
      check_vector("key", exact_key, &keys[h * d]);
      check_vector("value", exact_value, &values[h * d]);
    }
  }

  void check_vector(const char* what, const std::vector<double>& exact, const double* found) const {
    double largest = 0;
    for (const double x : exact) largest = std::max(largest, std::abs(x));
    for (size_t i = 0; i < exact.size(); ++i) {
      const double arithmetic = 3 * kEps * 20;
      const double bound =
          shape_.kv_type == KvType::kInt8 ? largest / 254 * (1 + 1e-5) + arithmetic
          : shape_.kv_type == KvType::kF32
              ? arithmetic
              : half_eps(half_type(shape_.kv_type)) * std::abs(exact[i]) + arithmetic;
      CHECK(std::abs(found[i] - exact[i]) <= bound, "stored %s: %g, expected %g", what, found[i],
            exact[i]);
    }
  }

  // From the q, k and v that the device has. A score of d products is off by (d + 2) f32 roundings
  // of the sum of their sizes; weights by twice that, relative, and by expf and the sums: at most
  // (keys + 40) roundings; the weighted sum by the same. On tensor cores weights are rounded to
  // 16 bits, and so is the end.
  void check_attention(const double* q, int position, const Sequence& s,
                       const double* found) const {
    const int64_t d = shape_.head_dim, group = shape_.heads / shape_.kv_heads;
    const int keys = position + 1;
    for (int64_t h = 0; h < shape_.heads; ++h) {
      const int64_t first = h / group * d;
      std::vector<double> weights;
      double most = -INFINITY, most_size = 0;
      for (int k = 0; k < keys; ++k) {
        double score = 0, size = 0;
        for (int64_t i = 0; i < d; ++i) {
          const double product = q[h * d + i] * s.keys[k][first + i];
          score += product;
          size += std::abs(product);
        }
        weights.push_back(score / std::sqrt(static_cast<double>(d)));
        most = std::max(most, weights.back());
        most_size = std::max(most_size, size / std::sqrt(static_cast<double>(d)));
      }
      double sum = 0;
      for (double& w : weights) sum += w = std::exp(w - most);
      const double score_error = static_cast<double>(d + 4) * kEps * most_size;
      const double share = 2 * score_error + (keys + 40) * kEps + half_eps(shape_.activations);
      for (int64_t i = 0; i < d; ++i) {
        double exact = 0, size = 0;
        for (int k = 0; k < keys; ++k) {
          exact += weights[k] / sum * s.values[k][first + i];
          size += weights[k] / sum * std::abs(s.values[k][first + i]);
        }
        CHECK(is_near(found[h * d + i], exact, 2 * share * size, shape_.activations),
              "%d heads to %d of %d, %d keys: %g, expected %g", shape_.heads, shape_.kv_heads,
              shape_.head_dim, keys, found[h * d + i], exact);
      }
    }
  }

  CudaDevice& device_;
  Random random_;
  const AttentionShape shape_;
  const cuda::Operations operations_;
  const cuda::Attention attention_;
  cuda::StepInputs inputs_;
  cuda::KvCache cache_;
  cuda::DeviceMemory memory_, rotations_memory_;
  std::vector<float> rotations_;
  std::vector<int32_t> free_pages_;
  std::vector<Sequence> sequences_;
};

}  // namespace

void test_rope_and_attention(CudaDevice& device) {
  struct Heads {
    int heads, kv_heads, head_dim;
  };
  constexpr Heads kHeads[] = {{1, 1, 2}, {6, 2, 10}, {4, 2, 64}, {8, 1, 34}, {3, 3, 128}};
  for (int seed = 1; seed <= (quick ? 1 : 3); ++seed) {
    device.set_seed(seed);
    for (const auto& [activations, kv] : all_types()) {
      for (const Heads& h : kHeads) {
        AttentionProblem problem(device, activations, kv, h.heads, h.kv_heads, h.head_dim,
                                 static_cast<uint32_t>(seed));
        problem.step({{0, 5}});                    // a prompt
        problem.step({{0, 1}, {1, 40}, {2, 1}});   // decodes beside a prompt of two pages
        problem.step({{2, 33}, {0, 26}, {1, 1}});  // the second goes up to the end of a page
        problem.step({{1, 100}, {0, 1}, {2, 1}, {3, 3}});  // more pages than warps
        device.launches();
      }
    }
  }
}

// A key or value that is not finite shows in all that sees it, in every type of cache.
void test_attention_not_finite(CudaDevice& device) {
  struct Kind {
    ActivationType activations;
    KvType type;
    bool in_key;
    int head_dim;  // with 64 on tensor cores
  };
  std::vector<Kind> kinds;
  for (const auto& [activations, type] : all_types()) {
    for (const int head_dim : {16, 64}) {
      for (const bool in_key : {true, false}) {
        kinds.push_back({activations, type, in_key, head_dim});
      }
    }
  }
  for (const auto& [activations, type, in_key, d] : kinds) {
    AttentionShape shape;
    shape.heads = 2;
    shape.kv_heads = 1;
    shape.head_dim = d;
    shape.layers = 1;
    shape.kv_pages = 1;
    shape.kv_type = type;
    shape.activations = activations;
    const cuda::Operations operations(device.kernels(), shape);
    const cuda::Attention attention(device.stream(), device.kernels(), shape);
    const auto bytes = static_cast<int64_t>(cuda::kv_head_bytes(type, d));
    const cuda::DeviceMemory memory = device.upload(std::vector<uint8_t>(bytes));
    const cuda::KvCache cache = {memory.get(), bytes, bytes, bytes};
    const cuda::DeviceMemory rotations = device.upload(std::vector<float>(3 * d, 0.5f));
    Batch batch;
    batch.tokens = {0, 0, 0};
    batch.positions = batch.slots = {0, 1, 2};
    batch.sequence_starts = {0, 3};
    batch.block_table = {0};
    batch.block_starts = {0, 1};
    batch.id_starts = {0};
    const bool tiles = cuda::has_attention_tiles(shape);
    cuda::StepInputs inputs(device.context(), 3, 1, tiles ? 2 : 0);
    inputs.set(device.stream(), batch);
    Random random(6);
    const int stride = 4 * d, out_stride = 2 * d;  // two query heads, a key, a value
    std::vector<uint16_t> halves = to_halves(random.normals(3 * stride), activations);
    // Of token 1. An infinite key may well be one that has no weight; not in int8.
    halves[stride + (in_key ? 2 : 3) * d + 3] =
        to_bits(activations, type == KvType::kInt8 ? INFINITY : NAN);
    const cuda::DeviceMemory qkv = device.upload(halves);
    const cuda::DeviceMemory out(device.context(), 3 * out_stride * 2, "out");
    operations.rope_and_store(device.stream(), inputs.step_tokens(), qkv.get(), stride,
                              rotations.get(), cache, 0);
    attention.launch(device.stream(), inputs.step_tokens(), qkv.get(), stride, cache, 0, out.get(),
                     out_stride);
    const auto found = from_halves(device.download<uint16_t>(out, 3 * out_stride), activations);
    for (int i = 0; i < out_stride; ++i) {
      // A tile multiplies weights of zero with what a token does not see.
      CHECK(tiles || found[i] == found[i], "token 0 does not see it");
      // A value in a float cache spoils its own dimension only.
      if (!in_key && type != KvType::kInt8 && i % d != 3) continue;
      CHECK(std::isnan(found[out_stride + i]) && std::isnan(found[2 * out_stride + i]),
            "tokens 1 and 2 see what is not finite");
    }
  }
}

}  // namespace altiplano::test
