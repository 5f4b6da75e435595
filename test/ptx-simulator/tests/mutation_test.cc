// How good the kernel tests are: mutants of the test kernels' PTX (mutants.h), a sample by a fixed
// seed, run through the small cases. A mutant is killed by a wrong result, a finding or an error;
// nine tenths have to be. Survivors are printed; the README explains their classes.
//   ptx_mutation_test [count]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <map>
#include <random>

#include "kernel_cases.h"
#include "kernel_files.h"
#include "mutants.h"
#include "simulated_device.h"

namespace ptx_simulator::test {
namespace {

constexpr double kLeastKilled = 0.9;

enum class Fate { kSurvived, kWrongResult, kFinding, kError };

Fate fate_of(const std::string& module, const std::string& ptx) {
  for (const KernelCase& each : kernel_cases()) {
    if (each.module != module || !each.is_small) continue;
    try {
      SimulatedDevice device(ptx, {.seed = 1, .most_warp_instructions = 100'000});
      const std::string problem = each.run(device, 1);
      if (!device.findings().empty()) return Fate::kFinding;
      if (!problem.empty()) return Fate::kWrongResult;
    } catch (const std::exception&) {
      return Fate::kError;
    }
  }
  return Fate::kSurvived;
}

int run(size_t count) {
  struct Candidate {
    std::string module;
    Mutant mutant;
  };
  std::map<std::string, std::string> texts;
  std::vector<Candidate> candidates;
  std::mt19937 random(1);
  for (const std::string& module : kernel_modules()) {
    texts[module] = kernel_file(module + ".ptx");
    std::vector<Mutant> mutants = mutants_of(texts[module]);
    // The same share of each module, whose lengths differ much.
    std::shuffle(mutants.begin(), mutants.end(), random);
    mutants.resize(std::min(mutants.size(), count / kernel_modules().size()));
    for (Mutant& mutant : mutants) candidates.push_back({module, std::move(mutant)});
  }
  int fates[4] = {};
  std::map<std::string, std::pair<int, int>> by_kind;  // killed, all
  for (const auto& [module, mutant] : candidates) {
    const Fate fate = fate_of(module, mutated(texts[module], mutant));
    ++fates[static_cast<int>(fate)];
    auto& [killed, all] = by_kind[mutant.kind];
    killed += fate != Fate::kSurvived;
    ++all;
    if (fate == Fate::kSurvived) {
      std::printf("survived: %s line %d, %s: %s -> %s\n", module.c_str(), mutant.line,
                  mutant.kind.c_str(), mutant.before.c_str(),
                  mutant.after.empty() ? "(nothing)" : mutant.after.c_str());
    }
  }
  for (const auto& [kind, counts] : by_kind) {
    std::printf("%-30s %3d of %3d killed\n", kind.c_str(), counts.first, counts.second);
  }
  const int killed = fates[1] + fates[2] + fates[3];
  const double share = static_cast<double>(killed) / static_cast<double>(candidates.size());
  std::printf("%zu mutants: %d with wrong results, %d with findings, %d errors; %.1f %% killed\n",
              candidates.size(), fates[1], fates[2], fates[3], 100 * share);
  return share >= kLeastKilled ? 0 : 1;
}

}  // namespace
}  // namespace ptx_simulator::test

int main(int argc, char** argv) {
  return ptx_simulator::test::run(argc > 1 ? static_cast<size_t>(std::atoi(argv[1])) : 600);
}
