// The Engine class of lib/native.ts.
#pragma once

#include <napi.h>

namespace altiplano::addon {

// The constructor `new Engine()`.
Napi::Function engine_class(Napi::Env env);

// estimate(spec): bytes that an engine would hold.
Napi::Value estimate(const Napi::CallbackInfo& info);

}  // namespace altiplano::addon
