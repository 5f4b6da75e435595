// The test of the engine: every kernel table this processor can run, or the one that ALTIPLANO_ISA
// or the argument names.
//   engine_test [table] [case]      a case by a part of its name
#include <chrono>

#include "cpu/dispatch.h"
#include "engine_support.h"

namespace altiplano::test {
namespace {

struct Case {
  const char* name;
  void (*run)();
};

constexpr Case kCases[] = {
    {"how attention is cut", test_attention_plan},
    {"threads that are held up", test_thread_pool},
    {"logits against float64", test_reference},
    {"interleaved rotary rows", test_interleaved_rotary},
    {"same bits for any threads, batch, chunks and pages", test_same_bits},
    {"what rows ask for", test_rows},
    {"rows that are not finite", test_rows_that_are_not_finite},
    {"references to choices", test_references_to_choices},
    {"page copies", test_page_copies},
    {"refused plans", test_refused_plans},
    {"hostile plans", test_hostile_plans},
    {"slices of matrices", test_matrix_slices},
    {"packing across pages", test_packing_across_pages},
    {"bad rows are named", test_bad_rows_are_named},
    {"memory as estimated", test_memory},
    {"damaged files", test_damaged_files},
    {"weights that are not finite", test_weights_that_are_not_finite},
    {"refused specs", test_refused_specs},
    {"life cycle", test_life_cycle},
    {"cancelled loads", test_cancelled_loads},
    {"cancelled steps", test_cancelled_steps},
};

int run(int argc, char** argv) {
  const char* variable = std::getenv("ALTIPLANO_ISA");
  const std::string wanted = argc > 1 ? argv[1] : variable ? variable : "";
  const std::string part = argc > 2 ? argv[2] : "";
  int passed = 0, failed = 0;
  for (const Kernels* table : cpu::available_kernels()) {
    if (!wanted.empty() && wanted != table->name) continue;
    setenv("ALTIPLANO_ISA", table->name, 1);
    for (const Case& c : kCases) {
      if (std::string(c.name).find(part) == std::string::npos) continue;
      failures = 0;
      const auto start = std::chrono::steady_clock::now();
      const Failure thrown = failure_of(c.run);
      CHECK(thrown.code.empty(), "threw %s: %s", thrown.code.c_str(), thrown.message.c_str());
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
      std::printf("%s %s: %s (%.1f s)\n", failures > 0 ? "FAILED" : "ok", table->name, c.name,
                  took.count());
      std::fflush(stdout);
      ++(failures > 0 ? failed : passed);
    }
  }
  if (passed + failed == 0) {
    std::fprintf(stderr, "no table named %s on this processor\n", wanted.c_str());
    return 2;
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace altiplano::test

int main(int argc, char** argv) { return altiplano::test::run(argc, argv); }
