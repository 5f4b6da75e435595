// From a row of logits to the little that crosses to JavaScript.
#pragma once

#include <cstdint>
#include <vector>

#include "backend.h"
#include "cpu/kernels.h"

namespace altiplano::cpu {

// Where the results of each wanted row stand in RowResults, whose arrays are ragged.
struct RowOffsets {
  void set(const Batch& batch, int64_t vocab);
  std::vector<int64_t> candidates;  // [R]
  std::vector<int64_t> full;        // [R]
};

// The `count` best of logits[n], best first; of equal ones the lower id first. NaN counts as
// -infinity. n < 2^31.
void select_candidates(const float* logits, int64_t n, int64_t count, int32_t* ids,
                       float* values) noexcept;

// Writes what row `row` of the batch asks for. Returns the best id.
int32_t reduce_row(const Kernels& k, const float* logits, int64_t vocab, const Batch& batch,
                   int64_t row, const RowOffsets& offsets, RowResults& results) noexcept;

}  // namespace altiplano::cpu
