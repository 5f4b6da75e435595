// The forward pass of Llama over a backend.
#pragma once

#include <atomic>

#include "backend.h"
#include "llama/config.h"
#include "llama/weights.h"

namespace altiplano {

// Activations of the largest step, allocated at load time. T is max_step_tokens.
struct Workspace {
  std::unique_ptr<Buffer> x;      // [T][D] the residual stream
  std::unique_ptr<Buffer> h;      // [T][D] its normalised form
  std::unique_ptr<Buffer> qkv;    // [T][(H + 2G) d]
  std::unique_ptr<Buffer> heads;  // [T][H d] attention output
  std::unique_ptr<Buffer> f;      // [T][F]

  Workspace(Backend& backend, const Config& config);
  // Bytes of a workspace on such a backend, without making it.
  static uint64_t bytes(const Config& config, const BackendSizes& sizes);
};

// The operations of one step, which has begun. Throws Error ALTIPLANO_ABORTED soon after
// `cancelled` becomes true; the cached keys and values of the step's tokens are then undefined, and
// everything else is as before.
void forward(const Config& config, const Weights& weights, Backend& backend, Workspace& ws,
             const std::atomic<bool>& cancelled);

}  // namespace altiplano
