// What a kernel needs of a multiprocessor.
#pragma once

#include "driver/objects.h"
#include "ptx/module.h"

namespace ptx_simulator::driver {

// Registers per thread of a kernel without machine code, roughly: the most that are live at once if
// values lived from their first instruction to their last. ptxas mostly needs fewer. Launches never
// fail because of it.
int estimate_registers(const Program& program, const Function& function);

// The most threads of a block whose registers fit.
int most_threads_with(int registers);

// Blocks of `threads` threads that fit on a multiprocessor at once.
int resident_blocks(const LoadedFunction& function, int threads, size_t dynamic_shared_bytes);

}  // namespace ptx_simulator::driver
