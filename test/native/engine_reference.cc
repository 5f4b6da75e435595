// The forward pass in float64, straight from the equations: no pages, no batches, no packing. And
// the steps that the tests build.
#include <algorithm>
#include <cmath>

#include "cpu/cpu_backend.h"
#include "cpu/scalar.h"
#include "engine_support.h"

namespace altiplano::test {
namespace {

using Vector = std::vector<double>;

// W x
Vector times(const Vector& w, const Vector& x) {
  Vector y(w.size() / x.size());
  for (size_t row = 0; row < y.size(); ++row) {
    for (size_t col = 0; col < x.size(); ++col) y[row] += w[row * x.size() + col] * x[col];
  }
  return y;
}

Vector normalised(const Vector& x, const Vector& weight, double eps) {
  double squares = 0;
  for (double v : x) squares += v * v;
  const double inverse = 1 / std::sqrt(squares / static_cast<double>(x.size()) + eps);
  Vector y(x.size());
  for (size_t i = 0; i < x.size(); ++i) y[i] = weight[i] * x[i] * inverse;
  return y;
}

// Rotates every head of x by its position: pairs (2i, 2i+1), or halves (i, i + d/2).
void rotate(Vector& x, int position, const Config& c) {
  const size_t d = c.head_dim;
  for (size_t head = 0; head < x.size(); head += d) {
    for (size_t i = 0; i < d / 2; ++i) {
      double& a = x[head + (c.interleaved_rotary ? 2 * i : i)];
      double& b = x[head + (c.interleaved_rotary ? 2 * i + 1 : i + d / 2)];
      const double angle = position * c.inverse_frequencies[i];
      const double rotated = a * std::cos(angle) - b * std::sin(angle);
      b = b * std::cos(angle) + a * std::sin(angle);
      a = rotated;
    }
  }
}

// x [G d] as the cache keeps it; int8 has a scale for each head.
void round_to(KvType kv, int head_dim, Vector& x) {
  if (kv == KvType::kF32) return;
  if (kv == KvType::kF16) {
    for (double& v : x) v = cpu::f16_to_f32_one(cpu::f32_to_f16_one(static_cast<float>(v)));
    return;
  }
  if (kv == KvType::kBF16) {
    for (double& v : x) v = cpu::bf16_to_f32_one(cpu::f32_to_bf16_one(static_cast<float>(v)));
    return;
  }
  for (auto head = x.begin(); head != x.end(); head += head_dim) {
    double largest = 0;
    for (int d = 0; d < head_dim; ++d) largest = std::max(largest, std::abs(head[d]));
    const double scale = largest / 127;
    for (int d = 0; d < head_dim; ++d) head[d] = std::nearbyint(head[d] / scale) * scale;
  }
}

// softmax(q k^T / sqrt(d)) v for each head; keys and values [position][G d]
Vector attend(const Vector& q, const std::vector<Vector>& keys, const std::vector<Vector>& values,
              const Config& c) {
  const int d = c.head_dim, group = c.heads / c.kv_heads;
  Vector out(q.size());
  for (int head = 0; head < c.heads; ++head) {
    const int kv = head / group * d;
    Vector weights;
    for (const Vector& key : keys) {
      double score = 0;
      for (int i = 0; i < d; ++i) score += q[head * d + i] * key[kv + i];
      weights.push_back(score / std::sqrt(static_cast<double>(d)));
    }
    const double most = *std::max_element(weights.begin(), weights.end());
    double sum = 0;
    for (double& w : weights) sum += w = std::exp(w - most);
    for (size_t j = 0; j < weights.size(); ++j) {
      for (int i = 0; i < d; ++i) out[head * d + i] += weights[j] / sum * values[j][kv + i];
    }
  }
  return out;
}

}  // namespace

std::vector<double> reference_logits(const TestModel& model, std::span<const int32_t> tokens,
                                     KvType kv) {
  const ModelSpec& spec = model.spec();
  const Config& c = spec.config;
  const double eps = c.rms_norm_eps;
  std::vector<std::vector<Vector>> keys(c.layers), values(c.layers);
  Vector logits;
  for (size_t t = 0; t < tokens.size(); ++t) {
    const auto row = model.values(spec.embedding).begin() + int64_t{tokens[t]} * c.hidden_size;
    Vector x(row, row + c.hidden_size);
    for (int l = 0; l < c.layers; ++l) {
      const LayerSpec& layer = spec.layers[l];
      const auto w = [&](const TensorSpec& tensor) -> const Vector& {
        return model.values(tensor);
      };
      Vector h = normalised(x, w(layer.attention_norm), eps);
      Vector q = times(w(layer.q), h), k = times(w(layer.k), h), v = times(w(layer.v), h);
      rotate(q, static_cast<int>(t), c);
      rotate(k, static_cast<int>(t), c);
      round_to(kv, c.head_dim, k);
      round_to(kv, c.head_dim, v);
      keys[l].push_back(k);
      values[l].push_back(v);
      const Vector y = times(w(layer.o), attend(q, keys[l], values[l], c));
      for (size_t i = 0; i < x.size(); ++i) x[i] += y[i];
      h = normalised(x, w(layer.feed_forward_norm), eps);
      Vector f = times(w(layer.gate), h);
      const Vector up = times(w(layer.up), h);
      for (size_t i = 0; i < f.size(); ++i) f[i] = f[i] / (1 + std::exp(-f[i])) * up[i];
      const Vector z = times(w(layer.down), f);
      for (size_t i = 0; i < x.size(); ++i) x[i] += z[i];
    }
    const Vector h = normalised(x, model.values(spec.final_norm), eps);
    const Vector out = times(model.values(spec.tied ? spec.embedding : spec.head), h);
    logits.insert(logits.end(), out.begin(), out.end());
  }
  return logits;
}

void load(Engine& engine, const ModelSpec& spec, int threads, KvType kv, bool int8_activations) {
  ModelSpec changed = spec;
  changed.config.threads = threads;
  changed.config.kv_type = kv;
  changed.config.int8_activations = int8_activations;
  engine.load(changed, cpu::make_backend(threads));
}

Batch make_batch(std::span<const Stretch> stretches) {
  Batch batch;
  batch.sequence_starts = batch.block_starts = batch.id_starts = {0};
  for (const auto& [sequence, begin, end] : stretches) {
    for (int position = begin; position < end; ++position) {
      const int32_t page = sequence->pages[position / kKvPageTokens];
      batch.tokens.push_back(sequence->tokens[position]);
      batch.positions.push_back(position);
      batch.slots.push_back(page * kKvPageTokens + position % kKvPageTokens);
    }
    batch.block_table.insert(batch.block_table.end(), sequence->pages.begin(),
                             sequence->pages.end());
    batch.sequence_starts.push_back(static_cast<int32_t>(batch.tokens.size()));
    batch.block_starts.push_back(static_cast<int32_t>(batch.block_table.size()));
  }
  return batch;
}

void want(Batch& batch, const Wanted& wanted) {
  batch.rows.push_back(wanted.token);
  batch.candidates.push_back(wanted.candidates);
  batch.inverse_temperatures.push_back(wanted.inverse_temperature);
  batch.ids.insert(batch.ids.end(), wanted.ids.begin(), wanted.ids.end());
  batch.id_starts.push_back(static_cast<int32_t>(batch.ids.size()));
  batch.full_rows.push_back(wanted.full);
}

void shuffle_pages(std::vector<Sequence>& sequences, int64_t kv_pages, Random& random) {
  std::vector<int32_t> pages;
  for (int32_t page = 0; page < kv_pages; ++page) {
    pages.insert(pages.begin() + random.integer(0, page), page);
  }
  for (Sequence& sequence : sequences) {
    const size_t count = (sequence.tokens.size() + kKvPageTokens - 1) / kKvPageTokens;
    sequence.pages.assign(pages.end() - static_cast<int64_t>(count), pages.end());
    pages.resize(pages.size() - count);
  }
}

std::vector<Sequence> random_sequences(std::span<const int> lengths, const ModelSpec& spec,
                                       Random& random) {
  std::vector<Sequence> sequences(lengths.size());
  for (size_t s = 0; s < lengths.size(); ++s) {
    for (int i = 0; i < lengths[s]; ++i) {
      sequences[s].tokens.push_back(
          static_cast<int32_t>(random.integer(0, spec.config.vocab_size - 1)));
    }
  }
  shuffle_pages(sequences, spec.config.kv_pages, random);
  return sequences;
}

void run_step(Engine& engine, const std::vector<Sequence>& sequences,
              std::span<const Stretch> stretches, int vocab, Logits& logits) {
  logits.resize(sequences.size());
  Batch batch = make_batch(stretches);
  for (size_t t = 0; t < batch.tokens.size(); ++t) {
    want(batch, {.token = static_cast<int>(t), .full = true});
  }
  const RowResults results = engine.step(batch);
  auto row = results.full_logits.begin();
  for (const auto& [sequence, begin, end] : stretches) {
    std::vector<float>& out = logits[sequence - sequences.data()];
    out.resize(sequence->tokens.size() * vocab);
    const int64_t count = int64_t{end - begin} * vocab;
    std::copy_n(row, count, out.begin() + int64_t{begin} * vocab);
    row += count;
  }
}

Logits run_alone(Engine& engine, const std::vector<Sequence>& sequences, int vocab) {
  Logits logits;
  for (const Sequence& sequence : sequences) {
    const Stretch whole = {&sequence, 0, static_cast<int>(sequence.tokens.size())};
    run_step(engine, sequences, {&whole, 1}, vocab, logits);
  }
  return logits;
}

Failure failure_of(const std::function<void()>& run) {
  try {
    run();
    return {};
  } catch (const Error& error) {
    return {error.code(), error.what()};
  } catch (const std::bad_alloc&) {
    return {"ALTIPLANO_OUT_OF_MEMORY", "bad_alloc"};  // what the addon makes of it
  } catch (const std::exception& error) {
    return {"not an Error", error.what()};
  }
}

}  // namespace altiplano::test
