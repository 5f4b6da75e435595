// The compiled test kernels: kernels/NAME.cu, or a variant of it with a planted bug, as PTX text or
// a fat binary in the folder that CMake gave.
#pragma once

#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>

namespace ptx_simulator::test {

inline std::string kernel_file(const std::string& name) {
  const std::string path = std::string(PTX_SIMULATOR_KERNELS) + "/" + name;
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace ptx_simulator::test
