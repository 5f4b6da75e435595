// Copies and memsets. What CUDA documents about them and pageable memory (memory that the driver
// did not give out and that is not registered): an asynchronous copy out of it has read it when the
// call returns, one into it has written it; and the synchronous functions are work of the default
// stream.
#include <cstring>

#include "driver/capture.h"
#include "driver/memory.h"
#include "driver/queue.h"
#include "machine/global_memory.h"

using namespace ptx_simulator;          // NOLINT: the API's functions are in no namespace
using namespace ptx_simulator::driver;  // NOLINT

namespace {

// Larger copies from pageable memory are waited for: below, the driver stages them and returns.
constexpr size_t kMostStagedBytes = 64 * 1024;

uint64_t address_of(const void* pointer) { return reinterpret_cast<uint64_t>(pointer); }

// A range that goes beyond its memory is the application's bug, not only an invalid argument.
template <class SomeWork>
void check_now(Call& call, const char* name, const SomeWork& work) {
  const auto problem = check(*GlobalMemory::instance().snapshot(), work);
  if (!problem) return;
  note_finding(call.state, call.context, name, *problem);
  fail(CUDA_ERROR_INVALID_VALUE, problem->text);
}

bool is_pageable(CUmemorytype type, const void* host, CUdeviceptr device) {
  const uint64_t address = type == CU_MEMORYTYPE_HOST ? address_of(host) : device;
  return GlobalMemory::instance().snapshot()->find(address) == nullptr;
}

bool is_linear(const CUDA_MEMCPY3D& copy) { return copy.Height == 1 && copy.Depth == 1; }

void copy(Call& call, const char* name, CUstream handle, CopyWork work, bool synchronous) {
  const CUDA_MEMCPY3D& c = work.copy;
  require(c.srcMemoryType != CU_MEMORYTYPE_ARRAY && c.dstMemoryType != CU_MEMORYTYPE_ARRAY,
          CUDA_ERROR_NOT_SUPPORTED, "arrays are not simulated");
  auto stream = find_stream(call, handle);
  if (c.WidthInBytes == 0 || c.Height == 0 || c.Depth == 0) return;
  check_now(call, name, work);
  const bool from_pageable = is_pageable(c.srcMemoryType, c.srcHost, c.srcDevice);
  const bool to_pageable = is_pageable(c.dstMemoryType, c.dstHost, c.dstDevice);
  if (stream->capture != nullptr) {
    submit_or_capture(call, stream, std::move(work));
    return;
  }
  const bool stage = from_pageable && is_linear(c) && c.WidthInBytes <= kMostStagedBytes;
  if (stage) {
    const auto* source = c.srcMemoryType == CU_MEMORYTYPE_HOST
                             ? static_cast<const std::byte*>(c.srcHost)
                             : reinterpret_cast<const std::byte*>(c.srcDevice);
    work.staged.assign(source, source + c.WidthInBytes);
  }
  const bool wait = synchronous || to_pageable || (from_pageable && !stage);
  const auto task = submit_or_capture(call, stream, std::move(work));
  if (wait) wait_for(call.state, call.lock, task);
}

// Copies within the device are asynchronous to the host, whatever their name.
bool within_devices(CUdeviceptr to, CUdeviceptr from) {
  const auto is_device = [&](CUdeviceptr pointer) {
    const Allocation* found = GlobalMemory::instance().snapshot()->find(pointer);
    return found != nullptr && !found->is_host;
  };
  return is_device(to) && is_device(from);
}

void fill(Call& call, const char* name, CUstream handle, FillWork work, bool synchronous) {
  auto stream = find_stream(call, handle);
  require(work.address % work.element_bytes == 0, "the address is not aligned to the elements");
  require(work.height <= 1 || work.pitch % work.element_bytes == 0,
          "the pitch is not a multiple of the elements");
  if (work.width == 0 || work.height == 0) return;
  check_now(call, name, work);
  const auto task = submit_or_capture(call, stream, work);
  // Only for pinned memory does the host wait.
  const auto found = find_memory(call.state, work.address);
  if (synchronous && found != call.state.memory.end() &&
      found->second.kind != Memory::Kind::kDevice)
    wait_for(call.state, call.lock, task);
}

CopyWork plane_copy(const CUDA_MEMCPY2D& copy) {
  CopyWork work;
  CUDA_MEMCPY3D& c = work.copy;
  c.srcXInBytes = copy.srcXInBytes;
  c.srcY = copy.srcY;
  c.srcMemoryType = copy.srcMemoryType;
  c.srcHost = copy.srcHost;
  c.srcDevice = copy.srcDevice;
  c.srcPitch = copy.srcPitch != 0 ? copy.srcPitch : copy.WidthInBytes + copy.srcXInBytes;
  c.srcHeight = copy.Height + copy.srcY;
  c.dstXInBytes = copy.dstXInBytes;
  c.dstY = copy.dstY;
  c.dstMemoryType = copy.dstMemoryType;
  c.dstHost = copy.dstHost;
  c.dstDevice = copy.dstDevice;
  c.dstPitch = copy.dstPitch != 0 ? copy.dstPitch : copy.WidthInBytes + copy.dstXInBytes;
  c.dstHeight = copy.Height + copy.dstY;
  c.WidthInBytes = copy.WidthInBytes;
  c.Height = copy.Height;
  c.Depth = 1;
  require(copy.srcXInBytes + copy.WidthInBytes <= c.srcPitch &&
              copy.dstXInBytes + copy.WidthInBytes <= c.dstPitch,
          "a row is wider than its pitch");
  return work;
}

constexpr CUmemorytype kHost = CU_MEMORYTYPE_HOST;
constexpr CUmemorytype kDevice = CU_MEMORYTYPE_DEVICE;
constexpr CUmemorytype kUnified = CU_MEMORYTYPE_UNIFIED;

// The synchronous functions may synchronise: none of them while a capture forbids that. The others
// wait, too, for pageable memory.
constexpr unsigned kSynchronous = kWaits | kNotInCapture;

}  // namespace

extern "C" {

CUresult CUDAAPI cuMemcpyHtoD(CUdeviceptr to, const void* from, size_t bytes) {
  return api(__func__, kSynchronous, [&](Call& call) {
    copy(call, "cuMemcpyHtoD", nullptr, linear_copy(kDevice, to, kHost, address_of(from), bytes),
         true);
  });
}

CUresult CUDAAPI cuMemcpyDtoH(void* to, CUdeviceptr from, size_t bytes) {
  return api(__func__, kSynchronous, [&](Call& call) {
    copy(call, "cuMemcpyDtoH", nullptr, linear_copy(kHost, address_of(to), kDevice, from, bytes),
         true);
  });
}

CUresult CUDAAPI cuMemcpyDtoD(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
  return api(__func__, kSynchronous, [&](Call& call) {
    copy(call, "cuMemcpyDtoD", nullptr, linear_copy(kDevice, to, kDevice, from, bytes),
         !within_devices(to, from));
  });
}

CUresult CUDAAPI cuMemcpy(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
  return api(__func__, kSynchronous, [&](Call& call) {
    copy(call, "cuMemcpy", nullptr, linear_copy(kUnified, to, kUnified, from, bytes),
         !within_devices(to, from));
  });
}

CUresult CUDAAPI cuMemcpyHtoDAsync(CUdeviceptr to, const void* from, size_t bytes,
                                   CUstream stream) {
  return api(__func__, kWaits, [&](Call& call) {
    copy(call, "cuMemcpyHtoDAsync", stream,
         linear_copy(kDevice, to, kHost, address_of(from), bytes), false);
  });
}

CUresult CUDAAPI cuMemcpyDtoHAsync(void* to, CUdeviceptr from, size_t bytes, CUstream stream) {
  return api(__func__, kWaits, [&](Call& call) {
    copy(call, "cuMemcpyDtoHAsync", stream,
         linear_copy(kHost, address_of(to), kDevice, from, bytes), false);
  });
}

CUresult CUDAAPI cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes,
                                   CUstream stream) {
  return api(__func__, kWaits, [&](Call& call) {
    copy(call, "cuMemcpyDtoDAsync", stream, linear_copy(kDevice, to, kDevice, from, bytes), false);
  });
}

CUresult CUDAAPI cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  return api(__func__, kWaits, [&](Call& call) {
    copy(call, "cuMemcpyAsync", stream, linear_copy(kUnified, to, kUnified, from, bytes), false);
  });
}

CUresult CUDAAPI cuMemcpy2D(const CUDA_MEMCPY2D* plane) {
  return api(__func__, kSynchronous, [&](Call& call) {
    require(plane != nullptr);
    copy(call, "cuMemcpy2D", nullptr, plane_copy(*plane), true);
  });
}

CUresult CUDAAPI cuMemcpy2DUnaligned(const CUDA_MEMCPY2D* plane) {
  return api(__func__, kSynchronous, [&](Call& call) {
    require(plane != nullptr);
    copy(call, "cuMemcpy2DUnaligned", nullptr, plane_copy(*plane), true);
  });
}

CUresult CUDAAPI cuMemcpy2DAsync(const CUDA_MEMCPY2D* plane, CUstream stream) {
  return api(__func__, kWaits, [&](Call& call) {
    require(plane != nullptr);
    copy(call, "cuMemcpy2DAsync", stream, plane_copy(*plane), false);
  });
}

CUresult CUDAAPI cuMemcpy3D(const CUDA_MEMCPY3D* box) {
  return api(__func__, kSynchronous, [&](Call& call) {
    require(box != nullptr);
    copy(call, "cuMemcpy3D", nullptr, CopyWork{*box, {}}, true);
  });
}

CUresult CUDAAPI cuMemcpy3DAsync(const CUDA_MEMCPY3D* box, CUstream stream) {
  return api(__func__, kWaits, [&](Call& call) {
    require(box != nullptr);
    copy(call, "cuMemcpy3DAsync", stream, CopyWork{*box, {}}, false);
  });
}

CUresult CUDAAPI cuMemsetD8(CUdeviceptr to, unsigned char value, size_t count) {
  return api(__func__, kSynchronous, [&](Call& call) {
    fill(call, "cuMemsetD8", nullptr, {to, count, value, 1, count, 1}, true);
  });
}

CUresult CUDAAPI cuMemsetD16(CUdeviceptr to, unsigned short value, size_t count) {
  return api(__func__, kSynchronous, [&](Call& call) {
    fill(call, "cuMemsetD16", nullptr, {to, 2 * count, value, 2, count, 1}, true);
  });
}

CUresult CUDAAPI cuMemsetD32(CUdeviceptr to, unsigned value, size_t count) {
  return api(__func__, kSynchronous, [&](Call& call) {
    fill(call, "cuMemsetD32", nullptr, {to, 4 * count, value, 4, count, 1}, true);
  });
}

CUresult CUDAAPI cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t count,
                                 CUstream stream) {
  return api(__func__, kWaits, [&](Call& call) {
    fill(call, "cuMemsetD8Async", stream, {to, count, value, 1, count, 1}, false);
  });
}

CUresult CUDAAPI cuMemsetD16Async(CUdeviceptr to, unsigned short value, size_t count,
                                  CUstream stream) {
  return api(__func__, kWaits, [&](Call& call) {
    fill(call, "cuMemsetD16Async", stream, {to, 2 * count, value, 2, count, 1}, false);
  });
}

CUresult CUDAAPI cuMemsetD32Async(CUdeviceptr to, unsigned value, size_t count, CUstream stream) {
  return api(__func__, kWaits, [&](Call& call) {
    fill(call, "cuMemsetD32Async", stream, {to, 4 * count, value, 4, count, 1}, false);
  });
}

CUresult CUDAAPI cuMemsetD2D8(CUdeviceptr to, size_t pitch, unsigned char value, size_t width,
                              size_t height) {
  return api(__func__, kSynchronous, [&](Call& call) {
    fill(call, "cuMemsetD2D8", nullptr, {to, pitch, value, 1, width, height}, true);
  });
}

CUresult CUDAAPI cuMemsetD2D32(CUdeviceptr to, size_t pitch, unsigned value, size_t width,
                               size_t height) {
  return api(__func__, kSynchronous, [&](Call& call) {
    fill(call, "cuMemsetD2D32", nullptr, {to, pitch, value, 4, width, height}, true);
  });
}

CUresult CUDAAPI cuMemsetD2D8Async(CUdeviceptr to, size_t pitch, unsigned char value, size_t width,
                                   size_t height, CUstream stream) {
  return api(__func__, kWaits, [&](Call& call) {
    fill(call, "cuMemsetD2D8Async", stream, {to, pitch, value, 1, width, height}, false);
  });
}

CUresult CUDAAPI cuMemsetD2D32Async(CUdeviceptr to, size_t pitch, unsigned value, size_t width,
                                    size_t height, CUstream stream) {
  return api(__func__, kWaits, [&](Call& call) {
    fill(call, "cuMemsetD2D32Async", stream, {to, pitch, value, 4, width, height}, false);
  });
}

}  // extern "C"
