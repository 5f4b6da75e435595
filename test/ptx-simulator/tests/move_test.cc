// Moves: mov of every type, vectors packed and unpacked, addresses of variables, special registers,
// and cvta.
#include "forms.h"

namespace ptx_simulator::test {
namespace {

void test_registers() {
  const struct {
    Kind kind;
    std::vector<std::string> types;
  } rows[] = {{Kind::kInt16, {"b16", "u16", "s16", "f16", "bf16"}},
              {Kind::kInt32, {"b32", "u32", "s32", "f32", "f16x2", "bf16x2"}},
              {Kind::kInt64, {"b64", "u64", "s64", "f64"}},
              {Kind::kPred, {"pred"}}};
  for (const auto& row : rows) {
    for (const std::string& type : row.types) {
      check("mov." + type, register_of(row.kind), {row.kind}, [](const Values& x) { return x[0]; });
    }
  }
  check_form({"mov.pred %d, -1;", {"pred"}, {Kind::kPred}},
             [](const Values&) { return Values{1}; });
  check_form({"mov.pred %d, 0;", {"pred"}, {Kind::kPred}}, [](const Values&) { return Values{0}; });
  check_form({"mov.pred %d, !%a;", {"pred"}, {Kind::kPred}},
             [](const Values& x) { return Values{1 - x[0]}; });
  check_form({"mov.b16 %d, -2;", {"b16"}, {Kind::kInt16}},
             [](const Values&) { return Values{0xfffe}; });
  check_form({"mov.f32 %d, 0fC0490FDB;", {"b32"}, {Kind::kF32}},
             [](const Values&) { return Values{0xc0490fdb}; });
  check_form({"mov.f64 %d, 0d400921FB54442D18;", {"b64"}, {Kind::kF64}},
             [](const Values&) { return Values{0x400921fb54442d18}; });
  check_form({"mov.u32 %d, WARP_SZ;", {"b32"}, {Kind::kInt32}},
             [](const Values&) { return Values{32}; });
}

void test_vectors() {
  const Kind k16 = Kind::kInt16, k32 = Kind::kInt32, k64 = Kind::kInt64;
  check_form({"mov.b32 %d, {%a, %b};", {"b32"}, {k16, k16}},
             [](const Values& x) { return Values{x[0] | x[1] << 16}; });
  check_form({"mov.b64 %d, {%a, %b};", {"b64"}, {k32, k32}},
             [](const Values& x) { return Values{x[0] | x[1] << 32}; });
  check_form({"mov.b64 %d, {%a, %b, %c, %f};", {"b64"}, {k16, k16, k16, k16}},
             [](const Values& x) { return Values{x[0] | x[1] << 16 | x[2] << 32 | x[3] << 48}; });
  check_form({"mov.b32 %d, {%a, 7};", {"b32"}, {k16}},
             [](const Values& x) { return Values{x[0] | 7 << 16}; });
  check_form({"mov.b32 {%d, %e}, %a;", {"b16", "b16"}, {k32}}, [](const Values& x) {
    return Values{x[0] & 0xffff, x[0] >> 16};
  });
  check_form({"mov.b64 {%d, %e}, %a;", {"b32", "b32"}, {k64}}, [](const Values& x) {
    return Values{x[0] & UINT32_MAX, x[0] >> 32};
  });
  check_form({"mov.b64 {_, %d, _, %e}, %a;", {"b16", "b16"}, {k64}}, [](const Values& x) {
    return Values{x[0] >> 16 & 0xffff, x[0] >> 48};
  });
  check_form({"mov.b32 {%d, _}, %a;", {"b16"}, {k32}},
             [](const Values& x) { return Values{x[0] & 0xffff}; });
  // Into the registers that it comes from.
  check_form({"mov.b64 {%d, %e}, %a;\n@%g mov.b64 %a, {%e, %d};\n@%g mov.b64 {%d, %e}, %a;",
              {"b32", "b32"},
              {k64}},
             [](const Values& x) {
               return Values{x[0] >> 32, x[0] & UINT32_MAX};
             });
  // 128 bits, and exchanged in place.
  check_form({"mov.b64 %d, %d;\n.reg .b128 %v, %z;\nmov.b128 %v, {%a, %b};\nmov.b128 %z, %v;\n"
              "mov.b128 {%b, %a}, %z;\n@%g mov.b64 %d, %a;\n@%g mov.b64 %e, %b;",
              {"b64", "b64"},
              {k64, k64}},
             [](const Values& x) {
               return Values{x[1], x[0]};
             });
}

void test_special_registers() {
  // For every thread: its coordinates, and one number of all that is the same for a block.
  const std::string text = kernel(".param .u64 out", R"(
    .reg .b32 %r<24>; .reg .b64 %l<4>;
    ld.param.u64 %l0, [out];
    mov.u32 %r0, %tid.x; mov.u32 %r1, %tid.y; mov.u32 %r2, %tid.z;
    mov.u32 %r3, %ntid.x; mov.u32 %r4, %ntid.y; mov.u32 %r5, %ntid.z;
    mov.u32 %r6, %ctaid.x; mov.u32 %r7, %ctaid.y; mov.u32 %r8, %ctaid.z;
    mov.u32 %r9, %nctaid.x; mov.u32 %r10, %nctaid.y; mov.u32 %r11, %nctaid.z;
    mov.u32 %r12, %laneid; mov.u32 %r13, %warpid;
    mov.u32 %r14, %lanemask_eq; mov.u32 %r15, %lanemask_le; mov.u32 %r16, %lanemask_lt;
    mov.u32 %r17, %lanemask_ge; mov.u32 %r18, %lanemask_gt;
    mov.u32 %r19, %smid; mov.u32 %r20, %nsmid; mov.u32 %r21, %dynamic_smem_size;
    // index = ((block index) * threads of a block + thread index) * 22 words
    mad.lo.u32 %r22, %r8, %r10, %r7; mad.lo.u32 %r22, %r22, %r9, %r6;
    mad.lo.u32 %r22, %r22, %r5, %r2; mad.lo.u32 %r22, %r22, %r4, %r1;
    mad.lo.u32 %r22, %r22, %r3, %r0;
    mul.wide.u32 %l1, %r22, 88; add.u64 %l0, %l0, %l1;
    st.global.u32 [%l0], %r0; st.global.u32 [%l0+4], %r1; st.global.u32 [%l0+8], %r2;
    st.global.u32 [%l0+12], %r3; st.global.u32 [%l0+16], %r4; st.global.u32 [%l0+20], %r5;
    st.global.u32 [%l0+24], %r6; st.global.u32 [%l0+28], %r7; st.global.u32 [%l0+32], %r8;
    st.global.u32 [%l0+36], %r9; st.global.u32 [%l0+40], %r10; st.global.u32 [%l0+44], %r11;
    st.global.u32 [%l0+48], %r12; st.global.u32 [%l0+52], %r13; st.global.u32 [%l0+56], %r14;
    st.global.u32 [%l0+60], %r15; st.global.u32 [%l0+64], %r16; st.global.u32 [%l0+68], %r17;
    st.global.u32 [%l0+72], %r18; st.global.u32 [%l0+76], %r19; st.global.u32 [%l0+80], %r20;
    st.global.u32 [%l0+84], %r21;
    ret;)");
  const std::array<uint32_t, 3> grid = {3, 2, 2}, block = {5, 4, 3};
  constexpr size_t kWords = 22, kBlock = 5 * 4 * 3, kGrid = 3 * 2 * 2;
  Buffer<uint32_t> out(kWords * kBlock * kGrid, 0xffffffff);
  const LaunchReport report =
      run_ptx(text, Shape{.grid = grid, .block = block, .dynamic_shared_bytes = 48}, out);
  CHECK(clean(report), "%s", describe(report).c_str());
  size_t index = 0;
  for (uint32_t b = 0; b < kGrid; ++b) {
    for (uint32_t t = 0; t < kBlock; ++t, ++index) {
      const uint32_t lane = t % 32;
      uint32_t below = 0;
      for (uint32_t i = 0; i < lane; ++i) below |= uint32_t{1} << i;
      const uint32_t own = uint32_t{1} << lane;
      const uint32_t want[] = {
          t % 5, t / 5 % 4, t / 20, 5,      4,   3,           b % 3, b / 3 % 2, b / 6,         3,
          2,     2,         lane,   t / 32, own, below | own, below, ~below,    ~(below | own)};
      for (size_t i = 0; i < std::size(want); ++i) {
        CHECK(out[index * kWords + i] == want[i], "block %u thread %u: word %zu is %u, want %u", b,
              t, i, out[index * kWords + i], want[i]);
      }
      CHECK(out[index * kWords + 19] < out[index * kWords + 20], "%%smid is %u of %u",
            out[index * kWords + 19], out[index * kWords + 20]);
      CHECK(out[index * kWords + 21] == 48, "dynamic shared memory: %u", out[index * kWords + 21]);
    }
  }
}

void test_clocks() {
  const std::string text = kernel(".param .u64 out", R"(
    .reg .b32 %r<4>; .reg .b64 %l<6>;
    ld.param.u64 %l0, [out];
    mov.u64 %l1, %clock64; mov.u32 %r0, %clock; mov.u64 %l2, %globaltimer;
    mov.u64 %l3, %clock64; mov.u64 %l4, %globaltimer;
    st.global.u64 [%l0], %l1; st.global.u64 [%l0+8], %l3;
    st.global.u64 [%l0+16], %l2; st.global.u64 [%l0+24], %l4;
    ret;)");
  Buffer<uint64_t> out(4, 0);
  const LaunchReport report = run_ptx(text, Shape{.block = {1}}, out);
  CHECK(clean(report), "%s", describe(report).c_str());
  CHECK(out[1] > out[0] && out[1] - out[0] < 100, "clock64 went from %llu to %llu",
        static_cast<unsigned long long>(out[0]), static_cast<unsigned long long>(out[1]));
  CHECK(out[3] >= out[2], "the global timer went back");
}

// A generic address of each space leads to the same bytes as the address in the space; and back.
void test_addresses() {
  const std::string text = kernel(".param .u64 out", R"(
    .reg .b32 %r<8>; .reg .b64 %l<16>;
    .shared .align 4 .b8 buffer[64];
    .local .align 4 .b8 own[16];
    ld.param.u64 %l0, [out];
    cvta.to.global.u64 %l1, %l0;      // the same
    mov.u32 %r0, buffer;
    cvt.u64.u32 %l2, %r0;
    cvta.shared.u64 %l3, %l2;
    st.shared.u32 [%r0+4], 41;
    ld.u32 %r1, [%l3+4];
    st.u32 [%l3+8], 42;
    cvta.to.shared.u64 %l4, %l3;
    cvt.u32.u64 %r2, %l4;
    ld.shared.u32 %r3, [%r2+8];
    mov.u64 %l5, own;
    cvta.local.u64 %l6, %l5;
    st.local.u32 [%l5+12], 43;
    ld.u32 %r4, [%l6+12];
    cvta.to.local.u64 %l7, %l6;
    ld.local.u32 %r5, [%l7+12];
    mov.u64 %l8, table;
    cvta.const.u64 %l9, %l8;
    ld.u32 %r6, [%l9+4];
    mov.u64 %l10, counter;
    cvta.global.u64 %l11, %l10;
    ld.u32 %r7, [%l11];
    st.global.u32 [%l1], %r1; st.global.u32 [%l1+4], %r3; st.global.u32 [%l1+8], %r4;
    st.global.u32 [%l1+12], %r5; st.global.u32 [%l1+16], %r6; st.global.u32 [%l1+20], %r7;
    ret;)",
                                  ".const .align 4 .u32 table[2] = {7, 44};\n"
                                  ".global .align 4 .u32 counter = 45;\n");
  Buffer<uint32_t> out(6, 0);
  const LaunchReport report = run_ptx(text, Shape{.block = {1}}, out);
  CHECK(clean(report), "%s", describe(report).c_str());
  const uint32_t want[] = {41, 42, 43, 43, 44, 45};
  for (int i = 0; i < 6; ++i)
    CHECK(out[i] == want[i], "word %d is %u, want %u", i, out[i], want[i]);
}

void test_refusals() {
  const std::string registers =
      ".reg .b32 %a; .reg .b64 %l; .reg .b16 %h; .reg .pred %p; .reg .b8 %c;\n";
  check_refused("mov.u32 %a, %envreg3;", registers, "%envreg3");
  check_refused("mov.u64 %l, %tid.x;", registers, "%tid.x");
  check_refused("mov.b32 %a, {%h, %h, %h};", registers, "2 or 4");
  check_refused("mov.b16 %h, {%c, %c, %c, %c};", registers, "8 bits");
  check_refused("cvta.param.u64 %l, %l;", registers, "needs");
  check_refused("cvta.shared.u32 %a, %a;", registers, "u32");
  check_refused("selp.b32 %a, %a, %a, %a;", registers, "predicate");
}

}  // namespace
}  // namespace ptx_simulator::test

int main() {
  using namespace ptx_simulator::test;
  test_registers();
  test_vectors();
  test_special_registers();
  test_clocks();
  test_addresses();
  test_refusals();
  return report_result("moves");
}
