#include "driver/launch.h"

#include <cstring>

#include "driver/attributes.h"
#include "driver/function.h"

namespace ptx_simulator::driver {
namespace {

// Pairs of a name and a value, with an end.
std::vector<std::byte> parameter_buffer(void** extra) {
  const void* buffer = nullptr;
  const size_t* bytes = nullptr;
  for (int i = 0; extra[i] != CU_LAUNCH_PARAM_END; i += 2) {
    require(i < 4, "more launch options than there are");
    if (extra[i] == CU_LAUNCH_PARAM_BUFFER_POINTER)
      buffer = extra[i + 1];
    else if (extra[i] == CU_LAUNCH_PARAM_BUFFER_SIZE)
      bytes = static_cast<const size_t*>(extra[i + 1]);
    else
      fail(CUDA_ERROR_INVALID_VALUE, "no such launch option");
  }
  require(bytes != nullptr && (buffer != nullptr || *bytes == 0), "no buffer of parameters");
  const auto* begin = static_cast<const std::byte*>(buffer);
  return {begin, begin + *bytes};
}

std::vector<std::byte> copy_arguments(const Program& program, void** arguments, void** extra) {
  require(arguments == nullptr || extra == nullptr, "parameters are given twice");
  std::vector<std::byte> bytes(program.parameter_bytes);
  if (program.parameters.empty()) return bytes;
  if (extra != nullptr) {
    bytes = parameter_buffer(extra);
    require(bytes.size() <= program.parameter_bytes + 7, CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES,
            "more bytes of parameters than the kernel has");
    const auto& last = program.parameters.back();
    require(bytes.size() >= last.offset + last.size_bytes, CUDA_ERROR_INVALID_VALUE,
            "fewer bytes of parameters than the kernel has");
    bytes.resize(program.parameter_bytes);
    return bytes;
  }
  require(arguments != nullptr, "the kernel has parameters");
  for (size_t i = 0; i < program.parameters.size(); ++i) {
    require(arguments[i] != nullptr, "a parameter is null");
    std::memcpy(bytes.data() + program.parameters[i].offset, arguments[i],
                program.parameters[i].size_bytes);
  }
  return bytes;
}

}  // namespace

KernelWork make_kernel_work(Call& call, CUfunction handle, std::array<uint32_t, 3> grid,
                            std::array<uint32_t, 3> block, uint32_t dynamic_shared_bytes,
                            void** arguments, void** extra) {
  KernelWork work;
  work.function = find_function(call, handle);
  const Program& program = *work.function->program;
  require(grid[0] >= 1 && grid[1] >= 1 && grid[2] >= 1, "the grid is empty");
  require(
      grid[0] <= static_cast<uint32_t>(kMaxGridX) && grid[1] <= kMaxGridYZ && grid[2] <= kMaxGridYZ,
      "the grid is too large");
  require(block[0] >= 1 && block[1] >= 1 && block[2] >= 1, "the block is empty");
  require(block[0] <= kMaxThreadsPerBlock && block[1] <= kMaxThreadsPerBlock &&
              block[2] <= kMaxBlockZ &&
              uint64_t{block[0]} * block[1] * block[2] <= kMaxThreadsPerBlock,
          "the block is too large");
  const auto threads = static_cast<int>(block[0] * block[1] * block[2]);
  require(threads <= work.function->max_threads, CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES,
          "more threads than the kernel was compiled for, or than its registers allow");
  if (program.required_threads[0] != 0)
    for (int i = 0; i < 3; ++i)
      require(static_cast<int>(block[i]) == std::max(1, program.required_threads[i]),
              "the block is not of the shape that the kernel requires");
  require(dynamic_shared_bytes <= static_cast<uint32_t>(work.function->max_dynamic_shared),
          "more dynamic shared memory than the function's attribute allows");
  work.grid = grid;
  work.block = block;
  work.dynamic_shared_bytes = dynamic_shared_bytes;
  work.parameters = copy_arguments(program, arguments, extra);
  return work;
}

void check_cooperative(const KernelWork& work) {
  const auto threads = static_cast<int>(work.block[0] * work.block[1] * work.block[2]);
  const uint64_t blocks = uint64_t{work.grid[0]} * work.grid[1] * work.grid[2];
  const int resident = resident_blocks(*work.function, threads, work.dynamic_shared_bytes);
  require(blocks <= static_cast<uint64_t>(resident) * kMultiprocessors,
          CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE, "not all blocks can be resident at once");
}

}  // namespace ptx_simulator::driver
