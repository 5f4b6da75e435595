// A backend that computes nothing and writes down what the CUDA backend would launch: native/llama/
// forward.cc runs on it as it is. Each operation here mirrors the one of
// native/cuda/cuda_backend.cc (and row_outputs.cc, step_inputs.cc, matmul.cc), launch for launch.
#pragma once

#include <vector>

#include "launches.h"
#include "llama/forward.h"
#include "machine.h"

namespace altiplano::a100 {

// How the matrices of the layers are kept and multiplied.
struct Scheme {
  const char* name;
  cuda::MatmulKind kind;
  int group;
};
inline constexpr Scheme kF16 = {"f16", cuda::MatmulKind::kF16, 0},
                        kInt8 = {"int8 g128", cuda::MatmulKind::kInt8, 128},
                        kInt4G32 = {"int4 g32", cuda::MatmulKind::kInt4, 32},
                        kInt4G128 = {"int4 g128", cuda::MatmulKind::kInt4, 128},
                        kW8A8 = {"W8A8", cuda::MatmulKind::kW8A8, 0};
inline constexpr Scheme kSchemes[] = {kF16, kInt8, kInt4G32, kInt4G128, kW8A8};

struct Model {
  const char* name;
  int layers, hidden, feed_forward, heads, kv_heads;
};
inline constexpr Model k7B = {"7B", 32, 4096, 11008, 32, 32},
                       k13B = {"13B", 40, 5120, 13824, 40, 40},
                       k70B = {"70B", 80, 8192, 28672, 64, 8};
inline constexpr Model kModels[] = {k7B, k13B, k70B};
inline constexpr int kVocabulary = 32000;
inline constexpr int kStepTokens = 2048;  // lib/load-plan.ts, for a GPU

// Sequences that all have `past` tokens in the cache and `tokens` in the step, of which the last
// wants one candidate.
struct Step {
  int sequences;
  int tokens;
  int past;
};

// The launches of a step, in order: what forward.cc asks for.
std::vector<Launch> launches_of(const Model& model, const Scheme& scheme, KvType kv,
                                const Step& step);

// Bytes of weights that a step reads (the embedding not), and of the embedding.
double weight_bytes(const Model& model, const Scheme& scheme);
double embedding_bytes(const Model& model, const Scheme& scheme);
// Bytes of a token's keys and values, without the scales of int8.
double kv_bytes(const Model& model, KvType kv);

// The physical bound of a step: bytes at the peak of memory, or products at the peak of the tensor
// cores, whichever is longer.
double bound(const Model& model, const Scheme& scheme, KvType kv, const Step& step);

struct StepTime {
  double matmul = 0, attention = 0, small = 0, copies = 0;  // work, without the nodes
  double waiting = 0;
  double hidden = 0;  // in matrices, by the overlap of loading and computing
  int nodes = 0;
  // A CUDA graph, and JavaScript hidden behind the step before, as it is for greedy sequences: by
  // the fixed constants alone, and with what the kernels as they are wait beyond that.
  double fixed() const { return matmul + attention + small + copies + nodes * kNode; }
  double graph() const { return fixed() + waiting; }
  // The same if a matrix were computed only after it is loaded, as the anchors' are (tables.h).
  double apart() const { return graph() + hidden; }
  // Where a sequence samples, the next step is not planned before JavaScript has its answer.
  double sampled() const { return graph() + kJavaScript; }
};
StepTime time_of(const std::vector<Launch>& launches);

}  // namespace altiplano::a100
