#include "llama/config.h"

#include <algorithm>
#include <cmath>

#include "util/error.h"

namespace altiplano {
namespace {

// Far above every Llama model, and low enough that products of two stay far below 2^63.
constexpr int64_t kMostSize = int64_t{1} << 24;

void check_range(const char* what, int64_t value, int64_t low, int64_t high) {
  if (value < low || value > high) {
    throw Error("ALTIPLANO_OUT_OF_RANGE", std::string(what) + " is " + std::to_string(value) +
                                              ", expected " + std::to_string(low) + " to " +
                                              std::to_string(high));
  }
}

void check_tensor(const TensorSpec& t, int64_t rows, int64_t cols) {
  const auto fail = [&](const std::string& why) {
    throw Error("ALTIPLANO_CHECKPOINT_INVALID", "tensor " + t.name + ": " + why);
  };
  if (t.rows != rows || t.cols != cols) {
    fail("shape is [" + std::to_string(t.rows) + ", " + std::to_string(t.cols) + "], expected [" +
         std::to_string(rows) + ", " + std::to_string(cols) + "]");
  }
  const FileTypeInfo& type = info(t.type);
  if (cols % type.block != 0) {
    fail(std::string(type.name) + " needs columns in blocks of " + std::to_string(type.block) +
         ", found " + std::to_string(cols));
  }
  const uint64_t bytes = static_cast<uint64_t>(rows * (cols / type.block)) * type.block_bytes;
  if (t.size_bytes != bytes) {
    fail("has " + std::to_string(t.size_bytes) + " bytes, expected " + std::to_string(bytes));
  }
  if (t.offset > (uint64_t{1} << 62)) fail("offset out of range");
  const WeightFormat f = t.format;
  if (f.quantized() && f.group != 32 && f.group != 64 && f.group != 128) {
    fail("group is " + std::to_string(f.group) + ", expected 32, 64 or 128");
  }
}

}  // namespace

void check(const ModelSpec& spec) {
  const Config& c = spec.config;
  check_range("hiddenSize", c.hidden_size, 1, kMostSize);
  check_range("intermediateSize", c.intermediate_size, 1, kMostSize);
  check_range("layers", c.layers, 1, 4096);
  check_range("heads", c.heads, 1, 65536);
  check_range("kvHeads", c.kv_heads, 1, c.heads);
  check_range("headDim", c.head_dim, 2, 4096);
  check_range("vocabSize", c.vocab_size, 1, kMostSize);
  check_range("maxPositions", c.max_positions, 1, kMostSize);
  check_range("maxStepTokens", c.max_step_tokens, 1, 65536);
  check_range("kvPages", c.kv_pages, 1, kMostSize);
  check_range("threads", c.threads, 1, 1024);
  if (c.heads % c.kv_heads != 0 || c.head_dim % 2 != 0) {
    throw Error("ALTIPLANO_CHECKPOINT_UNSUPPORTED",
                "heads must be a multiple of kvHeads, and headDim even");
  }
  // In floating point, since the product may not fit into 64 bits: the cache must not come out
  // small.
  const double kv_bytes = 2. * sizeof(float) * kKvPageTokens * static_cast<double>(c.kv_pages) *
                          c.head_dim * c.kv_heads * c.layers;
  if (kv_bytes > 0x1p56) {
    throw Error("ALTIPLANO_OUT_OF_MEMORY",
                "a KV cache of " + std::to_string(kv_bytes) + " bytes fits no machine");
  }
  if (!(c.rms_norm_eps >= 0) || !std::isfinite(c.rms_norm_eps)) {
    throw Error("ALTIPLANO_OUT_OF_RANGE", "rmsNormEps must be a finite number, 0 or more");
  }
  if (c.inverse_frequencies.size() != static_cast<size_t>(c.head_dim / 2)) {
    throw Error("ALTIPLANO_INTERNAL", "inverseFrequencies must have headDim / 2 numbers");
  }
  for (double f : c.inverse_frequencies) {
    if (!std::isfinite(f)) throw Error("ALTIPLANO_OUT_OF_RANGE", "inverseFrequencies not finite");
  }
  if (spec.layers.size() != static_cast<size_t>(c.layers)) {
    throw Error("ALTIPLANO_INTERNAL", "the number of layers differs from the config");
  }
  const int64_t hidden = c.hidden_size, inter = c.intermediate_size, vocab = c.vocab_size;
  const int64_t q = int64_t{c.heads} * c.head_dim, kv = int64_t{c.kv_heads} * c.head_dim;
  check_tensor(spec.embedding, vocab, hidden);
  for (const LayerSpec& l : spec.layers) {
    check_tensor(l.attention_norm, 1, hidden);
    check_tensor(l.q, q, hidden);
    check_tensor(l.k, kv, hidden);
    check_tensor(l.v, kv, hidden);
    check_tensor(l.o, hidden, q);
    check_tensor(l.feed_forward_norm, 1, hidden);
    check_tensor(l.gate, inter, hidden);
    check_tensor(l.up, inter, hidden);
    check_tensor(l.down, hidden, inter);
  }
  check_tensor(spec.final_norm, 1, hidden);
  if (!spec.tied) check_tensor(spec.head, vocab, hidden);
}

StepLimits step_limits(const Config& c) {
  const int most_cols = std::max({c.hidden_size, c.intermediate_size, c.heads * c.head_dim});
  return {.tokens = c.max_step_tokens,
          .hidden_size = c.hidden_size,
          .intermediate_size = c.intermediate_size,
          .vocab_size = c.vocab_size,
          .most_cols = most_cols,
          .int8_activations = c.int8_activations,
          .activations = c.activations};
}

}  // namespace altiplano
