// Small changes to PTX text, each of which a test of the kernel ought to notice.
#pragma once

#include <string>
#include <vector>

namespace ptx_simulator::test {

struct Mutant {
  std::string kind;  // "deleted barrier"
  int line;          // from 1
  std::string before, after;
};

// All that the rules give, in the order of the text.
std::vector<Mutant> mutants_of(const std::string& ptx);
// The text with the mutant's line changed.
std::string mutated(const std::string& ptx, const Mutant& mutant);

}  // namespace ptx_simulator::test
