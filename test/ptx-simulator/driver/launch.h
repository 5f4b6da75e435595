// Launches: every limit of the device is checked before a kernel is submitted or captured.
#pragma once

#include "driver/driver.h"
#include "driver/work.h"

namespace ptx_simulator::driver {

// Throws Failure with the code of the real driver. The arguments are copied.
KernelWork make_kernel_work(Call& call, CUfunction function, std::array<uint32_t, 3> grid,
                            std::array<uint32_t, 3> block, uint32_t dynamic_shared_bytes,
                            void** arguments, void** extra);
// All blocks of a cooperative launch must be resident at once.
void check_cooperative(const KernelWork& work);

}  // namespace ptx_simulator::driver
