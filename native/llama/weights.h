// The weights of a model, prepared by a backend from tensors on disk.
#pragma once

#include <memory>
#include <vector>

#include "backend.h"
#include "llama/config.h"
#include "util/file.h"

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

// A matrix [rows][cols] in a file; both must outlive it. With interleaved_head_dim, the rows of
// each head are reordered from interleaved rotary pairs (2i, 2i+1) to halves (i, i + head_dim / 2).
std::unique_ptr<MatrixSource> matrix_source(const TensorSpec& tensor, const File& file,
                                            int interleaved_head_dim = 0);

// What the embedding of a model is for.
inline LinearUse embedding_use(const ModelSpec& spec) {
  return spec.tied ? LinearUse::kEmbeddingAndHead : LinearUse::kEmbedding;
}

// Reads and prepares every tensor of a checked spec. Throws Error; ALTIPLANO_ABORTED if the monitor
// is cancelled.
Weights load_weights(const ModelSpec& spec, Backend& backend, LoadMonitor& monitor);

}  // namespace altiplano
