// The CPU as a backend.
#pragma once

#include <memory>

#include "backend.h"
#include "cpu/dispatch.h"

namespace altiplano::cpu {

// A backend with `threads` threads (the caller's included) and a kernel table that this processor
// can run. Throws Error if the system refuses a thread.
std::unique_ptr<Backend> make_backend(int threads, const Kernels& kernels = select_kernels());

// Bytes that prepare() will take for a matrix of this format, and a KV cache, without making them.
uint64_t linear_bytes(WeightFormat format, int64_t rows, int64_t cols);
uint64_t kv_cache_bytes(const AttentionShape& shape);
// Bytes that prepare_steps() will take.
uint64_t scratch_bytes(const StepLimits& limits);

}  // namespace altiplano::cpu
