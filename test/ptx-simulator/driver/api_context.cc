// Contexts: a stack per thread, and one primary context for each device.
#include <algorithm>

#include "driver/attributes.h"
#include "driver/capture.h"
#include "driver/driver.h"
#include "driver/queue.h"
#include "machine/global_memory.h"

using namespace ptx_simulator;          // NOLINT: the API's functions are in no namespace
using namespace ptx_simulator::driver;  // NOLINT

namespace {

constexpr unsigned kContextFlags = CU_CTX_FLAGS_MASK;

std::shared_ptr<Context> make_context(Driver& state, int device, unsigned flags) {
  require((flags & ~kContextFlags) == 0, "unknown flags");
  auto context = std::make_shared<Context>();
  context->device = device;
  context->flags = flags;
  context->id = state.next_id++;
  context->limits = {{CU_LIMIT_STACK_SIZE, 1024},
                     {CU_LIMIT_PRINTF_FIFO_SIZE, 1 << 20},
                     {CU_LIMIT_MALLOC_HEAP_SIZE, 8 << 20},
                     {CU_LIMIT_MAX_L2_FETCH_GRANULARITY, 64},
                     {CU_LIMIT_PERSISTING_L2_CACHE_SIZE, 0}};
  context->legacy = make_stream(state, context, CU_STREAM_DEFAULT, 0);
  context->legacy->is_legacy = true;
  state.contexts.add(context);
  return context;
}

// Everything that belongs to a context goes with it, once its work is done.
void destroy(Driver& state, Lock& lock, std::shared_ptr<Context> context) {
  wait_for_all(state, lock, context);
  for (const auto& [handle, stream] : state.streams)
    if (stream->context == context) abandon(state, *stream);
  for (const auto& stream : streams_of(state, context)) close(state, *stream);
  const auto mine = [&](const auto& object) { return object.context == context; };
  state.functions.remove_if([&](const auto& function) { return mine(*function.module); });
  for (const auto& [handle, module] : state.modules)
    if (mine(*module)) {
      module->functions.clear();
      for (const auto& [name, address] : module->addresses)
        GlobalMemory::instance().release(address);
    }
  size_t abandoned = state.modules.remove_if(mine);
  abandoned += state.events.remove_if(mine);
  abandoned += state.graph_execs.remove_if(mine);
  // Streams lost their context when they were closed, unless they have a worker that has not
  // noticed yet.
  abandoned += state.streams.remove_if(
      [&](const auto& stream) { return stream.closed && (!stream.context || mine(stream)); });
  abandoned += std::erase_if(state.memory, [&](const auto& entry) {
    if (entry.second.context != context) return false;
    if (entry.second.kind == Memory::Kind::kRegistered)
      GlobalMemory::instance().unregister_host(entry.first);
    else
      GlobalMemory::instance().release(entry.first);
    if (entry.second.pool != nullptr) entry.second.pool->used_bytes -= entry.second.size_bytes;
    return true;
  });
  state.abandoned += abandoned;
  context->legacy = nullptr;
  context->per_thread.clear();
  state.contexts.remove(context->handle);
}

std::shared_ptr<Context> current(Driver& state) {
  const auto& stack = thread_state().contexts;
  return stack.empty() ? nullptr : state.contexts.find(stack.back());
}

}  // namespace

extern "C" {

CUresult CUDAAPI cuCtxCreate(CUcontext* handle, CUctxCreateParams* parameters, unsigned flags,
                             CUdevice device) {
  return api(__func__, kInit, [&](Call& call) {
    require(handle != nullptr);
    find_device(call.state, device);
    require(parameters == nullptr || parameters->numExecAffinityParams == 0,
            CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY, "execution affinity is not simulated");
    require(parameters == nullptr || parameters->cigParams == nullptr, CUDA_ERROR_NOT_SUPPORTED,
            "CUDA in graphics is not simulated");
    *handle = make_context(call.state, device, flags)->handle;
    thread_state().contexts.push_back(*handle);
  });
}

CUresult CUDAAPI cuCtxDestroy(CUcontext handle) {
  return api(__func__, kInit, [&](Call& call) {
    auto context = find_context(call.state, handle);
    require(!context->is_primary, CUDA_ERROR_INVALID_CONTEXT,
            "a primary context is released, not destroyed");
    auto& stack = thread_state().contexts;
    if (!stack.empty() && stack.back() == handle) stack.pop_back();
    destroy(call.state, call.lock, context);
  });
}

CUresult CUDAAPI cuCtxPushCurrent(CUcontext handle) {
  return api(__func__, kInit, [&](Call& call) {
    find_context(call.state, handle);
    thread_state().contexts.push_back(handle);
  });
}

CUresult CUDAAPI cuCtxPopCurrent(CUcontext* handle) {
  return api(__func__, kInit, [&](Call&) {
    auto& stack = thread_state().contexts;
    require(!stack.empty(), CUDA_ERROR_INVALID_CONTEXT, "no context is current");
    if (handle != nullptr) *handle = stack.back();
    stack.pop_back();
  });
}

CUresult CUDAAPI cuCtxSetCurrent(CUcontext handle) {
  return api(__func__, kInit, [&](Call& call) {
    auto& stack = thread_state().contexts;
    if (handle != nullptr) find_context(call.state, handle);
    if (!stack.empty()) stack.pop_back();
    if (handle != nullptr) stack.push_back(handle);
  });
}

CUresult CUDAAPI cuCtxGetCurrent(CUcontext* handle) {
  return api(__func__, kInit, [&](Call&) {
    require(handle != nullptr);
    const auto& stack = thread_state().contexts;
    *handle = stack.empty() ? nullptr : stack.back();
  });
}

CUresult CUDAAPI cuCtxGetDevice(CUdevice* device) {
  return api(__func__, kInit | kContext, [&](Call& call) {
    require(device != nullptr);
    *device = call.context->device;
  });
}

CUresult CUDAAPI cuCtxGetFlags(unsigned* flags) {
  return api(__func__, kInit | kContext, [&](Call& call) {
    require(flags != nullptr);
    *flags = call.context->flags;
  });
}

CUresult CUDAAPI cuCtxSetFlags(unsigned flags) {
  return api(__func__, kInit | kContext, [&](Call& call) {
    require((flags & ~kContextFlags) == 0);
    call.context->flags = flags;
  });
}

CUresult CUDAAPI cuCtxGetId(CUcontext handle, unsigned long long* id) {
  return api(__func__, kInit, [&](Call& call) {
    require(id != nullptr);
    auto context = handle == nullptr ? current(call.state) : find_context(call.state, handle);
    require(context != nullptr, CUDA_ERROR_INVALID_CONTEXT, "no context is current");
    *id = context->id;
  });
}

CUresult CUDAAPI cuCtxGetApiVersion(CUcontext handle, unsigned* version) {
  return api(__func__, kInit, [&](Call& call) {
    require(version != nullptr);
    auto context = handle == nullptr ? current(call.state) : find_context(call.state, handle);
    require(context != nullptr, CUDA_ERROR_INVALID_CONTEXT, "no context is current");
    *version = 3020;  // of the context interface, not of CUDA
  });
}

CUresult CUDAAPI cuCtxSynchronize(void) {
  return api(__func__, kWaits, [&](Call& call) {
    check_not_captured(call.state, *call.context);
    wait_for_all(call.state, call.lock, call.context);
  });
}

CUresult CUDAAPI cuCtxSetLimit(CUlimit limit, size_t value) {
  return api(__func__, kUsable, [&](Call& call) {
    require(limit >= 0 && limit < CU_LIMIT_MAX);
    const auto known = call.context->limits.find(limit);
    require(known != call.context->limits.end(), CUDA_ERROR_UNSUPPORTED_LIMIT,
            "the simulated device has no such limit");
    known->second = value;
  });
}

CUresult CUDAAPI cuCtxGetLimit(size_t* value, CUlimit limit) {
  return api(__func__, kUsable, [&](Call& call) {
    require(value != nullptr && limit >= 0 && limit < CU_LIMIT_MAX);
    const auto known = call.context->limits.find(limit);
    require(known != call.context->limits.end(), CUDA_ERROR_UNSUPPORTED_LIMIT,
            "the simulated device has no such limit");
    *value = known->second;
  });
}

CUresult CUDAAPI cuCtxGetCacheConfig(CUfunc_cache* config) {
  return api(__func__, kUsable, [&](Call& call) {
    require(config != nullptr);
    *config = call.context->cache;
  });
}

CUresult CUDAAPI cuCtxSetCacheConfig(CUfunc_cache config) {
  return api(__func__, kUsable, [&](Call& call) {
    require(config <= CU_FUNC_CACHE_PREFER_EQUAL);
    call.context->cache = config;
  });
}

CUresult CUDAAPI cuCtxGetStreamPriorityRange(int* least, int* greatest) {
  return api(__func__, kUsable, [&](Call&) {
    if (least != nullptr) *least = 0;
    if (greatest != nullptr) *greatest = -5;
  });
}

CUresult CUDAAPI cuCtxResetPersistingL2Cache(void) {
  return api(__func__, kUsable, [&](Call&) {});
}

// --- primary contexts ---

CUresult CUDAAPI cuDevicePrimaryCtxRetain(CUcontext* handle, CUdevice ordinal) {
  return api(__func__, kInit, [&](Call& call) {
    require(handle != nullptr);
    Device& device = find_device(call.state, ordinal);
    if (device.primary == nullptr) {
      device.primary = make_context(call.state, ordinal, device.primary_flags);
      device.primary->is_primary = true;
    }
    ++device.primary_references;
    *handle = device.primary->handle;
  });
}

CUresult CUDAAPI cuDevicePrimaryCtxRelease(CUdevice ordinal) {
  return api(__func__, kInit, [&](Call& call) {
    Device& device = find_device(call.state, ordinal);
    require(device.primary_references > 0, CUDA_ERROR_INVALID_CONTEXT,
            "the primary context is not retained");
    if (--device.primary_references != 0) return;
    destroy(call.state, call.lock, std::exchange(device.primary, nullptr));
  });
}

CUresult CUDAAPI cuDevicePrimaryCtxReset(CUdevice ordinal) {
  return api(__func__, kInit, [&](Call& call) {
    Device& device = find_device(call.state, ordinal);
    if (device.primary == nullptr) return;
    device.primary_references = 0;
    destroy(call.state, call.lock, std::exchange(device.primary, nullptr));
  });
}

CUresult CUDAAPI cuDevicePrimaryCtxSetFlags(CUdevice ordinal, unsigned flags) {
  return api(__func__, kInit, [&](Call& call) {
    Device& device = find_device(call.state, ordinal);
    require((flags & ~kContextFlags) == 0);
    device.primary_flags = flags;
    if (device.primary != nullptr) device.primary->flags = flags;
  });
}

CUresult CUDAAPI cuDevicePrimaryCtxGetState(CUdevice ordinal, unsigned* flags, int* active) {
  return api(__func__, kInit, [&](Call& call) {
    const Device& device = find_device(call.state, ordinal);
    if (flags != nullptr) *flags = device.primary_flags;
    if (active != nullptr) *active = device.primary != nullptr ? 1 : 0;
  });
}

}  // extern "C"
