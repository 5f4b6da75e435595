// The differential test of single instructions: each form of an instruction runs in a kernel on
// thousands of operands, and every result is compared with what a function of the host says.
//
// Operands are all pairs of edge values and random ones. Half of the warps run the instruction for
// some of their lanes only; the others' destinations must keep what they had. Where a source has
// the type of the destination, a second kernel writes the result into the source's register.
#pragma once

#include <array>
#include <bit>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "exact.h"
#include "run_ptx.h"

namespace ptx_simulator::test {

// What an operand is: decides its register and its values.
enum class Kind {
  kInt8,  // in a 16-bit register
  kInt16,
  kInt32,
  kInt64,
  kAmount,  // of a shift: 32 bits, mostly small
  kF16,
  kBf16,
  kF16x2,
  kBf16x2,
  kF32,
  kF64,
  kPred,
};

inline const char* register_of(Kind kind) {
  switch (kind) {
    case Kind::kPred:
      return "pred";
    case Kind::kInt8:
    case Kind::kInt16:
    case Kind::kF16:
    case Kind::kBf16:
      return "b16";
    case Kind::kInt64:
    case Kind::kF64:
      return "b64";
    default:
      return "b32";
  }
}
inline uint64_t mask_of(const std::string& type) {
  return type == "b64" ? UINT64_MAX : type == "b16" ? 0xffff : type == "pred" ? 1 : UINT32_MAX;
}

// --- operands ---

inline std::vector<uint64_t> float_edges(const Ieee& f) {
  std::vector<uint64_t> edges = {0, 1, 2, 3, f.one(), f.infinity(), f.largest(), f.largest() - 1};
  const uint64_t normal = uint64_t{1} << f.fraction_bits;
  for (const uint64_t x :
       {normal - 1, normal, normal + 1, f.one() - 1, f.one() + 1, f.one() + normal / 2,
        f.one() - normal, f.one() + normal, f.one() + normal + normal / 4, f.infinity() + 1,
        f.sign_bit() - 1, f.infinity() + normal / 2}) {
    edges.push_back(x);
  }
  // Powers of two around the limits of integers and of the smaller formats, with neighbours, and
  // with bits where the smaller formats have their ties.
  for (const int power : {-149, -134, -133, -126, -25, -24, -15, -14, 7,  8,  10,
                          11,   15,   16,   23,   24,  31,  32,  53,  63, 64, 127}) {
    if (power <= -f.bias() || power > f.bias()) continue;
    const uint64_t x = f.one() + static_cast<uint64_t>(static_cast<int64_t>(power)) * normal;
    edges.insert(edges.end(), {x - 1, x, x + 1});
    if (f.fraction_bits >= 23) {
      edges.insert(edges.end(), {x + (normal >> 8), x + (normal >> 11), x + 3 * (normal >> 11),
                                 x + (normal >> 11) - 1, x - (normal >> 9), x + normal / 2});
    }
  }
  const size_t n = edges.size();
  for (size_t i = 0; i < n; ++i) edges.push_back(edges[i] | f.sign_bit());
  return edges;
}

inline std::vector<uint64_t> integer_edges(int bits) {
  std::vector<uint64_t> edges;
  for (const int power : {0, 1, 2, 3, 5, 7, 8, 15, 16, 23, 24, 31, 32, 53, 63}) {
    if (power >= bits) continue;
    const uint64_t x = uint64_t{1} << power;
    for (const uint64_t y : {x - 1, x, x + 1}) edges.insert(edges.end(), {y, ~y + 1});
  }
  edges.insert(edges.end(), {0x5555555555555555, 0xaaaaaaaaaaaaaaaa, 0x0123456789abcdef, 10, 100});
  return edges;
}

class Operands {
 public:
  explicit Operands(uint32_t seed) : random_(seed) {}

  std::vector<uint64_t> edges(Kind kind) {
    switch (kind) {
      case Kind::kInt8:
        return integer_edges(8);
      case Kind::kInt16:
        return integer_edges(16);
      case Kind::kInt32:
        return integer_edges(32);
      case Kind::kInt64:
        return integer_edges(64);
      case Kind::kAmount: {
        std::vector<uint64_t> amounts = {255, 256, 257, 0x7fffffff, 0x80000000, 0xffffffff};
        for (uint64_t i = 0; i <= 66; ++i) amounts.push_back(i);
        return amounts;
      }
      case Kind::kF16:
        return float_edges(kHalfFormat);
      case Kind::kBf16:
        return float_edges(kBrainFormat);
      case Kind::kF32:
        return float_edges(kSingleFormat);
      case Kind::kF64:
        return float_edges(kDoubleFormat);
      case Kind::kF16x2:
      case Kind::kBf16x2: {
        std::vector<uint64_t> pairs, halves = edges(half_of(kind));
        for (const uint64_t low : halves) pairs.push_back(low | halves[pick(halves.size())] << 16);
        return pairs;
      }
      case Kind::kPred:
        return {0, 1};
    }
    return {};
  }

  uint64_t any(Kind kind) {
    switch (kind) {
      case Kind::kF16:
        return any_float(kHalfFormat);
      case Kind::kBf16:
        return any_float(kBrainFormat);
      case Kind::kF32:
        return any_float(kSingleFormat);
      case Kind::kF64:
        return any_float(kDoubleFormat);
      case Kind::kF16x2:
      case Kind::kBf16x2:
        return any(half_of(kind)) | any(half_of(kind)) << 16;
      case Kind::kAmount:
        return random_() % 80;
      default: {
        const uint64_t bits = random_();
        return pick(3) == 0 ? bits >> pick(64) : bits;  // some are short
      }
    }
  }

  // `count` operands for each kind, [kind][index].
  std::vector<std::vector<uint64_t>> make(const std::vector<Kind>& kinds, size_t count) {
    std::vector<std::vector<uint64_t>> all(kinds.size(), std::vector<uint64_t>(count));
    std::vector<std::vector<uint64_t>> edge;
    for (const Kind kind : kinds) edge.push_back(edges(kind));
    for (size_t i = 0; i < count; ++i) {
      const uint64_t plan = pick(8);
      for (size_t k = 0; k < kinds.size(); ++k) {
        uint64_t& x = all[k][i];
        // The first ones walk through all edges of one operand beside those of another.
        const bool edges_now = i < count / 2 || plan == 0 || (plan == 1 && k == pick(kinds.size()));
        if (edges_now) {
          const size_t n = edge[k].size();
          x = edge[k][k == 0 ? i % n : i < count / 2 ? (i / edge[0].size() + i * k) % n : pick(n)];
        } else if (k > 0 && plan == 2 && kinds[k] == kinds[0]) {
          x = all[0][i] + pick(3) - 1;  // equal, or a neighbour
        } else if (k == 1 && plan == 3 && kinds[k] == kinds[0]) {
          x = all[0][i] ^ uint64_t { 1 } << (std::bit_width(mask_of(register_of(kinds[k]))) - 1);
        } else {
          x = any(kinds[k]);
        }
        x &= mask_of(register_of(kinds[k]));
      }
    }
    return all;
  }
  bool coin() { return pick(2) == 0; }

 private:
  static Kind half_of(Kind kind) { return kind == Kind::kF16x2 ? Kind::kF16 : Kind::kBf16; }
  uint64_t pick(uint64_t n) { return random_() % n; }
  uint64_t any_float(const Ieee& f) {
    uint64_t bits = random_() & (2 * f.sign_bit() - 1);
    const uint64_t plan = pick(4);
    if (plan == 0) return bits;
    // Of a size where sums and products meet, some with few bits set, so that ties occur.
    const uint64_t exponent = f.bias() + pick(24) - 12;
    uint64_t fraction = bits & ((uint64_t{1} << f.fraction_bits) - 1);
    if (plan == 1) fraction &= random_() & random_() & random_();
    return (bits & f.sign_bit()) | exponent << f.fraction_bits | fraction;
  }
  std::mt19937_64 random_;
};

// --- running ---

using Values = std::array<uint64_t, 4>;  // operands a, b, c, f; or results d, e
using Expected = std::function<Values(const Values&)>;

struct Form {
  std::string text;                  // in terms of %d %e (results) and %a %b %c %f (operands)
  std::vector<std::string> results;  // registers: "b32", "pred", ...
  std::vector<Kind> operands;
};

inline constexpr char kOperandNames[] = {'a', 'b', 'c', 'f'}, kResultNames[] = {'d', 'e'};

// `text` with every %from replaced by %to.
inline std::string renamed(std::string text, char from, char to) {
  for (size_t i = 0; i + 1 < text.size(); ++i) {
    if (text[i] == '%' && text[i + 1] == from) text[i + 1] = to;
  }
  return text;
}

inline std::string kernel_of(const Form& form, bool in_place) {
  std::string text = ".reg .pred %g;\n.reg .b32 %i, %n, %t, %u;\n.reg .b64 %in, %out, %w, %x;\n";
  for (size_t k = 0; k < form.operands.size(); ++k) {
    text += std::string(".reg .") + register_of(form.operands[k]) + " %" + kOperandNames[k] + ";\n";
  }
  for (size_t k = 0; k < form.results.size(); ++k) {
    text += ".reg ." + form.results[k] + " %" + kResultNames[k] + ";\n";
  }
  text +=
      "ld.param.u64 %in, [in];\nld.param.u64 %out, [out];\nld.param.u32 %n, [n];\n"
      "mov.u32 %i, %ctaid.x;\nmov.u32 %t, %ntid.x;\nmov.u32 %u, %tid.x;\n"
      "mad.lo.u32 %i, %i, %t, %u;\nmul.wide.u32 %w, %i, 8;\nmul.wide.u32 %x, %n, 8;\n"
      "add.u64 %in, %in, %w;\nadd.u64 %out, %out, %w;\n"
      "ld.global.b32 %t, [%in];\nsetp.ne.u32 %g, %t, 0;\n";
  const auto load = [](const std::string& type, char name, const std::string& from) {
    const std::string reg = std::string("%") + name;
    return type == "pred" ? "ld.global.b32 %t, [" + from + "];\nsetp.ne.u32 " + reg + ", %t, 0;\n"
                          : "ld.global." + type + " " + reg + ", [" + from + "];\n";
  };
  for (size_t k = 0; k < form.operands.size(); ++k) {
    text +=
        "add.u64 %in, %in, %x;\n" + load(register_of(form.operands[k]), kOperandNames[k], "%in");
  }
  // In place: the result's register is that of the first operand, saved before.
  for (size_t k = 0; k < form.results.size() && !in_place; ++k) {
    text += load(form.results[k], kResultNames[k], "%out") + "add.u64 %out, %out, %x;\n";
  }
  text += "@%g " + (in_place ? renamed(form.text, 'd', 'a') : form.text) + "\n";
  if (!in_place) {
    for (size_t k = 0; k < form.results.size(); ++k) text += "sub.u64 %out, %out, %x;\n";
  }
  for (size_t k = 0; k < form.results.size(); ++k) {
    const std::string reg = std::string("%") + (in_place ? 'a' : kResultNames[k]);
    if (form.results[k] == "pred") {
      text += "selp.b32 %t, 1, 0, " + reg + ";\nst.global.b32 [%out], %t;\n";
    } else {
      text += "st.global." + form.results[k] + " [%out], " + reg + ";\n";
    }
    text += "add.u64 %out, %out, %x;\n";
  }
  return kernel(".param .u64 in, .param .u64 out, .param .u32 n", text + "ret;");
}

inline constexpr uint32_t kThreads = 128;  // of a block; counts of operands are multiples

inline void run_form(const Form& form, const Expected& expected, size_t count, bool in_place) {
  Operands operands(static_cast<uint32_t>(std::hash<std::string>()(form.text)));
  const auto values = operands.make(form.operands, count);
  std::vector<uint64_t> guards(count, 1);
  for (size_t i = 0; i < count; ++i) {
    if (i / 32 % 2 == 1) guards[i] = operands.coin();
  }
  Buffer<uint64_t> in(count * (1 + form.operands.size())), out(count * form.results.size());
  for (size_t i = 0; i < count; ++i) {
    in[i] = guards[i];
    for (size_t k = 0; k < values.size(); ++k) in[count * (k + 1) + i] = values[k][i];
  }
  const uint64_t before = 0x5a5a5a5a5a5a5a5b;
  for (size_t i = 0; i < out.size(); ++i) out[i] = before;
  LaunchReport report;
  try {
    report = run_ptx(kernel_of(form, in_place),
                     Shape{.grid = {static_cast<uint32_t>(count / kThreads)}, .block = {kThreads}},
                     in, out, static_cast<uint32_t>(count));
  } catch (const PtxError& error) {
    CHECK(false, "%s: %s", form.text.c_str(), error.what());
    return;
  }
  CHECK(clean(report), "%s: %s", form.text.c_str(), describe(report).c_str());
  int wrong = 0;
  for (size_t i = 0; i < count; ++i) {
    Values x{};
    for (size_t k = 0; k < values.size(); ++k) x[k] = values[k][i];
    Values want{};
    if (guards[i] != 0) {
      want = expected(x);
    } else {
      want.fill(before);
      if (in_place) want[0] = x[0];
    }
    for (size_t k = 0; k < form.results.size(); ++k) {
      const uint64_t mask = mask_of(form.results[k]);
      const uint64_t got = out[count * k + i] & mask;
      if (got == (want[k] & mask)) continue;
      if (++wrong <= 3) {
        CHECK(false, "%s%s%s: a %llx b %llx c %llx f %llx: got %llx, want %llx", form.text.c_str(),
              in_place ? " in place" : "", guards[i] != 0 ? "" : " left out",
              static_cast<unsigned long long>(x[0]), static_cast<unsigned long long>(x[1]),
              static_cast<unsigned long long>(x[2]), static_cast<unsigned long long>(x[3]),
              static_cast<unsigned long long>(got),
              static_cast<unsigned long long>(want[k] & mask));
      }
    }
  }
  CHECK(wrong == 0, "%s: %d results of %zu differ", form.text.c_str(), wrong, count);
}

inline int forms_checked = 0;

inline void check_form(const Form& form, const Expected& expected, size_t count = 4096) {
  ++forms_checked;
  run_form(form, expected, count, false);
  const bool alone = form.text.find('\n') == std::string::npos;  // one instruction
  if (alone && form.results.size() == 1 && form.results[0] != "pred" && !form.operands.empty() &&
      form.results[0] == register_of(form.operands[0])) {
    run_form(form, expected, std::max<size_t>(count / 4, kThreads), true);
  }
}
// "add.s32" with a result in a register of `result`, and one value expected.
inline void check(const std::string& name, const std::string& result,
                  const std::vector<Kind>& operands,
                  const std::function<uint64_t(const Values&)>& expected, size_t count = 4096) {
  std::string text = name + " %d";
  for (size_t k = 0; k < operands.size(); ++k) text += std::string(", %") + kOperandNames[k];
  check_form(
      {text + ";", {result}, operands},
      [&expected](const Values& x) { return Values{expected(x)}; }, count);
}

// An instruction that must be refused, with a word of the message.
inline void check_refused(const std::string& text, const std::string& registers,
                          const std::string& word) {
  try {
    Kernel refused(kernel("", registers + text + "\nret;"));
    CHECK(false, "%s was not refused", text.c_str());
  } catch (const PtxError& error) {
    CHECK(std::string(error.what()).find(word) != std::string::npos, "%s: %s", text.c_str(),
          error.what());
  }
}

inline int report_result(const char* what) {
  std::printf("%s: %d forms, %d failures\n", what, forms_checked, altiplano::test::failures);
  return altiplano::test::failures == 0 ? 0 : 1;
}

}  // namespace ptx_simulator::test
