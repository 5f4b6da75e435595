// The simulated driver: initialisation, devices, contexts, names of errors, looking up functions.
#include <set>

#include "driver_api.h"

namespace driver_test {
namespace {

// The first test: nothing is initialised.
void test_before_init() {
  int count = -1;
  EXPECT(CUDA_ERROR_NOT_INITIALIZED, cuDeviceGetCount(&count));
  CUdeviceptr pointer = 0;
  EXPECT(CUDA_ERROR_NOT_INITIALIZED, cuMemAlloc(&pointer, 16));
  int version = 0;
  OK(cuDriverGetVersion(&version));
  CHECK(version == 13000, "version %d", version);
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuInit(1));
  CHECK(cuda().ptx_simulator_set("DEVICES", "0") == 0, "cannot set the number of devices");
  EXPECT(CUDA_ERROR_NO_DEVICE, cuInit(0));
  CHECK(cuda().ptx_simulator_set("DEVICES", "2") == 0, "cannot set the number of devices");
  CHECK(cuda().ptx_simulator_set("MEMORY", "1G") == 0, "cannot set the memory");
  CHECK(cuda().ptx_simulator_set("MEMORY", "much") == -1, "a memory of much");
  CHECK(cuda().ptx_simulator_set("NONSENSE", "1") == -1, "a setting that is none");
  OK(cuInit(0));
  OK(cuInit(0));
}

void test_devices() {
  int count = 0;
  OK(cuDeviceGetCount(&count));
  CHECK(count == 2, "%d devices", count);
  CUdevice device = -1;
  OK(cuDeviceGet(&device, 1));
  CHECK(device == 1, "device %d", device);
  EXPECT(CUDA_ERROR_INVALID_DEVICE, cuDeviceGet(&device, 2));
  EXPECT(CUDA_ERROR_INVALID_DEVICE, cuDeviceGet(&device, -1));
  char name[64];
  OK(cuDeviceGetName(name, sizeof name, 0));
  CHECK(std::string(name) == "NVIDIA A100-SXM4-80GB", "name %s", name);
  OK(cuDeviceGetName(name, 7, 0));
  CHECK(std::string(name) == "NVIDIA", "cut name %s", name);
  size_t bytes = 0;
  OK(cuDeviceTotalMem(&bytes, 1));
  CHECK(bytes == size_t{1} << 30, "%zu bytes", bytes);
  CUuuid first, second;
  OK(cuDeviceGetUuid(&first, 0));
  OK(cuDeviceGetUuid(&second, 1));
  CHECK(std::memcmp(&first, &second, sizeof first) != 0, "two devices, one uuid");
  char address[32];
  OK(cuDeviceGetPCIBusId(address, sizeof address, 1));
  OK(cuDeviceGetByPCIBusId(&device, address));
  CHECK(device == 1, "%s is device %d", address, device);
  EXPECT(CUDA_ERROR_INVALID_DEVICE, cuDeviceGetByPCIBusId(&device, "0000:FF:00.0"));
}

// What the driver and its devices say of themselves can be set.
void test_other_machines() {
  const auto capability = [](CUdevice device) {
    int major = 0, minor = 0;
    OK(cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device));
    OK(cuDeviceGetAttribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device));
    return 10 * major + minor;
  };
  CHECK(cuda().ptx_simulator_set("CAPABILITY", "75,120") == 0, "cannot set the capabilities");
  CHECK(capability(0) == 75 && capability(1) == 120, "%d, %d", capability(0), capability(1));
  CHECK(cuda().ptx_simulator_set("CAPABILITY", "80") == 0, "cannot set the capabilities");
  CHECK(capability(0) == 80 && capability(1) == 80, "%d, %d", capability(0), capability(1));
  for (const char* wrong : {"", "80,", "8.0", "1000"}) {
    CHECK(cuda().ptx_simulator_set("CAPABILITY", wrong) == -1, "a capability of \"%s\"", wrong);
  }
  int version = 0;
  CHECK(cuda().ptx_simulator_set("DRIVER_VERSION", "12080") == 0, "cannot set the version");
  OK(cuDriverGetVersion(&version));
  CHECK(version == 12080, "version %d", version);
  CHECK(cuda().ptx_simulator_set("DRIVER_VERSION", "13000") == 0, "cannot set the version");
}

void test_attributes() {
  struct Row {
    CUdevice_attribute attribute;
    int value;
  };
  // NVIDIA A100 Tensor Core GPU Architecture, tables 4 and 5, and the programming guide's table of
  // technical specifications for compute capability 8.0.
  const Row rows[] = {
      {CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 108},
      {CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK, 1024},
      {CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z, 64},
      {CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X, 2147483647},
      {CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y, 65535},
      {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK, 49152},
      {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, 166912},
      {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR, 167936},
      {CU_DEVICE_ATTRIBUTE_RESERVED_SHARED_MEMORY_PER_BLOCK, 1024},
      {CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR, 65536},
      {CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR, 2048},
      {CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR, 32},
      {CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE, 41943040},
      {CU_DEVICE_ATTRIBUTE_WARP_SIZE, 32},
      {CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH, 5120},
      {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 8},
      {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, 0},
      {CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING, 1},
      {CU_DEVICE_ATTRIBUTE_CLUSTER_LAUNCH, 0},
  };
  for (const Row& row : rows) {
    int value = -2;
    OK(cuDeviceGetAttribute(&value, row.attribute, 0));
    CHECK(value == row.value, "attribute %d is %d", row.attribute, value);
  }
  for (int i = 1; i < CU_DEVICE_ATTRIBUTE_MAX; ++i) {
    int value = -2;
    OK(cuDeviceGetAttribute(&value, static_cast<CUdevice_attribute>(i), 0));
    CHECK(value >= -1, "attribute %d is %d", i, value);
  }
  int value = 0;
  EXPECT(CUDA_ERROR_INVALID_VALUE,
         cuDeviceGetAttribute(&value, static_cast<CUdevice_attribute>(0), 0));
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_MAX, 0));
}

void test_errors_have_names() {
  const char* text = nullptr;
  OK(cuGetErrorName(CUDA_SUCCESS, &text));
  CHECK(std::string(text) == "CUDA_SUCCESS", "%s", text);
  OK(cuGetErrorName(CUDA_ERROR_ILLEGAL_ADDRESS, &text));
  CHECK(std::string(text) == "CUDA_ERROR_ILLEGAL_ADDRESS", "%s", text);
  OK(cuGetErrorString(CUDA_ERROR_OUT_OF_MEMORY, &text));
  CHECK(std::string(text) == "out of memory", "%s", text);
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuGetErrorName(static_cast<CUresult>(12345), &text));
  CHECK(text == nullptr, "an unknown code has a name");
  std::set<std::string> names;
  for (int code = 0; code < 1000; ++code)
    if (cuda().cuGetErrorName(static_cast<CUresult>(code), &text) == CUDA_SUCCESS)
      CHECK(names.insert(text).second, "the name %s twice", text);
  CHECK(names.size() == 101, "%zu names", names.size());  // of the enumeration in CUDA 13.0
}

void test_functions_by_version() {
  void* address = nullptr;
  CUdriverProcAddressQueryResult status;
  OK(cuGetProcAddress("cuMemAlloc", &address, 12000, 0, &status));
  CHECK(address == reinterpret_cast<void*>(cuda().cuMemAlloc), "another cuMemAlloc");
  CHECK(status == CU_GET_PROC_ADDRESS_SUCCESS, "status %d", status);
  OK(cuGetProcAddress("cuCtxCreate", &address, 13000, 0, nullptr));
  CHECK(address == reinterpret_cast<void*>(cuda().cuCtxCreate), "another cuCtxCreate");
  OK(cuGetProcAddress("cuCtxCreate", &address, 12000, 0, nullptr));
  CHECK(address == dlsym(cuda().library, "cuCtxCreate_v2"), "not cuCtxCreate_v2");
  EXPECT(CUDA_ERROR_NOT_FOUND, cuGetProcAddress("cuNothing", &address, 13000, 0, &status));
  CHECK(address == nullptr && status == CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND, "found nothing");
  // Only the API is exported.
  CHECK(dlsym(cuda().library, "_ZN13ptx_simulator6driver6driverEv") == nullptr, "a private symbol");
  EXPECT(CUDA_ERROR_NOT_FOUND, cuGetProcAddress("ptx_simulator_set", &address, 13000, 0, nullptr));
}

void test_context_stack() {
  CUcontext current = nullptr;
  OK(cuCtxGetCurrent(&current));
  CHECK(current == nullptr, "a context at the start");
  size_t free_bytes, total_bytes;
  EXPECT(CUDA_ERROR_INVALID_CONTEXT, cuMemGetInfo(&free_bytes, &total_bytes));
  CUcontext a, b;
  OK(cuCtxCreate(&a, nullptr, CU_CTX_SCHED_BLOCKING_SYNC, 0));
  OK(cuCtxCreate(&b, nullptr, 0, 1));
  CUdevice device;
  OK(cuCtxGetDevice(&device));
  CHECK(device == 1, "device %d", device);
  CUcontext popped;
  OK(cuCtxPopCurrent(&popped));
  CHECK(popped == b, "popped another");
  OK(cuCtxGetCurrent(&current));
  CHECK(current == a, "another is current");
  OK(cuCtxPushCurrent(b));
  unsigned long long id_a, id_b;
  OK(cuCtxGetId(a, &id_a));
  OK(cuCtxGetId(nullptr, &id_b));
  CHECK(id_a != id_b, "one id for two contexts");
  // Another thread has a stack of its own.
  std::thread([&] {
    CUcontext other = a;
    OK(cuCtxGetCurrent(&other));
    CHECK(other == nullptr, "a context in a new thread");
    OK(cuCtxSetCurrent(a));
    OK(cuCtxGetDevice(&device));
    CHECK(device == 0, "device %d", device);
  }).join();
  OK(cuCtxDestroy(b));  // current: it is popped
  OK(cuCtxGetCurrent(&current));
  CHECK(current == a, "not the one before");
  EXPECT(CUDA_ERROR_INVALID_CONTEXT, cuCtxDestroy(b));
  EXPECT(CUDA_ERROR_INVALID_CONTEXT, cuCtxSetCurrent(b));
  std::thread([&] { OK(cuCtxDestroy(a)); }).join();
  // Destroyed while it is current here.
  EXPECT(CUDA_ERROR_CONTEXT_IS_DESTROYED, cuCtxSynchronize());
  OK(cuCtxPopCurrent(nullptr));
  EXPECT(CUDA_ERROR_INVALID_CONTEXT, cuCtxPopCurrent(nullptr));
  EXPECT(CUDA_ERROR_INVALID_CONTEXT, cuCtxPushCurrent(reinterpret_cast<CUcontext>(0x1234)));
}

void test_primary_context() {
  unsigned flags = 1;
  int active = 1;
  OK(cuDevicePrimaryCtxGetState(0, &flags, &active));
  CHECK(active == 0, "active at the start");
  OK(cuDevicePrimaryCtxSetFlags(0, CU_CTX_SCHED_SPIN));
  CUcontext first, second;
  OK(cuDevicePrimaryCtxRetain(&first, 0));
  OK(cuDevicePrimaryCtxRetain(&second, 0));
  CHECK(first == second, "two primary contexts");
  OK(cuDevicePrimaryCtxGetState(0, &flags, &active));
  CHECK(active == 1 && flags == CU_CTX_SCHED_SPIN, "active %d, flags %u", active, flags);
  EXPECT(CUDA_ERROR_INVALID_CONTEXT, cuCtxDestroy(first));
  OK(cuCtxSetCurrent(first));
  CUdeviceptr pointer;
  OK(cuMemAlloc(&pointer, 100));
  OK(cuDevicePrimaryCtxRelease(0));
  OK(cuMemsetD8(pointer, 1, 100));
  const auto before = live();
  OK(cuDevicePrimaryCtxRelease(0));  // the last one: all that it owns is gone
  CHECK(live().allocations == before.allocations - 1, "memory survives its context");
  CHECK(live().abandoned == before.abandoned + 1, "the memory was not counted as abandoned");
  EXPECT(CUDA_ERROR_CONTEXT_IS_DESTROYED, cuMemFree(pointer));
  OK(cuCtxSetCurrent(nullptr));
  EXPECT(CUDA_ERROR_INVALID_CONTEXT, cuDevicePrimaryCtxRelease(0));
  OK(cuDevicePrimaryCtxRetain(&second, 0));
  CHECK(second != first, "a context lives twice");
  OK(cuDevicePrimaryCtxReset(0));
  CHECK(live().contexts == 0, "%llu contexts", static_cast<unsigned long long>(live().contexts));
}

void test_limits() {
  Context context;
  size_t value = 0;
  OK(cuCtxSetLimit(CU_LIMIT_STACK_SIZE, 4096));
  OK(cuCtxGetLimit(&value, CU_LIMIT_STACK_SIZE));
  CHECK(value == 4096, "stack of %zu", value);
  EXPECT(CUDA_ERROR_UNSUPPORTED_LIMIT, cuCtxGetLimit(&value, CU_LIMIT_SHMEM_SIZE));
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuCtxGetLimit(&value, CU_LIMIT_MAX));
  int least, greatest;
  OK(cuCtxGetStreamPriorityRange(&least, &greatest));
  CHECK(least == 0 && greatest < 0, "priorities %d to %d", least, greatest);
}

}  // namespace
}  // namespace driver_test

int main() {
  using namespace driver_test;  // NOLINT
  return run_all({TEST(test_before_init), TEST(test_devices), TEST(test_other_machines),
                  TEST(test_attributes), TEST(test_errors_have_names),
                  TEST(test_functions_by_version), TEST(test_context_stack),
                  TEST(test_primary_context), TEST(test_limits)});
}
