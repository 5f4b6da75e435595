// Where a model runs: the CPU or a GPU. The only file outside cuda/ that knows whether this build
// has the CUDA backend.
#pragma once

#include <napi.h>

#include <memory>

#include "addon/run_async.h"
#include "backend.h"
#include "cpu/dispatch.h"
#include "llama/config.h"

namespace altiplano::addon {

// A backend on the device that the config names. `kernels` are those of the CPU.
std::unique_ptr<Backend> make_backend(const Config& config, const cpu::Kernels& kernels);
// What it will take.
std::unique_ptr<const BackendSizes> backend_sizes(const Config& config);

// gpus(): the driver and its devices; see lib/native.ts. A promise: the driver takes its time.
Napi::Value gpus(Napi::Env env, Runner& runner);
// gpuFreeBytes(index): a promise.
Napi::Value gpu_free_bytes(Napi::Env env, Runner& runner, const Napi::Value& index);

}  // namespace altiplano::addon
