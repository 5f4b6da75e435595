#include "cpu/select.h"

#include <algorithm>
#include <limits>
#include <numeric>

namespace altiplano::cpu {

void RowOffsets::set(const Batch& batch, int64_t vocab) {
  const size_t rows = batch.rows.size();
  candidates.resize(rows);
  full.resize(rows);
  int64_t next_candidate = 0, next_full = 0;
  for (size_t r = 0; r < rows; ++r) {
    candidates[r] = next_candidate;
    full[r] = next_full;
    next_candidate += batch.candidates[r];
    next_full += batch.full_rows[r] ? vocab : 0;
  }
}

void select_candidates(const float* logits, int64_t n, int64_t count, int32_t* ids,
                       float* values) noexcept {
  constexpr float kLowest = -std::numeric_limits<float>::infinity();
  const auto value = [&](int64_t id) { return logits[id] == logits[id] ? logits[id] : kLowest; };
  const auto better = [&](int32_t a, int32_t b) {
    const float x = value(a), y = value(b);
    return x > y || (x == y && a < b);
  };
  count = std::min(count, n);
  if (count <= 0) return;
  // `ids` is a heap of the best so far with the worst of them on top. Ids rise, so an equal value
  // never replaces an earlier one.
  int32_t* const end = ids + count;
  std::iota(ids, end, 0);
  std::make_heap(ids, end, better);
  float worst = value(ids[0]);
  for (int64_t i = count; i < n; ++i) {
    if (!(logits[i] > worst)) continue;
    std::pop_heap(ids, end, better);
    end[-1] = static_cast<int32_t>(i);
    std::push_heap(ids, end, better);
    worst = value(ids[0]);
  }
  std::sort_heap(ids, end, better);
  for (int64_t i = 0; i < count; ++i) values[i] = value(ids[i]);
}

int32_t reduce_row(const Kernels& k, const float* logits, int64_t vocab, const Batch& batch,
                   int64_t row, const RowOffsets& offsets, RowResults& results) noexcept {
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
