// A device as it is used: its primary context, streams and events.
#pragma once

#include <cuda.h>

#include <memory>

#include "cuda/devices.h"

namespace altiplano::cuda {

// The primary context of a device, retained while this lives. Everything made in it holds it.
class Context {
 public:
  // Throws Error, also where the driver is there but not to be used.
  explicit Context(int ordinal);
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  CUcontext get() const { return context_; }
  // Makes it the calling thread's until another one is made so: for the length of a step, in which
  // every call of the driver would else have to do it (CurrentContext).
  void make_current() const;
  const DeviceProperties& device() const { return device_; }
  // Free memory of the device, for all processes.
  size_t free_bytes() const;

 private:
  DeviceProperties device_;
  CUcontext context_ = nullptr;
};

// Makes a context current for the calling thread, as long as this lives. Every call of the driver
// needs one; threads of Node.js change, so it is never assumed.
class CurrentContext {
 public:
  explicit CurrentContext(const Context& context);
  ~CurrentContext();
  CurrentContext(const CurrentContext&) = delete;
  CurrentContext& operator=(const CurrentContext&) = delete;
};

bool push_quietly(const Context& context) noexcept;
void pop_quietly() noexcept;

// For destructors, which cannot throw: calls fn() with the context current. After an error of a
// kernel that may not be possible: the driver then frees everything with the context.
template <class Fn>
void with_context(const Context& context, const Fn& fn) noexcept {
  if (!push_quietly(context)) return;
  fn();
  pop_quietly();
}

// Work in order. It does not wait for the legacy default stream.
class Stream {
 public:
  explicit Stream(std::shared_ptr<const Context> context);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  CUstream get() const { return stream_; }
  const std::shared_ptr<const Context>& context() const { return context_; }
  // Waits until all is done; an error of a kernel shows here. Throws Error.
  void synchronize() const;

 private:
  std::shared_ptr<const Context> context_;
  CUstream stream_ = nullptr;
};

// A point in a stream that the host can wait for.
class Event {
 public:
  explicit Event(std::shared_ptr<const Context> context);
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void record(const Stream& stream);
  void synchronize() const;  // at once if nothing was recorded

 private:
  std::shared_ptr<const Context> context_;
  CUevent event_ = nullptr;
};

}  // namespace altiplano::cuda
