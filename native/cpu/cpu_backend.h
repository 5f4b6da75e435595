// The CPU as a backend.
#pragma once

#include <memory>

#include "backend.h"
#include "cpu/dispatch.h"

namespace altiplano::cpu {

// A backend with `threads` threads (the caller's included) and a kernel table that this processor
// can run. Throws Error if the system refuses a thread.
std::unique_ptr<Backend> make_backend(int threads, const Kernels& kernels = select_kernels());

// What such a backend takes with the kernel table that is selected.
std::unique_ptr<const BackendSizes> backend_sizes();

}  // namespace altiplano::cpu
