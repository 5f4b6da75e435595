#include "llama/step.h"

#include <algorithm>
#include <string>

#include "util/error.h"

namespace altiplano {
namespace {

void check_each(const char* what, const std::vector<int32_t>& values, int64_t low, int64_t high) {
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i] < low || values[i] >= high) {
      throw Error("ALTIPLANO_OUT_OF_RANGE", std::string("step: ") + what + "[" + std::to_string(i) +
                                                "] is " + std::to_string(values[i]) +
                                                ", expected " + std::to_string(low) + " to " +
                                                std::to_string(high - 1));
    }
  }
}

void check_size(const char* what, size_t size, size_t expected) {
  if (size != expected) {
    throw Error("ALTIPLANO_INTERNAL", std::string("step: ") + what + " has " +
                                          std::to_string(size) + " elements, expected " +
                                          std::to_string(expected));
  }
}

// Offsets that rise from 0 to `end`, `count` + 1 of them.
void check_starts(const char* what, const std::vector<int32_t>& starts, size_t count, size_t end) {
  check_size(what, starts.size(), count + 1);
  bool good = starts.front() == 0 && static_cast<size_t>(starts.back()) == end;
  for (size_t i = 0; i < count; ++i) good = good && starts[i] <= starts[i + 1];
  if (!good) {
    throw Error("ALTIPLANO_INTERNAL",
                std::string("step: ") + what + " must rise from 0 to " + std::to_string(end));
  }
}

// Tokens store their keys and values at once, on several threads.
void check_distinct_slots(std::vector<int32_t> slots) {
  std::sort(slots.begin(), slots.end());
  const auto twice = std::adjacent_find(slots.begin(), slots.end());
  if (twice != slots.end()) {
    throw Error("ALTIPLANO_INTERNAL", "step: two tokens have the slot " + std::to_string(*twice));
  }
}

// Floats and ids in the answer of a step: 1 GiB. JavaScript engines abort the process where an
// array cannot be allocated, so an answer is bounded long before.
constexpr int64_t kMostResults = int64_t{1} << 28;

void check_result_size(const Batch& b, const Config& c) {
  int64_t results = static_cast<int64_t>(b.ids.size());
  for (size_t r = 0; r < b.rows.size(); ++r) {
    results += 2 * int64_t{b.candidates[r]} + (b.full_rows[r] ? c.vocab_size : 0);
  }
  if (results > kMostResults) {
    throw Error("ALTIPLANO_OUT_OF_RANGE", "step: the answer would have " + std::to_string(results) +
                                              " numbers, expected at most " +
                                              std::to_string(kMostResults));
  }
}

}  // namespace

void check(const Batch& b, const Config& c, int64_t choices) {
  const size_t tokens = b.tokens.size(), rows = b.rows.size();
  if (tokens == 0 || tokens > static_cast<size_t>(c.max_step_tokens)) {
    throw Error("ALTIPLANO_OUT_OF_RANGE", "step: " + std::to_string(tokens) +
                                              " tokens, expected 1 to " +
                                              std::to_string(c.max_step_tokens));
  }
  check_size("positions", b.positions.size(), tokens);
  check_size("slots", b.slots.size(), tokens);
  check_each("tokens", b.tokens, -choices, c.vocab_size);
  check_each("positions", b.positions, 0, c.max_positions);
  check_each("slots", b.slots, 0, c.kv_pages * kKvPageTokens);
  check_distinct_slots(b.slots);

  if (b.sequence_starts.empty()) check_size("sequenceStarts", 0, 2);
  const size_t sequences = b.sequence_starts.size() - 1;
  check_starts("sequenceStarts", b.sequence_starts, sequences, tokens);
  check_starts("blockStarts", b.block_starts, sequences, b.block_table.size());
  check_each("blockTable", b.block_table, 0, c.kv_pages);
  for (size_t s = 0; s < sequences; ++s) {
    const int64_t cached = int64_t{b.block_starts[s + 1] - b.block_starts[s]} * kKvPageTokens;
    for (int32_t t = b.sequence_starts[s]; t < b.sequence_starts[s + 1]; ++t) {
      if (b.positions[t] >= cached) {
        throw Error("ALTIPLANO_OUT_OF_RANGE",
                    "step: token " + std::to_string(t) + " has position " +
                        std::to_string(b.positions[t]) + ", but the pages of its sequence hold " +
                        std::to_string(cached) + " tokens");
      }
    }
  }

  check_each("rows", b.rows, 0, static_cast<int64_t>(tokens));
  check_size("candidates", b.candidates.size(), rows);
  check_each("candidates", b.candidates, 0, int64_t{c.vocab_size} + 1);
  check_size("inverseTemperatures", b.inverse_temperatures.size(), rows);
  check_starts("idStarts", b.id_starts, rows, b.ids.size());
  check_each("ids", b.ids, 0, c.vocab_size);
  check_size("fullRows", b.full_rows.size(), rows);
  check_result_size(b, c);
  if (b.page_copies.size() % 2 != 0) {
    check_size("pageCopies", b.page_copies.size(), b.page_copies.size() + 1);
  }
  check_each("pageCopies", b.page_copies, 0, c.kv_pages);
}

void size_results(const Batch& batch, int64_t vocab, RowResults& results) {
  const size_t rows = batch.rows.size();
  size_t candidates = 0, full = 0;
  for (size_t r = 0; r < rows; ++r) {
    candidates += static_cast<size_t>(batch.candidates[r]);
    full += batch.full_rows[r] ? static_cast<size_t>(vocab) : 0;
  }
  results.candidate_ids.resize(candidates);
  results.candidate_logits.resize(candidates);
  results.log_sum_exp.resize(rows);
  results.scaled_log_sum_exp.resize(rows);
  results.id_logits.resize(batch.ids.size());
  results.full_logits.resize(full);
  results.finite.resize(rows);
}

}  // namespace altiplano
