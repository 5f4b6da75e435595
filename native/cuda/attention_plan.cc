#include "cuda/attention_plan.h"

#include <algorithm>
#include <bit>

namespace altiplano::cuda {

bool has_attention_tiles(const AttentionShape& shape) {
  const KvType same = shape.activations == ActivationType::kBF16 ? KvType::kBF16 : KvType::kF16;
  return (shape.head_dim == 64 || shape.head_dim == 128) &&
         (shape.kv_type == same || shape.kv_type == KvType::kInt8) &&
         shape.heads / shape.kv_heads <= kPrefillRows;
}

bool only_decodes(const Batch& batch, int group) {
  const std::vector<int32_t>& starts = batch.sequence_starts;
  for (size_t s = 0; s + 1 < starts.size(); ++s) {
    if ((starts[s + 1] - starts[s]) * group > kDecodeRows) return false;
  }
  return true;
}

int64_t padded_tokens(int64_t tokens, int64_t most) {
  constexpr int64_t kMostPadded = 512, kTile = 64;
  if (tokens > kMostPadded) return 0;
  const int64_t padded = tokens <= kTile
                             ? static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(tokens)))
                             : (tokens + kTile - 1) / kTile * kTile;
  return std::min(padded, most);
}

AttentionItems attention_items(const Batch& batch, const std::vector<int32_t>& blocks, int group) {
  AttentionItems items;
  const auto add = [&](std::vector<AttentionItem>& to, int32_t begin, int32_t end, int32_t block) {
    const auto positions = batch.positions.begin();
    const int32_t visible = *std::max_element(positions + begin, positions + end) + 1;
    to.push_back({begin, end - begin, block, visible});
    return visible;
  };
  const int32_t tile_tokens = kPrefillRows / group;
  for (size_t s = 0; s + 1 < batch.sequence_starts.size(); ++s) {
    const int32_t begin = batch.sequence_starts[s], end = batch.sequence_starts[s + 1];
    if (begin == end) continue;
    if ((end - begin) * group <= kDecodeRows) {
      const int64_t visible = add(items.decode, begin, end, blocks[s]);
      items.decode_pages =
          std::max(items.decode_pages, (visible + kKvPageTokens - 1) / kKvPageTokens);
      continue;
    }
    for (int32_t token = begin; token < end; token += tile_tokens) {
      add(items.prefill, token, std::min(token + tile_tokens, end), blocks[s]);
    }
  }
  std::stable_sort(
      items.prefill.begin(), items.prefill.end(),
      [](const AttentionItem& a, const AttentionItem& b) { return a.visible > b.visible; });
  return items;
}

AttentionSplit split_keys(int64_t items, int64_t kv_heads, int64_t most_pages,
                          int multiprocessors) {
  const int64_t most =
      std::max<int64_t>(1, most_attention_parts(multiprocessors) / (items * kv_heads));
  const int64_t wanted = std::clamp<int64_t>(most_pages / kDecodeWarps, 1, most);
  const int64_t even = (most_pages + wanted - 1) / wanted;
  const int64_t pages = (even + kDecodeWarps - 1) / kDecodeWarps * kDecodeWarps;
  return {static_cast<int32_t>(pages), static_cast<int32_t>((most_pages + pages - 1) / pages)};
}

}  // namespace altiplano::cuda
