// What is wrong with PTX, and where: the errors of the parser, and damaged text, which must never
// crash it.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "ptx/module.h"
#include "tests/nvcc_output.h"

namespace {

using namespace ptx_simulator;
using altiplano::test::Random;

// A kernel with registers of all kinds around `body`, which begins on line 6.
std::string kernel(const std::string& body, const std::string& before = "") {
  return ".version 8.0\n.target sm_80\n.address_size 64 " + before +
         "\n.visible .entry k(.param .u64 p)\n{ .reg .pred %p<4>; .reg .b16 %h<4>; .reg .b32 "
         "%r<8>; "
         ".reg .b64 %rd<8>; .reg .f32 %f<4>; .reg .f64 %fd<4>;\n" +
         body + "\n}\n";
}

void check_error(const std::string& text, int line, const std::string& words) {
  try {
    parse(text);
    CHECK(false, "no error in '%s'", text.c_str());
  } catch (const PtxError& error) {
    const std::string message = error.what();
    CHECK(error.line == line && message.find(words) != std::string::npos,
          "'%s': wanted '%s' in line %d, got '%s'", text.c_str(), words.c_str(), line,
          message.c_str());
  }
}

void test_errors() {
  const std::vector<std::pair<const char*, const char*>> bodies = {
      {"add.u32 %r1, %r2, %r3", "expected ';', found '}'"},
      {"add.u32 %r1, %r9, 1;", "register '%r9' is not declared"},
      {"add.u32 %r01, 1;", "register '%r01' is not declared"},
      {"@%q ret;", "register '%q' is not declared"},
      {"@L ret;", "register 'L' is not declared"},
      {"mov.u32 %r1, [%r99];", "register '%r99' is not declared"},
      {"mov.u32 %r1, %tid;", "expected .x, .y or .z behind %tid"},
      {"mov.u32 %r1, %tid.q;", "expected .x, .y or .z behind %tid"},
      {"mov.u32 %r1, 1/0;", "division by zero"},
      {"mov.u32 %r1, 1+1.5;", "floats that '+' does not take"},
      {"mov.u32 %r1, 18446744073709551616;", "beyond 64 bits"},
      {"mov.u32 %r1, 09;", "wrong digits"},
      {"mov.u32 %r1, 0x;", "without digits"},
      {"mov.f32 %f1, 0f3F80;", "too few digits"},
      {"mov.f32 %f1, 0f3F8000001;", "too many digits"},
      {"mov.f64 %fd1, 1e999;", "no double holds"},
      {"mov.u32 %r1, 'a';", "unexpected '''"},
      {"mov.u32 %r1, \xc3\xa4;", "code 195"},
      {"L: ret; L: ret;", "'L' is declared twice"},
      {".reg .b32 q; .reg .b64 q;", "'q' is declared twice"},
      {".reg .b32 %q<2>; .reg .b64 %q<2>;", "'%q' are declared twice"},
      {".reg .b33 q;", "expected a type"},
      {".reg .b32 q<99999999999>;", "too large"},
      {".reg .v4 .b32 q;", "registers of vectors"},
      {".shared .b8 q[99999999999999];", "too large"},
      {".shared .b8 q[1000000][1000000][1000000];", "too large"},
      {".shared .b8 q[-1];", "too large"},
      {".shared .align 3 .b8 q;", "no power of two"},
      {".shared .pred q;", "variable of predicates"},
      {".shared .u32 q = 5;", "initial value that nobody would write"},
      {".tex .u32 q;", "unknown directive '.tex'"},
      {".pragma \"unfinished;\n", "a string without an end"},
      {"/* unfinished", "a comment without an end"},
      {"{ ret;", "a function without an end"},
      {"mov.u32 %r1|%r2|%r3, 1;", "expected ';'"},
      {"mov.u32 5|%r1, 1;", "expected a constant, found '%r1'"},
      {"mov.b64 {%r1, {%r2}}, 1;", "expected a register or constant"},
      {"mov.b64 {}, 1;", "expected a constant"},
      {"call 5, (%r1);", "no function"},
      {".loc 1 2 3, elsewhere 4", "'elsewhere' in a .loc"},
  };
  for (const auto& [body, words] : bodies) {
    const bool at_begin = std::strstr(words, "function without") != nullptr;
    const bool behind = std::strstr(words, "found '}'") != nullptr;
    check_error(kernel(body), at_begin ? 5 : behind ? 7 : 6, words);
  }
  const std::string head = ".version 8.0\n.target sm_80\n.address_size 64\n";
  const std::vector<std::pair<std::string, const char*>> modules = {
      {".global .u32 x; .global .u32 x;", "'x' is declared twice"},
      {".func f() { ret; } .func f() { ret; }", "'f' is defined twice"},
      {".entry k(.reg .u32 a) { }", "parameters in registers"},
      {".entry k(.param .u32 a, .param .u32 a) { }", "'a' is declared twice"},
      {".entry k() .maxntid 1,2,3,4 { }", "more than three extents"},
      {".entry k() .cluster 4 { }", "unknown directive '.cluster'"},
      {".texref t;", "unknown directive '.texref'"},
      {".global .u32 x = 1.5;", "double-precision constant where a .u32"},
      {".global .f32 x = 1;", "an integer constant where a .f32"},
      {".global .u32 y; .global .u32 x = y;", "does not have 64 bits"},
      {".global .u32 x[2] = {1, 2, 3};", "more values"},
      {".global .u32 x[2][2] = {{1}, {2}, {3}};", "more values"},
      {".global .u32 x[2] = {{1}};", "more braces"},
      {".global .u32 x[2] = {1; };", "expected '}'"},
      {".global .u8 x[2] = {0xFF00(x), 1};", "not all eight in order"},
      {".alias a, b;", "there is no function 'b'"},
      {".address_size 32", "64 is known"},
      {"ret;", "expected ':'"},
      {"}", "expected a directive"},
  };
  for (const auto& [text, words] : modules) check_error(head + text, 4, words);
  check_error("", 1, "expected '.version', found the end of the text");
  check_error("\n.version 8", 2, "expected a version");
  check_error(".version 8.0\n.target foo", 2, "without sm_");
  // Nesting without end must not overflow the stack.
  check_error(kernel("mov.u32 %r1, " + std::string(100000, '(')), 6, "nested too deeply");
  check_error(kernel("mov.u32 %r1, " + std::string(100000, '-')), 6, "nested too deeply");
  std::string ternaries;
  for (int i = 0; i < 100000; ++i) ternaries += "1?";
  check_error(kernel("mov.u32 %r1, " + ternaries), 6, "nested too deeply");
  check_error(kernel(std::string(100000, '{')), 6, "nested too deeply");
}

// Damaged text is an error with a line of the text, or reads as something else; it never crashes.
// Run under AddressSanitizer and UndefinedBehaviorSanitizer this is worth more.
void test_damaged_text() {
  const std::string text = test::kNvccOutput;
  const int lines = static_cast<int>(std::count(text.begin(), text.end(), '\n')) + 1;
  const auto try_parse = [&](std::string_view damaged, int most_lines) {
    try {
      parse(damaged);
      return true;
    } catch (const PtxError& error) {
      CHECK(error.line >= 1 && error.line <= most_lines, "line %d of %d", error.line, most_lines);
      return false;
    }
  };
  const size_t end = text.rfind("}");
  for (size_t size = 0; size < end; size += 3) {
    // A copy, so that AddressSanitizer sees a read behind it. Between the functions all is well.
    const std::vector<char> exact(text.begin(), text.begin() + static_cast<long>(size));
    const bool parses = try_parse({exact.data(), exact.size()}, lines);
    if (size > text.find("mov.u64 \t%SPL")) CHECK(!parses, "%zu bytes parse", size);
  }
  Random random(7);
  static constexpr char kLikely[] = "{}()[]<>,;:=+-*/%!~&|^?@.\"$_0f9xUL \n\t";
  for (int round = 0; round < 2000; ++round) {
    std::string damaged = text;
    for (int64_t flips = random.integer(1, 5); flips > 0; --flips) {
      const auto place =
          static_cast<size_t>(random.integer(0, static_cast<int64_t>(text.size()) - 1));
      switch (random.integer(0, 3)) {
        case 0:
          damaged[place] = static_cast<char>(random.integer(0, 255));
          break;
        case 1:
          damaged[place] = kLikely[random.integer(0, sizeof(kLikely) - 2)];
          break;
        case 2:
          damaged.erase(place, static_cast<size_t>(random.integer(1, 8)));
          damaged.resize(text.size(), ' ');
          break;
        default: {
          const auto from =
              static_cast<size_t>(random.integer(0, static_cast<int64_t>(text.size()) - 40));
          damaged.replace(place, 0, text, from, static_cast<size_t>(random.integer(1, 40)));
        }
      }
    }
    try_parse(damaged, lines + 100);
  }
}

}  // namespace

int main() {
  test_errors();
  test_damaged_text();
  std::printf("parser errors: %d failures\n", altiplano::test::failures);
  return altiplano::test::failures == 0 ? 0 : 1;
}
