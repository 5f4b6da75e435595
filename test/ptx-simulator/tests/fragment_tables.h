// Where the elements of matrices lie in the registers of mma.sync: the formulas of the PTX document
// ("Matrix Fragments for mma.m16n8k16 with floating point type" and its neighbours), written down
// as they stand there and separately from the interpreter.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace ptx_simulator::test {

// Fragment element i of a lane: its row and column in the matrix. For B, the row is k.
struct Place {
  int row, column;
};
using Formula = std::function<Place(int lane, int i)>;

enum class Number { kF16, kBf16, kTf32, kInteger };

struct MmaShape {
  const char* name;
  std::string types;  // of D, A, B, C
  Number number;
  int element_bits;
  bool a_signed, b_signed;
  int depth;
  int a_registers, b_registers;
  bool c_is_f16;
  Formula a, b;
};

inline int group_of(int lane) { return lane >> 2; }        // groupID
inline int thread_in_group(int lane) { return lane % 4; }  // threadID_in_group

// --- the document's formulas ---

// mma.m16n8k16, .f16 and .bf16
inline Place a_k16_half(int lane, int i) {
  const int row = (0 <= i && i < 2) || (4 <= i && i < 6) ? group_of(lane) : group_of(lane) + 8;
  const int column =
      i < 4 ? thread_in_group(lane) * 2 + (i & 1) : thread_in_group(lane) * 2 + (i & 1) + 8;
  return {row, column};
}
inline Place b_k16_half(int lane, int i) {
  const int row =
      i < 2 ? thread_in_group(lane) * 2 + (i & 1) : thread_in_group(lane) * 2 + (i & 1) + 8;
  return {row, group_of(lane)};
}
// mma.m16n8k8, .f16 and .bf16
inline Place a_k8_half(int lane, int i) {
  const int row = i == 0 || i == 1 ? group_of(lane) : group_of(lane) + 8;
  return {row, thread_in_group(lane) * 2 + (i & 1)};
}
inline Place b_k8_half(int lane, int i) { return {thread_in_group(lane) * 2 + i, group_of(lane)}; }
// mma.m16n8k4, .tf32
inline Place a_k4_tf32(int lane, int i) {
  return {i == 0 ? group_of(lane) : group_of(lane) + 8, thread_in_group(lane)};
}
inline Place b_k4_tf32(int lane, int) { return {thread_in_group(lane), group_of(lane)}; }
// mma.m16n8k8, .tf32
inline Place a_k8_tf32(int lane, int i) {
  const int row = i == 0 || i == 2 ? group_of(lane) : group_of(lane) + 8;
  const int column = i == 0 || i == 1 ? thread_in_group(lane) : thread_in_group(lane) + 4;
  return {row, column};
}
inline Place b_k8_tf32(int lane, int i) {
  return {i == 0 ? thread_in_group(lane) : thread_in_group(lane) + 4, group_of(lane)};
}
// mma.m16n8k16, .s8 and .u8
inline Place a_k16_byte(int lane, int i) {
  return {i < 4 ? group_of(lane) : group_of(lane) + 8, thread_in_group(lane) * 4 + (i & 3)};
}
inline Place b_k16_byte(int lane, int i) { return {thread_in_group(lane) * 4 + i, group_of(lane)}; }
// mma.m16n8k32, .s8 and .u8
inline Place a_k32_byte(int lane, int i) {
  const int row = (0 <= i && i < 4) || (8 <= i && i < 12) ? group_of(lane) : group_of(lane) + 8;
  const int column =
      i < 8 ? thread_in_group(lane) * 4 + (i & 3) : thread_in_group(lane) * 4 + (i & 3) + 16;
  return {row, column};
}
inline Place b_k32_byte(int lane, int i) {
  const int row =
      i < 4 ? thread_in_group(lane) * 4 + (i & 3) : thread_in_group(lane) * 4 + (i & 3) + 16;
  return {row, group_of(lane)};
}
// mma.m16n8k32, .s4 and .u4
inline Place a_k32_nibble(int lane, int i) {
  return {i < 8 ? group_of(lane) : group_of(lane) + 8, thread_in_group(lane) * 8 + (i & 7)};
}
inline Place b_k32_nibble(int lane, int i) {
  return {thread_in_group(lane) * 8 + (i & 7), group_of(lane)};
}
// mma.m16n8k64, .s4 and .u4
inline Place a_k64_nibble(int lane, int i) {
  const int row = (0 <= i && i < 8) || (16 <= i && i < 24) ? group_of(lane) : group_of(lane) + 8;
  const int column =
      i < 16 ? thread_in_group(lane) * 8 + (i & 7) : thread_in_group(lane) * 8 + (i & 7) + 32;
  return {row, column};
}
inline Place b_k64_nibble(int lane, int i) {
  const int row =
      i < 8 ? thread_in_group(lane) * 8 + (i & 7) : thread_in_group(lane) * 8 + (i & 7) + 32;
  return {row, group_of(lane)};
}
// C and D of all of these
inline Place c_place(int lane, int i) {
  const int row = i < 2 ? group_of(lane) : group_of(lane) + 8;
  return {row, thread_in_group(lane) * 2 + (i & 1)};
}

inline std::vector<MmaShape> shapes() {
  std::vector<MmaShape> all = {
      {"m16n8k16", "f32.f16.f16.f32", Number::kF16, 16, true, true, 16, 4, 2, false, a_k16_half,
       b_k16_half},
      {"m16n8k16", "f16.f16.f16.f16", Number::kF16, 16, true, true, 16, 4, 2, true, a_k16_half,
       b_k16_half},
      {"m16n8k16", "f32.bf16.bf16.f32", Number::kBf16, 16, true, true, 16, 4, 2, false, a_k16_half,
       b_k16_half},
      {"m16n8k8", "f32.f16.f16.f32", Number::kF16, 16, true, true, 8, 2, 1, false, a_k8_half,
       b_k8_half},
      {"m16n8k8", "f16.f16.f16.f16", Number::kF16, 16, true, true, 8, 2, 1, true, a_k8_half,
       b_k8_half},
      {"m16n8k8", "f32.bf16.bf16.f32", Number::kBf16, 16, true, true, 8, 2, 1, false, a_k8_half,
       b_k8_half},
      {"m16n8k4", "f32.tf32.tf32.f32", Number::kTf32, 32, true, true, 4, 2, 1, false, a_k4_tf32,
       b_k4_tf32},
      {"m16n8k8", "f32.tf32.tf32.f32", Number::kTf32, 32, true, true, 8, 4, 2, false, a_k8_tf32,
       b_k8_tf32},
  };
  for (const bool a : {false, true}) {
    for (const bool b : {false, true}) {
      const auto types = [&](const char* bits) {
        return std::string("s32.") + (a ? "s" : "u") + bits + "." + (b ? "s" : "u") + bits + ".s32";
      };
      all.push_back({"m16n8k16", types("8"), Number::kInteger, 8, a, b, 16, 2, 1, false, a_k16_byte,
                     b_k16_byte});
      all.push_back({"m16n8k32", types("8"), Number::kInteger, 8, a, b, 32, 4, 2, false, a_k32_byte,
                     b_k32_byte});
      all.push_back({"m16n8k32", types("4"), Number::kInteger, 4, a, b, 32, 2, 1, false,
                     a_k32_nibble, b_k32_nibble});
      all.push_back({"m16n8k64", types("4"), Number::kInteger, 4, a, b, 64, 4, 2, false,
                     a_k64_nibble, b_k64_nibble});
    }
  }
  return all;
}

}  // namespace ptx_simulator::test
