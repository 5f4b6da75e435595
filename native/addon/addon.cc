// The export table of the addon; lib/native.ts describes it.
#include <napi.h>

#include <memory>

#include "addon/devices.h"
#include "addon/engine.h"
#include "addon/errors.h"
#include "addon/from_js.h"
#include "addon/kernels.h"
#include "addon/run_async.h"
#include "cpu/bandwidth.h"
#include "cpu/dispatch.h"
#include "cpu/int8_peak.h"
#include "util/cpu_info.h"
#include "util/kv_type.h"

namespace altiplano::addon {
namespace {

// What belongs to one JavaScript environment.
struct AddonData {
  std::unique_ptr<Runner> runner;  // for work that belongs to no model
};

Napi::Value cpu_info(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guarded(env, [&] {
    Napi::Array available = Napi::Array::New(env);
    for (const cpu::Kernels* table : cpu::available_kernels()) {
      available.Set(available.Length(), Napi::String::New(env, table->name));
    }
    Napi::Object o = Napi::Object::New(env);
    o.Set("available", available);
    o.Set("selected", Napi::String::New(env, cpu::select_kernels().name));
    o.Set("physicalCores", Napi::Number::New(env, physical_cores()));
    o.Set("quotaCores", Napi::Number::New(env, quota_cores()));
    o.Set("defaultThreads", Napi::Number::New(env, default_threads()));
    return o;
  });
}

// The thread for work that belongs to no model, made on first use.
Runner& runner(Napi::Env env) {
  auto* data = env.GetInstanceData<AddonData>();
  if (!data->runner) data->runner = std::make_unique<Runner>(env);
  return *data->runner;
}

Napi::Value measure_read_bandwidth(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guarded(env, [&] {
    const int64_t bytes = integer_from_js(info[0], "sizeBytes", 1, int64_t{1} << 40);
    const int64_t threads = integer_from_js(info[1], "threads", 1, 1024);
    return run_async(
        env, runner(env),
        [=] {
          return cpu::measure_read_bandwidth(static_cast<size_t>(bytes), static_cast<int>(threads));
        },
        [](Napi::Env js, double& rate) -> Napi::Value { return Napi::Number::New(js, rate); });
  });
}

Napi::Value measure_int8_peak(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guarded(env, [&] {
    const int64_t threads = integer_from_js(info[0], "threads", 1, 1024);
    return run_async(
        env, runner(env), [=] { return cpu::measure_int8_peak(static_cast<int>(threads)); },
        [](Napi::Env js, double& rate) -> Napi::Value { return Napi::Number::New(js, rate); });
  });
}

Napi::Value gpus(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guarded(env, [&] { return gpus(env, runner(env)); });
}

Napi::Value gpu_free_bytes(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guarded(env, [&] { return gpu_free_bytes(env, runner(env), info[0]); });
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new AddonData);
  exports.Set("Engine", engine_class(env));
  const auto function = [&](const char* name, Napi::Value (*call)(const Napi::CallbackInfo&)) {
    exports.Set(name, Napi::Function::New(env, call, name));
  };
  function("estimate", estimate);
  function("cpuInfo", cpu_info);
  function("gpus", gpus);
  function("gpuFreeBytes", gpu_free_bytes);
  function("measureReadBandwidth", measure_read_bandwidth);
  function("measureInt8Peak", measure_int8_peak);
  exports.Set("kvPageTokens", Napi::Number::New(env, kKvPageTokens));
  exports.Set("kernels", kernels_object(env));
  return exports;
}

}  // namespace
}  // namespace altiplano::addon

static Napi::Object init_addon(Napi::Env env, Napi::Object exports) {
  return altiplano::addon::init(env, exports);
}
NODE_API_MODULE(altiplano, init_addon)
