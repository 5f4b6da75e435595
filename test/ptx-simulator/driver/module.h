// Loading modules: from an image to variables in device memory and kernels ready to run.
#pragma once

#include "driver/driver.h"

namespace ptx_simulator::driver {

struct PtxText {
  std::string text;
  std::map<std::string, int> registers;  // of kernels that have machine code for it as well
  bool is_compiled;  // it stands in a fat binary, for machine code that a real device would run
};
// What fits this device best of an image. Fails with INVALID_IMAGE or NO_BINARY_FOR_GPU.
PtxText ptx_of(const void* image);

// Gives the lock back while it parses. Text that is not compiled is decoded at once, all of it;
// else each kernel is when it is asked for.
std::shared_ptr<LoadedModule> load_module(Call& call, const PtxText& ptx);
void unload_module(Call& call, CUmodule handle);
// Decodes the kernel at the first time. Fails with NOT_FOUND.
std::shared_ptr<LoadedFunction> function_named(Call& call,
                                               const std::shared_ptr<LoadedModule>& module,
                                               const std::string& name);

}  // namespace ptx_simulator::driver
