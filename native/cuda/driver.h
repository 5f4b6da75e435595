// The CUDA driver API, from a libcuda.so.1 that is opened at run time: one addon serves machines
// with and without a GPU. Only documented functions of cuda.h are used, and no CUDA runtime
// library.
#pragma once

#include <cuda.h>

#include <string>

namespace altiplano::cuda {

// Every function of the driver that is called anywhere. cuda.h renames some of them to their
// current version (cuMemAlloc is cuMemAlloc_v2); the names here are renamed with them.
#define ALTIPLANO_CUDA_FUNCTIONS(X) \
  X(cuInit)                         \
  X(cuDriverGetVersion)             \
  X(cuGetErrorName)                 \
  X(cuGetErrorString)               \
  X(cuDeviceGetCount)               \
  X(cuDeviceGet)                    \
  X(cuDeviceGetName)                \
  X(cuDeviceGetAttribute)           \
  X(cuDeviceTotalMem)               \
  X(cuDevicePrimaryCtxRetain)       \
  X(cuDevicePrimaryCtxRelease)      \
  X(cuCtxSetCurrent)                \
  X(cuCtxPushCurrent)               \
  X(cuCtxPopCurrent)                \
  X(cuModuleLoadData)               \
  X(cuModuleUnload)                 \
  X(cuModuleGetFunction)            \
  X(cuFuncSetAttribute)             \
  X(cuMemGetInfo)                   \
  X(cuMemAlloc)                     \
  X(cuMemFree)                      \
  X(cuMemHostAlloc)                 \
  X(cuMemFreeHost)                  \
  X(cuMemcpyHtoDAsync)              \
  X(cuMemcpyDtoHAsync)              \
  X(cuMemcpyDtoDAsync)              \
  X(cuMemsetD8Async)                \
  X(cuStreamCreate)                 \
  X(cuStreamDestroy)                \
  X(cuStreamSynchronize)            \
  X(cuEventCreate)                  \
  X(cuEventDestroy)                 \
  X(cuEventRecord)                  \
  X(cuEventSynchronize)             \
  X(cuLaunchKernel)                 \
  X(cuStreamBeginCapture)           \
  X(cuStreamEndCapture)             \
  X(cuGraphInstantiate)             \
  X(cuGraphLaunch)                  \
  X(cuGraphGetNodes)                \
  X(cuGraphNodeGetType)             \
  X(cuGraphKernelNodeGetParams)     \
  X(cuGraphExecKernelNodeSetParams) \
  X(cuGraphExecDestroy)             \
  X(cuGraphDestroy)

struct Driver {
#define ALTIPLANO_CUDA_MEMBER(name) decltype(&::name) name;
  ALTIPLANO_CUDA_FUNCTIONS(ALTIPLANO_CUDA_MEMBER)
#undef ALTIPLANO_CUDA_MEMBER
};

// What CUDA 13 needs: the driver of release 580.
inline constexpr int kLeastDriverVersion = 13000;
inline constexpr const char* kLeastDriverRelease = "580";

// The driver, initialised, or why there is none. Found out once for the process. One that is too
// old may be there all the same, to ask for its devices' names.
struct DriverStatus {
  const Driver* driver = nullptr;  // null: see `problem`
  std::string library;             // the name it was opened by; empty if it was not found
  int version = 0;      // as cuDriverGetVersion gives it (13000 is CUDA 13.0); 0: unknown
  std::string problem;  // for people; empty if there is none
};
const DriverStatus& driver_status();

// Throws Error ALTIPLANO_DEVICE_UNAVAILABLE with the problem where there is no driver.
const Driver& driver();

// Throws an Error that names the call, the driver's name for the error, and `about` (kernel, shape,
// device): ALTIPLANO_OUT_OF_MEMORY for memory, ALTIPLANO_CUDA_FAILED for everything else.
[[noreturn]] void fail(CUresult result, const char* call, const std::string& about);

inline void check(CUresult result, const char* call) {
  if (result != CUDA_SUCCESS) [[unlikely]]
    fail(result, call, "");
}

// `about()` is only called for an error.
template <class About>
void check(CUresult result, const char* call, const About& about) {
  if (result != CUDA_SUCCESS) [[unlikely]]
    fail(result, call, about());
}

// The call of a driver function, checked.
#define CUDA_CHECK(function, ...) \
  ::altiplano::cuda::check(::altiplano::cuda::driver().function(__VA_ARGS__), #function)

}  // namespace altiplano::cuda
