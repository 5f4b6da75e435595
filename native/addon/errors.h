// From C++ exceptions to JavaScript errors with a `code`.
#pragma once

#include <napi.h>

namespace altiplano::addon {

// The exception that is being handled, as a JavaScript error: `code` is that of an
// altiplano::Error, ALTIPLANO_OUT_OF_MEMORY for failed allocations, ALTIPLANO_INTERNAL for anything
// else.
Napi::Value current_exception_to_js(Napi::Env env);

// Calls fn(); what it throws becomes a JavaScript exception.
template <class Fn>
auto guarded(Napi::Env env, const Fn& fn) -> decltype(fn()) {
  try {
    return fn();
  } catch (const Napi::Error&) {
    throw;
  } catch (...) {
    throw Napi::Error(env, current_exception_to_js(env));
  }
}

}  // namespace altiplano::addon
