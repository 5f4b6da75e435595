#include "cpu/attention_plan.h"

#include <algorithm>
#include <utility>

#include "cpu/kernels.h"

namespace altiplano::cpu {
namespace {

// Queries (tokens x query heads) of a sequence in one item: as many as kernels compute together.
// With few tokens they come from several KV heads, up to kMostHeads: kernels then read memory in
// longer stretches (of Llama 2 7B in f16, 128 KiB).
constexpr int kMostQueries = 48;
constexpr int kMostHeads = 8;

// Cuts the heads of each piece into parts of at most most_heads(tokens), and so that every thread
// gets something.
template <class Fn>
void cut_heads(const std::vector<AttentionItem>& pieces, int threads, const Fn& most_heads,
               std::vector<AttentionItem>& items) {
  items.clear();
  for (const AttentionItem& piece : pieces) {
    const auto all = static_cast<int64_t>(pieces.size()) * piece.heads;
    const auto by_threads = static_cast<int>(std::min<int64_t>(all / (2 * threads), kMostHeads));
    const int most = std::max(1, std::min(by_threads, most_heads(piece.tokens)));
    const int parts = (piece.heads + most - 1) / most;
    for (int i = 0; i < parts; ++i) {
      AttentionItem item = piece;
      item.head = i * piece.heads / parts;
      item.heads = (i + 1) * piece.heads / parts - item.head;
      items.push_back(item);
    }
  }
  std::ranges::sort(
      items, {}, [](const AttentionItem& item) { return std::pair(item.head, item.token_begin); });
}

}  // namespace

void AttentionPlan::reserve(size_t tokens, int kv_heads) {
  stores_.reserve(tokens * kv_heads);
  attention_.reserve(tokens * kv_heads);
  pieces_.reserve(tokens);
}

void AttentionPlan::make(const Batch& batch, const AttentionShape& shape, int threads) {
  const int group = shape.heads / shape.kv_heads;
  const int most_tokens = std::max(1, kMostQueries / group);
  const auto sequences = static_cast<int>(batch.sequence_starts.size()) - 1;

  pieces_.clear();
  for (int s = 0; s < sequences; ++s) {
    for (int t = batch.sequence_starts[s]; t < batch.sequence_starts[s + 1]; ++t) {
      const bool goes_on = t > batch.sequence_starts[s] &&
                           batch.slots[t] / kKvPageTokens == batch.slots[t - 1] / kKvPageTokens;
      if (!goes_on) pieces_.push_back({s, t, 0, 0, shape.kv_heads});
      ++pieces_.back().tokens;
    }
  }
  const int store_heads = std::max(1, shape.kv_heads / threads);
  cut_heads(
      pieces_, threads, [&](int) { return store_heads; }, stores_);

  pieces_.clear();
  for (int s = 0; s < sequences; ++s) {
    const int end = batch.sequence_starts[s + 1];
    for (int t = batch.sequence_starts[s]; t < end; t += most_tokens) {
      pieces_.push_back({s, t, std::min(most_tokens, end - t), 0, shape.kv_heads});
    }
  }
  cut_heads(
      pieces_, threads, [&](int tokens) { return kMostQueries / (group * tokens); }, attention_);
}

}  // namespace altiplano::cpu
