// Memory in the order of streams. An allocation is there at once, whatever stands in its stream
// before; a free happens when its turn comes. Pools count what they gave out and keep nothing.
#include <cstring>

#include "driver/capture.h"
#include "driver/memory.h"
#include "driver/queue.h"

using namespace ptx_simulator::driver;  // NOLINT: the API's functions are in no namespace

namespace {

std::shared_ptr<MemoryPool> find_pool(Driver& state, CUmemoryPool handle) {
  auto pool = state.pools.find(handle);
  require(pool != nullptr, "no such pool");
  return pool;
}

CUdeviceptr allocate_async(Call& call, size_t bytes, std::shared_ptr<MemoryPool> pool,
                           CUstream handle) {
  auto stream = find_stream(call, handle);
  check_not_captured(*stream);  // allocations as nodes of graphs are not simulated
  check_no_implicit_dependency(call.state, *stream);
  return allocate(call, bytes, Memory::Kind::kDevice, 0, std::move(pool));
}

bool is_flag(CUmemPool_attribute attribute) {
  return attribute <= CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES;
}

}  // namespace

extern "C" {

CUresult CUDAAPI cuMemAllocAsync(CUdeviceptr* pointer, size_t bytes, CUstream stream) {
  return api(__func__, kUsable, [&](Call& call) {
    require(pointer != nullptr);
    auto pool = find_device(call.state, call.context->device).pool;
    *pointer = allocate_async(call, bytes, std::move(pool), stream);
  });
}

CUresult CUDAAPI cuMemAllocFromPoolAsync(CUdeviceptr* pointer, size_t bytes, CUmemoryPool pool,
                                         CUstream stream) {
  return api(__func__, kUsable, [&](Call& call) {
    require(pointer != nullptr);
    *pointer = allocate_async(call, bytes, find_pool(call.state, pool), stream);
  });
}

CUresult CUDAAPI cuMemFreeAsync(CUdeviceptr pointer, CUstream handle) {
  return api(__func__, kInit | kContext | kHealthyAfter, [&](Call& call) {
    if (pointer == 0) return;
    auto stream = find_stream(call, handle);
    check_not_captured(*stream);
    check_no_implicit_dependency(call.state, *stream);
    const auto found = call.state.memory.find(pointer);
    require(found != call.state.memory.end() && !found->second.free_is_pending &&
                found->second.kind == Memory::Kind::kDevice,
            "not the beginning of device memory");
    found->second.free_is_pending = true;
    const auto body = [pointer] {
      Driver& state = ptx_simulator::driver::driver();
      const Lock lock(state.mutex);
      release(state, pointer);
    };
    submit(call.state, *stream, body, {.after = {}, .always = true, .wanted = false});
  });
}

CUresult CUDAAPI cuDeviceGetDefaultMemPool(CUmemoryPool* pool, CUdevice device) {
  return api(__func__, kInit, [&](Call& call) {
    require(pool != nullptr);
    *pool = find_device(call.state, device).default_pool->handle;
  });
}

CUresult CUDAAPI cuDeviceGetMemPool(CUmemoryPool* pool, CUdevice device) {
  return api(__func__, kInit, [&](Call& call) {
    require(pool != nullptr);
    *pool = find_device(call.state, device).pool->handle;
  });
}

CUresult CUDAAPI cuDeviceSetMemPool(CUdevice device, CUmemoryPool pool) {
  return api(__func__, kInit, [&](Call& call) {
    auto known = find_pool(call.state, pool);
    require(known->device == device, "the pool is another device's");
    find_device(call.state, device).pool = std::move(known);
  });
}

CUresult CUDAAPI cuMemPoolCreate(CUmemoryPool* pool, const CUmemPoolProps* properties) {
  return api(__func__, kInit, [&](Call& call) {
    require(pool != nullptr && properties != nullptr &&
            properties->allocType == CU_MEM_ALLOCATION_TYPE_PINNED &&
            properties->location.type == CU_MEM_LOCATION_TYPE_DEVICE);
    require(properties->handleTypes == CU_MEM_HANDLE_TYPE_NONE, CUDA_ERROR_NOT_SUPPORTED,
            "pools that are shared between processes are not simulated");
    auto made = std::make_shared<MemoryPool>();
    made->device = find_device(call.state, properties->location.id).ordinal;
    made->max_bytes = properties->maxSize;
    *pool = call.state.pools.add(std::move(made));
  });
}

CUresult CUDAAPI cuMemPoolDestroy(CUmemoryPool pool) {
  return api(__func__, kInit, [&](Call& call) {
    auto known = find_pool(call.state, pool);
    Device& device = find_device(call.state, known->device);
    require(known != device.default_pool, "a default pool cannot be destroyed");
    // What is allocated of it lives on.
    if (device.pool == known) device.pool = device.default_pool;
    call.state.pools.remove(pool);
  });
}

CUresult CUDAAPI cuMemPoolTrimTo(CUmemoryPool pool, size_t) {
  return api(__func__, kInit, [&](Call& call) { find_pool(call.state, pool); });
}

CUresult CUDAAPI cuMemPoolSetAttribute(CUmemoryPool pool, CUmemPool_attribute attribute,
                                       void* value) {
  return api(__func__, kInit, [&](Call& call) {
    auto known = find_pool(call.state, pool);
    require(value != nullptr);
    if (attribute == CU_MEMPOOL_ATTR_USED_MEM_HIGH ||
        attribute == CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH) {
      uint64_t wanted;
      std::memcpy(&wanted, value, sizeof wanted);
      require(wanted == 0, "a high-water mark can only be set to zero");
      known->most_used_bytes = known->used_bytes;
    } else if (is_flag(attribute)) {
      int flag;
      std::memcpy(&flag, value, sizeof flag);
      known->attributes[attribute] = flag != 0;
    } else {
      require(attribute == CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, "the attribute cannot be set");
      std::memcpy(&known->attributes[attribute], value, sizeof(uint64_t));
    }
  });
}

CUresult CUDAAPI cuMemPoolGetAttribute(CUmemoryPool pool, CUmemPool_attribute attribute,
                                       void* value) {
  return api(__func__, kInit, [&](Call& call) {
    auto known = find_pool(call.state, pool);
    require(value != nullptr);
    if (is_flag(attribute)) {
      const auto set = known->attributes.find(attribute);
      const int flag = set == known->attributes.end() ? 1 : static_cast<int>(set->second);
      std::memcpy(value, &flag, sizeof flag);
      return;
    }
    uint64_t bytes = 0;
    switch (attribute) {
      case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD:
        bytes = known->attributes[attribute];
        break;
      case CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT:
      case CU_MEMPOOL_ATTR_USED_MEM_CURRENT:
        bytes = known->used_bytes;
        break;
      case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
      case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
        bytes = known->most_used_bytes;
        break;
      default:
        fail(CUDA_ERROR_INVALID_VALUE, "no such attribute");
    }
    std::memcpy(value, &bytes, sizeof bytes);
  });
}

}  // extern "C"
