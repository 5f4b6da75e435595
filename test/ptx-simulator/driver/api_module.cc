// Modules. PTX text is compiled when it is loaded, so all of it is decoded then, and what is wrong
// stands in the log; of a fat binary, which holds machine code on a real device, each kernel is
// decoded when it is asked for.
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>

#include "driver/driver.h"
#include "driver/module.h"
#include "ptx/module.h"

using namespace ptx_simulator;          // NOLINT: the API's functions are in no namespace
using namespace ptx_simulator::driver;  // NOLINT

namespace {

// Options come as an array of names and one of values, which are numbers or pointers.
class JitOptions {
 public:
  JitOptions(unsigned count, CUjit_option* options, void** values)
      : count_(count), options_(options), values_(values) {
    require(count == 0 || (options != nullptr && values != nullptr));
    for (unsigned i = 0; i < count; ++i)
      require(options[i] >= 0 && options[i] < CU_JIT_NUM_OPTIONS, "no such option");
  }

  // Writes what fits of the text, and how many bytes that are.
  void log(CUjit_option buffer, CUjit_option size, const std::string& text) const {
    void** target = find(buffer);
    void** bytes = find(size);
    if (bytes == nullptr) return;
    const auto room = static_cast<size_t>(reinterpret_cast<uintptr_t>(*bytes));
    size_t written = 0;
    if (target != nullptr && *target != nullptr && room > 0) {
      written = std::min(text.size(), room - 1);
      std::memcpy(*target, text.data(), written);
      static_cast<char*>(*target)[written] = 0;
      ++written;
    }
    *bytes = reinterpret_cast<void*>(written);
  }
  void wall_time(float milliseconds) const {
    if (void** value = find(CU_JIT_WALL_TIME)) std::memcpy(value, &milliseconds, sizeof(float));
  }

 private:
  void** find(CUjit_option option) const {
    for (unsigned i = 0; i < count_; ++i)
      if (options_[i] == option) return &values_[i];
    return nullptr;
  }
  unsigned count_;
  CUjit_option* options_;
  void** values_;
};

void load(Call& call, CUmodule* module, const void* image, const JitOptions& options) {
  require(module != nullptr && image != nullptr);
  const auto begin = std::chrono::steady_clock::now();
  try {
    const auto loaded = load_module(call, ptx_of(image));
    *module = loaded->handle;
    size_t kernels = 0;
    for (const Function& function : loaded->ptx->functions) kernels += function.is_entry;
    options.log(CU_JIT_INFO_LOG_BUFFER, CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES,
                "ptx-simulator: " + std::to_string(kernels) + " kernels");
    options.log(CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES, "");
  } catch (const PtxError& error) {
    options.log(CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES, error.what());
    std::fprintf(stderr, "ptx-simulator: %s\n", error.what());
    throw;
  } catch (const Failure& failure) {
    options.log(CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES, failure.message);
    throw;
  }
  options.wall_time(
      std::chrono::duration<float, std::milli>(std::chrono::steady_clock::now() - begin).count());
}

std::shared_ptr<LoadedModule> find_module(Call& call, CUmodule handle) {
  auto module = call.state.modules.find(handle);
  require(module != nullptr, CUDA_ERROR_INVALID_HANDLE, "no such module");
  return module;
}

}  // namespace

extern "C" {

CUresult CUDAAPI cuModuleLoadData(CUmodule* module, const void* image) {
  return api(__func__, kUsable | kNotInCapture,
             [&](Call& call) { load(call, module, image, JitOptions(0, nullptr, nullptr)); });
}

CUresult CUDAAPI cuModuleLoadDataEx(CUmodule* module, const void* image, unsigned count,
                                    CUjit_option* options, void** values) {
  return api(__func__, kUsable | kNotInCapture,
             [&](Call& call) { load(call, module, image, JitOptions(count, options, values)); });
}

CUresult CUDAAPI cuModuleLoadFatBinary(CUmodule* module, const void* image) {
  return api(__func__, kUsable | kNotInCapture,
             [&](Call& call) { load(call, module, image, JitOptions(0, nullptr, nullptr)); });
}

CUresult CUDAAPI cuModuleLoad(CUmodule* module, const char* path) {
  return api(__func__, kUsable | kNotInCapture, [&](Call& call) {
    require(path != nullptr);
    std::ifstream file(path, std::ios::binary);
    require(file.good(), CUDA_ERROR_FILE_NOT_FOUND, "the file cannot be read");
    std::ostringstream bytes;
    bytes << file.rdbuf();
    load(call, module, bytes.str().c_str(), JitOptions(0, nullptr, nullptr));
  });
}

CUresult CUDAAPI cuModuleUnload(CUmodule module) {
  return api(__func__, kInit | kContext | kHealthyAfter,
             [&](Call& call) { unload_module(call, module); });
}

CUresult CUDAAPI cuModuleGetLoadingMode(CUmoduleLoadingMode* mode) {
  return api(__func__, kInit, [&](Call&) {
    require(mode != nullptr);
    *mode = CU_MODULE_LAZY_LOADING;
  });
}

CUresult CUDAAPI cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
  return api(__func__, kUsable, [&](Call& call) {
    require(function != nullptr && name != nullptr);
    try {
      *function = function_named(call, find_module(call, module), name)->handle;
    } catch (const PtxError& error) {
      // Nobody gave a buffer for this.
      std::fprintf(stderr, "ptx-simulator: kernel %s: %s\n", name, error.what());
      throw;
    }
  });
}

CUresult CUDAAPI cuModuleGetFunctionCount(unsigned* count, CUmodule handle) {
  return api(__func__, kUsable, [&](Call& call) {
    require(count != nullptr);
    *count = 0;
    for (const Function& function : find_module(call, handle)->ptx->functions)
      *count += function.is_entry;
  });
}

CUresult CUDAAPI cuModuleEnumerateFunctions(CUfunction* functions, unsigned most, CUmodule handle) {
  return api(__func__, kUsable, [&](Call& call) {
    require(functions != nullptr);
    const auto module = find_module(call, handle);
    unsigned count = 0;
    for (const Function& function : module->ptx->functions)
      if (function.is_entry && count < most)
        functions[count++] = function_named(call, module, function.name)->handle;
  });
}

CUresult CUDAAPI cuModuleGetGlobal(CUdeviceptr* pointer, size_t* bytes, CUmodule handle,
                                   const char* name) {
  return api(__func__, kUsable, [&](Call& call) {
    require(name != nullptr);
    const auto module = find_module(call, handle);
    const auto address = module->addresses.find(name);
    require(address != module->addresses.end(), CUDA_ERROR_NOT_FOUND,
            "the module has no such variable");
    if (pointer != nullptr) *pointer = address->second;
    if (bytes == nullptr) return;
    for (const Variable& variable : module->ptx->variables)
      if (variable.name == name) *bytes = variable.size_bytes;
  });
}

}  // extern "C"
