// cuGetProcAddress: the version of a function that a program built for some CUDA expects.
#include <dlfcn.h>

#include <cstring>
#include <string>

#include "driver/attributes.h"
#include "driver/driver.h"

using namespace ptx_simulator::driver;  // NOLINT: the API's functions are in no namespace

namespace {

// Functions that changed after CUDA 4.0, and in which CUDA a version came. All others have had
// their highest version since then.
struct Change {
  const char* name;
  int version;
  int cuda;
};
constexpr Change kChanges[] = {
    {"cuCtxCreate", 4, 12050},
    {"cuDevicePrimaryCtxRelease", 2, 11000},
    {"cuDevicePrimaryCtxReset", 2, 11000},
    {"cuDevicePrimaryCtxSetFlags", 2, 11000},
    {"cuDeviceGetUuid", 2, 11040},
    {"cuStreamBeginCapture", 2, 10010},
    {"cuStreamGetCaptureInfo", 3, 12030},
    {"cuStreamGetCaptureInfo", 2, 11030},
    {"cuStreamUpdateCaptureDependencies", 2, 12030},
    {"cuGraphExecUpdate", 2, 12000},
    {"cuGraphAddKernelNode", 2, 12000},
    {"cuGraphKernelNodeGetParams", 2, 12000},
    {"cuGraphKernelNodeSetParams", 2, 12000},
    {"cuGraphExecKernelNodeSetParams", 2, 12000},
    {"cuGraphGetEdges", 2, 12030},
    {"cuGraphNodeGetDependencies", 2, 12030},
    {"cuGraphNodeGetDependentNodes", 2, 12030},
    {"cuGraphAddDependencies", 2, 12030},
    {"cuGraphRemoveDependencies", 2, 12030},
    {"cuGraphAddNode", 2, 12030},
    {"cuEventElapsedTime", 2, 12080},
    {"cuGetProcAddress", 2, 12000},
};
// The symbol of the runtime's cuGraphInstantiate is a name of its own.
constexpr int kFirstInstantiateWithFlags = 11040;

int introduced(const std::string& name, int version) {
  for (const Change& change : kChanges)
    if (name == change.name && version == change.version) return change.cuda;
  return version == 1 && name == "cuGraphInstantiateWithFlags" ? kFirstInstantiateWithFlags : 4000;
}

void* this_library() {
  Dl_info info;
  if (dladdr(reinterpret_cast<void*>(&this_library), &info) == 0) return nullptr;
  return dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD);
}

}  // namespace

extern "C" {

CUresult CUDAAPI cuGetProcAddress(const char* symbol, void** address, int cuda, cuuint64_t flags,
                                  CUdriverProcAddressQueryResult* status) {
  return api(__func__, kNothing, [&](Call&) {
    require(symbol != nullptr && address != nullptr);
    require((flags & ~cuuint64_t{CU_GET_PROC_ADDRESS_LEGACY_STREAM}) == 0, CUDA_ERROR_NOT_SUPPORTED,
            "functions with a default stream for each thread are not simulated");
    *address = nullptr;
    if (status != nullptr) *status = CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    static void* const library = this_library();
    for (int version = 4; version >= 1; --version) {
      const std::string name =
          version == 1 ? symbol : std::string(symbol) + "_v" + std::to_string(version);
      void* found = library == nullptr ? nullptr : dlsym(library, name.c_str());
      if (found == nullptr || std::strncmp(symbol, "cu", 2) != 0) continue;
      if (introduced(symbol, version) > cuda) {
        if (status != nullptr) *status = CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT;
        continue;
      }
      *address = found;
      if (status != nullptr) *status = CU_GET_PROC_ADDRESS_SUCCESS;
      return;
    }
    fail(CUDA_ERROR_NOT_FOUND, std::string("no function ") + symbol);
  });
}

}  // extern "C"
