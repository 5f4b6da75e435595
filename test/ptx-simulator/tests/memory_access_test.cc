// Loads and stores of every width, in every space, with every kind of extension, against plain C++;
// and data movement by ldmatrix and cp.async against their definitions.
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "check.h"
#include "tests/run_ptx.h"

namespace ptx_simulator::test {
namespace {

using altiplano::test::Random;

constexpr uint32_t kThreads = 80;  // the last warp is not full
constexpr uint32_t kBytes = 32;    // of each thread

std::vector<uint8_t> random_bytes(size_t n, uint32_t seed) {
  Random random(seed);
  std::vector<uint8_t> bytes(n);
  for (uint8_t& b : bytes) b = static_cast<uint8_t>(random.integer(0, 255));
  return bytes;
}

struct Element {
  const char* type;
  int bytes;
  bool is_signed;
};
constexpr Element kElements[] = {
    {"b8", 1, false},  {"u8", 1, false},  {"s8", 1, true},   {"b16", 2, false}, {"u16", 2, false},
    {"s16", 2, true},  {"b32", 4, false}, {"u32", 4, false}, {"s32", 4, true},  {"f32", 4, false},
    {"b64", 8, false}, {"u64", 8, false}, {"s64", 8, true},  {"f64", 8, false},
};

// %rd3: this thread's 32 bytes of `in`; %rd4: of `out`; %rd5, %r5: of `place` in the space.
constexpr const char* kBegin = R"(
  .reg .pred %p<4>;
  .reg .b16 %h<8>;
  .reg .b32 %r<16>;
  .reg .f32 %f<8>;
  .reg .f64 %fd<8>;
  .reg .b64 %rd<16>;
  .reg .b64 %x<8>;
  mov.u32 %r1, %tid.x;
  shl.b32 %r5, %r1, 5;
  ld.param.u64 %rd1, [in];
  ld.param.u64 %rd2, [out];
  mul.wide.u32 %rd3, %r1, 32;
  add.s64 %rd4, %rd2, %rd3;
  add.s64 %rd3, %rd1, %rd3;
)";

// How an address of the thread's own 32 bytes comes about in each space.
struct Space {
  const char* name;
  const char* modifier;
  const char* declaration;
  const char* begin;    // fills it from %rd3 where needed, and sets the address
  const char* address;  // register
};
constexpr const char* kFill = R"(
  ld.global.v4.u32 {%r8, %r9, %r10, %r11}, [%rd3];
  ld.global.v4.u32 {%r12, %r13, %r14, %r15}, [%rd3 + 16];
)";
const std::vector<Space> kSpaces = {
    {"global", ".global", "", "mov.u64 %rd5, %rd3;", "%rd5"},
    {"generic global", "", "", "mov.u64 %rd5, %rd3;", "%rd5"},
    {"shared", ".shared", ".shared .align 16 .b8 place[2560];",
     "mov.u32 %r6, place; add.u32 %r5, %r5, %r6; FILL "
     "st.shared.v4.u32 [%r5], {%r8, %r9, %r10, %r11};"
     "st.shared.v4.u32 [%r5 + 16], {%r12, %r13, %r14, %r15};",
     "%r5"},
    {"shared, 64-bit address", ".shared::cta", ".shared .align 16 .b8 place[2560];",
     "mov.u64 %rd5, place; cvt.u64.u32 %rd6, %r5; add.u64 %rd5, %rd5, %rd6; FILL "
     "st.shared.v4.u32 [%rd5], {%r8, %r9, %r10, %r11};"
     "st.shared.v4.u32 [%rd5 + 16], {%r12, %r13, %r14, %r15};",
     "%rd5"},
    {"generic shared", "", ".shared .align 16 .b8 place[2560];",
     "mov.u64 %rd5, place; cvta.shared.u64 %rd5, %rd5; cvt.u64.u32 %rd6, %r5;"
     "add.u64 %rd5, %rd5, %rd6; FILL "
     "st.v4.u32 [%rd5], {%r8, %r9, %r10, %r11};"
     "st.v4.u32 [%rd5 + 16], {%r12, %r13, %r14, %r15};",
     "%rd5"},
    {"local", ".local", ".local .align 16 .b8 place[32];",
     "mov.u64 %rd5, place; FILL "
     "st.local.v4.u32 [%rd5], {%r8, %r9, %r10, %r11};"
     "st.local.v4.u32 [%rd5 + 16], {%r12, %r13, %r14, %r15};",
     "%rd5"},
    {"generic local", "", ".local .align 16 .b8 place[32];",
     "mov.u64 %rd5, place; cvta.local.u64 %rd5, %rd5; FILL "
     "st.v4.u32 [%rd5], {%r8, %r9, %r10, %r11};"
     "st.v4.u32 [%rd5 + 16], {%r12, %r13, %r14, %r15};",
     "%rd5"},
};

std::string begin_of(const Space& space) {
  std::string text = space.begin;
  const size_t fill = text.find("FILL");
  if (fill != std::string::npos) text.replace(fill, 4, kFill);
  return std::string(space.declaration) + kBegin + text + "\n";
}

// The element extended to `bits`, in 64 bits.
uint64_t extended(const uint8_t* from, const Element& e, int bits) {
  uint64_t value = 0;
  std::memcpy(&value, from, e.bytes);
  if (e.is_signed) {
    const int shift = 64 - 8 * e.bytes;
    value = static_cast<uint64_t>(static_cast<int64_t>(value << shift) >> shift);
  }
  return bits == 64 ? value : value & ((uint64_t{1} << bits) - 1);
}

// One load of each element and vector length into registers of each width; the registers are
// stored as 64 bits, after widening them without sign (so that what lies above shows).
void test_loads(const Space& space) {
  const std::vector<uint8_t> bytes = random_bytes(kThreads * kBytes, 5);
  const Buffer<uint8_t> in(bytes);
  for (const Element& e : kElements) {
    for (const int bits : {16, 32, 64}) {
      if (bits < 8 * e.bytes || (e.type[0] == 'f' && bits != 8 * e.bytes)) continue;
      for (const int n : {1, 2, 4}) {
        if (n * e.bytes > 16) continue;
        const std::string prefix = e.type[0] == 'f' ? (e.bytes == 4 ? "%f" : "%fd")
                                   : bits == 16     ? "%h"
                                   : bits == 32     ? "%r"
                                                    : "%x";
        const char* suffix = n == 1 ? "" : n == 2 ? ".v2" : ".v4";
        std::string list;
        for (int i = 0; i < n; ++i) list += (i ? ", " : "") + prefix + std::to_string(i);
        const int offset = 16 - n * e.bytes;  // any that is aligned
        std::string body = begin_of(space) + "ld" + space.modifier + suffix + "." + e.type + " " +
                           (n == 1 ? list : "{" + list + "}") + ", [" + space.address + " + " +
                           std::to_string(offset) + "];\n";
        for (int i = 0; i < n; ++i) {
          const std::string from = prefix + std::to_string(i);
          const std::string wide = "%rd" + std::to_string(8 + i);
          if (e.type[0] == 'f') {
            if (e.bytes == 4) {
              body += "mov.b32 %r0, " + from + "; cvt.u64.u32 " + wide + ", %r0;\n";
            } else {
              body += "mov.b64 " + wide + ", " + from + ";\n";
            }
          } else {
            body += (bits == 64 ? "mov.u64 " : "cvt.u64.u" + std::to_string(bits) + " ") + wide +
                    ", " + from + ";\n";
          }
          body += "st.global.u64 [%rd4 + " + std::to_string(8 * i) + "], " + wide + ";\n";
        }
        Buffer<uint64_t> out(kThreads * 4);
        const LaunchReport report =
            run_ptx(kernel(".param .u64 in, .param .u64 out", body + "ret;"), {.block = {kThreads}},
                    in, out);
        CHECK(clean(report), "%s: %s", body.c_str(), describe(report).c_str());
        for (uint32_t t = 0; t < kThreads; ++t) {
          for (int i = 0; i < n; ++i) {
            const uint64_t expected = extended(&bytes[t * kBytes + offset + i * e.bytes], e, bits);
            CHECK(out[t * 4 + i] == expected, "ld%s%s.%s to %d bits, thread %u, %d: %lx, not %lx",
                  space.modifier, suffix, e.type, bits, t, i,
                  static_cast<unsigned long>(out[t * 4 + i]), static_cast<unsigned long>(expected));
          }
        }
      }
    }
  }
}

// One store of each element and vector length; then all 32 bytes are read back.
void test_stores(const Space& space) {
  const std::vector<uint8_t> bytes = random_bytes(kThreads * kBytes, 6);
  for (const Element& e : kElements) {
    if (e.type[0] == 'f') continue;
    for (const int n : {1, 2, 4}) {
      if (n * e.bytes > 16) continue;
      const Buffer<uint8_t> in(bytes);
      const char* suffix = n == 1 ? "" : n == 2 ? ".v2" : ".v4";
      const int offset = 16 - n * e.bytes;
      // Registers wider than the element, with other bits above it, and an immediate.
      std::string body = begin_of(space), list;
      for (int i = 0; i < n; ++i) {
        const std::string x = "%x" + std::to_string(i);
        body += "ld.global.u64 " + x + ", [%rd3 + " + std::to_string(i * 8) + "];\n";
        list += (i ? ", " : "") + (i == 2 ? std::string("77") : x);
      }
      body += std::string("st") + space.modifier + suffix + "." + e.type + " [" + space.address +
              " + " + std::to_string(offset) + "], " + (n == 1 ? list : "{" + list + "}") + ";\n";
      for (int i = 0; i < 4; ++i) {
        const std::string at = std::to_string(i * 8);
        body += std::string("ld") + space.modifier + ".u64 %rd8, [" + space.address + " + " + at +
                "];\nst.global.u64 [%rd4 + " + at + "], %rd8;\n";
      }
      Buffer<uint8_t> out(kThreads * kBytes);
      const LaunchReport report = run_ptx(kernel(".param .u64 in, .param .u64 out", body + "ret;"),
                                          {.block = {kThreads}}, in, out);
      CHECK(clean(report), "%s: %s", body.c_str(), describe(report).c_str());
      for (uint32_t t = 0; t < kThreads; ++t) {
        std::vector<uint8_t> expected(&bytes[t * kBytes], &bytes[t * kBytes] + kBytes);
        for (int i = 0; i < n; ++i) {
          const uint64_t immediate = 77;
          const void* from =
              i == 2 ? static_cast<const void*>(&immediate) : &bytes[t * kBytes + i * 8];
          std::memcpy(&expected[offset + i * e.bytes], from, e.bytes);
        }
        CHECK(std::memcmp(expected.data(), &out[t * kBytes], kBytes) == 0, "st%s%s.%s, thread %u",
              space.modifier, suffix, e.type, t);
      }
    }
  }
}

// Parameters, constants, hints, predication and `_`.
void test_other_forms() {
  const std::vector<uint8_t> bytes = random_bytes(kThreads * kBytes, 7);
  const Buffer<uint8_t> in(bytes);
  Buffer<uint32_t> out(kThreads * 8, 9);
  const std::string text = kernel(
      ".param .u64 in, .param .u64 out, .param .align 16 .b8 values[32]", std::string(kBegin) + R"(
  ld.param.v4.u32 {%r8, %r9, %r10, %r11}, [values + 16];
  ld.param.s8 %r12, [values + 3];
  mov.u64 %rd5, table;
  mul.wide.u32 %rd6, %r1, 2;
  add.s64 %rd5, %rd5, %rd6;
  ld.const.u16 %r13, [%rd5];
  ld.const.u32 %r14, [table + 8];
  createpolicy.fractional.L2::evict_first.b64 %x1, 1.0;
  ld.global.nc.L1::no_allocate.L2::cache_hint.L2::128B.u32 %r6, [%rd3], %x1;
  ld.global.L1::evict_last.L2::cache_hint.v2.u32 {_, %r7}, [%rd3], %x1;
  ld.acquire.gpu.global.u32 %r15, [%rd3 + 8];
  st.release.sys.global.u32 [%rd4], %r6;
  st.relaxed.cta.global.u32 [%rd4 + 4], %r7;
  st.volatile.global.u32 [%rd4 + 8], %r15;
  st.global.wt.L2::cache_hint.u32 [%rd4 + 12], %r11, %x1;
  prefetch.global.L2 [%rd3 + 1000000];
  prefetch.global.L2::evict_last [%rd3];
  prefetchu.L1 [%rd3];
  applypriority.global.L2::evict_normal [%rd3], 128;
  setp.lt.u32 %p1, %r1, 40;
  @%p1 st.global.cs.u32 [%rd4 + 16], %r12;
  @!%p1 st.global.cg.u32 [%rd4 + 16], %r13;
  ld.volatile.global.u32 %r6, [%rd4];
  st.global.u32 [%rd4 + 20], %r14;
  isspacep.global %p2, %rd4;
  isspacep.shared %p3, %rd4;
  selp.u32 %r7, 1, 0, %p2;
  selp.u32 %r6, 2, 0, %p3;
  or.b32 %r7, %r7, %r6;
  isspacep.const %p2, %rd5;
  selp.u32 %r6, 4, 0, %p2;
  or.b32 %r7, %r7, %r6;
  st.global.u32 [%rd4 + 24], %r7;
  ret;)",
      ".const .align 16 .u16 table[80] = {100, 101, 102, 103, 104, 105, 106, 107};");
  struct alignas(16) Values {
    uint8_t bytes[32];
  } values;
  for (int i = 0; i < 32; ++i) values.bytes[i] = static_cast<uint8_t>(250 + i);
  const LaunchReport report = run_ptx(text, {.block = {kThreads}}, in, out, values);
  CHECK(clean(report), "%s", describe(report).c_str());
  for (uint32_t t = 0; t < kThreads; ++t) {
    uint32_t word[3], parameter;
    std::memcpy(word, &bytes[t * kBytes], 12);
    std::memcpy(&parameter, values.bytes + 28, 4);
    CHECK(out[t * 8] == word[0] && out[t * 8 + 1] == word[1] && out[t * 8 + 2] == word[2],
          "thread %u: loads with hints", t);
    CHECK(out[t * 8 + 3] == parameter, "thread %u: %x", t, out[t * 8 + 3]);
    const uint32_t expected = t < 40 ? uint32_t(-3) : t < 8 ? 100 + t : 0;
    CHECK(out[t * 8 + 4] == expected, "thread %u: %x", t, out[t * 8 + 4]);
    CHECK(out[t * 8 + 5] == (105u << 16 | 104u), "thread %u: %x", t, out[t * 8 + 5]);
    CHECK(out[t * 8 + 6] == 5, "thread %u: %x", t, out[t * 8 + 6]);
    CHECK(out[t * 8 + 7] == 9, "thread %u: %x", t, out[t * 8 + 7]);
  }
}

// Lanes of one instruction in three spaces.
void test_mixed_spaces() {
  Buffer<uint32_t> in(96), out(96);
  for (uint32_t i = 0; i < 96; ++i) in[i] = i * i;
  const std::string text = kernel(".param .u64 in, .param .u64 out", std::string(kBegin) + R"(
  .shared .align 4 .b8 there[384];
  .local .align 4 .b8 here[4];
  mul.wide.u32 %rd6, %r1, 4;
  add.s64 %rd7, %rd1, %rd6;
  mov.u64 %rd8, there;
  cvta.shared.u64 %rd8, %rd8;
  add.s64 %rd8, %rd8, %rd6;
  mov.u64 %rd9, here;
  cvta.local.u64 %rd9, %rd9;
  ld.global.u32 %r2, [%rd7];
  rem.u32 %r3, %r1, 3;
  setp.eq.u32 %p1, %r3, 1;
  setp.eq.u32 %p2, %r3, 2;
  selp.b64 %rd7, %rd8, %rd7, %p1;
  selp.b64 %rd7, %rd9, %rd7, %p2;
  add.u32 %r2, %r2, %r3;
  st.u32 [%rd7], %r2;
  ld.u32 %r4, [%rd7];
  add.s64 %rd2, %rd2, %rd6;
  st.u32 [%rd2], %r4;
  ret;)");
  const LaunchReport report = run_ptx(text, {.block = {96}}, in, out);
  CHECK(clean(report), "%s", describe(report).c_str());
  for (uint32_t i = 0; i < 96; ++i) CHECK(out[i] == i * i + i % 3, "%u: %u", i, out[i]);
}

}  // namespace
}  // namespace ptx_simulator::test

int main() {
  using namespace ptx_simulator::test;
  for (const Space& space : kSpaces) {
    test_loads(space);
    test_stores(space);
  }
  test_other_forms();
  test_mixed_spaces();
  std::printf("loads and stores: %d failures\n", altiplano::test::failures);
  return altiplano::test::failures != 0;
}
