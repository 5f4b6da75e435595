// The simulated driver: memory, copies, memsets, pools, what pointers point to.
#include <numeric>

#include "driver_api.h"

namespace driver_test {
namespace {

void test_allocations() {
  Context context;
  size_t free_before, free_bytes, total;
  OK(cuMemGetInfo(&free_before, &total));
  CHECK(free_before == total && total == size_t{64} << 20, "%zu of %zu free", free_before, total);
  CUdeviceptr a = 0, b = 0;
  OK(cuMemAlloc(&a, 1000));
  OK(cuMemAlloc(&b, 24));
  CHECK(a % 256 == 0 && b % 256 == 0, "not aligned");
  OK(cuMemGetInfo(&free_bytes, &total));
  CHECK(free_bytes < free_before, "nothing used");
  CUdeviceptr base;
  size_t bytes;
  OK(cuMemGetAddressRange(&base, &bytes, a + 999));
  CHECK(base == a && bytes == 1000, "%zu bytes", bytes);
  EXPECT(CUDA_ERROR_NOT_FOUND, cuMemGetAddressRange(&base, &bytes, a + 1000));
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemFree(a + 8));
  OK(cuMemFree(a));
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemFree(a));
  OK(cuMemFree(0));
  OK(cuMemFree(b));
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemAlloc(&a, 0));
  OK(cuMemGetInfo(&free_bytes, &total));
  CHECK(free_bytes == free_before, "%zu bytes lost", free_before - free_bytes);
  CHECK(live().allocations == 0, "live allocations");
}

void test_a_device_is_finite() {
  Context context;
  CUdeviceptr a, b;
  EXPECT(CUDA_ERROR_OUT_OF_MEMORY, cuMemAlloc(&a, size_t{65} << 20));
  OK(cuMemAlloc(&a, size_t{40} << 20));
  EXPECT(CUDA_ERROR_OUT_OF_MEMORY, cuMemAlloc(&b, size_t{30} << 20));
  OK(cuMemFree(a));
  OK(cuMemAlloc(&b, size_t{30} << 20));
  OK(cuMemFree(b));
}

void test_copies() {
  Context context;
  std::vector<uint32_t> from(1000), to(1000);
  std::iota(from.begin(), from.end(), 1u);
  Buffer a(4000), b(4000);
  OK(cuMemcpyHtoD(a, from.data(), 4000));
  OK(cuMemcpyDtoD(b, a, 4000));
  OK(cuMemcpyDtoH(to.data(), b, 4000));
  CHECK(to == from, "not copied");
  std::fill(to.begin(), to.end(), 0u);
  OK(cuMemcpy(reinterpret_cast<CUdeviceptr>(to.data()), a + 400, 400));
  CHECK(to[0] == 101 && to[99] == 200 && to[100] == 0, "%u %u %u", to[0], to[99], to[100]);
  OK(cuMemsetD32(a, 7, 1000));
  OK(cuMemsetD16(a + 4, 0x1234, 3));
  OK(cuMemsetD8(a, 0xAB, 2));
  OK(cuMemcpyDtoH(to.data(), a, 4000));
  CHECK(to[0] == 0xABAB && to[1] == 0x12341234 && to[2] == 0x1234 && to[3] == 7, "%x %x %x %x",
        to[0], to[1], to[2], to[3]);
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemsetD32(a + 2, 7, 1));
  OK(cuMemcpyHtoD(a, nullptr, 0));
  CHECK(cuda().ptx_simulator_finding_count() == 0, "findings");
}

void test_planes() {
  Context context;
  CUdeviceptr pitched;
  size_t pitch;
  OK(cuMemAllocPitch(&pitched, &pitch, 12, 5, 4));
  CHECK(pitch >= 12 && pitch % 32 == 0, "pitch %zu", pitch);
  OK(cuMemsetD2D8(pitched, pitch, 0, 12, 5));
  std::vector<uint32_t> from(20);
  std::iota(from.begin(), from.end(), 0u);
  CUDA_MEMCPY2D copy{};
  copy.srcMemoryType = CU_MEMORYTYPE_HOST;
  copy.srcHost = from.data();
  copy.srcPitch = 16;
  copy.srcXInBytes = 4;
  copy.dstMemoryType = CU_MEMORYTYPE_DEVICE;
  copy.dstDevice = pitched;
  copy.dstPitch = pitch;
  copy.WidthInBytes = 8;
  copy.Height = 5;
  OK(cuMemcpy2D(&copy));
  uint32_t row[3];
  OK(cuMemcpyDtoH(row, pitched + 3 * pitch, 12));
  CHECK(row[0] == 13 && row[1] == 14 && row[2] == 0, "%u %u %u", row[0], row[1], row[2]);
  copy.Height = 6;  // one row more than there is
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemcpy2D(&copy));
  copy.Height = 5;
  copy.srcPitch = 8;
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemcpy2D(&copy));
  OK(cuMemFree(pitched));
}

// Copies beyond their memory are refused, and are findings.
void test_bounds() {
  Context context;
  std::vector<char> host(4096);
  Buffer a(1000);
  CUdeviceptr freed;
  OK(cuMemAlloc(&freed, 64));
  OK(cuMemFree(freed));
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemcpyHtoD(a, host.data(), 1001));
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemcpyDtoH(host.data(), a + 996, 8));
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemcpyDtoHAsync(host.data(), a + 1000, 4, nullptr));
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemsetD32(a, 0, 251));
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemcpyDtoD(a, freed, 8));
  EXPECT(CUDA_ERROR_INVALID_VALUE,
         cuMemcpyHtoD(reinterpret_cast<CUdeviceptr>(host.data()), host.data(), 8));
  CHECK(cuda().ptx_simulator_finding_count() == 6, "%zu findings",
        cuda().ptx_simulator_finding_count());
  const std::string first = cuda().ptx_simulator_finding(0, 0);
  CHECK(first.find("out of bounds") == 0 && first.find("1 bytes past the end") != std::string::npos,
        "%s", first.c_str());
  const std::string fifth = cuda().ptx_simulator_finding(4, 0);
  CHECK(fifth.find("use after free") == 0, "%s", fifth.c_str());
  OK(cuCtxSynchronize());  // nothing of it broke the context
}

void test_pinned_memory() {
  Context context;
  void* pinned = nullptr;
  OK(cuMemHostAlloc(&pinned, 100, CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP));
  CUdeviceptr mapped;
  OK(cuMemHostGetDevicePointer(&mapped, static_cast<char*>(pinned) + 10, 0));
  CHECK(mapped == reinterpret_cast<CUdeviceptr>(pinned) + 10, "not one address space");
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemFree(reinterpret_cast<CUdeviceptr>(pinned)));
  OK(cuMemFreeHost(pinned));
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemFreeHost(pinned));
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemHostGetDevicePointer(&mapped, pinned, 0));

  std::vector<char> own(5000);
  OK(cuMemHostRegister(own.data(), own.size(), 0));
  EXPECT(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, cuMemHostRegister(own.data() + 100, 10, 0));
  OK(cuMemHostGetDevicePointer(&mapped, own.data(), 0));
  OK(cuMemHostUnregister(own.data()));
  EXPECT(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED, cuMemHostUnregister(own.data()));
  CHECK(live().allocations == 0, "live memory");
}

void test_pointers() {
  Context context;
  Buffer device(300);
  Pinned pinned(300);
  unsigned type = 0;
  OK(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, device + 10));
  CHECK(type == CU_MEMORYTYPE_DEVICE, "type %u", type);
  const auto host = reinterpret_cast<CUdeviceptr>(pinned.data());
  OK(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, host));
  CHECK(type == CU_MEMORYTYPE_HOST, "type %u", type);
  CUcontext owner = nullptr;
  OK(cuPointerGetAttribute(&owner, CU_POINTER_ATTRIBUTE_CONTEXT, device));
  CHECK(owner == context, "another context");
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
                                                         reinterpret_cast<CUdeviceptr>(&type)));
  int ordinal = 5;
  CUdeviceptr start = 1;
  CUpointer_attribute attributes[] = {CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
                                      CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL,
                                      CU_POINTER_ATTRIBUTE_RANGE_START_ADDR};
  void* data[] = {&type, &ordinal, &start};
  OK(cuPointerGetAttributes(3, attributes, data, device + 100));
  CHECK(type == CU_MEMORYTYPE_DEVICE && ordinal == 0 && start == device, "type %u, device %d", type,
        ordinal);
  OK(cuPointerGetAttributes(3, attributes, data, reinterpret_cast<CUdeviceptr>(&type)));
  CHECK(type == 0 && start == 0, "an unknown pointer has type %u", type);
}

void test_pools() {
  Context context;
  CUstream stream;
  OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  CUdeviceptr pointer;
  OK(cuMemAllocAsync(&pointer, 4096, stream));
  OK(cuMemsetD8Async(pointer, 3, 4096, stream));
  uint32_t word = 0;
  OK(cuMemcpyDtoHAsync(&word, pointer, 4, stream));
  CHECK(word == 0x03030303, "%x", word);
  CUmemoryPool pool;
  OK(cuDeviceGetDefaultMemPool(&pool, 0));
  uint64_t used = 0;
  OK(cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &used));
  CHECK(used == 4096, "%llu bytes used", static_cast<unsigned long long>(used));
  OK(cuMemFreeAsync(pointer, stream));
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemFreeAsync(pointer, stream));
  OK(cuStreamSynchronize(stream));
  OK(cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &used));
  CHECK(used == 0 && live().allocations == 0, "not freed");
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemsetD8Async(pointer, 3, 1, stream));

  CUmemPoolProps properties{};
  properties.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location = {CU_MEM_LOCATION_TYPE_DEVICE, 0};
  properties.maxSize = 8192;
  CUmemoryPool own;
  OK(cuMemPoolCreate(&own, &properties));
  uint64_t threshold = 123;
  OK(cuMemPoolSetAttribute(own, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &threshold));
  threshold = 0;
  OK(cuMemPoolGetAttribute(own, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &threshold));
  CHECK(threshold == 123, "threshold %llu", static_cast<unsigned long long>(threshold));
  OK(cuMemAllocFromPoolAsync(&pointer, 8000, own, stream));
  CUdeviceptr more;
  EXPECT(CUDA_ERROR_OUT_OF_MEMORY, cuMemAllocFromPoolAsync(&more, 8000, own, stream));
  OK(cuMemFree(pointer));
  OK(cuMemPoolDestroy(own));
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemPoolDestroy(own));
  OK(cuStreamDestroy(stream));
}

// Every allocation may fail: the next one succeeds, and nothing is lost.
void test_injected_failures() {
  Context context;
  for (uint64_t n = 1; n <= 3; ++n) {
    cuda().ptx_simulator_clear_faults();
    cuda().ptx_simulator_fail_allocation(n);
    CUdeviceptr device = 0, async = 0;
    void* pinned = nullptr;
    EXPECT(n == 1 ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS, cuMemAlloc(&device, 64));
    EXPECT(n == 2 ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS, cuMemAllocHost(&pinned, 64));
    EXPECT(n == 3 ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS, cuMemAllocAsync(&async, 64, nullptr));
    CHECK(live().allocations == 2, "%llu live",
          static_cast<unsigned long long>(live().allocations));
    CHECK(cuda().ptx_simulator_allocations() == 3, "not counted");
    OK(cuMemFree(device));
    OK(cuMemFreeHost(pinned));
    OK(cuMemFree(async));
    CHECK(live().allocations == 0, "not freed");
  }
}

}  // namespace
}  // namespace driver_test

int main() {
  using namespace driver_test;  // NOLINT
  cuda().ptx_simulator_set("MEMORY", "64M");
  return run_all({TEST(test_allocations), TEST(test_a_device_is_finite), TEST(test_copies),
                  TEST(test_planes), TEST(test_bounds), TEST(test_pinned_memory),
                  TEST(test_pointers), TEST(test_pools), TEST(test_injected_failures)});
}
