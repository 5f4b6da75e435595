// Kernels: found in the fat binaries that the build embeds, launched with checked errors.
#pragma once

#include <cuda.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "cuda/context.h"

namespace altiplano::cuda {

struct Dim3 {
  uint32_t x = 1, y = 1, z = 1;
};

// What a kernel does wrong shows when the stream is waited for, and then nobody knows which kernel
// it was. ALTIPLANO_CUDA_SYNCHRONOUS=1 waits behind each launch, to find out.
bool waits_behind_launches();

class Kernel {
 public:
  // Launches; the arguments' types must be the kernel's own (a pointer is a CUdeviceptr). Throws
  // Error with the kernel, the grid and the device. A grid with a zero launches nothing.
  template <class... Args>
  void launch(const Stream& stream, Dim3 grid, Dim3 block, uint32_t shared_bytes,
              Args... args) const {
    void* pointers[] = {static_cast<void*>(&args)...};
    launch_with(stream, grid, block, shared_bytes, pointers);
  }

  bool is(CUfunction function) const { return function == function_; }

  // Allows more than 48 KiB of dynamic shared memory. At load time.
  void allow_shared_bytes(int bytes) const;

 private:
  friend class KernelLibrary;
  void launch_with(const Stream& stream, Dim3 grid, Dim3 block, uint32_t shared_bytes,
                   void** arguments) const;

  CUfunction function_ = nullptr;
  const char* name_ = "";  // a string literal
  const Context* context_ = nullptr;
};

// The kernels of a context. The fat binary of a source file is loaded when the first of its kernels
// is asked for: at load time, never within a step.
class KernelLibrary {
 public:
  explicit KernelLibrary(std::shared_ptr<const Context> context);
  ~KernelLibrary();
  KernelLibrary(const KernelLibrary&) = delete;
  KernelLibrary& operator=(const KernelLibrary&) = delete;

  // `source` is the name of the .cu file without its ending ("rmsnorm"), `name` that of an
  // extern "C" kernel in it; both are string literals. Throws Error.
  Kernel find(const char* source, const char* name);

  const std::shared_ptr<const Context>& context() const { return context_; }

 private:
  std::shared_ptr<const Context> context_;
  std::map<std::string, CUmodule> modules_;
};

}  // namespace altiplano::cuda
