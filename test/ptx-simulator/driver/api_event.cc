// Events: places in streams. Their times are the host's, since nothing else passes here.
#include "driver/capture.h"
#include "driver/driver.h"
#include "driver/queue.h"

using namespace ptx_simulator::driver;  // NOLINT: the API's functions are in no namespace

namespace {

void record(Call& call, CUevent handle, CUstream stream_handle) {
  auto event = find_event(call, handle);
  auto stream = find_stream(call, stream_handle);
  require(event->context == stream->context, CUDA_ERROR_INVALID_HANDLE,
          "the event and the stream are of different contexts");
  if (stream->capture != nullptr) return record_captured(stream, *event);
  check_no_implicit_dependency(call.state, *stream);
  event->capture = nullptr;
  event->capture_tail.clear();
  event->task =
      submit(call.state, *stream, nullptr, {.after = {}, .always = true, .wanted = false});
}

// An event whose last record was captured says nothing about work that is done.
void check_not_captured(const Event& event) {
  if (event.capture == nullptr) return;
  event.capture->is_valid = false;
  fail(CUDA_ERROR_CAPTURED_EVENT, "the event was recorded in a capture");
}

}  // namespace

extern "C" {

CUresult CUDAAPI cuEventCreate(CUevent* handle, unsigned flags) {
  return api(__func__, kUsable, [&](Call& call) {
    constexpr unsigned kKnown = CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING;
    require(handle != nullptr && (flags & ~kKnown) == 0);
    auto event = std::make_shared<Event>();
    event->context = call.context;
    event->flags = flags;
    *handle = call.state.events.add(std::move(event));
  });
}

CUresult CUDAAPI cuEventDestroy(CUevent handle) {
  return api(__func__, kInit | kContext | kHealthyAfter, [&](Call& call) {
    find_event(call, handle);
    call.state.events.remove(handle);
  });
}

CUresult CUDAAPI cuEventRecord(CUevent event, CUstream stream) {
  return api(__func__, kUsable, [&](Call& call) { record(call, event, stream); });
}

CUresult CUDAAPI cuEventRecordWithFlags(CUevent event, CUstream stream, unsigned flags) {
  return api(__func__, kUsable, [&](Call& call) {
    require(flags == CU_EVENT_RECORD_DEFAULT, CUDA_ERROR_NOT_SUPPORTED,
            "events as nodes of graphs are not simulated");
    record(call, event, stream);
  });
}

CUresult CUDAAPI cuEventQuery(CUevent handle) {
  return api(__func__, kWaits | kNotInCapture, [&](Call& call) {
    auto event = find_event(call, handle);
    check_not_captured(*event);
    if (event->task == nullptr || event->task->done) return;
    want(call.state, event->task);
    fail(CUDA_ERROR_NOT_READY, "the work before the event is not done");
  });
}

CUresult CUDAAPI cuEventSynchronize(CUevent handle) {
  return api(__func__, kWaits, [&](Call& call) {
    auto event = find_event(call, handle);
    check_not_captured(*event);
    wait_for(call.state, call.lock, event->task);
  });
}

CUresult CUDAAPI cuEventElapsedTime(float* milliseconds, CUevent start, CUevent end) {
  return api(__func__, kUsable, [&](Call& call) {
    require(milliseconds != nullptr);
    auto first = find_event(call, start);
    auto second = find_event(call, end);
    check_not_captured(*first);
    check_not_captured(*second);
    for (const auto& event : {first, second}) {
      require((event->flags & CU_EVENT_DISABLE_TIMING) == 0, CUDA_ERROR_INVALID_HANDLE,
              "the event does not take the time");
      require(event->task != nullptr, CUDA_ERROR_INVALID_HANDLE, "the event was never recorded");
    }
    for (const auto& event : {first, second}) {
      if (event->task->done) continue;
      want(call.state, event->task);
      fail(CUDA_ERROR_NOT_READY, "the work before an event is not done");
    }
    const auto time = second->task->finished - first->task->finished;
    *milliseconds = std::chrono::duration<float, std::milli>(time).count();
  });
}

}  // extern "C"
