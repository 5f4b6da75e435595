// What the tests of the driver share: the library opened like an application opens it, and kernels.
#pragma once

#include <cuda.h>
#include <dlfcn.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "driver/simulator.h"

namespace driver_test {

// One line each; cuda.h turns them into the names with versions.
// clang-format off
#define PTX_TEST_FUNCTIONS(F) \
  F(cuInit) \
  F(cuDriverGetVersion) \
  F(cuGetErrorName) \
  F(cuGetErrorString) \
  F(cuGetProcAddress) \
  F(cuDeviceGet) \
  F(cuDeviceGetCount) \
  F(cuDeviceGetName) \
  F(cuDeviceGetUuid) \
  F(cuDeviceTotalMem) \
  F(cuDeviceGetAttribute) \
  F(cuDeviceGetPCIBusId) \
  F(cuDeviceGetByPCIBusId) \
  F(cuDeviceGetDefaultMemPool) \
  F(cuDevicePrimaryCtxRetain) \
  F(cuDevicePrimaryCtxRelease) \
  F(cuDevicePrimaryCtxReset) \
  F(cuDevicePrimaryCtxGetState) \
  F(cuDevicePrimaryCtxSetFlags) \
  F(cuCtxCreate) \
  F(cuCtxDestroy) \
  F(cuCtxPushCurrent) \
  F(cuCtxPopCurrent) \
  F(cuCtxSetCurrent) \
  F(cuCtxGetCurrent) \
  F(cuCtxGetDevice) \
  F(cuCtxGetId) \
  F(cuCtxSynchronize) \
  F(cuCtxGetLimit) \
  F(cuCtxSetLimit) \
  F(cuCtxGetStreamPriorityRange) \
  F(cuModuleLoadData) \
  F(cuModuleLoadDataEx) \
  F(cuModuleUnload) \
  F(cuModuleGetFunction) \
  F(cuModuleGetGlobal) \
  F(cuModuleGetFunctionCount) \
  F(cuModuleEnumerateFunctions) \
  F(cuFuncGetAttribute) \
  F(cuFuncSetAttribute) \
  F(cuFuncGetParamInfo) \
  F(cuFuncGetName) \
  F(cuFuncGetModule) \
  F(cuOccupancyMaxActiveBlocksPerMultiprocessor) \
  F(cuOccupancyMaxPotentialBlockSize) \
  F(cuOccupancyAvailableDynamicSMemPerBlock) \
  F(cuMemGetInfo) \
  F(cuMemAlloc) \
  F(cuMemFree) \
  F(cuMemAllocPitch) \
  F(cuMemAllocManaged) \
  F(cuMemAllocHost) \
  F(cuMemHostAlloc) \
  F(cuMemFreeHost) \
  F(cuMemHostRegister) \
  F(cuMemHostUnregister) \
  F(cuMemHostGetDevicePointer) \
  F(cuMemGetAddressRange) \
  F(cuMemAllocAsync) \
  F(cuMemFreeAsync) \
  F(cuMemPoolCreate) \
  F(cuMemPoolDestroy) \
  F(cuMemPoolGetAttribute) \
  F(cuMemPoolSetAttribute) \
  F(cuMemAllocFromPoolAsync) \
  F(cuPointerGetAttribute) \
  F(cuPointerGetAttributes) \
  F(cuMemcpy) \
  F(cuMemcpyHtoD) \
  F(cuMemcpyDtoH) \
  F(cuMemcpyDtoD) \
  F(cuMemcpyAsync) \
  F(cuMemcpyHtoDAsync) \
  F(cuMemcpyDtoHAsync) \
  F(cuMemcpyDtoDAsync) \
  F(cuMemcpy2D) \
  F(cuMemcpy2DAsync) \
  F(cuMemcpy3D) \
  F(cuMemsetD8) \
  F(cuMemsetD16) \
  F(cuMemsetD32) \
  F(cuMemsetD8Async) \
  F(cuMemsetD16Async) \
  F(cuMemsetD32Async) \
  F(cuMemsetD2D8) \
  F(cuStreamCreate) \
  F(cuStreamCreateWithPriority) \
  F(cuStreamDestroy) \
  F(cuStreamQuery) \
  F(cuStreamSynchronize) \
  F(cuStreamGetPriority) \
  F(cuStreamGetFlags) \
  F(cuStreamGetCtx) \
  F(cuStreamWaitEvent) \
  F(cuStreamAddCallback) \
  F(cuLaunchHostFunc) \
  F(cuEventCreate) \
  F(cuEventDestroy) \
  F(cuEventRecord) \
  F(cuEventQuery) \
  F(cuEventSynchronize) \
  F(cuEventElapsedTime) \
  F(cuLaunchKernel) \
  F(cuLaunchKernelEx) \
  F(cuLaunchCooperativeKernel) \
  F(cuStreamBeginCapture) \
  F(cuStreamEndCapture) \
  F(cuStreamBeginCaptureToGraph) \
  F(cuStreamIsCapturing) \
  F(cuStreamGetCaptureInfo) \
  F(cuStreamUpdateCaptureDependencies) \
  F(cuThreadExchangeStreamCaptureMode) \
  F(cuGraphCreate) \
  F(cuGraphDestroy) \
  F(cuGraphClone) \
  F(cuGraphNodeFindInClone) \
  F(cuGraphNodeGetType) \
  F(cuGraphGetNodes) \
  F(cuGraphGetRootNodes) \
  F(cuGraphGetEdges) \
  F(cuGraphNodeGetDependencies) \
  F(cuGraphNodeGetDependentNodes) \
  F(cuGraphAddDependencies) \
  F(cuGraphRemoveDependencies) \
  F(cuGraphDestroyNode) \
  F(cuGraphAddKernelNode) \
  F(cuGraphKernelNodeGetParams) \
  F(cuGraphKernelNodeSetParams) \
  F(cuGraphAddMemcpyNode) \
  F(cuGraphMemcpyNodeGetParams) \
  F(cuGraphMemcpyNodeSetParams) \
  F(cuGraphAddMemsetNode) \
  F(cuGraphMemsetNodeGetParams) \
  F(cuGraphMemsetNodeSetParams) \
  F(cuGraphAddHostNode) \
  F(cuGraphHostNodeGetParams) \
  F(cuGraphHostNodeSetParams) \
  F(cuGraphAddEmptyNode) \
  F(cuGraphAddChildGraphNode) \
  F(cuGraphChildGraphNodeGetGraph) \
  F(cuGraphAddNode) \
  F(cuGraphInstantiate) \
  F(cuGraphInstantiateWithParams) \
  F(cuGraphUpload) \
  F(cuGraphLaunch) \
  F(cuGraphExecDestroy) \
  F(cuGraphExecUpdate) \
  F(cuGraphExecKernelNodeSetParams) \
  F(cuGraphExecMemcpyNodeSetParams) \
  F(cuGraphExecMemsetNodeSetParams) \
  F(cuGraphExecHostNodeSetParams) \
  F(cuGraphNodeSetEnabled) \
  F(cuGraphNodeGetEnabled) \
  F(ptx_simulator_set) \
  F(ptx_simulator_fail_allocation) \
  F(ptx_simulator_fail_launch) \
  F(ptx_simulator_fail_call) \
  F(ptx_simulator_clear_faults) \
  F(ptx_simulator_allocations) \
  F(ptx_simulator_launches) \
  F(ptx_simulator_calls) \
  F(ptx_simulator_live) \
  F(ptx_simulator_report_count) \
  F(ptx_simulator_get_report) \
  F(ptx_simulator_finding) \
  F(ptx_simulator_finding_count) \
  F(ptx_simulator_report_json) \
  F(ptx_simulator_write_reports) \
  F(ptx_simulator_clear_reports) \
  F(ptx_simulator_last_message)
// clang-format on

#define PTX_TEST_NAME_OF(name) #name

struct Cuda {
  void* library = dlopen(PTX_SIMULATOR_DRIVER, RTLD_NOW | RTLD_LOCAL);
#define PTX_TEST_MEMBER(name) \
  decltype(&::name) name = find<decltype(&::name)>(PTX_TEST_NAME_OF(name));
  PTX_TEST_FUNCTIONS(PTX_TEST_MEMBER)
#undef PTX_TEST_MEMBER

 private:
  template <class Function>
  Function find(const char* name) {
    void* found = library == nullptr ? nullptr : dlsym(library, name);
    if (found == nullptr) {
      std::fprintf(stderr, "%s: %s\n", name, dlerror());
      std::exit(1);
    }
    return reinterpret_cast<Function>(found);
  }
};
inline Cuda& cuda() {
  static Cuda functions;
  return functions;
}

inline std::string name_of(CUresult code) {
  const char* name = nullptr;
  cuda().cuGetErrorName(code, &name);
  return name == nullptr ? "unknown code " + std::to_string(code) : name;
}

// EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemFree(pointer)); OK(cuMemFree(pointer))
#define EXPECT(code, call)                                       \
  do {                                                           \
    const CUresult ptx_test_result = ::driver_test::cuda().call; \
    CHECK(ptx_test_result == (code), "%s: %s (%s)", #call,       \
          ::driver_test::name_of(ptx_test_result).c_str(),       \
          ::driver_test::cuda().ptx_simulator_last_message());   \
  } while (false)
#define OK(call) EXPECT(CUDA_SUCCESS, call)

// A context for the length of a test; the simulator begins anew with it.
class Context {
 public:
  explicit Context(int device = 0) {
    cuda().ptx_simulator_clear_faults();
    cuda().ptx_simulator_clear_reports();
    OK(cuInit(0));
    OK(cuCtxCreate(&handle_, nullptr, 0, device));
  }
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
  ~Context() { OK(cuCtxDestroy(handle_)); }
  operator CUcontext() const { return handle_; }

 private:
  CUcontext handle_ = nullptr;
};

inline ptx_simulator_objects live() {
  ptx_simulator_objects objects;
  cuda().ptx_simulator_live(&objects);
  return objects;
}

// All kernels that the tests use.
inline const char* const kPtx = R"(
.version 8.0
.target sm_80
.address_size 64

.visible .global .align 4 .u32 counter = 7;
.visible .const .align 4 .u32 table[4] = {10, 20, 30, 40};
.global .align 8 .u64 where = counter;

// out[i] = in[i] + value, for i < n
.visible .entry add(.param .u64 out, .param .u64 in, .param .u32 value, .param .u32 n)
{
  .reg .pred %p;
  .reg .b32 %r<8>;
  .reg .b64 %d<8>;
  ld.param.u64 %d1, [out];
  ld.param.u64 %d2, [in];
  ld.param.u32 %r1, [value];
  ld.param.u32 %r2, [n];
  mov.u32 %r3, %ctaid.x;
  mov.u32 %r4, %ntid.x;
  mov.u32 %r5, %tid.x;
  mad.lo.s32 %r6, %r3, %r4, %r5;
  setp.ge.u32 %p, %r6, %r2;
  @%p bra done;
  cvta.to.global.u64 %d1, %d1;
  cvta.to.global.u64 %d2, %d2;
  mul.wide.u32 %d3, %r6, 4;
  add.s64 %d1, %d1, %d3;
  add.s64 %d2, %d2, %d3;
  ld.global.u32 %r7, [%d2];
  add.u32 %r7, %r7, %r1;
  st.global.u32 [%d1], %r7;
done:
  ret;
}

// Waits until *flag is not 0, then *out = value.
.visible .entry gate(.param .u64 flag, .param .u64 out, .param .u32 value)
{
  .reg .pred %p;
  .reg .b32 %r<3>;
  .reg .b64 %d<3>;
  ld.param.u64 %d1, [flag];
  ld.param.u64 %d2, [out];
  ld.param.u32 %r1, [value];
loop:
  ld.volatile.global.u32 %r2, [%d1];
  setp.eq.u32 %p, %r2, 0;
  @%p bra loop;
  st.global.u32 [%d2], %r1;
  ret;
}

// Takes its time, then *out = value.
.visible .entry slow(.param .u64 out, .param .u32 value, .param .u32 turns)
{
  .reg .pred %p;
  .reg .b32 %r<4>;
  .reg .b64 %d<2>;
  ld.param.u64 %d1, [out];
  ld.param.u32 %r1, [value];
  ld.param.u32 %r2, [turns];
loop:
  add.u32 %r2, %r2, -1;
  setp.ne.u32 %p, %r2, 0;
  @%p bra loop;
  st.global.u32 [%d1], %r1;
  ret;
}

// Stores at an address.
.visible .entry poke(.param .u64 address)
{
  .reg .b32 %r<2>;
  .reg .b64 %d<2>;
  ld.param.u64 %d1, [address];
  mov.u32 %r1, 1;
  st.global.u32 [%d1], %r1;
  ret;
}

.visible .entry stop()
{
  trap;
}

// Threads write to one place of shared memory without a barrier, then through dynamic shared memory.
.extern .shared .align 16 .b8 dynamic[];
.visible .entry racy(.param .u64 out)
{
  .shared .align 4 .b32 cell;
  .reg .b32 %r<3>;
  .reg .b64 %d<2>;
  ld.param.u64 %d1, [out];
  mov.u32 %r1, %tid.x;
  st.shared.u32 [cell], %r1;
  ld.shared.u32 %r2, [cell];
  st.global.u32 [%d1], %r2;
  ret;
}

// out[tid] = dynamic[n - 1 - tid]
.visible .entry reverse(.param .u64 out, .param .u32 n)
{
  .reg .b32 %r<8>;
  .reg .b64 %d<4>;
  ld.param.u64 %d1, [out];
  ld.param.u32 %r1, [n];
  mov.u32 %r2, %tid.x;
  shl.b32 %r3, %r2, 2;
  mov.u32 %r4, dynamic;
  add.u32 %r4, %r4, %r3;
  st.shared.u32 [%r4], %r2;
  bar.sync 0;
  sub.u32 %r5, %r1, %r2;
  add.u32 %r5, %r5, -1;
  shl.b32 %r5, %r5, 2;
  mov.u32 %r6, dynamic;
  add.u32 %r6, %r6, %r5;
  ld.shared.u32 %r7, [%r6];
  mul.wide.u32 %d2, %r2, 4;
  add.s64 %d1, %d1, %d2;
  st.global.u32 [%d1], %r7;
  ret;
}

// *out = counter + table[2] + the variable that `where` points to
.visible .entry variables(.param .u64 out)
{
  .reg .b32 %r<4>;
  .reg .b64 %d<4>;
  ld.param.u64 %d1, [out];
  ld.global.u32 %r1, [counter];
  ld.const.u32 %r2, [table+8];
  ld.global.u64 %d2, [where];
  ld.global.u32 %r3, [%d2];
  add.u32 %r1, %r1, %r2;
  add.u32 %r1, %r1, %r3;
  st.global.u32 [%d1], %r1;
  ret;
}

// Adds with a mixture of parameter sizes: *out = a + b + c + d
.visible .entry mixed(.param .u8 a, .param .u64 out, .param .u16 b, .param .u32 c, .param .u64 d)
{
  .reg .b16 %h<3>;
  .reg .b32 %r<4>;
  .reg .b64 %d<6>;
  ld.param.u8 %h1, [a];
  ld.param.u64 %d1, [out];
  ld.param.u16 %h2, [b];
  ld.param.u32 %r1, [c];
  ld.param.u64 %d2, [d];
  cvt.u64.u16 %d3, %h1;
  cvt.u64.u16 %d4, %h2;
  cvt.u64.u32 %d5, %r1;
  add.u64 %d2, %d2, %d3;
  add.u64 %d2, %d2, %d4;
  add.u64 %d2, %d2, %d5;
  st.global.u64 [%d1], %d2;
  ret;
}

.visible .entry bounded() .maxntid 128, 1, 1
{
  ret;
}
)";

// The module, and its kernels by name.
class Kernels {
 public:
  Kernels() { OK(cuModuleLoadData(&module_, kPtx)); }
  ~Kernels() {
    if (module_ != nullptr) cuda().cuModuleUnload(module_);
  }
  Kernels(const Kernels&) = delete;
  Kernels& operator=(const Kernels&) = delete;
  CUmodule module() const { return module_; }
  CUfunction operator[](const char* name) const {
    CUfunction function = nullptr;
    OK(cuModuleGetFunction(&function, module_, name));
    return function;
  }

 private:
  CUmodule module_ = nullptr;
};

// cuLaunchKernel with arguments of their own types.
struct Shape {
  unsigned blocks = 1;
  unsigned threads = 32;
  unsigned dynamic_shared_bytes = 0;
  CUstream stream = nullptr;
};
template <class... Arguments>
CUresult launch(CUfunction function, Shape shape, Arguments... arguments) {
  void* pointers[] = {&arguments..., nullptr};
  return cuda().cuLaunchKernel(function, shape.blocks, 1, 1, shape.threads, 1, 1,
                               shape.dynamic_shared_bytes, shape.stream, pointers, nullptr);
}
#define EXPECT_LAUNCH(code, ...)                                          \
  do {                                                                    \
    const CUresult ptx_test_result = ::driver_test::launch(__VA_ARGS__);  \
    CHECK(ptx_test_result == (code), "launch(%s): %s (%s)", #__VA_ARGS__, \
          ::driver_test::name_of(ptx_test_result).c_str(),                \
          ::driver_test::cuda().ptx_simulator_last_message());            \
  } while (false)
#define OK_LAUNCH(...) EXPECT_LAUNCH(CUDA_SUCCESS, __VA_ARGS__)

// Device memory for the length of a test.
class Buffer {
 public:
  explicit Buffer(size_t bytes) { OK(cuMemAlloc(&pointer_, bytes)); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { cuda().cuMemFree(pointer_); }
  operator CUdeviceptr() const { return pointer_; }
  uint32_t read(size_t index = 0) const {
    uint32_t value = 0;
    OK(cuMemcpyDtoH(&value, pointer_ + 4 * index, 4));
    return value;
  }

 private:
  CUdeviceptr pointer_ = 0;
};

// Pinned host memory.
class Pinned {
 public:
  explicit Pinned(size_t bytes) { OK(cuMemAllocHost(&pointer_, bytes)); }
  Pinned(const Pinned&) = delete;
  Pinned& operator=(const Pinned&) = delete;
  ~Pinned() { cuda().cuMemFreeHost(pointer_); }
  // volatile: a stream writes it while the test looks on
  volatile uint32_t* words() const { return static_cast<volatile uint32_t*>(pointer_); }
  void* data() const { return pointer_; }

 private:
  void* pointer_ = nullptr;
};

// Writes memory that a kernel reads at the same time, as hosts and devices do: no data race of the
// driver's.
#define PTX_TEST_RACE __attribute__((no_sanitize("thread")))

// Work that takes as long as the test wants.
class Gate {
 public:
  explicit Gate(const Kernels& kernels) : function_(kernels["gate"]) {}
  // *out = value, when the gate is open
  PTX_TEST_RACE void launch_in(CUstream stream, CUdeviceptr out, uint32_t value) {
    flag_.words()[0] = 0;
    OK_LAUNCH(function_, {.threads = 1, .stream = stream},
              reinterpret_cast<CUdeviceptr>(flag_.data()), out, value);
  }
  PTX_TEST_RACE void open() { flag_.words()[0] = 1; }
  // Opens it while the test waits.
  std::thread open_later(int milliseconds = 20) {
    return std::thread([this, milliseconds] {
      std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
      open();
    });
  }

 private:
  CUfunction function_;
  Pinned flag_{4};
};

struct Test {
  const char* name;
  void (*run)();
};
inline int run_all(std::initializer_list<Test> tests) {
  int failed = 0;
  for (const Test& test : tests) {
    altiplano::test::failures = 0;
    test.run();
    if (altiplano::test::failures == 0) continue;
    std::fprintf(stderr, "failed: %s (%d checks)\n", test.name, altiplano::test::failures);
    ++failed;
  }
  std::fprintf(stderr, "%zu tests, %d failed\n", tests.size(), failed);
  return failed == 0 ? 0 : 1;
}
#define TEST(function) \
  { #function, function }

}  // namespace driver_test
