// Expressions of C++ that both the host's compiler and nvcc compile: what nvcc makes of them, run
// on the simulator, must give what the host computes (tests/host_versus_ptx_test.cc). They are
// chosen to become many different instructions: constants divided by, widths mixed, signs extended,
// bits picked, floats and halves converted and rounded.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define HOST_DEVICE __host__ __device__
#else
#define HOST_DEVICE
#endif

namespace host_functions {

// The operands of one thread.
struct Operands {
  uint64_t bits[6];
};

template <class T>
HOST_DEVICE T as(uint64_t bits) {
  T value;
  memcpy(static_cast<void*>(&value), &bits, sizeof value);
  return value;
}
// Results as bits; all NaN are one, as the processor's and PTX's differ.
HOST_DEVICE inline uint64_t result_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return x == x ? bits : 0x7fffffff;
}
HOST_DEVICE inline uint64_t result_of(double x) {
  uint64_t bits;
  memcpy(&bits, &x, 8);
  return x == x ? bits : 0x7fffffffffffffff;
}
HOST_DEVICE inline uint64_t result_of(__half x) {
  uint16_t bits;
  memcpy(&bits, &x, 2);
  return (bits & 0x7fff) > 0x7c00 ? 0x7fff : bits;
}
HOST_DEVICE inline uint64_t result_of(__nv_bfloat16 x) {
  uint16_t bits;
  memcpy(&bits, &x, 2);
  return (bits & 0x7fff) > 0x7f80 ? 0x7fff : bits;
}
template <class T>
HOST_DEVICE uint64_t result_of(T x) {
  return static_cast<uint64_t>(x);
}

// Within the range of an integer type, so that the conversion is defined. NaN becomes the low end.
HOST_DEVICE inline float within(float x, float low, float high) {
  return x > low ? (x < high ? x : high) : low;
}
HOST_DEVICE inline double within(double x, double low, double high) {
  return x > low ? (x < high ? x : high) : low;
}

struct Complex {
  float re, im;
};
HOST_DEVICE inline Complex times(Complex a, Complex b) {
  return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}

// u v w: uint32_t; i j k: int32_t; s t: int16_t; a b: int8_t; c e: uint8_t; m n: uint64_t;
// x y: int64_t; f g h: float; p q r: double; hf hg: __half; bf bg: __nv_bfloat16
// One to a line: clang-format would put them in ever wider ones.
// clang-format off
#define HOST_FUNCTIONS(F) \
  F(u + v) \
  F(u - v * w) \
  F(u / 7) \
  F(u % 7) \
  F(u / 641) \
  F(u % 1000003) \
  F(u / (v | 1)) \
  F(u % (v | 1)) \
  F(i / 7) \
  F(i % 7) \
  F(i / -3) \
  F(i % 100) \
  F(i / ((j & 0xfff) | 1)) \
  F(i >> (u & 31)) \
  F(u << (v & 31)) \
  F(u >> (v & 31) | u << (-v & 31)) \
  F((u & v) | (~u & w)) \
  F(u ^ v ^ w) \
  F((u & v) ^ (u & w) ^ (v & w)) \
  F(~(u | v) & w) \
  F(u > v ? u - v : v - u) \
  F(i < j ? i : j) \
  F(i > 0 ? i : 0u - i) \
  F((u >> 5) & 0x7f) \
  F(i << 12 >> 20) \
  F((u & 0xff00ffff) | (v & 0xff) << 16) \
  F(u >> 24 | (u >> 8 & 0xff00) | (u << 8 & 0xff0000) | u << 24) \
  F(static_cast<uint64_t>(u) * v) \
  F(static_cast<int64_t>(i) * j) \
  F(static_cast<uint64_t>(static_cast<int64_t>(i) * j) + m) \
  F(static_cast<uint32_t>(static_cast<uint64_t>(u) * v >> 32)) \
  F(m + n) \
  F(m* n) \
  F(m - n * 3) \
  F(m / (n | 1)) \
  F(m % (n | 1)) \
  F(m / 1000000007) \
  F(x / 10) \
  F(x % 10) \
  F(x >> (u & 63)) \
  F(m << (u & 63)) \
  F(m >> (u & 63)) \
  F(x < y ? x : y) \
  F((m ^ n) & ~(m >> 1)) \
  F(static_cast<int32_t>(x)) \
  F(static_cast<int64_t>(i) + s) \
  F(static_cast<int32_t>(s) * t) \
  F(static_cast<int16_t>(s + t)) \
  F(static_cast<int16_t>(s * t)) \
  F(static_cast<uint16_t>(static_cast<uint16_t>(s) / (static_cast<uint16_t>(t) | 1))) \
  F(s >> 3) \
  F(static_cast<uint16_t>(s) >> 3) \
  F(s < t) \
  F(static_cast<uint16_t>(s) < c * 200) \
  F(static_cast<int32_t>(a) * b) \
  F(static_cast<int8_t>(a + b)) \
  F(static_cast<int8_t>(i)) \
  F(static_cast<uint8_t>(i)) \
  F(static_cast<int32_t>(c) - e) \
  F(a < b ? a : b) \
  F(static_cast<uint8_t>(c << 3 | e >> 5)) \
  F(static_cast<int64_t>(a) << 33) \
  F((i == j) + (u < v)) \
  F(i < j && u < v) \
  F(i < j || f < g) \
  F((f < g) != (p < q)) \
  F(f <= g) \
  F(f != g) \
  F(!(f > g)) \
  F(f + g) \
  F(f - g) \
  F(f* g) \
  F(f / g) \
  F(f* g + h) \
  F(fmaf(f, g, h)) \
  F(sqrtf(f)) \
  F(1 / f) \
  F(fmaf(-f, g, -h)) \
  F(-f) \
  F(fabsf(f)) \
  F(copysignf(f, g)) \
  F(f < g ? f : g) \
  F(f > g ? h : -h) \
  F(floorf(f)) \
  F(ceilf(f)) \
  F(truncf(f)) \
  F(rintf(f)) \
  F(f - truncf(f)) \
  F(f * 0.1f + g * 3) \
  F(static_cast<float>(i)) \
  F(static_cast<float>(u)) \
  F(static_cast<float>(x)) \
  F(static_cast<float>(m)) \
  F(static_cast<float>(s)) \
  F(static_cast<float>(a) * f) \
  F(static_cast<float>(p)) \
  F(static_cast<int32_t>( within(f, -2147483648.f, 2147483520.f))) \
  F(static_cast<uint32_t>( within( f, 0.f, 4294967040.f))) \
  F(static_cast< int64_t>( within( f, -9.2e18f, 9.2e18f))) \
  F(static_cast< uint64_t>( within( f, 0.f, 1.8e19f))) \
  F(static_cast<uint8_t>(within(f, 0.f, 255.f))) \
  F(static_cast<int8_t>(within(f, -128.f, 127.f))) \
  F(static_cast<int32_t>(rintf(within(f, -2147483648.f, 2147483520.f)))) \
  F(p + q) \
  F(p - q) \
  F(p* q) \
  F(p / q) \
  F(fma(p, q, r)) \
  F(sqrt(p)) \
  F(-p* q) \
  F(fabs(p)) \
  F(p* q + r) \
  F(floor(p)) \
  F(ceil(p)) \
  F(rint(p)) \
  F(trunc(p)) \
  F(p < q ? p : q) \
  F(p >= q) \
  F(p == q) \
  F(static_cast<double>(f)) \
  F(static_cast<double>(i)) \
  F(static_cast<double>(u)) \
  F(static_cast<double>(x)) \
  F(static_cast<double>(m)) \
  F(static_cast<double>(f) * g + p) \
  F(static_cast<int32_t>(within(p, -2147483648., 2147483647.))) \
  F(static_cast<uint32_t>(within(p, 0., 4294967295.))) \
  F(static_cast<int64_t>(within(p, -9.2e18, 9.2e18))) \
  F(static_cast<uint64_t>(within(p, 0., 1.8e19))) \
  F(times({f, g}, {g, h}) .re) \
  F(times({f, g}, {g, h}) .im) \
  F(__half2float(hf)) \
  F(__float2half_rn(f)) \
  F(hf + hg) \
  F(hf - hg) \
  F(hf* hg) \
  F(-hf) \
  F(hf < hg) \
  F(hf == hg) \
  F(hf > hg ? hf : hg) \
  F(__half2float(hf) * f) \
  F(__float2half_rn(__half2float(hf) * g)) \
  F(__int2half_rn(i)) \
  F(__uint2half_rn(u)) \
  F(__float2half_rz( f)) \
  F(__float2half_rd(f)) \
  F(__float2half_ru(f)) \
  F(__double2half( p)) \
  F(__bfloat162float(bf)) \
  F(__float2bfloat16_rn(f)) \
  F(bf + bg) \
  F(bf - bg) \
  F(bf* bg) \
  F(-bf) \
  F(bf < bg) \
  F(bf >= bg ? bf : bg) \
  F(__bfloat162float( bf) * f) \
  F(__float2bfloat16_rz( f))
// clang-format on

inline constexpr int kFunctions = 0
#define COUNT(expression) +1
    HOST_FUNCTIONS(COUNT)
#undef COUNT
    ;

// All results of one thread, `stride` apart.
HOST_DEVICE inline void compute(const Operands& operands, uint64_t* results, uint64_t stride) {
  const uint64_t* o = operands.bits;
  const auto u = as<uint32_t>(o[0]), v = as<uint32_t>(o[1]), w = as<uint32_t>(o[2]);
  const auto i = as<int32_t>(o[0]), j = as<int32_t>(o[1]);
  const auto s = as<int16_t>(o[0] >> 3), t = as<int16_t>(o[1] >> 5);
  const auto a = as<int8_t>(o[0] >> 7), b = as<int8_t>(o[1] >> 11);
  const auto c = as<uint8_t>(o[1] >> 9), e = as<uint8_t>(o[2] >> 13);
  const auto m = o[0], n = o[1];
  const auto x = as<int64_t>(o[1]), y = as<int64_t>(o[2]);
  const auto f = as<float>(o[3]), g = as<float>(o[4]), h = as<float>(o[5]);
  const auto p = as<double>(o[3]), q = as<double>(o[4]), r = as<double>(o[5]);
  const auto hf = as<__half>(o[3] >> 16), hg = as<__half>(o[4] >> 16);
  const auto bf = as<__nv_bfloat16>(o[3] >> 16), bg = as<__nv_bfloat16>(o[4] >> 16);
#define STORE(...)                   \
  *results = result_of(__VA_ARGS__); \
  results += stride;
  HOST_FUNCTIONS(STORE)
#undef STORE
}

// Functions of the math library, which nvcc makes of approximate instructions: results are close.
#define CLOSE_FUNCTIONS(F) \
  F(expf(f))               \
  F(exp2f(f)) F(logf(f)) F(log2f(f)) F(sinf(f)) F(cosf(f)) F(tanhf(f)) F(1 / sqrtf(f)) F(erff(f))
inline constexpr int kCloseFunctions = 9;

HOST_DEVICE inline void compute_close(float f, float* results, uint64_t stride) {
#define STORE(expression)  \
  *results = (expression); \
  results += stride;
  CLOSE_FUNCTIONS(STORE)
#undef STORE
}

}  // namespace host_functions
