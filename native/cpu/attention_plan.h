// How the attention of a step, and storing its keys and values, is cut into items of work.
#pragma once

#include <cstdint>
#include <vector>

#include "backend.h"

namespace altiplano::cpu {

// Neighbouring tokens of a sequence and KV heads, which one thread takes.
struct AttentionItem {
  int sequence;
  int token_begin;
  int tokens;
  int head;
  int heads;
};

// Both lists are in the order of heads. Threads take neighbouring items, so as far as there are
// heads enough each has its own, and finds in its caches what it stored and what it read for the
// tokens before.
class AttentionPlan {
 public:
  void reserve(size_t tokens, int kv_heads);
  void make(const Batch& batch, const AttentionShape& shape, int threads);

  // Tokens whose keys go into one page, where they share cache lines.
  const std::vector<AttentionItem>& stores() const { return stores_; }
  // Tokens whose queries the kernels compute together.
  const std::vector<AttentionItem>& attention() const { return attention_; }

 private:
  std::vector<AttentionItem> stores_;
  std::vector<AttentionItem> attention_;
  std::vector<AttentionItem> pieces_;  // of one list, with all heads
};

}  // namespace altiplano::cpu
