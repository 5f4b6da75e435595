#include "cuda/memory.h"

#include <string>
#include <utility>

#include "cuda/devices.h"
#include "cuda/driver.h"
#include "util/error.h"

namespace altiplano::cuda {

DeviceMemory::DeviceMemory(std::shared_ptr<const Context> context, size_t bytes,
                           const char* purpose)
    : context_(std::move(context)), bytes_(bytes) {
  if (bytes == 0) return;
  const CurrentContext current(*context_);
  const CUresult result = driver().cuMemAlloc(&pointer_, bytes);
  if (result == CUDA_SUCCESS) return;
  const DeviceProperties& device = context_->device();
  if (result != CUDA_ERROR_OUT_OF_MEMORY) {
    fail(result, "cuMemAlloc", std::string(purpose) + ", " + describe(device));
  }
  size_t free = 0, total = device.total_bytes;
  driver().cuMemGetInfo(&free, &total);
  throw Error("ALTIPLANO_OUT_OF_MEMORY", describe(device) + " has no memory for " + purpose +
                                             ": asked for " + std::to_string(bytes) + " bytes, " +
                                             std::to_string(free) + " are free of " +
                                             std::to_string(total));
}

DeviceMemory::~DeviceMemory() {
  if (pointer_ == 0) return;
  with_context(*context_, [&] { driver().cuMemFree(pointer_); });
}

PinnedMemory::PinnedMemory(std::shared_ptr<const Context> context, size_t bytes,
                           const char* purpose)
    : context_(std::move(context)), bytes_(bytes) {
  if (bytes == 0) return;
  const CurrentContext current(*context_);
  void* data = nullptr;
  const CUresult result = driver().cuMemHostAlloc(&data, bytes, CU_MEMHOSTALLOC_PORTABLE);
  if (result == CUDA_ERROR_OUT_OF_MEMORY) {
    throw Error("ALTIPLANO_OUT_OF_MEMORY", std::string("no pinned memory for ") + purpose + " of " +
                                               describe(context_->device()) + ": asked for " +
                                               std::to_string(bytes) + " bytes");
  }
  check(result, "cuMemHostAlloc",
        [&] { return std::string(purpose) + ", " + describe(context_->device()); });
  data_ = static_cast<uint8_t*>(data);
}

PinnedMemory::~PinnedMemory() {
  if (data_ == nullptr) return;
  with_context(*context_, [&] { driver().cuMemFreeHost(data_); });
}

void copy_to_device(const Stream& stream, CUdeviceptr to, const void* from, size_t bytes) {
  if (bytes == 0) return;
  check(driver().cuMemcpyHtoDAsync(to, from, bytes, stream.get()), "cuMemcpyHtoDAsync",
        [&] { return std::to_string(bytes) + " bytes, " + describe(stream.context()->device()); });
}

void copy_to_host(const Stream& stream, void* to, CUdeviceptr from, size_t bytes) {
  if (bytes == 0) return;
  check(driver().cuMemcpyDtoHAsync(to, from, bytes, stream.get()), "cuMemcpyDtoHAsync",
        [&] { return std::to_string(bytes) + " bytes, " + describe(stream.context()->device()); });
}

void copy_on_device(const Stream& stream, CUdeviceptr to, CUdeviceptr from, size_t bytes) {
  if (bytes == 0) return;
  check(driver().cuMemcpyDtoDAsync(to, from, bytes, stream.get()), "cuMemcpyDtoDAsync",
        [&] { return std::to_string(bytes) + " bytes, " + describe(stream.context()->device()); });
}

void fill_bytes(const Stream& stream, CUdeviceptr to, uint8_t value, size_t bytes) {
  if (bytes == 0) return;
  check(driver().cuMemsetD8Async(to, value, bytes, stream.get()), "cuMemsetD8Async",
        [&] { return std::to_string(bytes) + " bytes, " + describe(stream.context()->device()); });
}

}  // namespace altiplano::cuda
