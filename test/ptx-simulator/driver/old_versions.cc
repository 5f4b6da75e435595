// Versions of functions that programs built for an older CUDA 12 or 11 look up by their names.
#define __CUDA_API_VERSION_INTERNAL
#include <cuda.h>

// With that definition cuda.h declares the functions of all versions, each by its own name.
extern "C" {

CUresult CUDAAPI cuCtxCreate_v2(CUcontext* context, unsigned flags, CUdevice device) {
  return cuCtxCreate_v4(context, nullptr, flags, device);
}

CUresult CUDAAPI cuEventElapsedTime(float* milliseconds, CUevent start, CUevent end) {
  return cuEventElapsedTime_v2(milliseconds, start, end);
}

CUresult CUDAAPI cuDeviceGetUuid(CUuuid* uuid, CUdevice device) {
  return cuDeviceGetUuid_v2(uuid, device);
}

CUresult CUDAAPI cuGetProcAddress(const char* symbol, void** address, int cuda, cuuint64_t flags) {
  return cuGetProcAddress_v2(symbol, address, cuda, flags, nullptr);
}

}  // extern "C"
