#include "cuda/context.h"

#include <utility>

#include "cuda/devices.h"
#include "cuda/driver.h"
#include "util/error.h"

namespace altiplano::cuda {

Context::Context(int ordinal) : device_(device_properties(ordinal)) {
  if (const std::string& problem = driver_status().problem; !problem.empty()) {
    throw Error("ALTIPLANO_DEVICE_UNAVAILABLE", describe(device_) + ": " + problem);
  }
  const auto about = [&] { return describe(device_); };
  CUdevice device;
  check(driver().cuDeviceGet(&device, ordinal), "cuDeviceGet", about);
  check(driver().cuDevicePrimaryCtxRetain(&context_, device), "cuDevicePrimaryCtxRetain", about);
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

CurrentContext::~CurrentContext() { pop_quietly(); }

bool push_quietly(const Context& context) noexcept {
  return driver().cuCtxPushCurrent(context.get()) == CUDA_SUCCESS;
}

void pop_quietly() noexcept {
  CUcontext popped;
  driver().cuCtxPopCurrent(&popped);
}

Stream::Stream(std::shared_ptr<const Context> context) : context_(std::move(context)) {
  const CurrentContext current(*context_);
  check(driver().cuStreamCreate(&stream_, CU_STREAM_NON_BLOCKING), "cuStreamCreate",
        [&] { return describe(context_->device()); });
}

Stream::~Stream() {
  with_context(*context_, [&] { driver().cuStreamDestroy(stream_); });
}

void Stream::synchronize() const {
  check(driver().cuStreamSynchronize(stream_), "cuStreamSynchronize",
        [&] { return describe(context_->device()); });
}

Event::Event(std::shared_ptr<const Context> context) : context_(std::move(context)) {
  const CurrentContext current(*context_);
  check(driver().cuEventCreate(&event_, CU_EVENT_DISABLE_TIMING), "cuEventCreate",
        [&] { return describe(context_->device()); });
}

Event::~Event() {
  with_context(*context_, [&] { driver().cuEventDestroy(event_); });
}

void Event::record(const Stream& stream) {
  check(driver().cuEventRecord(event_, stream.get()), "cuEventRecord",
        [&] { return describe(context_->device()); });
}

void Event::synchronize() const {
  check(driver().cuEventSynchronize(event_), "cuEventSynchronize",
        [&] { return describe(context_->device()); });
}

}  // namespace altiplano::cuda
