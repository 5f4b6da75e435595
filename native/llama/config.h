// The facts about a model that the forward pass needs, and what is asked of the engine.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "backend.h"

namespace altiplano {

struct Config {
  int hidden_size = 0;
  int intermediate_size = 0;
  int layers = 0;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int vocab_size = 0;
  float rms_norm_eps = 0;
  bool interleaved_rotary = false;          // q and k rows pair as (2i, 2i+1) in the file
  std::vector<double> inverse_frequencies;  // [head_dim / 2]

  int max_positions = 0;
  int max_step_tokens = 0;
  KvType kv_type = KvType::kF32;
  int64_t kv_pages = 0;
  int threads = 1;
  int gpu = -1;                   // ordinal; below zero: the CPU
  bool int8_activations = false;  // see StepLimits
  ActivationType activations = ActivationType::kF16;
};

// A tensor on disk and the format it is kept in. Vectors have one row.
struct TensorSpec {
  std::string name;
  FileType type = FileType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  std::string file;
  uint64_t offset = 0;
  uint64_t size_bytes = 0;
  WeightFormat format;
};

struct LayerSpec {
  TensorSpec attention_norm, q, k, v, o, feed_forward_norm, gate, up, down;
};

struct ModelSpec {
  Config config;
  TensorSpec embedding;
  std::vector<LayerSpec> layers;
  TensorSpec final_norm;
  TensorSpec head;
  bool tied = false;  // the head is the embedding; `head` is then unused
};

// Throws Error (ALTIPLANO_CHECKPOINT_INVALID or ALTIPLANO_OUT_OF_RANGE) unless every number is in
// range, every tensor has the shape that the config asks for, and its bytes are as many as shape
// and type say. TypeScript checks too, with better words; this is what memory safety stands on.
void check(const ModelSpec& spec);

// The largest step, and how it is computed.
StepLimits step_limits(const Config& c);

// Bytes that the engine will hold.
struct MemoryUse {
  uint64_t weights = 0;
  uint64_t kv = 0;
  uint64_t workspace = 0;
};

}  // namespace altiplano
