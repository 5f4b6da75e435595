#include "cpu/select.h"

#include <algorithm>
#include <limits>

namespace altiplano::cpu {

RowOffsets::RowOffsets(const Batch& batch, int64_t vocab) {
  const size_t rows = batch.rows.size();
  candidates.resize(rows + 1);
  full.resize(rows + 1);
  for (size_t r = 0; r < rows; ++r) {
    candidates[r + 1] = candidates[r] + batch.candidates[r];
    full[r + 1] = full[r] + (batch.full_rows[r] ? vocab : 0);
  }
}

void select_candidates(const float* logits, int64_t n, int64_t count, int32_t* ids, float* values) {
  struct Candidate {
    float value;
    int32_t id;
  };
  const auto better = [](const Candidate& a, const Candidate& b) {
    return a.value > b.value || (a.value == b.value && a.id < b.id);
  };
  constexpr float kLowest = -std::numeric_limits<float>::infinity();
  const auto at = [&](int64_t i) {
    return Candidate{logits[i] == logits[i] ? logits[i] : kLowest, static_cast<int32_t>(i)};
  };
  count = std::min(count, n);
  if (count == 1) {
    Candidate best = at(0);
    for (int64_t i = 1; i < n; ++i) {
      if (logits[i] > best.value) best = at(i);
    }
    ids[0] = best.id;
    values[0] = best.value;
    return;
  }
  // A heap of the best so far with the worst of them on top. Ids rise, so an equal value never
  // replaces an earlier one.
  std::vector<Candidate> heap;
  heap.reserve(static_cast<size_t>(count));
  for (int64_t i = 0; i < n; ++i) {
    if (static_cast<int64_t>(heap.size()) < count) {
      heap.push_back(at(i));
      std::push_heap(heap.begin(), heap.end(), better);
    } else if (count > 0 && logits[i] > heap.front().value) {
      std::pop_heap(heap.begin(), heap.end(), better);
      heap.back() = at(i);
      std::push_heap(heap.begin(), heap.end(), better);
    }
  }
  std::sort_heap(heap.begin(), heap.end(), better);
  for (int64_t i = 0; i < count; ++i) {
    ids[i] = heap[i].id;
    values[i] = heap[i].value;
  }
}

int32_t reduce_row(const Kernels& k, const float* logits, int64_t vocab, const Batch& batch,
                   int64_t row, const RowOffsets& offsets, RowResults& results) {
  const int64_t first = offsets.candidates[row];
  const int32_t count = batch.candidates[row];
  select_candidates(logits, vocab, count, results.candidate_ids.data() + first,
                    results.candidate_logits.data() + first);
  for (int32_t i = batch.id_starts[row]; i < batch.id_starts[row + 1]; ++i) {
    results.id_logits[i] = logits[batch.ids[i]];
  }
  if (batch.full_rows[row])
    std::copy_n(logits, vocab, results.full_logits.data() + offsets.full[row]);
  const LogSumExp sums = k.log_sum_exp(logits, vocab, batch.inverse_temperatures[row]);
  results.log_sum_exp[row] = sums.one;
  results.scaled_log_sum_exp[row] = sums.scaled;
  results.finite[row] = sums.finite;
  if (count > 0) return results.candidate_ids[first];
  int32_t id;
  float value;
  select_candidates(logits, vocab, 1, &id, &value);
  return id;
}

}  // namespace altiplano::cpu
