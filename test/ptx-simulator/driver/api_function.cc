// Functions: their attributes, and how many blocks of them fit on a multiprocessor.
#include <algorithm>

#include "driver/attributes.h"
#include "driver/driver.h"
#include "driver/function.h"
#include "ptx/module.h"

using namespace ptx_simulator;          // NOLINT: the API's functions are in no namespace
using namespace ptx_simulator::driver;  // NOLINT

namespace {

int attribute_of(const LoadedFunction& function, CUfunction_attribute attribute) {
  const Module& ptx = *function.module->ptx;
  switch (attribute) {
    case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
      return function.max_threads;
    case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES:
      return static_cast<int>(function.program->static_shared_bytes);
    case CU_FUNC_ATTRIBUTE_CONST_SIZE_BYTES: {
      uint64_t bytes = 0;
      for (const Variable& variable : ptx.variables)
        if (variable.space == StateSpace::kConst) bytes += variable.size_bytes;
      return static_cast<int>(bytes);
    }
    case CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES:
      return static_cast<int>(function.program->local_bytes);
    case CU_FUNC_ATTRIBUTE_NUM_REGS:
      return function.registers;
    case CU_FUNC_ATTRIBUTE_PTX_VERSION:
      return ptx.target;
    case CU_FUNC_ATTRIBUTE_BINARY_VERSION:
      return kComputeCapability;
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
      return function.max_dynamic_shared;
    case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
      return function.carveout;
    case CU_FUNC_ATTRIBUTE_CACHE_MODE_CA:
    case CU_FUNC_ATTRIBUTE_CLUSTER_SIZE_MUST_BE_SET:
    case CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_WIDTH:
    case CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_HEIGHT:
    case CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_DEPTH:
    case CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED:
    case CU_FUNC_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE:
      return 0;
    default:
      fail(CUDA_ERROR_INVALID_VALUE, "no such attribute");
  }
}

// The block size that fills a multiprocessor best; the larger of equals.
void potential_block_size(Call& call, int* min_grid, int* block, CUfunction handle,
                          CUoccupancyB2DSize dynamic_of, size_t dynamic, int limit) {
  require(min_grid != nullptr && block != nullptr);
  const auto function = find_function(call, handle);
  const int most = limit > 0 ? std::min(limit, function->max_threads) : function->max_threads;
  int best_threads = 0;
  *min_grid = *block = 0;
  for (int warps = (most + 31) / 32; warps > 0; --warps) {
    const int threads = std::min(most, 32 * warps);
    size_t bytes = dynamic;
    if (dynamic_of != nullptr) {
      call.lock.unlock();  // it is the application's
      bytes = dynamic_of(threads);
      call.lock.lock();
    }
    const int blocks = resident_blocks(*function, threads, bytes);
    if (blocks * threads <= best_threads) continue;
    best_threads = blocks * threads;
    *block = threads;
    *min_grid = blocks * kMultiprocessors;
  }
}

void active_blocks(Call& call, int* blocks, CUfunction function, int threads, size_t dynamic) {
  require(blocks != nullptr && threads > 0);
  *blocks = resident_blocks(*find_function(call, function), threads, dynamic);
}

void check_occupancy_flags(unsigned flags) {
  require((flags & ~static_cast<unsigned>(CU_OCCUPANCY_DISABLE_CACHING_OVERRIDE)) == 0);
}

}  // namespace

extern "C" {

CUresult CUDAAPI cuFuncGetAttribute(int* value, CUfunction_attribute attribute, CUfunction handle) {
  return api(__func__, kUsable, [&](Call& call) {
    require(value != nullptr);
    *value = attribute_of(*find_function(call, handle), attribute);
  });
}

CUresult CUDAAPI cuFuncSetAttribute(CUfunction handle, CUfunction_attribute attribute, int value) {
  return api(__func__, kUsable, [&](Call& call) {
    const auto function = find_function(call, handle);
    if (attribute == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) {
      const int fixed = static_cast<int>(function->program->static_shared_bytes);
      require(value >= 0 && value <= kSharedPerBlockOptIn - fixed,
              "more shared memory than a block can have");
      function->max_dynamic_shared = value;
    } else if (attribute == CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT) {
      require(value >= -1 && value <= 100);
      function->carveout = value;
    } else {
      fail(CUDA_ERROR_INVALID_VALUE, "the attribute cannot be set on this device");
    }
  });
}

CUresult CUDAAPI cuFuncSetCacheConfig(CUfunction handle, CUfunc_cache config) {
  return api(__func__, kUsable, [&](Call& call) {
    find_function(call, handle);
    require(config <= CU_FUNC_CACHE_PREFER_EQUAL);
  });
}

CUresult CUDAAPI cuFuncGetModule(CUmodule* module, CUfunction handle) {
  return api(__func__, kUsable, [&](Call& call) {
    require(module != nullptr);
    *module = find_function(call, handle)->module->handle;
  });
}

CUresult CUDAAPI cuFuncGetName(const char** name, CUfunction handle) {
  return api(__func__, kUsable, [&](Call& call) {
    require(name != nullptr);
    *name = find_function(call, handle)->name.c_str();
  });
}

CUresult CUDAAPI cuFuncGetParamInfo(CUfunction handle, size_t index, size_t* offset,
                                    size_t* bytes) {
  return api(__func__, kUsable, [&](Call& call) {
    const auto& parameters = find_function(call, handle)->program->parameters;
    require(offset != nullptr && index < parameters.size());
    *offset = parameters[index].offset;
    if (bytes != nullptr) *bytes = parameters[index].size_bytes;
  });
}

CUresult CUDAAPI cuFuncIsLoaded(CUfunctionLoadingState* loading, CUfunction handle) {
  return api(__func__, kUsable, [&](Call& call) {
    require(loading != nullptr);
    find_function(call, handle);
    *loading = CU_FUNCTION_LOADING_STATE_LOADED;
  });
}

CUresult CUDAAPI cuFuncLoad(CUfunction handle) {
  return api(__func__, kUsable, [&](Call& call) { find_function(call, handle); });
}

CUresult CUDAAPI cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, CUfunction function,
                                                             int threads, size_t dynamic) {
  return api(__func__, kUsable,
             [&](Call& call) { active_blocks(call, blocks, function, threads, dynamic); });
}

CUresult CUDAAPI cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks,
                                                                      CUfunction function,
                                                                      int threads, size_t dynamic,
                                                                      unsigned flags) {
  return api(__func__, kUsable, [&](Call& call) {
    check_occupancy_flags(flags);
    active_blocks(call, blocks, function, threads, dynamic);
  });
}

CUresult CUDAAPI cuOccupancyMaxPotentialBlockSize(int* min_grid, int* block, CUfunction function,
                                                  CUoccupancyB2DSize dynamic_of, size_t dynamic,
                                                  int limit) {
  return api(__func__, kUsable, [&](Call& call) {
    potential_block_size(call, min_grid, block, function, dynamic_of, dynamic, limit);
  });
}

CUresult CUDAAPI cuOccupancyMaxPotentialBlockSizeWithFlags(int* min_grid, int* block,
                                                           CUfunction function,
                                                           CUoccupancyB2DSize dynamic_of,
                                                           size_t dynamic, int limit,
                                                           unsigned flags) {
  return api(__func__, kUsable, [&](Call& call) {
    check_occupancy_flags(flags);
    potential_block_size(call, min_grid, block, function, dynamic_of, dynamic, limit);
  });
}

CUresult CUDAAPI cuOccupancyAvailableDynamicSMemPerBlock(size_t* bytes, CUfunction handle,
                                                         int blocks, int threads) {
  return api(__func__, kUsable, [&](Call& call) {
    require(bytes != nullptr && blocks > 0 && threads > 0);
    const auto function = find_function(call, handle);
    require(resident_blocks(*function, threads, 0) >= blocks, "so many blocks never fit");
    const int each = kSharedPerMultiprocessor / blocks / 128 * 128 - kReservedSharedPerBlock -
                     static_cast<int>(function->program->static_shared_bytes);
    const int most =
        kSharedPerBlockOptIn - static_cast<int>(function->program->static_shared_bytes);
    *bytes = static_cast<size_t>(std::clamp(each, 0, most));
  });
}

}  // extern "C"
