#include "addon/devices.h"

#include <string>
#include <utility>
#include <vector>

#include "addon/from_js.h"
#include "cpu/cpu_backend.h"
#include "cpu/row_reader.h"
#include "util/error.h"

#if defined(ALTIPLANO_CUDA)
#include "cuda/cuda_backend.h"
#include "cuda/devices.h"
#endif

namespace altiplano::addon {
namespace {

struct Gpu {
  int index;
  std::string name;
  std::string compute_capability;
  double total_bytes;
  int multiprocessors, clock_khz, memory_clock_khz, memory_bus_bits;
  std::string problem;
};

struct Gpus {
  bool built;  // with the CUDA backend
  std::string library;
  int cuda_version;
  std::string problem;
  std::vector<Gpu> devices;
};

#if defined(ALTIPLANO_CUDA)

Gpus find_gpus() {
  const cuda::Devices found = cuda::find_devices();
  Gpus gpus = {true, found.library, found.cuda_version, found.problem, {}};
  for (const cuda::Device& device : found.devices) {
    const cuda::DeviceProperties& p = device.properties;
    gpus.devices.push_back({p.ordinal, p.name,
                            std::to_string(p.major) + "." + std::to_string(p.minor),
                            static_cast<double>(p.total_bytes), p.multiprocessors, p.clock_khz,
                            p.memory_clock_khz, p.memory_bus_bits, device.problem});
  }
  return gpus;
}

double free_bytes(int index) { return static_cast<double>(cuda::free_bytes(index)); }

std::unique_ptr<Backend> make_gpu_backend(const Config& config, const cpu::Kernels& kernels) {
  return cuda::make_backend(config.gpu, cpu::make_row_reader(config.threads, kernels));
}

std::unique_ptr<const BackendSizes> gpu_backend_sizes(const Config& config) {
  return cuda::backend_sizes(config.gpu);
}

#else

constexpr const char* kNotBuilt =
    "this build of altiplano has no CUDA backend (" ALTIPLANO_NO_CUDA ")";

[[noreturn]] void refuse() { throw Error("ALTIPLANO_DEVICE_UNAVAILABLE", kNotBuilt); }

Gpus find_gpus() { return {false, "", 0, kNotBuilt, {}}; }
double free_bytes(int) { refuse(); }
std::unique_ptr<Backend> make_gpu_backend(const Config&, const cpu::Kernels&) { refuse(); }
std::unique_ptr<const BackendSizes> gpu_backend_sizes(const Config&) { refuse(); }

#endif

// An empty text is null.
Napi::Value text_to_js(Napi::Env env, const std::string& text) {
  return text.empty() ? env.Null() : Napi::Value(Napi::String::New(env, text));
}

Napi::Value gpus_to_js(Napi::Env env, const Gpus& found) {
  Napi::Array devices = Napi::Array::New(env);
  for (const Gpu& gpu : found.devices) {
    Napi::Object o = Napi::Object::New(env);
    o.Set("index", Napi::Number::New(env, gpu.index));
    o.Set("name", Napi::String::New(env, gpu.name));
    o.Set("computeCapability", Napi::String::New(env, gpu.compute_capability));
    o.Set("totalBytes", Napi::Number::New(env, gpu.total_bytes));
    o.Set("multiprocessors", Napi::Number::New(env, gpu.multiprocessors));
    o.Set("clockKhz", Napi::Number::New(env, gpu.clock_khz));
    o.Set("memoryClockKhz", Napi::Number::New(env, gpu.memory_clock_khz));
    o.Set("memoryBusBits", Napi::Number::New(env, gpu.memory_bus_bits));
    o.Set("problem", text_to_js(env, gpu.problem));
    devices.Set(devices.Length(), o);
  }
  Napi::Object o = Napi::Object::New(env);
  o.Set("built", Napi::Boolean::New(env, found.built));
  o.Set("library", text_to_js(env, found.library));
  o.Set("cudaVersion", Napi::Number::New(env, found.cuda_version));
  o.Set("problem", text_to_js(env, found.problem));
  o.Set("devices", devices);
  return o;
}

}  // namespace

std::unique_ptr<Backend> make_backend(const Config& config, const cpu::Kernels& kernels) {
  if (config.gpu >= 0) return make_gpu_backend(config, kernels);
  return cpu::make_backend(config.threads, kernels);
}

std::unique_ptr<const BackendSizes> backend_sizes(const Config& config) {
  return config.gpu >= 0 ? gpu_backend_sizes(config) : cpu::backend_sizes();
}

Napi::Value gpus(Napi::Env env, Runner& runner) {
  return run_async(env, runner, find_gpus,
                   [](Napi::Env js, Gpus& found) { return gpus_to_js(js, found); });
}

Napi::Value gpu_free_bytes(Napi::Env env, Runner& runner, const Napi::Value& index) {
  const auto ordinal = static_cast<int>(integer_from_js(index, "index", 0, 1023));
  return run_async(
      env, runner, [ordinal] { return free_bytes(ordinal); },
      [](Napi::Env js, double& bytes) -> Napi::Value { return Napi::Number::New(js, bytes); });
}

}  // namespace altiplano::addon
