#include "driver/graph_api.h"

#include <cstring>

#include "driver/launch.h"
#include "machine/global_memory.h"

namespace ptx_simulator::driver {
namespace {

template <class SomeWork>
void check_ranges(Call& call, const char* name, const SomeWork& work) {
  const auto problem = check(*GlobalMemory::instance().snapshot(), work);
  if (!problem) return;
  note_finding(call.state, call.context, name, *problem);
  fail(CUDA_ERROR_INVALID_VALUE, problem->text);
}

}  // namespace

KernelWork kernel_work(Call& call, const CUDA_KERNEL_NODE_PARAMS& p) {
  return make_kernel_work(call, p.func, {p.gridDimX, p.gridDimY, p.gridDimZ},
                          {p.blockDimX, p.blockDimY, p.blockDimZ}, p.sharedMemBytes, p.kernelParams,
                          p.extra);
}

CopyWork copy_work(Call& call, const CUDA_MEMCPY3D& parameters) {
  require(parameters.srcMemoryType != CU_MEMORYTYPE_ARRAY &&
              parameters.dstMemoryType != CU_MEMORYTYPE_ARRAY,
          CUDA_ERROR_NOT_SUPPORTED, "arrays are not simulated");
  require(parameters.WidthInBytes > 0 && parameters.Height > 0 && parameters.Depth > 0,
          "nothing to copy");
  CopyWork work{parameters, {}};
  check_ranges(call, "memcpy node", work);
  return work;
}

FillWork fill_work(Call& call, const CUDA_MEMSET_NODE_PARAMS& p) {
  require(p.elementSize == 1 || p.elementSize == 2 || p.elementSize == 4);
  require(p.width > 0 && p.height > 0 && p.dst % p.elementSize == 0);
  const size_t pitch = p.height == 1 ? p.width * p.elementSize : p.pitch;
  require(pitch >= p.width * p.elementSize && pitch % p.elementSize == 0,
          "a row exceeds the pitch");
  const FillWork work{p.dst, pitch, p.value, p.elementSize, p.width, p.height};
  check_ranges(call, "memset node", work);
  return work;
}

HostWork host_work(const CUDA_HOST_NODE_PARAMS& parameters) {
  require(parameters.fn != nullptr);
  return {parameters.fn, parameters.userData};
}

Work work_of(Call& call, const CUgraphNodeParams& parameters) {
  switch (parameters.type) {
    case CU_GRAPH_NODE_TYPE_KERNEL: {
      const CUDA_KERNEL_NODE_PARAMS_v3& p = parameters.kernel;
      CUDA_KERNEL_NODE_PARAMS_v2 same{};
      static_assert(sizeof same == sizeof p, "versions 2 and 3 are laid out alike");
      std::memcpy(&same, &p, sizeof same);
      return kernel_work(call, same);
    }
    case CU_GRAPH_NODE_TYPE_MEMCPY:
      return copy_work(call, parameters.memcpy.copyParams);
    case CU_GRAPH_NODE_TYPE_MEMSET: {
      const CUDA_MEMSET_NODE_PARAMS_v2& p = parameters.memset;
      return fill_work(call, {p.dst, p.pitch, p.value, p.elementSize, p.width, p.height});
    }
    case CU_GRAPH_NODE_TYPE_HOST:
      return host_work({parameters.host.fn, parameters.host.userData});
    case CU_GRAPH_NODE_TYPE_EMPTY:
      return EmptyWork{};
    default:
      fail(CUDA_ERROR_NOT_SUPPORTED, "nodes of this type are not simulated");
  }
}

}  // namespace ptx_simulator::driver
