// Memory of devices and pinned memory of the host; what a pointer points to.
#include <cstring>

#include "driver/capture.h"
#include "driver/memory.h"
#include "driver/queue.h"
#include "machine/global_memory.h"

using namespace ptx_simulator;          // NOLINT: the API's functions are in no namespace
using namespace ptx_simulator::driver;  // NOLINT

namespace {

uint64_t address_of(const void* pointer) { return reinterpret_cast<uint64_t>(pointer); }

// Memory is only taken away when no work uses it any more: like the real driver, a call that frees
// waits for the device.
void free_now(Call& call, uint64_t address) {
  const auto context = call.state.memory.at(address).context;
  wait_for_all(call.state, call.lock, context);
  release(call.state, address);
}

bool is_pinned(const Memory& memory) {
  return memory.kind == Memory::Kind::kPinned || memory.kind == Memory::Kind::kRegistered;
}

template <class T>
void store(void* data, T value) {
  std::memcpy(data, &value, sizeof value);
}

// False for an attribute that has no value for this pointer.
bool pointer_attribute(Driver& state, CUpointer_attribute attribute, uint64_t pointer, void* data) {
  const auto found = find_memory(state, pointer);
  if (found == state.memory.end()) return false;
  const Memory& memory = found->second;
  switch (attribute) {
    case CU_POINTER_ATTRIBUTE_CONTEXT:
      store(data, memory.context->handle);
      return true;
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
      store<unsigned>(data, is_pinned(memory) ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE);
      return true;
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
      store<CUdeviceptr>(data, pointer);
      return true;
    case CU_POINTER_ATTRIBUTE_HOST_POINTER:
      if (memory.kind == Memory::Kind::kDevice) return false;
      store(data, reinterpret_cast<void*>(pointer));
      return true;
    case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
      store<int>(data, 0);
      return true;
    case CU_POINTER_ATTRIBUTE_BUFFER_ID:
      store<unsigned long long>(data, memory.number);
      return true;
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
      store<int>(data, memory.kind == Memory::Kind::kManaged);
      return true;
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
      store<int>(data, memory.context->device);
      return true;
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
      store<CUdeviceptr>(data, found->first);
      return true;
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
      store<size_t>(data, memory.size_bytes);
      return true;
    case CU_POINTER_ATTRIBUTE_MAPPED:
      store<int>(data, 1);
      return true;
    case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE:
      store<CUmemoryPool>(data, memory.pool == nullptr ? nullptr : memory.pool->handle);
      return true;
    default:
      return false;
  }
}

}  // namespace

extern "C" {

CUresult CUDAAPI cuMemGetInfo(size_t* free, size_t* total) {
  return api(__func__, kUsable, [&](Call& call) {
    require(free != nullptr && total != nullptr);
    const uint64_t used = GlobalMemory::instance().live_bytes(call.context->device);
    *total = call.state.settings.memory_bytes;
    *free = *total - std::min<uint64_t>(*total, used);
  });
}

CUresult CUDAAPI cuMemAlloc(CUdeviceptr* pointer, size_t bytes) {
  return api(__func__, kUsable | kNotInCapture, [&](Call& call) {
    require(pointer != nullptr);
    *pointer = allocate(call, bytes, Memory::Kind::kDevice);
  });
}

CUresult CUDAAPI cuMemAllocPitch(CUdeviceptr* pointer, size_t* pitch, size_t width, size_t height,
                                 unsigned element_bytes) {
  return api(__func__, kUsable | kNotInCapture, [&](Call& call) {
    require(pointer != nullptr && pitch != nullptr && width > 0 && height > 0);
    require(element_bytes == 4 || element_bytes == 8 || element_bytes == 16);
    *pitch = (width + 511) / 512 * 512;
    *pointer = allocate(call, *pitch * height, Memory::Kind::kDevice);
  });
}

CUresult CUDAAPI cuMemAllocManaged(CUdeviceptr* pointer, size_t bytes, unsigned flags) {
  return api(__func__, kUsable | kNotInCapture, [&](Call& call) {
    require(pointer != nullptr && (flags == CU_MEM_ATTACH_GLOBAL || flags == CU_MEM_ATTACH_HOST));
    *pointer = allocate(call, bytes, Memory::Kind::kManaged, flags);
  });
}

// A context that has failed has lost its memory, but what the application frees is freed: so that
// leaks show.
CUresult CUDAAPI cuMemFree(CUdeviceptr pointer) {
  return api(__func__, kInit | kContext | kHealthyAfter | kNotInCapture, [&](Call& call) {
    if (pointer == 0) return;
    const auto found = call.state.memory.find(pointer);
    require(found != call.state.memory.end() && !is_pinned(found->second) &&
                !found->second.free_is_pending,
            "not the beginning of device memory");
    free_now(call, pointer);
  });
}

CUresult CUDAAPI cuMemGetAddressRange(CUdeviceptr* base, size_t* bytes, CUdeviceptr pointer) {
  return api(__func__, kUsable, [&](Call& call) {
    const auto found = find_memory(call.state, pointer);
    require(found != call.state.memory.end(), CUDA_ERROR_NOT_FOUND, "not in any memory");
    if (base != nullptr) *base = found->first;
    if (bytes != nullptr) *bytes = found->second.size_bytes;
  });
}

// --- pinned host memory ---

CUresult CUDAAPI cuMemAllocHost(void** pointer, size_t bytes) {
  return api(__func__, kUsable | kNotInCapture, [&](Call& call) {
    require(pointer != nullptr);
    *pointer = reinterpret_cast<void*>(allocate(call, bytes, Memory::Kind::kPinned));
  });
}

CUresult CUDAAPI cuMemHostAlloc(void** pointer, size_t bytes, unsigned flags) {
  return api(__func__, kUsable | kNotInCapture, [&](Call& call) {
    constexpr unsigned kKnown =
        CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP | CU_MEMHOSTALLOC_WRITECOMBINED;
    require(pointer != nullptr && (flags & ~kKnown) == 0);
    *pointer = reinterpret_cast<void*>(allocate(call, bytes, Memory::Kind::kPinned, flags));
  });
}

CUresult CUDAAPI cuMemFreeHost(void* pointer) {
  return api(__func__, kInit | kContext | kHealthyAfter | kNotInCapture, [&](Call& call) {
    if (pointer == nullptr) return;
    const auto found = call.state.memory.find(address_of(pointer));
    require(found != call.state.memory.end() && found->second.kind == Memory::Kind::kPinned,
            "not the beginning of pinned memory");
    free_now(call, address_of(pointer));
  });
}

CUresult CUDAAPI cuMemHostRegister(void* pointer, size_t bytes, unsigned flags) {
  return api(__func__, kUsable | kNotInCapture, [&](Call& call) {
    constexpr unsigned kKnown = CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP |
                                CU_MEMHOSTREGISTER_IOMEMORY | CU_MEMHOSTREGISTER_READ_ONLY;
    require(pointer != nullptr && bytes > 0 && (flags & ~kKnown) == 0);
    const uint64_t begin = address_of(pointer);
    const auto next = call.state.memory.lower_bound(begin);
    require(find_memory(call.state, begin) == call.state.memory.end() &&
                (next == call.state.memory.end() || next->first >= begin + bytes),
            CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, "part of it is pinned already");
    Memory entry;
    entry.context = call.context;
    entry.size_bytes = bytes;
    entry.flags = flags;
    entry.number = call.state.next_id++;
    entry.kind = Memory::Kind::kRegistered;
    GlobalMemory::instance().register_host(begin, bytes);
    call.state.memory.emplace(begin, std::move(entry));
  });
}

CUresult CUDAAPI cuMemHostUnregister(void* pointer) {
  return api(__func__, kInit | kContext | kHealthyAfter | kNotInCapture, [&](Call& call) {
    const auto found = call.state.memory.find(address_of(pointer));
    require(found != call.state.memory.end() && found->second.kind == Memory::Kind::kRegistered,
            CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED, "not the beginning of registered memory");
    const auto context = found->second.context;
    wait_for_all(call.state, call.lock, context);
    call.state.memory.erase(address_of(pointer));
    GlobalMemory::instance().unregister_host(address_of(pointer));
  });
}

CUresult CUDAAPI cuMemHostGetDevicePointer(CUdeviceptr* device, void* host, unsigned flags) {
  return api(__func__, kUsable, [&](Call& call) {
    require(device != nullptr && flags == 0);
    const auto found = find_memory(call.state, address_of(host));
    require(found != call.state.memory.end() && is_pinned(found->second), "not pinned memory");
    *device = address_of(host);
  });
}

CUresult CUDAAPI cuMemHostGetFlags(unsigned* flags, void* host) {
  return api(__func__, kUsable, [&](Call& call) {
    require(flags != nullptr);
    const auto found = find_memory(call.state, address_of(host));
    require(found != call.state.memory.end() && found->second.kind == Memory::Kind::kPinned,
            "not pinned memory");
    *flags = found->second.flags | CU_MEMHOSTALLOC_DEVICEMAP;
  });
}

// --- pointers ---

CUresult CUDAAPI cuPointerGetAttribute(void* data, CUpointer_attribute attribute,
                                       CUdeviceptr pointer) {
  return api(__func__, kInit, [&](Call& call) {
    require(data != nullptr);
    require(pointer_attribute(call.state, attribute, pointer, data),
            "the attribute has no value for this pointer");
  });
}

// Attributes without a value become zero, and the call succeeds: how an application asks whether a
// pointer is known.
CUresult CUDAAPI cuPointerGetAttributes(unsigned count, CUpointer_attribute* attributes,
                                        void** data, CUdeviceptr pointer) {
  return api(__func__, kInit, [&](Call& call) {
    require(attributes != nullptr && data != nullptr);
    for (unsigned i = 0; i < count; ++i) {
      if (pointer_attribute(call.state, attributes[i], pointer, data[i])) continue;
      switch (attributes[i]) {
        case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
          store<unsigned>(data[i], 0);
          break;
        case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
        case CU_POINTER_ATTRIBUTE_IS_MANAGED:
        case CU_POINTER_ATTRIBUTE_MAPPED:
          store<int>(data[i], 0);
          break;
        case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
          store<int>(data[i], CU_DEVICE_INVALID);
          break;
        case CU_POINTER_ATTRIBUTE_CONTEXT:
        case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
        case CU_POINTER_ATTRIBUTE_HOST_POINTER:
        case CU_POINTER_ATTRIBUTE_BUFFER_ID:
        case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
        case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
        case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE:
          store<uint64_t>(data[i], 0);
          break;
        default:
          fail(CUDA_ERROR_INVALID_VALUE, "no such attribute");
      }
    }
  });
}

}  // extern "C"
