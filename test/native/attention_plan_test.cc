// How attention is cut into items: each token and KV head once, whatever the numbers of heads,
// sequences and threads.
#include "cpu/attention_plan.h"

#include <algorithm>
#include <vector>

#include "engine_support.h"

namespace altiplano::test {
namespace {

using cpu::AttentionItem;

// Sequences of these lengths, whose pages lie anywhere; every sequence begins within a page.
Batch batch_of(const std::vector<int>& lengths) {
  Batch batch;
  batch.sequence_starts.push_back(0);
  int page = 0;
  for (int length : lengths) {
    for (int i = 0; i < length; ++i) {
      const int position = i + 5;
      if (i == 0 || position % kKvPageTokens == 0) page += 3;
      batch.slots.push_back(page * kKvPageTokens + position % kKvPageTokens);
      batch.tokens.push_back(0);
    }
    batch.sequence_starts.push_back(static_cast<int32_t>(batch.tokens.size()));
  }
  return batch;
}

void check_items(const char* name, const std::vector<AttentionItem>& items, const Batch& batch,
                 int kv_heads, bool in_pages) {
  const size_t tokens = batch.tokens.size();
  std::vector<int> times(tokens * kv_heads);
  int last_head = 0;
  for (const AttentionItem& item : items) {
    const int end = item.token_begin + item.tokens;
    const bool inside = item.tokens > 0 && item.heads > 0 && item.head >= last_head &&
                        item.head + item.heads <= kv_heads &&
                        item.token_begin >= batch.sequence_starts[item.sequence] &&
                        end <= batch.sequence_starts[item.sequence + 1];
    CHECK(inside, "%s: tokens %d to %d of sequence %d, heads %d to %d", name, item.token_begin, end,
          item.sequence, item.head, item.head + item.heads);
    if (!inside) return;
    last_head = item.head;
    for (int t = item.token_begin; t < end; ++t) {
      for (int h = item.head; h < item.head + item.heads; ++h) ++times[t * kv_heads + h];
      CHECK(!in_pages ||
                batch.slots[t] / kKvPageTokens == batch.slots[item.token_begin] / kKvPageTokens,
            "%s: tokens %d and %d lie in different pages", name, item.token_begin, t);
    }
  }
  CHECK(std::ranges::all_of(times, [](int n) { return n == 1; }),
        "%s: a token and a head occur never or twice", name);
}

}  // namespace

void test_attention_plan() {
  cpu::AttentionPlan plan;
  for (const auto& lengths : std::vector<std::vector<int>>{{1}, {200}, {1, 1, 1, 1}, {70, 1, 33}}) {
    const Batch batch = batch_of(lengths);
    for (int kv_heads : {1, 3, 8, 40}) {
      for (int group : {1, 8, 64}) {
        for (int threads : {1, 2, 3, 16}) {
          AttentionShape shape;
          shape.kv_heads = kv_heads;
          shape.heads = kv_heads * group;
          plan.make(batch, shape, threads);
          check_items("stores", plan.stores(), batch, kv_heads, true);
          check_items("attention", plan.attention(), batch, kv_heads, false);
          // Unless there is too little to share, every thread gets something.
          const auto pairs = static_cast<int>(batch.tokens.size()) * kv_heads;
          CHECK(pairs < 64 * threads || plan.attention().size() >= static_cast<size_t>(threads),
                "%d items for %d threads", static_cast<int>(plan.attention().size()), threads);
        }
      }
    }
  }
}

}  // namespace altiplano::test
