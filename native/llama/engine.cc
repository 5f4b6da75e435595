#include "llama/engine.h"

#include <initializer_list>
#include <utility>
#include <vector>

#include "llama/step.h"
#include "util/error.h"

namespace altiplano {
namespace {

AttentionShape attention_shape(const Config& c) {
  AttentionShape shape;
  shape.heads = c.heads;
  shape.kv_heads = c.kv_heads;
  shape.head_dim = c.head_dim;
  shape.layers = c.layers;
  shape.max_positions = c.max_positions;
  shape.kv_type = c.kv_type;
  shape.activations = c.activations;
  shape.kv_pages = c.kv_pages;
  shape.inverse_frequencies = c.inverse_frequencies;
  return shape;
}

uint64_t workspace_bytes(const Workspace& w) {
  uint64_t sum = 0;
  for (const Buffer* buffer : {w.x.get(), w.h.get(), w.qkv.get(), w.heads.get(), w.f.get()}) {
    sum += buffer->bytes();
  }
  return sum;
}

}  // namespace

MemoryUse estimate(const ModelSpec& spec, const BackendSizes& sizes) {
  const Config& c = spec.config;
  MemoryUse memory;
  const auto add = [&](std::initializer_list<const TensorSpec*> tensors, LinearUse use) {
    std::vector<PartShape> parts;
    for (const TensorSpec* t : tensors) parts.push_back({t->format, t->rows, t->cols});
    memory.weights += sizes.linear(parts, use, c.int8_activations);
  };
  add({&spec.embedding}, embedding_use(spec));
  for (const LayerSpec& l : spec.layers) {
    add({&l.q, &l.k, &l.v}, LinearUse::kMatmul);
    add({&l.o}, LinearUse::kMatmul);
    add({&l.gate, &l.up}, LinearUse::kGateUp);
    add({&l.down}, LinearUse::kMatmul);
  }
  if (!spec.tied) add({&spec.head}, LinearUse::kMatmul);
  const AttentionShape shape = attention_shape(c);
  memory.kv = sizes.kv_cache(shape);
  memory.workspace = Workspace::bytes(c, sizes) + sizes.scratch(shape, step_limits(c));
  return memory;
}

void Engine::load(const ModelSpec& spec, std::unique_ptr<Backend> backend) {
  if (loaded_) throw Error("ALTIPLANO_INTERNAL", "the engine is loaded already");
  check(spec);
  const Config& c = spec.config;

  // Destroyed in reverse order should anything below throw.
  Loaded next{c, std::move(backend), {}, nullptr};
  next.backend->prepare_attention(attention_shape(c));
  next.backend->prepare_steps(step_limits(c));
  next.workspace = std::make_unique<Workspace>(*next.backend, c);
  next.weights = load_weights(spec, *next.backend, monitor_);

  memory_ = {next.weights.bytes(), next.backend->kv_bytes(),
             workspace_bytes(*next.workspace) + next.backend->scratch_bytes()};
  loaded_ = std::move(next);
  choices_ = 0;
}

std::unique_ptr<Engine::Step> Engine::submit(Batch batch) {
  if (!loaded_) throw Error("ALTIPLANO_DISPOSED", "the engine holds no model");
  if (in_flight_ == kStepsInFlight) {
    throw Error("ALTIPLANO_INTERNAL", "more steps in flight than the device has room for");
  }
  const Config& c = loaded_->config;
  check(batch, c, choices_);
  auto step = std::make_unique<Step>(Step{std::move(batch), {}});
  size_results(step->batch, c.vocab_size, step->results);
  // A failed step leaves no choices to refer to.
  choices_ = 0;
  Backend& backend = *loaded_->backend;
  try {
    if (backend.begin_step(step->batch, step->results)) {
      forward(c, loaded_->weights, backend, *loaded_->workspace, monitor_.cancelled);
    }
    backend.end_step();
  } catch (...) {
    backend.abandon_step();
    throw;
  }
  choices_ = static_cast<int64_t>(step->batch.rows.size());
  ++in_flight_;
  return step;
}

void Engine::finish() {
  try {
    loaded_->backend->finish_step();
  } catch (...) {
    --in_flight_;
    throw;
  }
  --in_flight_;
}

void Engine::cancel() { monitor_.cancelled = true; }
void Engine::resume() { monitor_.cancelled = false; }

void Engine::unload() {
  loaded_.reset();
  memory_ = {};
}

}  // namespace altiplano
