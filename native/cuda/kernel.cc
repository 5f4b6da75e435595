#include "cuda/kernel.h"

#include <cstdlib>
#include <cstring>
#include <utility>

#include "cuda/devices.h"
#include "cuda/driver.h"
#include "cuda/embedded.h"
#include "util/error.h"

namespace altiplano::cuda {
namespace {

std::string text(const Dim3& d) {
  return std::to_string(d.x) + " x " + std::to_string(d.y) + " x " + std::to_string(d.z);
}

const void* binary_of(const char* source) {
  for (const EmbeddedBinary& binary : embedded_binaries()) {
    if (std::strcmp(binary.source, source) == 0) return binary.data;
  }
  throw Error("ALTIPLANO_INTERNAL", std::string("no kernels of ") + source + " are embedded");
}

}  // namespace

bool waits_behind_launches() {
  static const bool waits = [] {
    const char* value = std::getenv("ALTIPLANO_CUDA_SYNCHRONOUS");
    return value != nullptr && std::strcmp(value, "1") == 0;
  }();
  return waits;
}

void Kernel::launch_with(const Stream& stream, Dim3 grid, Dim3 block, uint32_t shared_bytes,
                         void** arguments) const {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  const auto about = [&] {
    return std::string("kernel ") + name_ + ", grid " + text(grid) + ", block " + text(block) +
           ", " + std::to_string(shared_bytes) + " bytes of shared memory, " +
           describe(stream.context()->device());
  };
  check(driver().cuLaunchKernel(function_, grid.x, grid.y, grid.z, block.x, block.y, block.z,
                                shared_bytes, stream.get(), arguments, nullptr),
        "cuLaunchKernel", about);
  if (waits_behind_launches()) {
    check(driver().cuStreamSynchronize(stream.get()), "cuStreamSynchronize", about);
  }
}

void Kernel::allow_shared_bytes(int bytes) const {
  check(driver().cuFuncSetAttribute(function_, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                                    bytes),
        "cuFuncSetAttribute", [&] {
          return std::string("kernel ") + name_ + ", " + std::to_string(bytes) +
                 " bytes of shared memory, " + describe(context_->device());
        });
}

KernelLibrary::KernelLibrary(std::shared_ptr<const Context> context)
    : context_(std::move(context)) {}

KernelLibrary::~KernelLibrary() {
  with_context(*context_, [&] {
    for (const auto& [source, module] : modules_) driver().cuModuleUnload(module);
  });
}

Kernel KernelLibrary::find(const char* source, const char* name) {
  const CurrentContext current(*context_);
  auto found = modules_.find(source);
  if (found == modules_.end()) {
    CUmodule module;
    check(driver().cuModuleLoadData(&module, binary_of(source)), "cuModuleLoadData",
          [&] { return std::string(source) + ".cu, " + describe(context_->device()); });
    found = modules_.emplace(source, module).first;
  }
  Kernel kernel;
  kernel.name_ = name;
  kernel.context_ = context_.get();
  check(driver().cuModuleGetFunction(&kernel.function_, found->second, name), "cuModuleGetFunction",
        [&] {
          return std::string("kernel ") + name + " of " + source + ".cu, " +
                 describe(context_->device());
        });
  return kernel;
}

}  // namespace altiplano::cuda
