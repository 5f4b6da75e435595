// Launches of kernels.
#include "driver/capture.h"
#include "driver/driver.h"
#include "driver/launch.h"

using namespace ptx_simulator::driver;  // NOLINT: the API's functions are in no namespace

namespace {

void launch(Call& call, KernelWork work, CUstream handle) {
  auto stream = find_stream(call, handle);
  require(stream->context == work.function->module->context, CUDA_ERROR_INVALID_HANDLE,
          "the kernel and the stream are of different contexts");
  submit_or_capture(call, stream, std::move(work));
}

// What sm_80 cannot do is refused; hints are ignored.
void check_attributes(const CUlaunchConfig& config, const KernelWork& work) {
  require(config.numAttrs == 0 || config.attrs != nullptr);
  for (unsigned i = 0; i < config.numAttrs; ++i) {
    const CUlaunchAttributeValue& value = config.attrs[i].value;
    switch (config.attrs[i].id) {
      case CU_LAUNCH_ATTRIBUTE_IGNORE:
      case CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW:
      case CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY:
      case CU_LAUNCH_ATTRIBUTE_PRIORITY:
      case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN_MAP:
      case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN:
      case CU_LAUNCH_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
        break;
      case CU_LAUNCH_ATTRIBUTE_COOPERATIVE:
        if (value.cooperative != 0) check_cooperative(work);
        break;
      case CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION:
        require(value.clusterDim.x == 1 && value.clusterDim.y == 1 && value.clusterDim.z == 1,
                CUDA_ERROR_INVALID_CLUSTER_SIZE, "sm_80 has no clusters");
        break;
      case CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION:
        require(value.programmaticStreamSerializationAllowed == 0, CUDA_ERROR_NOT_SUPPORTED,
                "sm_80 has no programmatic launches");
        break;
      default:
        fail(CUDA_ERROR_NOT_SUPPORTED, "the launch attribute is not simulated");
    }
  }
}

}  // namespace

extern "C" {

CUresult CUDAAPI cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y,
                                unsigned grid_z, unsigned block_x, unsigned block_y,
                                unsigned block_z, unsigned dynamic_shared_bytes, CUstream stream,
                                void** arguments, void** extra) {
  return api(__func__, kUsable, [&](Call& call) {
    launch(call,
           make_kernel_work(call, function, {grid_x, grid_y, grid_z}, {block_x, block_y, block_z},
                            dynamic_shared_bytes, arguments, extra),
           stream);
  });
}

CUresult CUDAAPI cuLaunchKernelEx(const CUlaunchConfig* config, CUfunction function,
                                  void** arguments, void** extra) {
  return api(__func__, kUsable, [&](Call& call) {
    require(config != nullptr);
    KernelWork work =
        make_kernel_work(call, function, {config->gridDimX, config->gridDimY, config->gridDimZ},
                         {config->blockDimX, config->blockDimY, config->blockDimZ},
                         config->sharedMemBytes, arguments, extra);
    check_attributes(*config, work);
    launch(call, std::move(work), config->hStream);
  });
}

CUresult CUDAAPI cuLaunchCooperativeKernel(CUfunction function, unsigned grid_x, unsigned grid_y,
                                           unsigned grid_z, unsigned block_x, unsigned block_y,
                                           unsigned block_z, unsigned dynamic_shared_bytes,
                                           CUstream stream, void** arguments) {
  return api(__func__, kUsable, [&](Call& call) {
    KernelWork work =
        make_kernel_work(call, function, {grid_x, grid_y, grid_z}, {block_x, block_y, block_z},
                         dynamic_shared_bytes, arguments, nullptr);
    check_cooperative(work);
    launch(call, std::move(work), stream);
  });
}

}  // extern "C"
