// Logic, shifts, bit fields and moves of bits: against loops over single bits.
#include "forms.h"

namespace ptx_simulator::test {
namespace {

using Bits = std::vector<bool>;  // the lowest first

bool bit(uint64_t x, int i) { return (x >> i & 1) != 0; }
uint64_t number(int bits, const std::function<bool(int)>& digit) {
  uint64_t x = 0;
  for (int i = 0; i < bits; ++i) x |= uint64_t{digit(i)} << i;
  return x;
}

struct Width {
  int bits;
  const char* reg;
  Kind kind;
  std::string suffix(char letter) const { return std::string(".") + letter + std::to_string(bits); }
};
const Width k16{16, "b16", Kind::kInt16}, k32{32, "b32", Kind::kInt32},
    k64{64, "b64", Kind::kInt64};

void test_logic() {
  for (const Width& w : {k16, k32, k64}) {
    const std::string type = w.suffix('b');
    const auto bitwise = [&](const std::string& name, const std::function<bool(bool, bool)>& f) {
      check(name + type, w.reg, {w.kind, w.kind}, [&](const Values& x) {
        return number(w.bits, [&](int i) { return f(bit(x[0], i), bit(x[1], i)); });
      });
    };
    bitwise("and", [](bool a, bool b) { return a && b; });
    bitwise("or", [](bool a, bool b) { return a || b; });
    bitwise("xor", [](bool a, bool b) { return a != b; });
    check("not" + type, w.reg, {w.kind},
          [&](const Values& x) { return number(w.bits, [&](int i) { return !bit(x[0], i); }); });
    check("cnot" + type, w.reg, {w.kind}, [&](const Values& x) {
      for (int i = 0; i < w.bits; ++i) {
        if (bit(x[0], i)) return 0;
      }
      return 1;
    });
  }
  const std::vector<Kind> two = {Kind::kPred, Kind::kPred};
  check("and.pred", "pred", two, [](const Values& x) { return x[0] * x[1]; });
  check("or.pred", "pred", two, [](const Values& x) { return std::max(x[0], x[1]); });
  check("xor.pred", "pred", two, [](const Values& x) { return (x[0] + x[1]) % 2; });
  check("not.pred", "pred", {Kind::kPred}, [](const Values& x) { return 1 - x[0]; });
  check_form({"and.pred %d, !%a, %b;", {"pred"}, two},
             [](const Values& x) { return Values{(1 - x[0]) * x[1]}; });
  check_form({"or.pred %d, %a, !%b;", {"pred"}, two},
             [](const Values& x) { return Values{std::max(x[0], 1 - x[1])}; });
}

void test_lop3() {
  const std::vector<Kind> three = {Kind::kInt32, Kind::kInt32, Kind::kInt32};
  const auto expected = [](const Values& x, int table) {
    return number(
        32, [&](int i) { return bit(table, 4 * bit(x[0], i) + 2 * bit(x[1], i) + bit(x[2], i)); });
  };
  for (int table = 0; table < 256; ++table) {
    check_form(
        {"lop3.b32 %d, %a, %b, %c, " + std::to_string(table) + ";", {"b32"}, three},
        [&](const Values& x) { return Values{expected(x, table)}; }, 256);
  }
  const std::vector<Kind> four = {Kind::kInt32, Kind::kInt32, Kind::kInt32, Kind::kPred};
  for (const int table : {0x80, 0x16, 0xc0}) {
    const std::string immediate = std::to_string(table);
    check_form({"lop3.or.b32 %d|%e, %a, %b, %c, " + immediate + ", %f;", {"b32", "pred"}, four},
               [&](const Values& x) {
                 const uint64_t y = expected(x, table);
                 return Values{y, y != 0 || x[3] != 0};
               });
    check_form({"lop3.and.b32 %d|%e, %a, %b, %c, " + immediate + ", !%f;", {"b32", "pred"}, four},
               [&](const Values& x) {
                 const uint64_t y = expected(x, table);
                 return Values{y, y != 0 && x[3] == 0};
               });
    check_form({"lop3.and.b32 _|%d, %a, %b, %c, " + immediate + ", %f;", {"pred"}, four},
               [&](const Values& x) { return Values{expected(x, table) != 0 && x[3] != 0}; });
  }
}

void test_shifts() {
  for (const Width& w : {k16, k32, k64}) {
    const std::vector<Kind> operands = {w.kind, Kind::kAmount};
    const auto left = [&](const Values& x) {
      const auto n = static_cast<int64_t>(x[1]);
      return number(w.bits, [&](int i) { return i >= n && bit(x[0], static_cast<int>(i - n)); });
    };
    const auto right = [&](const Values& x, bool fill) {
      const auto n = static_cast<int64_t>(x[1]);
      return number(w.bits, [&](int i) {
        return i + n < w.bits ? bit(x[0], static_cast<int>(i + n)) : fill;
      });
    };
    check("shl" + w.suffix('b'), w.reg, operands, left);
    for (const char letter : {'b', 'u'}) {
      check("shr" + w.suffix(letter), w.reg, operands,
            [&](const Values& x) { return right(x, false); });
    }
    check("shr" + w.suffix('s'), w.reg, operands,
          [&](const Values& x) { return right(x, bit(x[0], w.bits - 1)); });
  }
  const std::vector<Kind> funnel = {Kind::kInt32, Kind::kInt32, Kind::kAmount};
  for (const bool wrap : {false, true}) {
    const std::string mode = wrap ? ".wrap.b32" : ".clamp.b32";
    const auto amount = [wrap](uint64_t n) {
      return static_cast<int>(wrap ? n % 32 : std::min<uint64_t>(n, 32));
    };
    // Bit i of b:a.
    const auto digit = [](const Values& x, int i) {
      return i < 32 ? bit(x[0], i) : bit(x[1], i - 32);
    };
    check("shf.l" + mode, "b32", funnel, [&](const Values& x) {
      return number(32, [&](int i) { return digit(x, i + 32 - amount(x[2])); });
    });
    check("shf.r" + mode, "b32", funnel, [&](const Values& x) {
      return number(32, [&](int i) { return digit(x, i + amount(x[2])); });
    });
  }
}

void test_counts() {
  for (const Width& w : {k32, k64}) {
    check("popc" + w.suffix('b'), "b32", {w.kind}, [&](const Values& x) {
      uint64_t n = 0;
      for (int i = 0; i < w.bits; ++i) n += bit(x[0], i);
      return n;
    });
    check("clz" + w.suffix('b'), "b32", {w.kind}, [&](const Values& x) {
      int n = 0;
      while (n < w.bits && !bit(x[0], w.bits - 1 - n)) ++n;
      return static_cast<uint64_t>(n);
    });
    check("brev" + w.suffix('b'), w.reg, {w.kind}, [&](const Values& x) {
      return number(w.bits, [&](int i) { return bit(x[0], w.bits - 1 - i); });
    });
    for (const bool is_signed : {false, true}) {
      const auto find = [&](const Values& x) {
        const bool usual = is_signed && bit(x[0], w.bits - 1);
        int i = w.bits - 1;
        while (i >= 0 && bit(x[0], i) == usual) --i;
        return i;
      };
      const std::string type = w.suffix(is_signed ? 's' : 'u');
      check("bfind" + type, "b32", {w.kind},
            [&](const Values& x) { return static_cast<uint64_t>(int64_t{find(x)}); });
      check("bfind.shiftamt" + type, "b32", {w.kind}, [&](const Values& x) {
        const int i = find(x);
        return static_cast<uint64_t>(int64_t{i < 0 ? -1 : w.bits - 1 - i});
      });
    }
  }
  check_form({"and.b32 %b, %b, 31;\n@%g fns.b32 %d, %a, %b, %c;",
              {"b32"},
              {Kind::kInt32, Kind::kInt32, Kind::kInt32}},
             [](const Values& x) {
               const int base = static_cast<int>(x[1] % 32);
               auto offset = static_cast<int64_t>(static_cast<int32_t>(x[2]));
               if (offset == 0) return Values{bit(x[0], base) ? x[1] % 32 : UINT32_MAX};
               const int step = offset > 0 ? 1 : -1;
               for (int i = base; i >= 0 && i < 32; i += step) {
                 if (!bit(x[0], i)) continue;
                 offset -= step;
                 if (offset == 0) return Values{static_cast<uint64_t>(i)};
               }
               return Values{UINT32_MAX};
             });
  // Small ordinals, which the values above seldom are.
  check_form({"and.b32 %b, %b, 31;\n@%g and.b32 %c, %c, 7;\n@%g sub.s32 %c, %c, 4;\n"
              "@%g fns.b32 %d, %a, %b, %c;",
              {"b32"},
              {Kind::kInt32, Kind::kInt32, Kind::kInt32}},
             [](const Values& x) {
               std::vector<int> above, below;
               const int base = static_cast<int>(x[1] % 32);
               for (int i = base; i < 32; ++i) {
                 if (bit(x[0], i)) above.push_back(i);
               }
               for (int i = base; i >= 0; --i) {
                 if (bit(x[0], i)) below.push_back(i);
               }
               const int n = static_cast<int>(x[2] % 8) - 4;
               if (n == 0) return Values{bit(x[0], base) ? x[1] % 32 : UINT32_MAX};
               const std::vector<int>& found = n > 0 ? above : below;
               const auto i = static_cast<size_t>(std::abs(n) - 1);
               return Values{i < found.size() ? static_cast<uint64_t>(found[i]) : UINT32_MAX};
             });
}

void test_fields() {
  for (const Width& w : {k32, k64}) {
    for (const bool is_signed : {false, true}) {
      check("bfe" + w.suffix(is_signed ? 's' : 'u'), w.reg, {w.kind, Kind::kAmount, Kind::kAmount},
            [&](const Values& x) {
              const int position = static_cast<int>(x[1] & 255), n = static_cast<int>(x[2] & 255);
              const bool fill =
                  is_signed && n != 0 && bit(x[0], std::min(position + n - 1, w.bits - 1));
              return number(w.bits, [&](int i) {
                return i < n && position + i < w.bits ? bit(x[0], position + i) : fill;
              });
            });
    }
    check("bfi" + w.suffix('b'), w.reg, {w.kind, w.kind, Kind::kAmount, Kind::kAmount},
          [&](const Values& x) {
            const int position = static_cast<int>(x[2] & 255), n = static_cast<int>(x[3] & 255);
            return number(w.bits, [&](int i) {
              const bool inside = i >= position && i < position + n;
              return inside ? bit(x[0], i - position) : bit(x[1], i);
            });
          });
  }
  for (const bool wrap : {false, true}) {
    const std::string mode = wrap ? ".wrap" : ".clamp";
    for (const bool is_signed : {false, true}) {
      check("szext" + mode + (is_signed ? ".s32" : ".u32"), "b32", {Kind::kInt32, Kind::kAmount},
            [&](const Values& x) {
              const uint64_t n = wrap ? x[1] % 32 : std::min<uint64_t>(x[1], 32);
              const bool fill = is_signed && n > 0 && bit(x[0], static_cast<int>(n) - 1);
              return number(
                  32, [&](int i) { return static_cast<uint64_t>(i) < n ? bit(x[0], i) : fill; });
            });
    }
    check("bmsk" + mode + ".b32", "b32", {Kind::kAmount, Kind::kAmount}, [&](const Values& x) {
      const uint64_t first = wrap ? x[0] % 32 : x[0], n = wrap ? x[1] % 32 : x[1];
      return number(32, [&](int i) {
        const auto place = static_cast<uint64_t>(i);
        return place >= first && place - first < n;
      });
    });
  }
}

void test_prmt() {
  const std::vector<Kind> three = {Kind::kInt32, Kind::kInt32, Kind::kInt32};
  const auto byte = [](const Values& x, int i) {
    return i < 4 ? x[0] >> (8 * i) & 255 : x[1] >> (8 * (i - 4)) & 255;
  };
  check("prmt.b32", "b32", three, [&](const Values& x) {
    uint64_t result = 0;
    for (int i = 0; i < 4; ++i) {
      const auto selector = static_cast<int>(x[2] >> (4 * i) & 15);
      const uint64_t chosen = byte(x, selector % 8);
      result |= (selector < 8 ? chosen : chosen >= 128 ? 255 : 0) << (8 * i);
    }
    return result;
  });
  // The PTX document's table: bytes 3, 2, 1, 0 of the result for c = 0, 1, 2, 3.
  const struct {
    const char* mode;
    int bytes[4][4];
  } modes[] = {
      {"f4e", {{3, 2, 1, 0}, {4, 3, 2, 1}, {5, 4, 3, 2}, {6, 5, 4, 3}}},
      {"b4e", {{5, 6, 7, 0}, {6, 7, 0, 1}, {7, 0, 1, 2}, {0, 1, 2, 3}}},
      {"rc8", {{0, 0, 0, 0}, {1, 1, 1, 1}, {2, 2, 2, 2}, {3, 3, 3, 3}}},
      {"ecl", {{3, 2, 1, 0}, {3, 2, 1, 1}, {3, 2, 2, 2}, {3, 3, 3, 3}}},
      {"ecr", {{0, 0, 0, 0}, {1, 1, 1, 0}, {2, 2, 1, 0}, {3, 2, 1, 0}}},
      {"rc16", {{1, 0, 1, 0}, {3, 2, 3, 2}, {1, 0, 1, 0}, {3, 2, 3, 2}}},
  };
  for (const auto& row : modes) {
    check(std::string("prmt.b32.") + row.mode, "b32", three, [&](const Values& x) {
      uint64_t result = 0;
      for (int i = 0; i < 4; ++i) result = result << 8 | byte(x, row.bytes[x[2] % 4][i]);
      return result;
    });
  }
}

void test_refusals() {
  const std::string registers = ".reg .b32 %a; .reg .pred %p; .reg .b16 %h;\n";
  check_refused("lop3.b32 %a, %a, %a, %a, 256;", registers, "8 bits");
  check_refused("lop3.or.b32 %a, %a, %a, %a, 1, %p;", registers, "d|p");
  check_refused("shf.l.b32 %a, %a, %a, %a;", registers, "clamp");
  check_refused("brev.b16 %h, %h;", registers, "b16");
  check_refused("prmt.b32.f5e %a, %a, %a, %a;", registers, "f5e");
  check_refused("and.s32 %a, %a, %a;", registers, "s32");
}

}  // namespace
}  // namespace ptx_simulator::test

int main() {
  using namespace ptx_simulator::test;
  test_logic();
  test_lop3();
  test_shifts();
  test_counts();
  test_fields();
  test_prmt();
  test_refusals();
  return report_result("bits");
}
