// Reading and converting tensors on the host for other devices' backends.
#pragma once

#include <memory>

#include "backend.h"
#include "cpu/dispatch.h"

namespace altiplano::cpu {

// A reader with `threads` threads (the caller's included). Throws Error if the system refuses a
// thread.
std::unique_ptr<RowReader> make_row_reader(int threads, const Kernels& kernels = select_kernels());

}  // namespace altiplano::cpu
