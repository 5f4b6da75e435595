// Matmul with the simple kernel of matmul_general.cu over weights that stay in canonical form.
#pragma once

#include <memory>

#include "cuda/matmul.h"

namespace altiplano::cuda {

std::unique_ptr<Matmul> make_general_matmul(KernelLibrary& kernels);

}  // namespace altiplano::cuda
