// Which kernel attends for which tokens of a step, and on how many blocks. Plain arithmetic: no
// device, no driver.
#pragma once

#include <cstdint>
#include <vector>

#include "backend.h"
#include "cuda/attention_parameters.h"

namespace altiplano::cuda {

// Blocks of a multiprocessor that the registers and shared memory of both kernels allow.
inline constexpr int kAttentionBlocks = 2;

// Whether there are tensor-core kernels for a shape: head dimensions 64 and 128, a cache in the
// type of activations or in int8. The others are computed by one for everything, which needs no
// items.
bool has_attention_tiles(const AttentionShape& shape);

// Whether a batch consists of items of decode. `group`: query heads of a KV head.
bool only_decodes(const Batch& batch, int group);

// Steps of decodes are padded to one of few sizes, so that each is one of few CUDA graphs: powers
// of two up to 64 tokens, then multiples of 64, as matrices are multiplied in tiles of so many; at
// most `most`. 0: too large a step, whose kernels take longer than their launches.
int64_t padded_tokens(int64_t tokens, int64_t most);

// The items of a batch. `blocks` [sequence]: where its pages stand in the step's inputs.
struct AttentionItems {
  std::vector<AttentionItem> prefill;  // the longest first: short ones fill the gaps at the end
  std::vector<AttentionItem> decode;
  int64_t decode_pages = 0;
};
AttentionItems attention_items(const Batch& batch, const std::vector<int32_t>& blocks, int group);

// How keys are split over blocks in decode: `splits` blocks of `pages` pages for an item and KV
// head. As many blocks as run at once, but each warp has a page at least.
struct AttentionSplit {
  int32_t pages = 0;
  int32_t splits = 0;
  bool operator==(const AttentionSplit&) const = default;
};
// Items and KV heads times splits are at most this, where there is more than one split.
constexpr int64_t most_attention_parts(int multiprocessors) {
  return int64_t{kAttentionBlocks} * multiprocessors;
}
AttentionSplit split_keys(int64_t items, int64_t kv_heads, int64_t most_pages, int multiprocessors);

}  // namespace altiplano::cuda
