// The kernels as functions over typed arrays. Each one checks the lengths of its arrays
// (lib/kernels.ts words the errors for callers; here memory safety is at stake), takes the table
// that is selected at that moment, and writes into arrays that lib/kernels.ts has made. Nothing is
// kept between calls.
#include "addon/kernels.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "addon/errors.h"
#include "addon/from_js.h"
#include "cpu/dispatch.h"
#include "cpu/kernels.h"
#include "util/aligned_memory.h"
#include "util/error.h"

namespace altiplano::addon {
namespace {

// Larger than any array that fits into memory, and small enough that a product of two sizes fits
// into int64_t.
constexpr int64_t kMostElements = int64_t{1} << 31;
// Sizes that kernels hold in an int, with room for a page of them.
constexpr int64_t kMostHeads = int64_t{1} << 15;
constexpr int64_t kMostHeadDim = int64_t{1} << 16;

// The arguments of a call, read by index.
class Arguments {
 public:
  explicit Arguments(const Napi::CallbackInfo& info) : info_(info) {}

  int64_t size(size_t index, const char* name, int64_t most = kMostElements) const {
    return integer_from_js(info_[index], name, 1, most);
  }

  float number(size_t index, const char* name) const {
    constexpr double kMost = std::numeric_limits<float>::max();
    return static_cast<float>(number_from_js(info_[index], name, -kMost, kMost));
  }

  bool flag(size_t index, const char* name) const {
    return integer_from_js(info_[index], name, 0, 1) != 0;
  }

  Napi::Value value(size_t index) const { return info_[index]; }

  bool given(size_t index) const { return !info_[index].IsNull(); }

  // A typed array of exactly `rows` * `cols` elements of T.
  template <class T>
  T* array(size_t index, const char* name, int64_t rows, int64_t cols) const {
    const Napi::Value value = info_[index];
    if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != kind<T>()) {
      throw Error("ALTIPLANO_INVALID_ARGUMENT",
                  std::string(name) + ": expected a typed array of the right type");
    }
    auto array = value.As<Napi::TypedArrayOf<T>>();
    const auto found = static_cast<int64_t>(array.ElementLength());
    if (found != rows * cols) {
      throw Error("ALTIPLANO_OUT_OF_RANGE", std::string(name) + ": expected " +
                                                std::to_string(rows * cols) + " elements, found " +
                                                std::to_string(found));
    }
    return array.Data();
  }

 private:
  // One of float, double, int8_t, uint8_t, uint16_t.
  template <class T>
  static constexpr napi_typedarray_type kind() {
    if (std::is_same_v<T, float>) return napi_float32_array;
    if (std::is_same_v<T, double>) return napi_float64_array;
    if (std::is_same_v<T, int8_t>) return napi_int8_array;
    if (std::is_same_v<T, uint8_t>) return napi_uint8_array;
    return napi_uint16_array;
  }

  const Napi::CallbackInfo& info_;
};

// --- matrices ----------------------------------------------------------------------------------

// A matrix is eight consecutive arguments: type (a WeightType's number), rows, cols, group (0 for
// floats), zeroPoints (0 or 1), values, scales or null, zeros or null.
constexpr size_t kMatrixArguments = 8;

// The canonical form is the one of util/weight_format.h.
CanonicalRows matrix(const Arguments& a, size_t at) {
  CanonicalRows m;
  m.format.type = static_cast<WeightType>(integer_from_js(a.value(at), "type", 0, 4));
  m.rows = a.size(at + 1, "rows");
  m.cols = a.size(at + 2, "cols");
  if (m.format.quantized()) {
    m.format.group = static_cast<int>(a.size(at + 3, "group", 128));
    if (m.format.group % 32 != 0 || m.format.group == 96) {
      throw Error("ALTIPLANO_OUT_OF_RANGE", "group: expected 32, 64 or 128");
    }
    m.format.zero_points = a.flag(at + 4, "zeroPoints");
  }
  const int64_t groups = m.format.groups(m.cols);
  switch (m.format.type) {
    case WeightType::kF32:
      m.values = a.array<float>(at + 5, "values", m.rows, m.cols);
      return m;
    case WeightType::kF16:
    case WeightType::kBF16:
      m.values = a.array<uint16_t>(at + 5, "values", m.rows, m.cols);
      return m;
    case WeightType::kInt8:
      m.values = a.array<int8_t>(at + 5, "values", m.rows, m.cols);
      break;
    case WeightType::kInt4:
      m.values = a.array<uint8_t>(at + 5, "values", m.rows, (m.cols + 1) / 2);
      break;
  }
  m.scales = a.array<uint16_t>(at + 6, "scales", m.rows, groups);
  if (!m.format.zero_points) return m;
  if (m.format.type == WeightType::kInt8) {
    m.zeros = reinterpret_cast<uint8_t*>(a.array<int8_t>(at + 7, "zeros", m.rows, groups));
  } else {
    m.zeros = a.array<uint8_t>(at + 7, "zeros", m.rows, groups);
  }
  return m;
}

// `count` rows from row `first` on.
CanonicalRows slice(const CanonicalRows& m, int64_t first, int64_t count) {
  CanonicalRows s = m;
  const int64_t groups = m.format.groups(m.cols);
  s.rows = count;
  s.values = static_cast<const uint8_t*>(m.values) + first * canonical_row_bytes(m.format, m.cols);
  if (m.scales != nullptr) s.scales = m.scales + first * groups;
  if (m.zeros != nullptr) s.zeros = m.zeros + first * groups;
  return s;
}

// (matrix ..., x [tokens, cols], tokens, out [tokens, rows])
void matmul(const cpu::Kernels& k, const Arguments& a) {
  const CanonicalRows m = matrix(a, 0);
  const int64_t tokens = a.size(kMatrixArguments + 1, "tokens");
  const float* x = a.array<float>(kMatrixArguments, "x", tokens, m.cols);
  float* out = a.array<float>(kMatrixArguments + 2, "out", tokens, m.rows);

  // Two tiles at a time are packed and used while they are in the cache: no second copy of the
  // whole matrix, and the same chain of operations per element as in one large multiplication.
  constexpr int64_t kTiles = 2;
  cpu::PackedMatrix packed;
  packed.format = m.format;
  packed.cols = m.cols;
  packed.tile_bytes = k.packed_tile_bytes(m.format, m.cols);
  const AlignedMemory memory(kTiles * packed.tile_bytes, "packed weights");
  packed.data = memory.data();
  const int64_t rows_at_once = kTiles * k.tile_rows;
  for (int64_t row = 0; row < m.rows; row += rows_at_once) {
    packed.rows = std::min(rows_at_once, m.rows - row);
    int64_t tiles = 0;
    for (int64_t r = 0; r < packed.rows; r += k.tile_rows, ++tiles) {
      const int64_t count = std::min<int64_t>(k.tile_rows, packed.rows - r);
      k.pack_tile(slice(m, row + r, count), memory.data() + tiles * packed.tile_bytes);
    }
    k.matmul(packed, 0, tiles, x, m.cols, tokens, out + row, m.rows, false);
  }
}

// (matrix ..., out [rows, cols])
void dequantize(const cpu::Kernels& k, const Arguments& a) {
  const CanonicalRows m = matrix(a, 0);
  k.dequantize(m, a.array<float>(kMatrixArguments, "out", m.rows, m.cols));
}

// (matrix ..., x [rows, cols]); the matrix, int8 or int4, is written.
void quantize(const cpu::Kernels& k, const Arguments& a) {
  const CanonicalRows m = matrix(a, 0);
  if (!m.format.quantized()) throw Error("ALTIPLANO_OUT_OF_RANGE", "type: expected int8 or int4");
  // The arrays belong to JavaScript and are not constant; only CanonicalRows sees them so.
  k.quantize(m.format, a.array<float>(kMatrixArguments, "x", m.rows, m.cols), m.rows, m.cols,
             const_cast<void*>(m.values), const_cast<uint16_t*>(m.scales),
             const_cast<uint8_t*>(m.zeros));
}

// --- vectors -----------------------------------------------------------------------------------

// (x [rows, cols], weight [cols], eps, rows, cols, out [rows, cols])
void rmsnorm(const cpu::Kernels& k, const Arguments& a) {
  const int64_t rows = a.size(3, "rows"), cols = a.size(4, "cols");
  const float* x = a.array<float>(0, "x", rows, cols);
  const float* weight = a.array<float>(1, "weight", 1, cols);
  const float eps = a.number(2, "eps");
  float* out = a.array<float>(5, "out", rows, cols);
  for (int64_t r = 0; r < rows; ++r) k.rmsnorm(x + r * cols, weight, eps, cols, out + r * cols);
}

// (gate [length], up [length], length, out [length])
void silu_mul(const cpu::Kernels& k, const Arguments& a) {
  const int64_t length = a.size(2, "length");
  k.silu_mul(a.array<float>(0, "gate", 1, length), a.array<float>(1, "up", 1, length), length,
             a.array<float>(3, "out", 1, length));
}

// (x [rows, cols], rows, cols, out [rows, cols])
void softmax(const cpu::Kernels& k, const Arguments& a) {
  const int64_t rows = a.size(1, "rows"), cols = a.size(2, "cols");
  const float* x = a.array<float>(0, "x", rows, cols);
  float* out = a.array<float>(3, "out", rows, cols);
  std::copy_n(x, rows * cols, out);
  for (int64_t r = 0; r < rows; ++r) k.softmax(out + r * cols, cols);
}

// (x [tokens, heads * headDim], positions f64 [tokens], inverseFrequencies f64 [headDim / 2],
//  tokens, heads, headDim, interleaved 0 or 1, out [tokens, heads * headDim])
void rope(const cpu::Kernels& k, const Arguments& a) {
  const int64_t tokens = a.size(3, "tokens");
  const int64_t heads = a.size(4, "heads", kMostHeads);
  const auto head_dim = static_cast<int>(a.size(5, "headDim", kMostHeadDim));
  if (head_dim % 2 != 0) throw Error("ALTIPLANO_OUT_OF_RANGE", "headDim: expected an even number");
  const int half = head_dim / 2;
  const float* x = a.array<float>(0, "x", tokens, heads * head_dim);
  const double* positions = a.array<double>(1, "positions", 1, tokens);
  const double* frequencies = a.array<double>(2, "inverseFrequencies", 1, half);
  const bool interleaved = a.flag(6, "interleaved");
  float* out = a.array<float>(7, "out", tokens, heads * head_dim);
  std::copy_n(x, tokens * heads * head_dim, out);

  std::vector<float> cos(half), sin(half), halves(head_dim);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int i = 0; i < half; ++i) {
      cos[i] = static_cast<float>(std::cos(positions[t] * frequencies[i]));
      sin[i] = static_cast<float>(std::sin(positions[t] * frequencies[i]));
    }
    for (int64_t h = 0; h < heads; ++h, out += head_dim) {
      if (!interleaved) {
        k.rope(out, cos.data(), sin.data(), head_dim);
        continue;
      }
      for (int i = 0; i < half; ++i) {
        halves[i] = out[2 * i];
        halves[i + half] = out[2 * i + 1];
      }
      k.rope(halves.data(), cos.data(), sin.data(), head_dim);
      for (int i = 0; i < half; ++i) {
        out[2 * i] = halves[i];
        out[2 * i + 1] = halves[i + half];
      }
    }
  }
}

// --- attention ---------------------------------------------------------------------------------

// (q [tokens, heads * headDim], k and v [keys, kvHeads * headDim], tokens, keys, heads, kvHeads,
//  headDim, scale, firstPosition or null, a KvType's number, out [tokens, heads * headDim])
// Token t sees keys 0 .. firstPosition + t, or all keys if firstPosition is null.
void attention(const cpu::Kernels& k, const Arguments& a) {
  const int64_t tokens = a.size(3, "tokens");
  const int64_t keys = a.size(4, "keys", std::numeric_limits<int32_t>::max() - kKvPageTokens);
  const int64_t heads = a.size(5, "heads", kMostHeads);
  const int64_t kv_heads = a.size(6, "kvHeads", heads);
  const auto head_dim = static_cast<int>(a.size(7, "headDim", kMostHeadDim));
  if (heads % kv_heads != 0) {
    throw Error("ALTIPLANO_OUT_OF_RANGE", "kvHeads: expected a divisor of heads");
  }
  const int64_t q_cols = heads * head_dim, kv_cols = kv_heads * head_dim;
  const float* q = a.array<float>(0, "q", tokens, q_cols);
  const float* key = a.array<float>(1, "k", keys, kv_cols);
  const float* value = a.array<float>(2, "v", keys, kv_cols);
  float* out = a.array<float>(11, "out", tokens, q_cols);

  std::vector<int32_t> visible(tokens, static_cast<int32_t>(keys));
  if (a.given(9)) {
    const int64_t first = integer_from_js(a.value(9), "firstPosition", 0, keys - 1);
    if (tokens > keys - first) {
      throw Error("ALTIPLANO_OUT_OF_RANGE", "firstPosition: expected a key for every token");
    }
    for (int64_t t = 0; t < tokens; ++t) visible[t] = static_cast<int32_t>(first + t + 1);
  }

  cpu::AttendArgs args;
  args.type = static_cast<KvType>(integer_from_js(a.value(10), "kv", 0, kKvTypes - 1));
  args.head_dim = head_dim;
  args.scale = a.number(8, "scale");
  args.page_stride = k.kv_page_bytes(args.type, head_dim);
  args.tokens = tokens;
  args.group = static_cast<int>(heads / kv_heads);
  args.q_stride = q_cols;
  args.visible = visible.data();
  args.out_stride = q_cols;
  const int64_t pages = (keys + kKvPageTokens - 1) / kKvPageTokens;
  std::vector<int32_t> block_table(pages);
  for (int64_t p = 0; p < pages; ++p) block_table[p] = static_cast<int32_t>(p);
  args.block_table = block_table.data();

  // The pages of one KV head at a time.
  const AlignedMemory memory(pages * args.page_stride, "keys and values");
  args.pages = memory.data();
  for (int64_t h = 0; h < kv_heads; ++h) {
    for (int64_t j = 0; j < keys; ++j) {
      const int64_t at = j * kv_cols + h * head_dim;
      k.kv_store(args.type, memory.data() + j / kKvPageTokens * args.page_stride,
                 static_cast<int>(j % kKvPageTokens), head_dim, key + at, value + at);
    }
    args.q = q + h * args.group * head_dim;
    args.out = out + h * args.group * head_dim;
    k.attend(args);
  }
}

// --- conversions -------------------------------------------------------------------------------

// (x [length], length, out [length])
template <class From, class To, void (*cpu::Kernels::*convert)(const From*, int64_t, To*)>
void convert_all(const cpu::Kernels& k, const Arguments& a) {
  const int64_t length = a.size(1, "length");
  (k.*convert)(a.array<From>(0, "x", 1, length), length, a.array<To>(2, "out", 1, length));
}

using Function = void (*)(const cpu::Kernels& k, const Arguments& a);

template <Function function>
Napi::Value call(const Napi::CallbackInfo& info) {
  guarded(info.Env(), [&] { function(cpu::select_kernels(), Arguments(info)); });
  return info.Env().Undefined();
}

}  // namespace

Napi::Object kernels_object(Napi::Env env) {
  using K = cpu::Kernels;
  Napi::Object o = Napi::Object::New(env);
  const auto add = [&](const char* name, Napi::Value (*function)(const Napi::CallbackInfo&)) {
    o.Set(name, Napi::Function::New(env, function, name));
  };
  add("matmul", call<matmul>);
  add("quantize", call<quantize>);
  add("dequantize", call<dequantize>);
  add("rmsNorm", call<rmsnorm>);
  add("siluMul", call<silu_mul>);
  add("softmax", call<softmax>);
  add("rope", call<rope>);
  add("attention", call<attention>);
  add("toFloat16", call<convert_all<float, uint16_t, &K::f32_to_f16>>);
  add("fromFloat16", call<convert_all<uint16_t, float, &K::f16_to_f32>>);
  add("toBfloat16", call<convert_all<float, uint16_t, &K::f32_to_bf16>>);
  add("fromBfloat16", call<convert_all<uint16_t, float, &K::bf16_to_f32>>);
  return o;
}

}  // namespace altiplano::addon
