// Single multiplications: the matrices of a layer of 7B, and all layers of each model.
#include <cstdio>

#include "machine.h"
#include "model_backend.h"
#include "tables.h"

namespace altiplano::a100 {
namespace {

using cuda::Epilogue;

struct Matrix {
  const char* name;
  int64_t rows, cols;
  Epilogue epilogue;
};

std::vector<Matrix> matrices(const Model& m) {
  const int64_t head_dim = m.hidden / m.heads;
  return {{"qkv", (m.heads + 2 * m.kv_heads) * head_dim, m.hidden, Epilogue::kHeads},
          {"o", m.hidden, m.hidden, Epilogue::kStoreF32},
          {"gate, up", 2 * m.feed_forward, m.hidden, Epilogue::kSiluMul},
          {"down", m.hidden, m.feed_forward, Epilogue::kStoreF32}};
}

MatmulTimes times(const Scheme& s, const Matrix& m, int64_t tokens) {
  return matmul_times({s.kind, s.group, false, m.rows, tokens, m.epilogue}, m.cols);
}

}  // namespace

LayersTime layers_time(const Model& model, const Scheme& scheme, int64_t tokens) {
  LayersTime result;
  for (const Matrix& m : matrices(model)) {
    const MatmulTimes t = times(scheme, m, tokens);
    result.fixed += model.layers * (t.work() + kNode);
    result.waiting += model.layers * t.waiting();
    result.hidden += model.layers * t.hidden();
    result.operations += 2.0 * model.layers * static_cast<double>(m.rows * m.cols * tokens);
  }
  return result;
}

void print_matmul_tables() {
  std::printf("Matrices of a layer of 7B, µs with the launch, and what is the limit:\n\n");
  std::printf("| format | matrix | 1 token | 8 | 16 | 32 | 64 | 128 | 256 | 2048 |\n");
  std::printf("|---|---|---|---|---|---|---|---|---|---|\n");
  for (const Scheme& s : kSchemes) {
    for (const Matrix& m : matrices(k7B)) {
      std::printf("| %s | %s |", s.name, m.name);
      for (const int64_t tokens : {1, 8, 16, 32, 64, 128, 256, 2048}) {
        const MatmulTimes t = times(s, m, tokens);
        std::printf(" %.1f %s |", (t.work() + t.waiting() + kNode) * 1e6, t.limit());
      }
      std::printf("\n");
    }
  }
  std::printf("\nThe matrices of all layers, ms with the launches, and TFLOP/s:\n\n");
  std::printf("| model | format | 1 token | 8 | 16 | 64 | 128 | 256 | 2048 |\n");
  std::printf("|---|---|---|---|---|---|---|---|---|\n");
  for (const Model& model : kModels) {
    for (const Scheme& s : kSchemes) {
      std::printf("| %s | %s |", model.name, s.name);
      for (const int64_t tokens : {1, 8, 16, 64, 128, 256, 2048}) {
        const LayersTime t = layers_time(model, s, tokens);
        std::printf(" %.2f, %.0f |", t.seconds() * 1e3, t.rate());
      }
      std::printf("\n");
    }
  }
}

}  // namespace altiplano::a100
