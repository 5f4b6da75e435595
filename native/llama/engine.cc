#include "llama/engine.h"

#include "llama/step.h"
#include "util/error.h"

namespace altiplano {

void Engine::load(const ModelSpec& spec, std::unique_ptr<Backend> backend) {
  if (loaded_) throw Error("ALTIPLANO_INTERNAL", "the engine is loaded already");
  check(spec);
  const Config& c = spec.config;

  // Destroyed in reverse order should anything below throw.
  Loaded next{c, std::move(backend), {}, nullptr};
  AttentionShape attention;
  attention.heads = c.heads;
  attention.kv_heads = c.kv_heads;
  attention.head_dim = c.head_dim;
  attention.layers = c.layers;
  attention.max_positions = c.max_positions;
  attention.kv_type = c.kv_type;
  attention.kv_pages = c.kv_pages;
  attention.inverse_frequencies = c.inverse_frequencies;
  next.backend->prepare_attention(attention);
  next.backend->prepare_steps(step_limits(c));
  next.workspace = std::make_unique<Workspace>(*next.backend, c);
  next.weights = load_weights(spec, *next.backend, monitor_);

  memory_ = {next.weights.bytes(), next.backend->kv_bytes(),
             Workspace::bytes(c) + next.backend->scratch_bytes()};
  loaded_ = std::move(next);
  choices_ = 0;
}

RowResults Engine::step(const Batch& batch) {
  if (!loaded_) throw Error("ALTIPLANO_DISPOSED", "the engine holds no model");
  const Config& c = loaded_->config;
  check(batch, c, choices_);
  RowResults results;
  size_results(batch, c.vocab_size, results);
  // A failed step leaves no choices to refer to.
  choices_ = 0;
  forward(c, loaded_->weights, *loaded_->backend, *loaded_->workspace, batch, monitor_.cancelled,
          results);
  choices_ = static_cast<int64_t>(batch.rows.size());
  return results;
}

void Engine::cancel() { monitor_.cancelled = true; }
void Engine::resume() { monitor_.cancelled = false; }

void Engine::unload() {
  loaded_.reset();
  memory_ = {};
}

}  // namespace altiplano
