// The test of the CUDA kernels, through the driver API that libcuda.so.1 offers: the simulator's
// (LD_LIBRARY_PATH), or a GPU's.
//   cuda_test [--quick] [part of a case's name]
#include "cuda/driver.h"
#include "device.h"
#include "util/error.h"

namespace altiplano::test {
namespace {

struct Case {
  const char* name;
  void (*run)(CudaDevice&);
};

constexpr Case kCases[] = {
    {"attention: prompts and decoding on tensor cores", test_attention_tiles},
    {"attention: keys split over blocks", test_attention_splits},
    {"attention: the kernel for every shape", test_attention_general},
    {"attention: a recorded step", test_attention_recorded},
    {"attention: bank conflicts and bytes moved", test_attention_traffic},
    {"matmul: plans for all Llama 2 shapes", test_matmul_plans},
    {"matmul within its error bound", test_matmul_error},
    {"matmul: epilogues", test_matmul_epilogues},
    {"matmul: tiles shared by blocks", test_matmul_sharing},
    {"matmul: the same launch gives the same bits", test_matmul_repeatable},
    {"matmul: int8 by int8", test_matmul_int8_activations},
    {"matmul: numbers that f16 has not", test_matmul_range},
    {"heads: rotated and stored behind the products", test_heads},
    {"heads: parts of a stack", test_heads_of_parts},
    {"heads: rotated by a kernel of its own", test_heads_apart},
    {"heads: tiles shared by blocks", test_heads_sharing},
    {"heads: extreme numbers", test_heads_extremes},
    {"heads: bytes moved", test_heads_traffic},
    {"matmul shows what is not finite", test_matmul_not_finite},
    {"matmul: bytes moved", test_matmul_traffic},
    {"step: embedding", test_embed},
    {"step: rmsnorm", test_rmsnorm},
    {"step: rmsnorm to int8", test_rmsnorm_int8},
    {"step: rmsnorm to int8 shows what is not finite", test_rmsnorm_int8_not_finite},
    {"step: silu", test_silu_mul},
    {"step: gathered rows", test_gather_rows},
    {"step: copies of pages", test_copy_pages},
    {"step: rotary positions and attention over ragged batches", test_rope_and_attention},
    {"step: attention shows what is not finite", test_attention_not_finite},
    {"step: what rows ask for", test_row_results},
    {"step: rows that are not finite", test_row_results_not_finite},
    {"backend: steps of a small model", test_backend},
    {"backend: rows as they lie, and gathered", test_backend_rows},
    {"backend: two steps under way", test_backend_two_steps},
    {"engine: every failure of the driver", test_failures},
};

int run(int argc, char** argv) {
  const char* wanted = "";
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--quick") == 0) {
      quick = true;
    } else {
      wanted = argv[i];
    }
  }
  simulate_devices("2");
  CudaDevice device;
  std::printf("%s%s\n", device.context()->device().name.c_str(),
              device.simulated() ? ", simulated" : "");
  int failed = 0, passed = 0;
  for (const Case& c : kCases) {
    if (std::strstr(c.name, wanted) == nullptr) continue;
    failures = 0;
    c.run(device);
    device.launches();
    std::printf("%s %s\n", failures == 0 ? "ok    " : "FAILED", c.name);
    std::fflush(stdout);
    ++(failures == 0 ? passed : failed);
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 && passed > 0 ? 0 : 1;
}

}  // namespace
}  // namespace altiplano::test

int main(int argc, char** argv) {
  try {
    return altiplano::test::run(argc, argv);
  } catch (const altiplano::Error& e) {
    std::fprintf(stderr, "%s: %s\n", e.code(), e.what());
    return 1;
  }
}
