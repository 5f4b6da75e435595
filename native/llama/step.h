// The batch of a step: checked before anything runs, because memory safety stands on its indices.
#pragma once

#include "backend.h"
#include "llama/config.h"

namespace altiplano {

// Throws Error (ALTIPLANO_OUT_OF_RANGE or ALTIPLANO_INTERNAL) unless every index of the batch is in
// range and the arrays agree. `choices` is the number of rows of the step before.
void check(const Batch& batch, const Config& config, int64_t choices);

// Sizes the arrays of a step's answer.
void size_results(const Batch& batch, int64_t vocab, RowResults& results);

}  // namespace altiplano
