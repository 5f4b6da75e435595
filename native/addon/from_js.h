// Reads the plain objects that lib/native.ts describes into C++ structs. Everything is copied, so
// that a caller may change or detach its arrays afterwards.
#pragma once

#include <napi.h>

#include "backend.h"
#include "llama/config.h"

namespace altiplano::addon {

// Throw Error ALTIPLANO_INVALID_ARGUMENT, naming the property.
ModelSpec model_spec_from_js(const Napi::Value& value);
Batch batch_from_js(const Napi::Value& value);
double number_from_js(const Napi::Value& value, const char* what, double low, double high);
int64_t integer_from_js(const Napi::Value& value, const char* what, int64_t low, int64_t high);

}  // namespace altiplano::addon
