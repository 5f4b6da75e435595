#include "mutants.h"

#include <functional>
#include <regex>
#include <sstream>

namespace ptx_simulator::test {

namespace {

struct Rule {
  const char* kind;
  std::regex pattern;                                           // searched for in an instruction
  std::function<std::string(const std::smatch& match)> change;  // what the match becomes
};

std::string plus(const std::string& number, long long addend) {
  return std::to_string(std::stoll(number) + addend);
}

const std::vector<Rule>& rules() {
  const auto text = [](const char* replacement) {
    return [replacement](const std::smatch&) { return std::string(replacement); };
  };
  static const std::vector<Rule> all = {
      {"deleted barrier", std::regex(R"(^(@!?%p\d+ )?(bar\.|barrier\.).*)"), text("")},
      {"deleted wait or commit", std::regex(R"(^cp\.async\.(wait|commit)_group.*)"), text("")},
      {"deleted fence", std::regex(R"(^(membar|fence)\..*)"), text("")},
      {"deleted store, shuffle or mma", std::regex(R"(^(st\.(global|shared)|shfl|mma|red).*)"),
       text("")},
      {"wait for a group less", std::regex(R"(^cp\.async\.wait_group (\d+))"),
       [](const std::smatch& m) { return "cp.async.wait_group " + plus(m[1], 1); }},
      {"changed address", std::regex(R"(\[(%r[sd]?\d+)(\+-?\d+)?\])"),
       [](const std::smatch& m) {
         const std::string offset = m[2].matched ? m[2].str().substr(1) : "0";
         return "[" + m[1].str() + "+" + plus(offset, 16) + "]";
       }},
      // One less: one more would leave the distances of a butterfly of shuffles (16, 8, 4, 2, 1) a
      // complete set.
      {"changed immediate",
       std::regex(R"(^(@!?%p\d+ )?((?:add|sub|mul|mad|or|xor|min|max|mov|setp|bfi|selp)\.)"
                  R"([^,]*,.* )(-?\d+);)"),
       [](const std::smatch& m) { return m[1].str() + m[2].str() + plus(m[3], -1) + ";"; }},
      // One more would often be a bit that is 0 anyway.
      {"changed mask", std::regex(R"(^(and\..*, )(-?\d+);)"),
       [](const std::smatch& m) {
         const long long mask = std::stoll(m[2]);
         return m[1].str() + std::to_string(mask & (mask - 1)) + ";";
       }},
      // One less, since an amount beyond the width counts as the width.
      {"changed shift", std::regex(R"(^(sh[lr]\..*, )(\d+);)"),
       [](const std::smatch& m) { return m[1].str() + plus(m[2], -1) + ";"; }},
      {"swapped operands", std::regex(R"(^(sub|div|setp)(\.[^ ]* %\w+, )(%\w+), (%\w+);)"),
       [](const std::smatch& m) {
         return m[1].str() + m[2].str() + m[4].str() + ", " + m[3].str() + ";";
       }},
      {"changed comparison", std::regex(R"(^setp\.(lt|le|gt|ge|eq|ne|ltu|leu|gtu|geu)\.)"),
       [](const std::smatch& m) {
         const std::string name = m[1];
         const std::string other = name == "lt"    ? "le"
                                   : name == "le"  ? "lt"
                                   : name == "gt"  ? "ge"
                                   : name == "ge"  ? "gt"
                                   : name == "eq"  ? "ne"
                                   : name == "ne"  ? "eq"
                                   : name == "ltu" ? "leu"
                                   : name == "leu" ? "ltu"
                                   : name == "gtu" ? "geu"
                                                   : "gtu";
         return "setp." + other + ".";
       }},
      {"changed rounding", std::regex(R"(^cvt\.rn\.)"), text("cvt.rz.")},
      {"changed arithmetic", std::regex(R"(^(add|sub)\.(f32|s32|s64))"),
       [](const std::smatch& m) {
         return std::string(m[1] == "add" ? "sub" : "add") + "." + m[2].str();
       }},
      {"dropped guard", std::regex(R"(^@!?%p\d+ )"), text("")},
      {"turned guard", std::regex(R"(^@(!?)(%p\d+) )"),
       [](const std::smatch& m) {
         return std::string(m[1].length() ? "@" : "@!") + m[2].str() + " ";
       }},
  };
  return all;
}

}  // namespace

std::vector<Mutant> mutants_of(const std::string& ptx) {
  static const std::regex spaces(R"(\s+)");
  std::vector<Mutant> mutants;
  std::istringstream stream(ptx);
  int number = 0;
  for (std::string line; std::getline(stream, line);) {
    ++number;
    const size_t begin = line.find_first_not_of(" \t");
    if (begin == std::string::npos || line[begin] == '.') continue;
    const std::string instruction = std::regex_replace(line.substr(begin), spaces, " ");
    if (instruction.find(';') == std::string::npos) continue;
    for (const Rule& rule : rules()) {
      std::smatch match;
      if (!std::regex_search(instruction, match, rule.pattern)) continue;
      const std::string after = match.prefix().str() + rule.change(match) + match.suffix().str();
      mutants.push_back({rule.kind, number, instruction, after});
    }
  }
  return mutants;
}

std::string mutated(const std::string& ptx, const Mutant& mutant) {
  size_t begin = 0;
  for (int line = 1; line < mutant.line; ++line) begin = ptx.find('\n', begin) + 1;
  return ptx.substr(0, begin) + mutant.after + ptx.substr(ptx.find('\n', begin));
}

}  // namespace ptx_simulator::test
