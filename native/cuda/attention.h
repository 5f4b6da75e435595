// Attention of a step, as it is planned (attention_plan.h).
#pragma once

#include <cuda.h>

#include <cstdint>
#include <vector>

#include "backend.h"
#include "cuda/attention_plan.h"
#include "cuda/graph.h"
#include "cuda/kernel.h"
#include "cuda/memory.h"

namespace altiplano::cuda {

// The KV cache of all layers.
struct KvCache {
  CUdeviceptr pages = 0;    // [layers][pages][kv heads][head_bytes]
  int64_t layer_bytes = 0;  // a multiple of 256
  int64_t page_bytes = 0;
  int64_t head_bytes = 0;
  CUdeviceptr layer(int index) const {
    return pages + static_cast<CUdeviceptr>(index * layer_bytes);
  }
};

// The tokens of a step; see StepInputs.
struct StepTokens {
  uint32_t count = 0;
  CUdeviceptr positions = 0;
  CUdeviceptr slots = 0;
  CUdeviceptr block_begin = 0;
  CUdeviceptr words = 0;
  CUdeviceptr attention_items = 0;  // those of prefill, then those of decode
  uint32_t prefill_items = 0;
  uint32_t decode_items = 0;
  int64_t decode_pages = 0;  // the most of a decode item
};

class Attention {
 public:
  // Loads the kernels for the shape, and allocates what blocks hand each other. For the device of
  // `kernels`, or as if it had so many multiprocessors (for tests).
  Attention(const Stream& stream, KernelLibrary& kernels, const AttentionShape& shape,
            int multiprocessors = 0);
  static uint64_t device_bytes(const AttentionShape& shape, int multiprocessors);
  uint64_t device_bytes() const { return parts_.bytes() + counters_.bytes(); }

  // out [T][out_stride] = attention of q in qkv [T][stride], both of the type of activations.
  // Pointers are device memory; strides count elements.
  void launch(const Stream& stream, const StepTokens& tokens, CUdeviceptr qkv, int64_t stride,
              const KvCache& cache, int layer, CUdeviceptr out, int64_t out_stride) const;

  // How keys are split over blocks, the one thing about the launches of a step of decodes that
  // depends on how long the sequences are. All zeros where nothing is split.
  AttentionSplit split_of(const StepTokens& tokens) const;
  // The launches of a recorded step in which it stands, and how it is changed there.
  std::vector<CUgraphNode> split_launches(const Graph& graph) const;
  static void set_split(Graph& graph, const std::vector<CUgraphNode>& launches,
                        const AttentionSplit& split);

 private:
  const AttentionShape shape_;
  const int multiprocessors_;
  const bool tiles_;
  Kernel general_, prefill_, decode_;
  DeviceMemory parts_;
  DeviceMemory counters_;
};

}  // namespace altiplano::cuda
