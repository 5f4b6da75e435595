#include "addon/from_js.h"

#include <cmath>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "util/error.h"

namespace altiplano::addon {
namespace {

constexpr int64_t kMaxSafeInteger = (int64_t{1} << 53) - 1;
constexpr int64_t kMaxInt = std::numeric_limits<int32_t>::max();

[[noreturn]] void fail(const char* what, const char* expected) {
  throw Error("ALTIPLANO_INVALID_ARGUMENT", std::string(what) + ": expected " + expected);
}

Napi::Object object(const Napi::Value& value, const char* what) {
  if (!value.IsObject()) fail(what, "an object");
  return value.As<Napi::Object>();
}

int64_t integer(const Napi::Object& o, const char* key, int64_t low, int64_t high) {
  return integer_from_js(o.Get(key), key, low, high);
}

std::string string(const Napi::Object& o, const char* key) {
  const Napi::Value value = o.Get(key);
  if (!value.IsString()) fail(key, "a string");
  return value.As<Napi::String>().Utf8Value();
}

bool boolean(const Napi::Object& o, const char* key) {
  const Napi::Value value = o.Get(key);
  if (!value.IsBoolean()) fail(key, "a boolean");
  return value.As<Napi::Boolean>().Value();
}

// A typed array of element type T as a vector.
template <class T>
std::vector<T> typed_array(const Napi::Object& o, const char* key) {
  const Napi::Value value = o.Get(key);
  constexpr napi_typedarray_type kType = std::is_same_v<T, int32_t>  ? napi_int32_array
                                         : std::is_same_v<T, float>  ? napi_float32_array
                                         : std::is_same_v<T, double> ? napi_float64_array
                                                                     : napi_uint8_array;
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != kType) {
    fail(key, "a typed array of the right type");
  }
  const auto array = value.As<Napi::TypedArrayOf<T>>();
  const size_t length = array.ElementLength();
  const T* from = length == 0 ? nullptr : array.Data();
  return length == 0 ? std::vector<T>() : std::vector<T>(from, from + length);
}

template <class Enum, size_t N>
Enum one_of(const std::string& name, const char* what, const char* const (&names)[N]) {
  for (size_t i = 0; i < N; ++i) {
    if (name == names[i]) return static_cast<Enum>(i);
  }
  fail(what, "a known name");
}

WeightFormat weight_format(const Napi::Value& value) {
  static constexpr const char* kNames[] = {"f32", "f16", "bf16", "int8", "int4"};
  const Napi::Object o = object(value, "format");
  WeightFormat format;
  format.type = one_of<WeightType>(string(o, "type"), "format.type", kNames);
  if (format.quantized()) {
    format.group = static_cast<int>(integer(o, "group", 1, kMaxInt));
    format.zero_points = boolean(o, "zeroPoints");
  }
  return format;
}

TensorSpec tensor(const Napi::Object& parent, const char* key) {
  const Napi::Object o = object(parent.Get(key), key);
  TensorSpec t;
  t.name = string(o, "name");
  const std::string type = string(o, "type");
  int index = 0;
  while (index < kFileTypeCount && type != kFileTypes[index].name) ++index;
  if (index == kFileTypeCount) fail(key, "a known tensor type");
  t.type = static_cast<FileType>(index);
  t.rows = integer(o, "rows", 0, kMaxSafeInteger);
  t.cols = integer(o, "cols", 0, kMaxSafeInteger);
  t.file = string(o, "file");
  t.offset = static_cast<uint64_t>(integer(o, "offset", 0, kMaxSafeInteger));
  t.size_bytes = static_cast<uint64_t>(integer(o, "sizeBytes", 0, kMaxSafeInteger));
  t.format = weight_format(o.Get("format"));
  return t;
}

}  // namespace

double number_from_js(const Napi::Value& value, const char* what, double low, double high) {
  if (!value.IsNumber()) fail(what, "a number");
  const double number = value.As<Napi::Number>().DoubleValue();
  if (!(number >= low && number <= high)) fail(what, "a number in range");
  return number;
}

int64_t integer_from_js(const Napi::Value& value, const char* what, int64_t low, int64_t high) {
  const double number =
      number_from_js(value, what, static_cast<double>(low), static_cast<double>(high));
  if (number != std::floor(number)) fail(what, "an integer");
  return static_cast<int64_t>(number);
}

ModelSpec model_spec_from_js(const Napi::Value& value) {
  static constexpr const char* kKvNames[] = {"f32", "f16", "int8", "bf16"};
  static constexpr const char* kActivationNames[] = {"f32", "f16", "int8", "bf16"};
  const Napi::Object o = object(value, "spec");
  ModelSpec spec;
  Config& c = spec.config;
  const auto small = [&](const char* key) { return static_cast<int>(integer(o, key, 0, kMaxInt)); };
  c.hidden_size = small("hiddenSize");
  c.intermediate_size = small("intermediateSize");
  c.layers = small("layers");
  c.heads = small("heads");
  c.kv_heads = small("kvHeads");
  c.head_dim = small("headDim");
  c.vocab_size = small("vocabSize");
  c.rms_norm_eps = static_cast<float>(number_from_js(o.Get("rmsNormEps"), "rmsNormEps", 0, 1));
  c.interleaved_rotary = boolean(o, "interleavedRotary");
  c.inverse_frequencies = typed_array<double>(o, "inverseFrequencies");
  c.max_positions = small("maxPositions");
  c.max_step_tokens = small("maxStepTokens");
  c.kv_type = one_of<KvType>(string(o, "kv"), "kv", kKvNames);
  c.kv_pages = integer(o, "kvPages", 0, kMaxInt);
  c.threads = small("threads");
  c.gpu = o.Get("gpu").IsNull() ? -1 : static_cast<int>(integer(o, "gpu", 0, 1023));
  const std::string activations =
      kActivationNames[one_of<int>(string(o, "activations"), "activations", kActivationNames)];
  c.int8_activations = activations == "int8";
  c.activations = activations == "bf16" ? ActivationType::kBF16 : ActivationType::kF16;

  const Napi::Object tensors = object(o.Get("tensors"), "tensors");
  spec.embedding = tensor(tensors, "embedding");
  spec.final_norm = tensor(tensors, "finalNorm");
  spec.tied = tensors.Get("head").IsUndefined();
  if (!spec.tied) spec.head = tensor(tensors, "head");
  const Napi::Value layers = tensors.Get("layers");
  if (!layers.IsArray()) fail("layers", "an array");
  const auto array = layers.As<Napi::Array>();
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Object layer = object(array.Get(i), "layers");
    spec.layers.push_back({tensor(layer, "attentionNorm"), tensor(layer, "q"), tensor(layer, "k"),
                           tensor(layer, "v"), tensor(layer, "o"), tensor(layer, "feedForwardNorm"),
                           tensor(layer, "gate"), tensor(layer, "up"), tensor(layer, "down")});
  }
  return spec;
}

Batch batch_from_js(const Napi::Value& value) {
  const Napi::Object o = object(value, "plan");
  Batch b;
  b.tokens = typed_array<int32_t>(o, "tokens");
  b.positions = typed_array<int32_t>(o, "positions");
  b.slots = typed_array<int32_t>(o, "slots");
  b.sequence_starts = typed_array<int32_t>(o, "sequenceStarts");
  b.block_table = typed_array<int32_t>(o, "blockTable");
  b.block_starts = typed_array<int32_t>(o, "blockStarts");
  b.rows = typed_array<int32_t>(o, "rows");
  b.candidates = typed_array<int32_t>(o, "candidates");
  b.inverse_temperatures = typed_array<float>(o, "inverseTemperatures");
  b.ids = typed_array<int32_t>(o, "ids");
  b.id_starts = typed_array<int32_t>(o, "idStarts");
  b.full_rows = typed_array<uint8_t>(o, "fullRows");
  b.page_copies = typed_array<int32_t>(o, "pageCopies");
  return b;
}

}  // namespace altiplano::addon
