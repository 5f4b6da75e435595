// What the tests of CUDA kernels share: a device, copies of arrays, and what the simulator saw. The
// tests run on whatever libcuda.so.1 is found: with test/ptx-simulator's every launch must be free
// of findings and its counters can be read; on a GPU the same tests run without those checks.
#pragma once

#include <cuda.h>
#include <dlfcn.h>

#include <memory>
#include <vector>

#include "../check.h"
#include "cuda/context.h"
#include "cuda/kernel.h"
#include "cuda/memory.h"
#include "driver/simulator.h"  // of test/ptx-simulator

namespace altiplano::test {

// A function of the simulator; null if the driver is a real one.
template <class Function>
Function* simulator(const char* name) {
  void* const library = dlopen("libcuda.so.1", RTLD_NOW);
  return library == nullptr ? nullptr : reinterpret_cast<Function*>(dlsym(library, name));
}

// How many devices the simulator has; before the first CudaDevice. Nothing on a GPU.
void simulate_devices(const char* count);

class CudaDevice {
 public:
  CudaDevice();
  const std::shared_ptr<const cuda::Context>& context() const { return context_; }
  const cuda::Stream& stream() const { return stream_; }
  cuda::KernelLibrary& kernels() { return kernels_; }
  bool simulated() const { return report_count_ != nullptr; }

  // Copies that are complete when they return.
  template <class T>
  cuda::DeviceMemory upload(const std::vector<T>& values) const {
    cuda::DeviceMemory memory(context_, std::max<size_t>(values.size() * sizeof(T), 16), "a test");
    copy_in(memory, values.data(), values.size() * sizeof(T));
    return memory;
  }
  template <class T>
  std::vector<T> download(const cuda::DeviceMemory& memory, size_t count) const {
    std::vector<T> values(count);
    copy_out(values.data(), memory, count * sizeof(T));
    return values;
  }

  // Order of warps and blocks, where that can be chosen.
  void set_seed(int seed) const;
  // Which of the GPUs that PTX allows: last bits of approximate functions, order of sums in mma.
  void set_arithmetic(int arithmetic) const;
  // The launches since the last call; checks that they have no findings. Empty on a GPU.
  std::vector<ptx_simulator_report> launches() const;

 private:
  void copy_in(const cuda::DeviceMemory& to, const void* from, size_t bytes) const;
  void copy_out(void* to, const cuda::DeviceMemory& from, size_t bytes) const;

  std::shared_ptr<const cuda::Context> context_;
  cuda::CurrentContext current_;
  cuda::Stream stream_;
  cuda::KernelLibrary kernels_;
  decltype(&ptx_simulator_report_count) report_count_ = nullptr;
  decltype(&ptx_simulator_get_report) get_report_ = nullptr;
  decltype(&ptx_simulator_finding) finding_ = nullptr;
  decltype(&ptx_simulator_clear_reports) clear_reports_ = nullptr;
  decltype(&ptx_simulator_set) set_ = nullptr;
};

// One file each.
void test_attention_tiles(CudaDevice& device);
void test_attention_splits(CudaDevice& device);
void test_attention_general(CudaDevice& device);
void test_attention_recorded(CudaDevice& device);
void test_attention_traffic(CudaDevice& device);
void test_matmul_error(CudaDevice& device);
void test_matmul_epilogues(CudaDevice& device);
void test_matmul_sharing(CudaDevice& device);
void test_matmul_repeatable(CudaDevice& device);
void test_matmul_int8_activations(CudaDevice& device);
void test_matmul_range(CudaDevice& device);
void test_heads(CudaDevice& device);
void test_heads_of_parts(CudaDevice& device);
void test_heads_apart(CudaDevice& device);
void test_heads_sharing(CudaDevice& device);
void test_heads_extremes(CudaDevice& device);
void test_heads_traffic(CudaDevice& device);
void test_matmul_not_finite(CudaDevice& device);
void test_matmul_traffic(CudaDevice& device);
void test_matmul_plans(CudaDevice& device);
void test_embed(CudaDevice& device);
void test_rmsnorm(CudaDevice& device);
void test_rmsnorm_int8(CudaDevice& device);
void test_rmsnorm_int8_not_finite(CudaDevice& device);
void test_silu_mul(CudaDevice& device);
void test_gather_rows(CudaDevice& device);
void test_copy_pages(CudaDevice& device);
void test_rope_and_attention(CudaDevice& device);
void test_attention_not_finite(CudaDevice& device);
void test_row_results(CudaDevice& device);
void test_row_results_not_finite(CudaDevice& device);
void test_backend(CudaDevice& device);
void test_backend_rows(CudaDevice& device);
void test_backend_two_steps(CudaDevice& device);
void test_failures(CudaDevice& device);

}  // namespace altiplano::test
