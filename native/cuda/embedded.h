// The compiled kernels inside this binary. CMakeLists.txt generates the table: one fat binary
// (machine code and PTX) for each .cu file.
#pragma once

#include <cstddef>
#include <span>

namespace altiplano::cuda {

struct EmbeddedBinary {
  const char* source;  // name of the .cu file without its ending
  const void* data;
};

std::span<const EmbeddedBinary> embedded_binaries();

}  // namespace altiplano::cuda
