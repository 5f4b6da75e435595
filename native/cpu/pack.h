// From files to packed matrices: read, convert and pack, on all threads.
#pragma once

#include <cstdint>
#include <span>

#include "backend.h"
#include "cpu/kernels.h"
#include "util/thread_pool.h"

namespace altiplano::cpu {

// A matrix to fill: `tiles` is where matrix.data points to, contents undefined.
struct PackJob {
  const MatrixSource* source;
  PackedMatrix matrix;
  uint8_t* tiles;
};

// Fills the matrices. Throws Error with the name of the tensor: ALTIPLANO_FILE_READ,
// ALTIPLANO_CHECKPOINT_INVALID; or ALTIPLANO_ABORTED when the monitor is cancelled.
void pack_matrices(const Kernels& k, ThreadPool& pool, std::span<const PackJob> jobs,
                   LoadMonitor& monitor);

}  // namespace altiplano::cpu
