#include "driver/driver.h"

#include <pthread.h>

#include <cstdio>
#include <new>

#include "driver/capture.h"
#include "driver/queue.h"
#include "ptx/module.h"

namespace ptx_simulator::driver {

Driver& driver() {
  static Driver& state = *new Driver;
  return state;
}

ThreadState& thread_state() {
  // Not a thread_local object: those of the main thread are destroyed before static objects of the
  // application, which may call the driver still. Nothing destroys this one in the main thread.
  static const pthread_key_t key = [] {
    pthread_key_t made;
    pthread_key_create(&made, [](void* state) { delete static_cast<ThreadState*>(state); });
    return made;
  }();
  auto* state = static_cast<ThreadState*>(pthread_getspecific(key));
  if (state == nullptr) pthread_setspecific(key, state = new ThreadState);
  return *state;
}

void fail(CUresult code, std::string message) { throw Failure{code, std::move(message)}; }

CUresult begin(Call& call, const char* name, unsigned needs) {
  if (thread_state().in_host_function)
    fail(CUDA_ERROR_NOT_PERMITTED, std::string(name) + " is called by a host function of a stream");
  Driver& state = call.state;
  require(!state.exiting, CUDA_ERROR_DEINITIALIZED, "the process ends");
  if (const CUresult code = state.settings.call_begins(name); code != CUDA_SUCCESS)
    fail(code, std::string("injected fault of ") + name);
  if (needs & (kInit | kContext))
    require(state.initialized, CUDA_ERROR_NOT_INITIALIZED, "cuInit was not called");
  if (needs & kContext) {
    const auto& stack = thread_state().contexts;
    require(!stack.empty() && stack.back() != nullptr, CUDA_ERROR_INVALID_CONTEXT,
            "no context is current");
    call.context = state.contexts.find(stack.back());
    require(call.context != nullptr, CUDA_ERROR_CONTEXT_IS_DESTROYED,
            "the current context was destroyed");
    if (needs & kHealthy)
      require(call.context->error == CUDA_SUCCESS, call.context->error,
              "the context has failed earlier");
  }
  if (needs & kNotInCapture) check_not_captured(state, name);
  return CUDA_SUCCESS;
}

CUresult end(Call& call, unsigned needs) {
  if (needs & kHealthyAfter)
    require(call.context->error == CUDA_SUCCESS, call.context->error,
            "the context has failed on the device");
  return CUDA_SUCCESS;
}

CUresult caught() {
  std::string& message = thread_state().message;
  try {
    throw;
  } catch (const Failure& failure) {
    message = failure.message;
    return failure.code;
  } catch (const PtxError& error) {
    message = error.what();
    return CUDA_ERROR_INVALID_PTX;
  } catch (const std::bad_alloc&) {
    message = "the host has no memory left";
    return CUDA_ERROR_OUT_OF_MEMORY;
  } catch (const std::exception& error) {
    message = error.what();
    std::fprintf(stderr, "ptx-simulator: %s\n", error.what());
    return CUDA_ERROR_UNKNOWN;
  }
}

std::shared_ptr<Context> find_context(Driver& state, CUcontext handle) {
  auto context = state.contexts.find(handle);
  require(context != nullptr, CUDA_ERROR_INVALID_CONTEXT, "no such context");
  return context;
}

Device& find_device(Driver& state, CUdevice device) {
  require(device >= 0 && static_cast<size_t>(device) < state.devices.size(),
          CUDA_ERROR_INVALID_DEVICE, "no such device");
  return state.devices[device];
}

std::shared_ptr<Stream> find_stream(Call& call, CUstream handle) {
  if (handle == nullptr || handle == CU_STREAM_LEGACY) return call.context->legacy;
  if (handle == CU_STREAM_PER_THREAD) {
    auto& stream = call.context->per_thread[std::this_thread::get_id()];
    if (stream == nullptr) stream = make_stream(call.state, call.context, CU_STREAM_DEFAULT, 0);
    return stream;
  }
  auto stream = call.state.streams.find(handle);
  require(stream != nullptr, CUDA_ERROR_INVALID_HANDLE, "no such stream");
  return stream;
}

std::shared_ptr<Event> find_event(Call& call, CUevent handle) {
  auto event = call.state.events.find(handle);
  require(event != nullptr, CUDA_ERROR_INVALID_HANDLE, "no such event");
  return event;
}

std::shared_ptr<LoadedFunction> find_function(Call& call, CUfunction handle) {
  auto function = call.state.functions.find(handle);
  require(function != nullptr, CUDA_ERROR_INVALID_HANDLE, "no such function");
  return function;
}

}  // namespace ptx_simulator::driver
