// The kernels as functions over typed arrays, for the module altiplano/kernels.
#pragma once

#include <napi.h>

namespace altiplano::addon {

// An object with one function per kernel; lib/kernels.ts describes and checks their arguments.
Napi::Object kernels_object(Napi::Env env);

}  // namespace altiplano::addon
