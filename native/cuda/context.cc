#include "cuda/context.h"

#include <utility>

#include "cuda/devices.h"
#include "cuda/driver.h"

namespace altiplano::cuda {

Context::Context(int ordinal) : device_(device_properties(ordinal)) {
  CUdevice device;
  CUDA_CHECK(cuDeviceGet, &device, ordinal);
  check(driver().cuDevicePrimaryCtxRetain(&context_, device), "cuDevicePrimaryCtxRetain",
        [&] { return describe(device_); });
}

Context::~Context() { driver().cuDevicePrimaryCtxRelease(device_.ordinal); }

void Context::make_current() const {
  check(driver().cuCtxSetCurrent(context_), "cuCtxSetCurrent", [&] { return describe(device_); });
}

size_t Context::free_bytes() const {
  const CurrentContext current(*this);
  size_t free = 0, total = 0;
  check(driver().cuMemGetInfo(&free, &total), "cuMemGetInfo", [&] { return describe(device_); });
  return free;
}

CurrentContext::CurrentContext(const Context& context) {
  check(driver().cuCtxPushCurrent(context.get()), "cuCtxPushCurrent",
        [&] { return describe(context.device()); });
}

CurrentContext::~CurrentContext() {
  CUcontext popped;
  driver().cuCtxPopCurrent(&popped);
}

Stream::Stream(std::shared_ptr<const Context> context) : context_(std::move(context)) {
  const CurrentContext current(*context_);
  CUDA_CHECK(cuStreamCreate, &stream_, CU_STREAM_NON_BLOCKING);
}

Stream::~Stream() { driver().cuStreamDestroy(stream_); }

void Stream::synchronize() const {
  check(driver().cuStreamSynchronize(stream_), "cuStreamSynchronize",
        [&] { return describe(context_->device()); });
}

Event::Event(std::shared_ptr<const Context> context) : context_(std::move(context)) {
  const CurrentContext current(*context_);
  CUDA_CHECK(cuEventCreate, &event_, CU_EVENT_DISABLE_TIMING);
}

Event::~Event() { driver().cuEventDestroy(event_); }

void Event::record(const Stream& stream) {
  check(driver().cuEventRecord(event_, stream.get()), "cuEventRecord",
        [&] { return describe(context_->device()); });
}

void Event::synchronize() const {
  check(driver().cuEventSynchronize(event_), "cuEventSynchronize",
        [&] { return describe(context_->device()); });
}

}  // namespace altiplano::cuda
