// Attention against f64: ragged batches that mix prompts and decoding, GQA, all types of
// activations and caches, pages in any order, and garbage wherever nothing was stored. For shapes
// with tensor-core kernels and for the kernel of all others.
#include <algorithm>
#include <functional>
#include <numeric>

#include "cuda/attention.h"
#include "cuda/kv_page.h"
#include "cuda/step_inputs.h"
#include "device.h"
#include "halves.h"

namespace altiplano::test {

using cuda::Attention;
using cuda::DeviceMemory;
using cuda::KvCache;
using cuda::StepInputs;

namespace {

struct Sequence {
  int context;  // tokens in the cache before the step
  int tokens;   // of the step
};

// Element types of activations and of the cache.
struct Types {
  ActivationType activations;
  KvType kv;
};
constexpr ActivationType kF16 = ActivationType::kF16, kBF16 = ActivationType::kBF16;
// Those of the tensor-core kernels.
constexpr Types kTileTypes[] = {
    {kF16, KvType::kF16}, {kF16, KvType::kInt8}, {kBF16, KvType::kBF16}, {kBF16, KvType::kInt8}};

// Standard deviations of queries, keys and values.
struct Sizes {
  float q = 1, k = 1, v = 1;
};

// A step over a cache, with everything that attention reads.
struct Problem {
  AttentionShape shape;
  Batch batch;
  std::vector<int64_t> first_key;  // [sequence] in keys and values
  std::vector<float> keys;         // [all tokens of all sequences][kv_heads][d], as they are stored
  std::vector<float> values;
  std::vector<uint16_t> qkv;  // [T][stride]
  std::vector<float> q;       // the same, q only: [T][heads][d]
  std::vector<uint8_t> cache;
  int64_t stride = 0;
};

float round_to(ActivationType type, float x, uint16_t& bits) {
  bits = to_bits(type, x);
  return from_bits(type, bits);
}

// Writes one key or value to the cache; what it is there goes to `exact`.
void store(const AttentionShape& s, uint8_t* head, bool value, int offset, const float* x,
           float* exact) {
  const size_t element = cuda::kv_element_bytes(s.kv_type);
  uint8_t* const rows = head + (value ? kKvPageTokens * s.head_dim * element : 0);
  if (s.kv_type == KvType::kInt8) {
    float most = 0;
    for (int i = 0; i < s.head_dim; ++i) most = std::max(most, std::abs(x[i]));
    const float scale = most / 127;
    for (int i = 0; i < s.head_dim; ++i) {
      const auto code = static_cast<int8_t>(scale > 0 ? std::nearbyint(x[i] / scale) : 0);
      std::memcpy(rows + offset * s.head_dim + i, &code, 1);
      exact[i] = static_cast<float>(code) * scale;
    }
    uint8_t* const scales = head + size_t{2} * kKvPageTokens * s.head_dim;
    std::memcpy(scales + ((value ? kKvPageTokens : 0) + offset) * 4, &scale, 4);
    return;
  }
  for (int i = 0; i < s.head_dim; ++i) {
    if (s.kv_type == KvType::kF32) {
      exact[i] = x[i];
      std::memcpy(rows + (offset * s.head_dim + i) * 4, &x[i], 4);
    } else {
      uint16_t bits;
      exact[i] = round_to(s.kv_type == KvType::kBF16 ? kBF16 : kF16, x[i], bits);
      std::memcpy(rows + (offset * s.head_dim + i) * 2, &bits, 2);
    }
  }
}

Problem make_problem(Types types, int head_dim, int kv_heads, int group,
                     const std::vector<Sequence>& sequences, Random& random, Sizes sizes = {}) {
  Problem p;
  AttentionShape& s = p.shape;
  s.heads = kv_heads * group;
  s.kv_heads = kv_heads;
  s.head_dim = head_dim;
  s.layers = 1;
  s.kv_type = types.kv;
  s.activations = types.activations;
  int64_t pages = 2;
  for (const Sequence& q : sequences)
    pages += (q.context + q.tokens + kKvPageTokens - 1) / kKvPageTokens;
  s.kv_pages = pages;
  std::vector<int32_t> free_pages(pages);
  std::iota(free_pages.begin(), free_pages.end(), 0);
  for (int64_t i = pages - 1; i > 0; --i)
    std::swap(free_pages[i], free_pages[random.integer(0, i)]);

  const auto head_bytes = static_cast<int64_t>(cuda::kv_head_bytes(types.kv, head_dim));
  p.cache.assign(pages * kv_heads * head_bytes, 0xff);  // NaN in every float type
  p.batch.sequence_starts = p.batch.block_starts = {0};
  const int64_t token_size = int64_t{kv_heads} * head_dim;
  for (const Sequence& q : sequences) {
    const int all = q.context + q.tokens;
    p.first_key.push_back(static_cast<int64_t>(p.keys.size()) / token_size);
    const size_t first_block = p.batch.block_table.size();
    for (int i = 0; i < all; i += kKvPageTokens) {
      p.batch.block_table.push_back(free_pages.back());
      free_pages.pop_back();
    }
    for (int i = 0; i < all; ++i) {
      const int64_t page = p.batch.block_table[first_block + i / kKvPageTokens];
      for (int h = 0; h < kv_heads; ++h) {
        uint8_t* const head = p.cache.data() + (page * kv_heads + h) * head_bytes;
        for (const bool value : {false, true}) {
          std::vector<float>& to = value ? p.values : p.keys;
          const std::vector<float> x = random.normals(head_dim, value ? sizes.v : sizes.k);
          to.resize(to.size() + head_dim);
          store(s, head, value, i % kKvPageTokens, x.data(), to.data() + to.size() - head_dim);
        }
      }
      if (i >= q.context) p.batch.positions.push_back(i);
    }
    p.batch.sequence_starts.push_back(static_cast<int32_t>(p.batch.positions.size()));
    p.batch.block_starts.push_back(static_cast<int32_t>(p.batch.block_table.size()));
  }
  p.batch.tokens.assign(p.batch.positions.size(), 1);
  p.batch.slots.assign(p.batch.positions.size(), 0);
  p.stride = (int64_t{s.heads} + 2 * kv_heads) * head_dim + 8;
  p.stride = (p.stride + 7) / 8 * 8;
  const auto tokens = static_cast<int64_t>(p.batch.positions.size());
  p.qkv.assign(tokens * p.stride, kNan16);
  p.q.resize(tokens * s.heads * head_dim);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t i = 0; i < int64_t{s.heads} * head_dim; ++i) {
      p.q[t * s.heads * head_dim + i] =
          round_to(types.activations, random.normal(sizes.q), p.qkv[t * p.stride + i]);
    }
  }
  return p;
}

struct Run {
  std::vector<uint16_t> out;  // [T][out_stride]
  int64_t out_stride;
  std::vector<ptx_simulator_report> reports;
};

// How attention is launched: as it is, or as a graph for `padded` tokens, recorded as if all
// sequences were short.
struct Launching {
  int multiprocessors = 0;
  int64_t padded = 0;
};

void launch_recorded(CudaDevice& device, const Attention& attention, const StepInputs& inputs,
                     const std::function<void(const cuda::StepTokens&)>& launch) {
  cuda::StepTokens shorter = inputs.step_tokens();
  shorter.decode_pages = 1;
  cuda::Graph graph(device.stream());
  launch(shorter);
  graph.finish();
  const cuda::AttentionSplit split = attention.split_of(inputs.step_tokens());
  CHECK(split != attention.split_of(shorter), "the same split");
  const std::vector<CUgraphNode> launches = attention.split_launches(graph);
  CHECK(launches.size() == 1, "%zu launches", launches.size());
  Attention::set_split(graph, launches, split);
  for (int i = 0; i < 2; ++i) graph.launch();
  device.stream().synchronize();
}

Run attend(CudaDevice& device, const Problem& p, const Launching& how = {}) {
  const AttentionShape& s = p.shape;
  const int group = cuda::has_attention_tiles(s) ? s.heads / s.kv_heads : 0;
  const auto tokens = static_cast<int64_t>(p.batch.tokens.size());
  const int64_t rows = std::max(tokens, how.padded);
  StepInputs inputs(device.context(), rows, static_cast<int64_t>(p.batch.block_table.size()),
                    group);
  inputs.set(device.stream(), 0, p.batch, {rows, 0, how.padded > 0}, [] {});
  const Attention attention(device.stream(), device.kernels(), s, how.multiprocessors);
  const DeviceMemory cache = device.upload(p.cache), qkv = device.upload(p.qkv);
  KvCache kv;
  kv.pages = cache.get();
  kv.head_bytes = static_cast<int64_t>(cuda::kv_head_bytes(s.kv_type, s.head_dim));
  kv.page_bytes = kv.head_bytes * s.kv_heads;
  kv.layer_bytes = kv.page_bytes * s.kv_pages;
  Run run;
  run.out_stride = int64_t{s.heads} * s.head_dim + 8;
  const DeviceMemory out =
      device.upload(std::vector<uint16_t>(static_cast<size_t>(rows * run.out_stride), 0x5a5a));
  const auto launch = [&](const cuda::StepTokens& of_step) {
    attention.launch(device.stream(), of_step, qkv.get(), p.stride, kv, 0, out.get(),
                     run.out_stride);
  };
  if (how.padded > 0) {
    launch_recorded(device, attention, inputs, launch);
  } else {
    launch(inputs.step_tokens());
  }
  device.stream().synchronize();
  run.out = device.download<uint16_t>(out, static_cast<size_t>(tokens * run.out_stride));
  run.reports = device.launches();
  return run;
}

// Against f64. In natural units a score of `d` products is off by at most
//   e_s = (d + 8) 2^-23 sum |q k| / sqrt(d)
// (f32 accumulation; tensor cores may cut off instead of rounding, which doubles a step), plus the
// two factors' roundings, |s| 2^-22. A weight, exp of that, is off by the factor 1 +- e with
// e = 2 e_s (numerator and denominator) + 2^-20 (ex2.approx, rescaling) and, as f16, by 2^-11 of
// itself or, below 2^-14, by 2^-25 of the greatest weight (int8: of 64 scale_v times that); as bf16
// by 2^-8 of itself. The sum over n keys in f32 adds (n + 16) 2^-23 of sum w |v|, the result's own
// rounding 2^-11 or 2^-8 of itself.
void check_attention(CudaDevice& device, const Problem& p, const Launching& how = {}) {
  const Run run = attend(device, p, how);
  const AttentionShape& s = p.shape;
  const double rounding = half_eps(s.activations), least = half_least(s.activations);
  const int d = s.head_dim, group = s.heads / s.kv_heads;
  for (size_t q = 0; q + 1 < p.batch.sequence_starts.size(); ++q) {
    for (int32_t t = p.batch.sequence_starts[q]; t < p.batch.sequence_starts[q + 1]; ++t) {
      const int visible = p.batch.positions[t] + 1;
      for (int h = 0; h < s.heads; ++h) {
        const float* query = &p.q[(int64_t{t} * s.heads + h) * d];
        const auto row = [&](const std::vector<float>& x, int key) {
          return &x[((p.first_key[q] + key) * s.kv_heads + h / group) * d];
        };
        std::vector<double> weights(visible);
        double most = -1e300, e_s = 0;
        for (int key = 0; key < visible; ++key) {
          double score = 0, magnitude = 0;
          for (int i = 0; i < d; ++i) {
            const double product = static_cast<double>(query[i]) * row(p.keys, key)[i];
            score += product;
            magnitude += std::abs(product);
          }
          score /= std::sqrt(d);
          magnitude /= std::sqrt(d);
          weights[key] = score;
          most = std::max(most, score);
          e_s = std::max(e_s, (d + 8) * 0x1p-23 * magnitude + std::abs(score) * 0x1p-22);
        }
        double sum = 0;
        for (double& w : weights) sum += w = std::exp(w - most);
        for (int i = 0; i < d; ++i) {
          double value = 0, magnitude = 0, largest = 0;
          for (int key = 0; key < visible; ++key) {
            const double v = row(p.values, key)[i];
            value += weights[key] / sum * v;
            magnitude += weights[key] / sum * std::abs(v);
            largest = std::max(largest, std::abs(v));
          }
          // A code is at most 127 of v's scale, which divides out of the underflow of int8.
          const double code = s.kv_type == KvType::kInt8 ? 127.0 / 64 : largest;
          const double relative = 2 * e_s + 0x1p-20 + rounding + (visible + 16) * 0x1p-23;
          const double bound = relative * magnitude + visible * least * code / sum +
                               rounding * std::abs(value) + 2 * least;
          const float found = from_bits(s.activations, run.out[t * run.out_stride + h * d + i]);
          CHECK(std::abs(found - value) <= bound,
                "%s, cache %s: d %d, %d x %d heads, token %d (sequence %zu, %d keys), head %d, "
                "[%d]: %g, exactly %g, bound %g",
                describe(s.activations), describe(s.kv_type), d, s.kv_heads, group, t, q, visible,
                h, i, found, value, bound);
        }
      }
      for (int64_t i = int64_t{s.heads} * d; i < run.out_stride; ++i) {
        CHECK(run.out[t * run.out_stride + i] == 0x5a5a, "wrote behind the last head");
      }
    }
  }
}

}  // namespace

void test_attention_tiles(CudaDevice& device) {
  Random random(1);
  struct Heads {
    int kv_heads, group;
  };
  // Multi-head attention, GQA of 70B, and groups that do not fill a tile.
  const std::vector<Heads> heads = {{2, 1}, {1, 8}, {1, 3}, {1, 16}, {1, 20}};
  const std::vector<std::vector<Sequence>> batches = {
      {{0, 1}},
      {{70, 1}, {0, 40}, {31, 1}, {32, 1}, {33, 2}},
      {{5, 130}, {200, 1}},
      {{95, 33}, {0, 17}, {300, 3}},
  };
  int seed = 0;
  for (const Types types : kTileTypes) {
    for (const int d : {64, 128}) {
      for (const auto& [kv_heads, group] : heads) {
        for (const std::vector<Sequence>& batch : batches) {
          if (quick && ++seed % 4 != 0) continue;
          device.set_seed(++seed);
          device.set_arithmetic(seed);
          const Problem p = make_problem(types, d, kv_heads, group, batch, random);
          CHECK(cuda::has_attention_tiles(p.shape), "not on tensor cores");
          check_attention(device, p);
        }
      }
    }
  }
  device.set_arithmetic(0);
  // Scores that are far apart, and such that hardly differ.
  for (const Types types : kTileTypes) {
    for (const float size : {0.01f, 6.f}) {
      check_attention(device, make_problem(types, 64, 1, 4, {{40, 1}, {3, 30}}, random,
                                           {.q = size, .k = size, .v = size}));
    }
  }
  // Numbers that f16 has not.
  for (const KvType kv : {KvType::kBF16, KvType::kInt8}) {
    for (const Sizes sizes : {Sizes{1e-20f, 1e20f, 1e30f}, Sizes{1e20f, 1e-20f, 1e-30f}}) {
      for (const int d : {64, 128}) {
        check_attention(device,
                        make_problem({kBF16, kv}, d, 1, 4, {{40, 1}, {3, 30}}, random, sizes));
      }
    }
  }
}

void test_attention_splits(CudaDevice& device) {
  Random random(2);
  // One sequence of many pages: its keys are split over blocks, whose results are merged.
  for (const Types types : kTileTypes) {
    const Problem p = make_problem(types, 64, 1, 2, {{1500, 1}, {40, 1}, {700, 4}}, random);
    const cuda::AttentionSplit split =
        cuda::split_keys(3, 1, 47, device.context()->device().multiprocessors);
    CHECK(split.splits > 4 && split.pages % cuda::kDecodeWarps == 0, "%d splits", split.splits);
    check_attention(device, p);
    // The order in which blocks end changes nothing.
    device.set_seed(11);
    const Run first = attend(device, p);
    for (const int seed : {12, 13}) {
      device.set_seed(seed);
      CHECK(attend(device, p).out == first.out, "seed %d: other bits", seed);
    }
  }
  for (const int64_t items : {1, 3, 64, 500}) {
    for (const int64_t kv_heads : {1, 8, 32}) {
      for (const int64_t pages : {1, 4, 5, 33, 128}) {
        const auto [split_pages, splits] = cuda::split_keys(items, kv_heads, pages, 108);
        CHECK(split_pages >= 1 && int64_t{splits} * split_pages >= pages &&
                  int64_t{splits - 1} * split_pages < pages,
              "%lld pages: %d splits of %d", static_cast<long long>(pages), splits, split_pages);
        CHECK(splits == 1 || items * kv_heads * splits <= 216, "more parts than there is room for");
      }
    }
  }
}

void test_attention_general(CudaDevice& device) {
  Random random(3);
  const std::vector<Sequence> batch = {{70, 1}, {0, 5}, {31, 1}, {32, 3}};
  for (const ActivationType activations : {kF16, kBF16}) {
    for (const KvType kv : {KvType::kF32, KvType::kF16, KvType::kInt8, KvType::kBF16}) {
      for (const int d : {8, 48, 96}) {
        check_attention(device, make_problem({activations, kv}, d, 2, 2, batch, random));
      }
    }
  }
  // Head dimensions of the tensor-core kernels, with types that they do not have.
  for (const Types types :
       {Types{kF16, KvType::kBF16}, Types{kBF16, KvType::kF16}, Types{kBF16, KvType::kF32}}) {
    const Problem p = make_problem(types, 64, 1, 2, batch, random);
    CHECK(!cuda::has_attention_tiles(p.shape), "on tensor cores");
    check_attention(device, p);
  }
}

// A graph of a step, repeated for longer sequences than it was recorded with, and for fewer than it
// has room for.
void test_attention_recorded(CudaDevice& device) {
  Random random(5);
  for (const Types types : kTileTypes) {
    const Problem p = make_problem(types, 64, 2, 2, {{700, 1}, {90, 1}, {0, 1}, {513, 3}}, random);
    check_attention(device, p, {.padded = 6});
    check_attention(device, p, {.padded = 16});
    const Problem one = make_problem(types, 128, 1, 4, {{900, 1}}, random);
    check_attention(device, one, {.padded = 1});
    const Run run = attend(device, one), recorded = attend(device, one, {.padded = 1});
    CHECK(run.out == recorded.out, "a graph's results are other bits");
  }
}

// Heads of 7B and of 70B: no bank conflicts, and hardly a byte beside what must be read. Of the KV
// heads only as many as time allows, on as much smaller a device: the keys are split as they are
// for all heads.
void test_attention_traffic(CudaDevice& device) {
  if (!device.simulated()) return;
  Random random(4);
  struct Case {
    const char* name;
    int group, of_heads;
    Sequence sequence;
    int sequences;
    double most;  // of the ideal bytes
  };
  // One sequence of 70B has work for 8 blocks: its keys are split finely, and the parts cost more.
  // They are written and read within L2.
  for (const Case& c :
       {Case{"7B, decode", 1, 32, {2047, 1}, 1, 1.03}, Case{"70B, decode", 8, 8, {4095, 1}, 1, 1.2},
        Case{"70B, decode of 16", 8, 8, {1023, 1}, 16, 1.03},
        Case{"7B, prefill", 1, 32, {1024, 256}, 1, 1.03}}) {
    for (const Types types : kTileTypes) {
      constexpr int kHeads = 2;
      const Problem p = make_problem(types, 128, kHeads, c.group,
                                     std::vector<Sequence>(c.sequences, c.sequence), random);
      const Run run = attend(device, p, {.multiprocessors = 108 * kHeads / c.of_heads});
      double wavefronts = 0, ideal_wavefronts = 0, bytes = 0;
      for (const ptx_simulator_report& report : run.reports) {
        wavefronts += static_cast<double>(report.shared_wavefronts);
        ideal_wavefronts += static_cast<double>(report.shared_ideal_wavefronts);
        bytes +=
            32.0 * static_cast<double>(report.global_read_sectors + report.global_write_sectors);
      }
      // Keys and values once for each tile of queries that sees them; q and the results.
      const double token = static_cast<double>(cuda::kv_head_bytes(types.kv, 128)) / kKvPageTokens;
      double ideal = 0;
      const int tile = c.sequence.tokens == 1 ? 1 : cuda::kPrefillRows;
      for (int t = 0; t < c.sequence.tokens; t += tile) {
        ideal += kHeads * token * (c.sequence.context + std::min(t + tile, c.sequence.tokens));
      }
      ideal += 2.0 * kHeads * c.group * 128 * 2 * c.sequence.tokens;
      ideal *= c.sequences;
      std::printf("  %s, %s, cache %s: wavefronts %.3f, bytes %.3f of the ideal\n", c.name,
                  describe(types.activations), describe(types.kv), wavefronts / ideal_wavefronts,
                  bytes / ideal);
      CHECK(bytes <= c.most * ideal, "%s, %s: %g bytes, ideal %g", c.name, describe(types.kv),
            bytes, ideal);
      // The scales of int8 are pairs of f32 that eight rows share: two half-warps read 32 bytes
      // each.
      CHECK(wavefronts <= (types.kv == KvType::kInt8 ? 1.2 : 1.01) * ideal_wavefronts,
            "%s, %s: %g wavefronts, ideal %g", c.name, describe(types.kv), wavefronts,
            ideal_wavefronts);
    }
  }
}

}  // namespace altiplano::test
