// The weights of a model, prepared by a backend from tensors on disk.
#pragma once

#include <memory>
#include <vector>

#include "backend.h"
#include "llama/config.h"

namespace altiplano {

struct LayerWeights {
  std::unique_ptr<Buffer> attention_norm;     // [D]
  std::unique_ptr<Linear> qkv;                // [(H + 2G) d][D]: q, k, v
  std::unique_ptr<Linear> o;                  // [D][H d]
  std::unique_ptr<Buffer> feed_forward_norm;  // [D]
  std::unique_ptr<Linear> gate_up;            // [2F][D]: gate, up
  std::unique_ptr<Linear> down;               // [D][F]
};

struct Weights {
  std::unique_ptr<Linear> embedding;  // [V][D]
  std::vector<LayerWeights> layers;
  std::unique_ptr<Buffer> final_norm;  // [D]
  std::unique_ptr<Linear> head;        // [V][D]; null when tied to the embedding

  const Linear& head_or_embedding() const { return head ? *head : *embedding; }
  uint64_t bytes() const;
};

// Reads and prepares every tensor of a checked spec. Throws Error; ALTIPLANO_ABORTED if the monitor
// is cancelled.
Weights load_weights(const ModelSpec& spec, Backend& backend, LoadMonitor& monitor);

}  // namespace altiplano
