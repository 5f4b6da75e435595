// What a row of logits is reduced to on the device. Included by kernels and by the host.
#pragma once

#include <cstdint>

namespace altiplano::cuda {

// With m the greatest logit: log-sum-exp is m + log(one), the scaled one m / temperature +
// log(scaled); the host takes the logarithms.
struct RowRecord {
  double maximum;
  double one;      // sum of exp(x - m)
  double scaled;   // sum of exp((x - m) / temperature)
  int32_t finite;  // 0: a NaN, +infinity, or nothing but -infinity
  int32_t best;    // id of the greatest logit, the lowest of equals; NaN counts as -infinity
};

// What a wanted row asks for. Offsets count 4-byte words: of inputs from the beginning of the
// step's inputs, of results from the beginning of its results.
struct RowRequest {
  float inverse_temperature;
  int32_t candidates;         // how many of the best
  int32_t candidate_results;  // where they go: (id, logit) pairs
  int32_t ids;                // where the ids stand whose logits are wanted
  int32_t id_count;
  int32_t id_results;  // where those logits go
};

// Up to so many candidates are sorted in shared memory, more in memory that the host gives.
inline constexpr int kCandidatesInSharedMemory = 4096;

}  // namespace altiplano::cuda
