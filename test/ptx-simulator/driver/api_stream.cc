// Streams, and what the host hangs into them.
#include <algorithm>

#include "driver/capture.h"
#include "driver/driver.h"
#include "driver/queue.h"

using namespace ptx_simulator::driver;  // NOLINT: the API's functions are in no namespace

namespace {

constexpr int kGreatestPriority = -5;

CUstream make(Call& call, unsigned flags, int priority) {
  require((flags & ~static_cast<unsigned>(CU_STREAM_NON_BLOCKING)) == 0, "unknown flags");
  // Priorities out of range are clamped. They change nothing: all streams run at once.
  return call.state.streams.add(
      make_stream(call.state, call.context, flags, std::clamp(priority, kGreatestPriority, 0)));
}

// What somebody waits for who waits for a stream: for the legacy stream, all blocking ones.
std::vector<std::shared_ptr<Task>> tasks_of(Driver& state, const Stream& stream) {
  std::vector<std::shared_ptr<Task>> tasks;
  if (!stream.is_legacy) {
    if (stream.last != nullptr) tasks.push_back(stream.last);
    return tasks;
  }
  for (const auto& other : streams_of(state, stream.context))
    if (other->blocking() && other->last != nullptr) tasks.push_back(other->last);
  return tasks;
}

}  // namespace

extern "C" {

CUresult CUDAAPI cuStreamCreate(CUstream* stream, unsigned flags) {
  return api(__func__, kUsable, [&](Call& call) {
    require(stream != nullptr);
    *stream = make(call, flags, 0);
  });
}

CUresult CUDAAPI cuStreamCreateWithPriority(CUstream* stream, unsigned flags, int priority) {
  return api(__func__, kUsable, [&](Call& call) {
    require(stream != nullptr);
    *stream = make(call, flags, priority);
  });
}

CUresult CUDAAPI cuStreamDestroy(CUstream handle) {
  return api(__func__, kInit | kContext | kHealthyAfter, [&](Call& call) {
    auto stream = call.state.streams.find(handle);
    require(stream != nullptr, CUDA_ERROR_INVALID_HANDLE, "no such stream");
    abandon(call.state, *stream);
    // Its work goes on, and the call returns.
    call.state.streams.remove(handle);
    close(call.state, *stream);
  });
}

CUresult CUDAAPI cuStreamQuery(CUstream handle) {
  return api(__func__, kWaits, [&](Call& call) {
    auto stream = find_stream(call, handle);
    check_not_captured(*stream);
    check_no_implicit_dependency(call.state, *stream);
    for (const auto& task : tasks_of(call.state, *stream)) {
      if (task->done) continue;
      want(call.state, task);
      fail(CUDA_ERROR_NOT_READY, "the stream has work left");
    }
  });
}

CUresult CUDAAPI cuStreamSynchronize(CUstream handle) {
  return api(__func__, kWaits, [&](Call& call) {
    auto stream = find_stream(call, handle);
    check_not_captured(*stream);
    check_no_implicit_dependency(call.state, *stream);
    const auto tasks = tasks_of(call.state, *stream);
    for (const auto& task : tasks) want(call.state, task);
    for (const auto& task : tasks) wait_for(call.state, call.lock, task);
  });
}

CUresult CUDAAPI cuStreamGetPriority(CUstream handle, int* priority) {
  return api(__func__, kUsable, [&](Call& call) {
    require(priority != nullptr);
    *priority = find_stream(call, handle)->priority;
  });
}

CUresult CUDAAPI cuStreamGetFlags(CUstream handle, unsigned* flags) {
  return api(__func__, kUsable, [&](Call& call) {
    require(flags != nullptr);
    *flags = find_stream(call, handle)->flags;
  });
}

CUresult CUDAAPI cuStreamGetId(CUstream handle, unsigned long long* id) {
  return api(__func__, kUsable, [&](Call& call) {
    require(id != nullptr);
    *id = find_stream(call, handle)->id;
  });
}

CUresult CUDAAPI cuStreamGetCtx(CUstream handle, CUcontext* context) {
  return api(__func__, kUsable, [&](Call& call) {
    require(context != nullptr);
    *context = find_stream(call, handle)->context->handle;
  });
}

CUresult CUDAAPI cuStreamGetDevice(CUstream handle, CUdevice* device) {
  return api(__func__, kUsable, [&](Call& call) {
    require(device != nullptr);
    *device = find_stream(call, handle)->context->device;
  });
}

CUresult CUDAAPI cuStreamWaitEvent(CUstream handle, CUevent event_handle, unsigned flags) {
  return api(__func__, kUsable, [&](Call& call) {
    require(flags == CU_EVENT_WAIT_DEFAULT, CUDA_ERROR_NOT_SUPPORTED,
            "events as nodes of graphs are not simulated");
    auto stream = find_stream(call, handle);
    auto event = find_event(call, event_handle);
    if (event->capture != nullptr) return wait_captured(stream, *event);
    if (stream->capture != nullptr) {
      // Work outside of the capture cannot be waited for inside.
      stream->capture->is_valid = false;
      fail(CUDA_ERROR_STREAM_CAPTURE_ISOLATION, "the event was not recorded in the capture");
    }
    check_no_implicit_dependency(call.state, *stream);
    if (event->task == nullptr || event->task->done) return;
    submit(call.state, *stream, nullptr, {.after = {event->task}, .always = true, .wanted = false});
  });
}

CUresult CUDAAPI cuLaunchHostFunc(CUstream handle, CUhostFn function, void* data) {
  return api(__func__, kUsable, [&](Call& call) {
    require(function != nullptr);
    submit_or_capture(call, find_stream(call, handle), HostWork{function, data});
  });
}

// Unlike a host function, a callback is also called when the context has failed, with the error.
CUresult CUDAAPI cuStreamAddCallback(CUstream handle, CUstreamCallback callback, void* data,
                                     unsigned flags) {
  return api(__func__, kUsable, [&](Call& call) {
    require(callback != nullptr && flags == 0);
    auto stream = find_stream(call, handle);
    check_not_captured(*stream);
    check_no_implicit_dependency(call.state, *stream);
    const auto body = [context = stream->context, handle, callback, data] {
      thread_state().in_host_function = true;
      callback(handle, context->error, data);
      thread_state().in_host_function = false;
    };
    submit(call.state, *stream, body, {.after = {}, .always = true, .wanted = true});
  });
}

}  // extern "C"
