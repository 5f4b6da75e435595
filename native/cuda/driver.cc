#include "cuda/driver.h"

#include <dlfcn.h>

#include "util/error.h"

namespace altiplano::cuda {
namespace {

#define ALTIPLANO_CUDA_TEXT_OF(name) #name
#define ALTIPLANO_CUDA_TEXT(name) ALTIPLANO_CUDA_TEXT_OF(name)

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// Fills the table. Returns the name of a function that the library lacks, or null.
const char* find_functions(void* library, Driver& driver) {
// The text of a name is that of the current version, into which cuda.h renames it.
#define ALTIPLANO_CUDA_FIND(name)                                                         \
  driver.name =                                                                           \
      reinterpret_cast<decltype(driver.name)>(dlsym(library, ALTIPLANO_CUDA_TEXT(name))); \
  if (driver.name == nullptr) return ALTIPLANO_CUDA_TEXT(name);
  ALTIPLANO_CUDA_FUNCTIONS(ALTIPLANO_CUDA_FIND)
#undef ALTIPLANO_CUDA_FIND
  return nullptr;
}

DriverStatus open_driver() {
  DriverStatus status;
  void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    // dlerror() also tells of a library that is there and does not load.
    const char* reason = dlerror();
    status.problem = std::string("there is no NVIDIA driver: ") +
                     (reason != nullptr ? reason : "libcuda.so.1 does not load");
    return status;
  }
  // Never closed: the driver has threads of its own.
  status.library = "libcuda.so.1";
  if (void* symbol = dlsym(library, "cuInit"); symbol != nullptr) {
    Dl_info info;
    if (dladdr(symbol, &info) != 0 && info.dli_fname != nullptr) status.library = info.dli_fname;
  }

  // Asked first: an old driver lacks functions, and that is not what its owner should read.
  const auto get_version =
      reinterpret_cast<decltype(&::cuDriverGetVersion)>(dlsym(library, "cuDriverGetVersion"));
  if (get_version == nullptr || get_version(&status.version) != CUDA_SUCCESS) {
    status.problem = status.library + " is no CUDA driver: it does not tell its version";
    return status;
  }
  const bool is_old = status.version < kLeastDriverVersion;
  if (is_old) {
    status.problem = "the NVIDIA driver is too old: it offers CUDA " +
                     version_text(status.version) + ", and CUDA " +
                     version_text(kLeastDriverVersion) + " (release " + kLeastDriverRelease +
                     " or later) is needed";
  }
  static Driver functions;
  if (const char* missing = find_functions(library, functions)) {
    if (!is_old) status.problem = status.library + " lacks the function " + missing;
    return status;
  }
  const CUresult result = functions.cuInit(0);
  if (result == CUDA_ERROR_NO_DEVICE) {
    status.problem = "the NVIDIA driver finds no GPU";
    return status;
  }
  if (result != CUDA_SUCCESS && is_old) return status;
  if (result != CUDA_SUCCESS) {
    const char* name = nullptr;
    functions.cuGetErrorName(result, &name);
    status.problem = std::string("the NVIDIA driver does not start: cuInit says ") +
                     (name != nullptr ? name : std::to_string(result).c_str());
    return status;
  }
  status.driver = &functions;
  return status;
}

}  // namespace

const DriverStatus& driver_status() {
  static const DriverStatus status = open_driver();
  return status;
}

const Driver& driver() {
  const DriverStatus& status = driver_status();
  if (status.driver == nullptr) throw Error("ALTIPLANO_DEVICE_UNAVAILABLE", status.problem);
  return *status.driver;
}

void fail(CUresult result, const char* call, const std::string& about) {
  const char* name = nullptr;
  const char* text = nullptr;
  driver().cuGetErrorName(result, &name);
  driver().cuGetErrorString(result, &text);
  std::string message = std::string(call) + " failed";
  if (!about.empty()) message += " (" + about + ")";
  message += std::string(": ") + (name != nullptr ? name : "error " + std::to_string(result));
  if (text != nullptr) message += std::string(", ") + text;
  throw Error(
      result == CUDA_ERROR_OUT_OF_MEMORY ? "ALTIPLANO_OUT_OF_MEMORY" : "ALTIPLANO_CUDA_FAILED",
      message);
}

}  // namespace altiplano::cuda
