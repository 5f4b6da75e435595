// Comparisons and selections: setp, set, slct, selp, testp, for every type, comparison and
// combination with a predicate, against the definition: a pair of operands is less, equal, greater
// or unordered, and a comparison is the set of those for which it holds.
#include "forms.h"

namespace ptx_simulator::test {
namespace {

enum Order { kLess = 1, kEqual = 2, kGreater = 4, kUnordered = 8 };

struct Comparison {
  const char* name;
  int holds;  // set of Order
};
const Comparison kOrdered[] = {{"eq", kEqual},   {"ne", kLess | kGreater},
                               {"lt", kLess},    {"le", kLess | kEqual},
                               {"gt", kGreater}, {"ge", kGreater | kEqual}};
const Comparison kUnsigned[] = {
    {"lo", kLess}, {"ls", kLess | kEqual}, {"hi", kGreater}, {"hs", kGreater | kEqual}};
const Comparison kUnorderedToo[] = {
    {"equ", kEqual | kUnordered},       {"neu", kLess | kGreater | kUnordered},
    {"ltu", kLess | kUnordered},        {"leu", kLess | kEqual | kUnordered},
    {"gtu", kGreater | kUnordered},     {"geu", kGreater | kEqual | kUnordered},
    {"num", kLess | kEqual | kGreater}, {"nan", kUnordered}};

struct Type {
  const char* name;
  Kind kind;
  const Ieee* format = nullptr;  // of floats
  bool is_signed = false;
  bool flush = false;  // .ftz

  int bits() const {
    return format != nullptr ? format->width() : std::bit_width(mask_of(register_of(kind)));
  }
  Order order(uint64_t a, uint64_t b) const {
    if (format == nullptr) {
      const uint64_t flip = is_signed ? uint64_t{1} << (bits() - 1) : 0;  // moves the sign's place
      return (a ^ flip) < (b ^ flip) ? kLess : a == b ? kEqual : kGreater;
    }
    if (flush) {
      a = format->flushed(a);
      b = format->flushed(b);
    }
    if (format->is_nan(a) || format->is_nan(b)) return kUnordered;
    if (format->is_zero(a) && format->is_zero(b)) return kEqual;
    // Signs decide, then magnitudes.
    if (format->negative(a) != format->negative(b)) return format->negative(a) ? kLess : kGreater;
    if (a == b) return kEqual;
    return (format->magnitude(a) < format->magnitude(b)) != format->negative(a) ? kLess : kGreater;
  }
};

const Type kIntegers[] = {{"b16", Kind::kInt16},
                          {"b32", Kind::kInt32},
                          {"b64", Kind::kInt64},
                          {"u16", Kind::kInt16},
                          {"u32", Kind::kInt32},
                          {"u64", Kind::kInt64},
                          {"s16", Kind::kInt16, nullptr, true},
                          {"s32", Kind::kInt32, nullptr, true},
                          {"s64", Kind::kInt64, nullptr, true}};
const Type kFloats[] = {{"f32", Kind::kF32, &kSingleFormat},
                        {"f64", Kind::kF64, &kDoubleFormat},
                        {"f16", Kind::kF16, &kHalfFormat},
                        {"bf16", Kind::kBf16, &kBrainFormat},
                        {"ftz.f32", Kind::kF32, &kSingleFormat, false, true},
                        {"ftz.f16", Kind::kF16, &kHalfFormat, false, true}};
const Type kPairs[] = {{"f16x2", Kind::kF16x2, &kHalfFormat},
                       {"bf16x2", Kind::kBf16x2, &kBrainFormat},
                       {"ftz.f16x2", Kind::kF16x2, &kHalfFormat, false, true}};

const char* const kCombinations[] = {"", "and", "or", "xor"};
bool combined(const std::string& combination, bool t, bool c) {
  return combination == "and"   ? t && c
         : combination == "or"  ? t || c
         : combination == "xor" ? t != c
                                : t;
}

std::vector<Comparison> comparisons_of(const Type& type) {
  std::vector<Comparison> all(std::begin(kOrdered), std::end(kOrdered));
  if (type.format != nullptr) {
    all.insert(all.end(), std::begin(kUnorderedToo), std::end(kUnorderedToo));
  } else if (type.name[0] == 'u') {
    all.insert(all.end(), std::begin(kUnsigned), std::end(kUnsigned));
  }
  return all;
}

// ".lt.and.ftz.f32": .ftz is written before the type.
std::string suffix(const Comparison& comparison, const std::string& combination,
                   const std::string& type) {
  return std::string(".") + comparison.name + (combination.empty() ? "" : "." + combination) + "." +
         type;
}

void test_setp() {
  for (const auto& types : {std::vector<Type>(std::begin(kIntegers), std::end(kIntegers)),
                            std::vector<Type>(std::begin(kFloats), std::end(kFloats))}) {
    for (const Type& type : types) {
      for (const Comparison& comparison : comparisons_of(type)) {
        const auto holds = [&](const Values& x) {
          return (comparison.holds & type.order(x[0], x[1])) != 0;
        };
        check_form(
            {"setp" + suffix(comparison, "", type.name) + " %d, %a, %b;",
             {"pred"},
             {type.kind, type.kind}},
            [&](const Values& x) { return Values{holds(x)}; }, 2048);
        for (const std::string combination : kCombinations) {
          const bool with = !combination.empty();
          for (const bool negated : {false, true}) {
            if (negated && !with) continue;
            std::vector<Kind> operands = {type.kind, type.kind};
            if (with) operands.push_back(Kind::kPred);
            check_form(
                {"setp" + suffix(comparison, combination, type.name) + " %d|%e, %a, %b" +
                     (with ? negated ? ", !%c;" : ", %c;" : ";"),
                 {"pred", "pred"},
                 operands},
                [&](const Values& x) {
                  const bool t = holds(x), c = (x[2] != 0) != negated;
                  return Values{combined(combination, t, c), combined(combination, !t, c)};
                },
                512);
          }
        }
      }
    }
  }
  check_form({"setp.lt.s32 _|%d, %a, %b;", {"pred"}, {Kind::kInt32, Kind::kInt32}},
             [](const Values& x) {
               return Values{static_cast<int32_t>(x[0]) >= static_cast<int32_t>(x[1])};
             });
  check_form({"setp.gt.f32 %d|_, %a, 0f3F800000;", {"pred"}, {Kind::kF32}}, [](const Values& x) {
    return Values{kFloats[0].order(x[0], kSingleFormat.one()) == kGreater};
  });
}

void test_setp_of_pairs() {
  for (const Type& type : kPairs) {
    for (const Comparison& comparison : comparisons_of(type)) {
      for (const std::string combination : {"", "and", "xor"}) {
        std::vector<Kind> operands = {type.kind, type.kind};
        if (!combination.empty()) operands.push_back(Kind::kPred);
        check_form(
            {"setp" + suffix(comparison, combination, type.name) + " %d|%e, %a, %b" +
                 (combination.empty() ? ";" : ", %c;"),
             {"pred", "pred"},
             operands},
            [&](const Values& x) {
              const bool c = x[2] != 0;
              const Order low = type.order(x[0] & 0xffff, x[1] & 0xffff);
              const Order high = type.order(x[0] >> 16, x[1] >> 16);
              return Values{combined(combination, (comparison.holds & low) != 0, c),
                            combined(combination, (comparison.holds & high) != 0, c)};
            },
            1024);
      }
    }
  }
}

void test_set() {
  struct Result {
    const char* name;
    const char* reg;
    uint64_t yes;
  };
  const Result words[] = {
      {"u32", "b32", 0xffffffff}, {"s32", "b32", 0xffffffff}, {"f32", "b32", 0x3f800000}};
  const Result halves[] = {{"u16", "b16", 0xffff}, {"f16", "b16", 0x3c00}, {"bf16", "b16", 0x3f80}};
  const auto test = [](const Type& type, const Result& result) {
    for (const Comparison& comparison : comparisons_of(type)) {
      for (const std::string combination : kCombinations) {
        std::vector<Kind> operands = {type.kind, type.kind};
        if (!combination.empty()) operands.push_back(Kind::kPred);
        // set.lt.and.ftz.f32.f32: .ftz before the result's type.
        const bool ftz = std::string(type.name).substr(0, 4) == "ftz.";
        const std::string plain = ftz ? type.name + 4 : type.name;
        check_form(
            {"set" + suffix(comparison, combination, ftz ? "ftz." : "") + result.name + "." +
                 plain + " %d, %a, %b" + (combination.empty() ? ";" : ", %c;"),
             {result.reg},
             operands},
            [&](const Values& x) {
              const bool t = (comparison.holds & type.order(x[0], x[1])) != 0;
              return Values{combined(combination, t, x[2] != 0) ? result.yes : 0};
            },
            256);
      }
    }
  };
  for (const Type& type : kIntegers) {
    for (const Result& result : words) test(type, result);
  }
  for (const Type& type : kFloats) {
    for (const Result& result : words) test(type, result);
    if (type.format->width() == 16) {
      for (const Result& result : halves) test(type, result);
    }
  }
  // Pairs: a mask of 16 bits, or a one, for each half.
  const struct {
    const char* name;
    uint64_t yes;
  } pairs[] = {{"u32", 0xffff}, {"f16x2", 0x3c00}, {"bf16x2", 0x3f80}};
  for (const Type& type : {kPairs[0], kPairs[1]}) {
    for (const auto& result : pairs) {
      for (const Comparison& comparison : comparisons_of(type)) {
        check("set" + suffix(comparison, "", result.name) + "." + type.name, "b32",
              {type.kind, type.kind}, [&](const Values& x) {
                uint64_t y = 0;
                for (const int shift : {0, 16}) {
                  const Order order = type.order(x[0] >> shift & 0xffff, x[1] >> shift & 0xffff);
                  if ((comparison.holds & order) != 0) y |= result.yes << shift;
                }
                return y;
              });
      }
    }
  }
}

void test_selections() {
  const struct {
    std::string types;
    Kind kind;
  } rows[] = {{"b16 u16 s16", Kind::kInt16},
              {"b32 u32 s32 f32", Kind::kInt32},
              {"b64 u64 s64 f64", Kind::kInt64}};
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.types.size(); i += 4) {
      const std::string type = row.types.substr(i, 3), reg = register_of(row.kind);
      check("selp." + type, reg, {row.kind, row.kind, Kind::kPred},
            [](const Values& x) { return x[2] != 0 ? x[0] : x[1]; });
      check("slct." + type + ".s32", reg, {row.kind, row.kind, Kind::kInt32},
            [](const Values& x) { return x[2] < 0x80000000 ? x[0] : x[1]; });
      const auto by_float = [](const Values& x, bool flush) {
        const Order order = Type{"", Kind::kF32, &kSingleFormat, false, flush}.order(x[2], 0);
        return order == kGreater || order == kEqual ? x[0] : x[1];
      };
      check("slct." + type + ".f32", reg, {row.kind, row.kind, Kind::kF32},
            [&](const Values& x) { return by_float(x, false); });
      check("slct.ftz." + type + ".f32", reg, {row.kind, row.kind, Kind::kF32},
            [&](const Values& x) { return by_float(x, true); });
    }
  }
}

void test_testp() {
  for (const Type& type : {kFloats[0], kFloats[1]}) {
    const Ieee& f = *type.format;
    const auto property = [&](const std::string& name, const std::function<bool(uint64_t)>& is) {
      check("testp." + name + "." + type.name, "pred", {type.kind},
            [&](const Values& x) { return is(x[0]); });
    };
    property("finite", [&](uint64_t x) { return !f.is_nan(x) && !f.is_infinite(x); });
    property("infinite", [&](uint64_t x) { return f.is_infinite(x); });
    property("number", [&](uint64_t x) { return !f.is_nan(x); });
    property("notanumber", [&](uint64_t x) { return f.is_nan(x); });
    property("normal", [&](uint64_t x) {
      return !f.is_nan(x) && !f.is_infinite(x) && !f.is_zero(x) && !f.is_subnormal(x);
    });
    property("subnormal", [&](uint64_t x) { return f.is_subnormal(x); });
  }
}

void test_refusals() {
  const std::string registers = ".reg .b32 %a; .reg .pred %p; .reg .b64 %l;\n";
  check_refused("setp.ltu.s32 %p, %a, %a;", registers, "comparison");
  check_refused("setp.lo.f32 %p, %a, %a;", registers, "comparison");
  check_refused("setp.lt.ftz.f64 %p, %l, %l;", registers, "ftz");
  check_refused("setp.lt.f16x2 %p, %a, %a;", registers, "p|q");
  check_refused("setp.lt.and.s32 %p, %a, %a;", registers, "operands");
  check_refused("set.lt.f32.f16x2 %a, %a, %a;", registers, "halves");
}

}  // namespace
}  // namespace ptx_simulator::test

int main() {
  using namespace ptx_simulator::test;
  test_setp();
  test_setp_of_pairs();
  test_set();
  test_selections();
  test_testp();
  test_refusals();
  return report_result("comparisons");
}
