// An NVIDIA GPU as a backend.
#pragma once

#include <memory>

#include "backend.h"

namespace altiplano::cuda {

// A backend on the device with this ordinal; the reader serves while weights are loaded. Throws
// Error: ALTIPLANO_DEVICE_UNAVAILABLE, ALTIPLANO_CUDA_FAILED, ALTIPLANO_OUT_OF_MEMORY.
std::unique_ptr<Backend> make_backend(int ordinal, std::unique_ptr<RowReader> reader);

// What such a backend takes. Throws Error.
std::unique_ptr<const BackendSizes> backend_sizes(int ordinal);

}  // namespace altiplano::cuda
