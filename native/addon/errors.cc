#include "addon/errors.h"

#include <new>

#include "util/error.h"

namespace altiplano::addon {
namespace {

Napi::Value make_error(Napi::Env env, const char* code, const char* message) {
  Napi::Error error = Napi::Error::New(env, message);
  error.Set("code", Napi::String::New(env, code));
  return error.Value();
}

}  // namespace

Napi::Value current_exception_to_js(Napi::Env env) {
  try {
    throw;
  } catch (const Error& e) {
    return make_error(env, e.code(), e.what());
  } catch (const std::bad_alloc&) {
    return make_error(env, "ALTIPLANO_OUT_OF_MEMORY", "not enough memory");
  } catch (const Napi::Error& e) {
    return e.Value();
  } catch (const std::exception& e) {
    return make_error(env, "ALTIPLANO_INTERNAL", e.what());
  } catch (...) {
    return make_error(env, "ALTIPLANO_INTERNAL", "unknown exception");
  }
}

}  // namespace altiplano::addon
