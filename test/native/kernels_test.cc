// The test of the CPU kernel tables: every table this processor can run, or the one that
// ALTIPLANO_ISA or the argument names.
//   kernels_test [--quick] [table]
#include "check.h"
#include "cpu/dispatch.h"
#include "util/error.h"

namespace altiplano::test {
namespace {

struct Case {
  const char* name;
  void (*run)(const Kernels&);
};

constexpr Case kCases[] = {
    {"packing is exact", test_packing},
    {"matmul within its error bound", test_matmul_error},
    {"matmul at extreme values", test_matmul_extremes},
    {"matmul: same bits for any batch", test_matmul_is_the_same_for_any_batch},
    {"matmul: same bits for any range of tiles", test_matmul_tile_ranges},
    {"quantize activations", test_quantize_activations},
    {"int8 matmul: the same bits as portable, within its error bound", test_matmul_int8_error},
    {"int8 matmul at extreme values", test_matmul_int8_extremes},
    {"int8 matmul: same bits for any batch", test_matmul_int8_is_the_same_for_any_batch},
    {"int8 matmul: same bits for any range of tiles", test_matmul_int8_tile_ranges},
    {"rmsnorm", test_rmsnorm},
    {"rope", test_rope},
    {"silu_mul", test_silu_mul},
    {"softmax", test_softmax},
    {"log_sum_exp", test_log_sum_exp},
    {"conversions are exact", test_conversions},
    {"quantize", test_quantize},
    {"int4 comes near the least error", test_int4_search},
    {"Q8_0 and Q4_0 blocks are kept without loss", test_lossless_blocks},
    {"kv_store", test_kv_store},
    {"kv_store in int8", test_kv_store_int8},
    {"attend within its error bound", test_attend_error},
    {"attend: same bits for any batch", test_attend_is_the_same_for_any_batch},
    {"attend at extreme values", test_attend_extremes},
    {"attend: KV heads together and alone", test_attend_heads},
    {"attend ignores what is not visible", test_attend_ignores_what_is_not_visible},
    {"attend shows what is not finite", test_attend_shows_what_is_not_finite},
    {"choice of a table", test_choice_of_a_table},
};

int run(int argc, char** argv) {
  const char* wanted = std::getenv("ALTIPLANO_ISA");
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--quick") == 0) {
      quick = true;
    } else {
      wanted = argv[i];
    }
  }
  int passed = 0, failed = 0;
  for (const Kernels* table : cpu::available_kernels()) {
    if (wanted && *wanted && std::strcmp(table->name, wanted) != 0) continue;
    for (const Case& c : kCases) {
      failures = 0;
      c.run(*table);
      if (failures > 0) std::fprintf(stderr, "FAILED %s: %s\n", table->name, c.name);
      ++(failures > 0 ? failed : passed);
    }
    std::printf("table %s: done\n", table->name);
  }
  if (passed + failed == 0) {
    std::fprintf(stderr, "no table named %s on this processor\n", wanted);
    return 2;
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}

}  // namespace

void test_choice_of_a_table(const Kernels& k) {
  const char* before = std::getenv("ALTIPLANO_ISA");
  const std::string saved = before ? before : "";
  setenv("ALTIPLANO_ISA", k.name, 1);
  CHECK(&cpu::select_kernels() == &k, "ALTIPLANO_ISA=%s chose another table", k.name);
  setenv("ALTIPLANO_ISA", "", 1);
  CHECK(&cpu::select_kernels() == cpu::available_kernels().back(), "the best table is the default");
  setenv("ALTIPLANO_ISA", "sse9", 1);
  bool thrown = false;
  try {
    cpu::select_kernels();
  } catch (const Error& error) {
    thrown = std::strcmp(error.code(), "ALTIPLANO_OUT_OF_RANGE") == 0;
    CHECK(std::strstr(error.what(), "portable") && std::strstr(error.what(), "sse9"),
          "the message says what was found and what is possible: %s", error.what());
  }
  CHECK(thrown, "an unknown table is refused");
  if (before) {
    setenv("ALTIPLANO_ISA", saved.c_str(), 1);
  } else {
    unsetenv("ALTIPLANO_ISA");
  }
}

}  // namespace altiplano::test

int main(int argc, char** argv) { return altiplano::test::run(argc, argv); }
