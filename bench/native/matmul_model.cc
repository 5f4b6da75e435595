// What the kernels of matrix multiplication should take on an A100-80GB, from the bytes and
// products that they are planned to move and make (native/cuda/matmul_plan.h; the tests compare
// those with what a simulator counts). A model, not a measurement: docs/cuda-kernels.md has its
// assumptions.
//   c++ -std=c++20 -O2 -Inative bench/native/matmul_model.cc native/cuda/matmul_plan.cc -o model
#include <algorithm>
#include <cstdio>

#include "cuda/matmul_plan.h"

namespace altiplano::cuda {
namespace {

constexpr double kClock = 1.41e9;
constexpr double kMemory = 0.9 * 2039e9;  // bytes a second
constexpr double kL2 = 4e12;              // bytes a second, of all multiprocessors
constexpr double kTensor = 0.85 * 1024;   // f16 multiply-adds of a multiprocessor and cycle
constexpr double kShared = 128;           // bytes of a multiprocessor and cycle
constexpr double kIssue = 4;              // warp instructions of a multiprocessor and cycle
constexpr double kPartials = 64;          // bytes that one block reads a cycle from L2
constexpr double kMeeting = 1e-6;  // a partial sum to L2, the count, the first partial sum back
constexpr double kLaunch = 2e-6;   // node of a CUDA graph
constexpr double kDecimal = 1e-6;

// Instructions of a warp for a stage beside `mma` and ldmatrix: what is counted on the simulator
// for tiles of 8 tokens, where weights are unpacked in 32 rows a warp.
double stage_instructions(MatmulKind kind, const Tile& tile) {
  const double strips = tile.rows / tile.row_warps / 16.0;
  const double unpacking = kind == MatmulKind::kInt4 ? 52 : kind == MatmulKind::kInt8 ? 48 : 4;
  return 120 + tile.slices * strips * unpacking;
}

struct Times {
  double memory, l2, tensor, shared, issue, sum;
  double all() const { return std::max({memory, l2, tensor, shared, issue}) + sum + kLaunch; }
};

Times times_of(const MatmulWork& work, int64_t cols) {
  const PlanDevice device;
  const MatmulPlan plan =
      plan_matmul(device, work.kind, work.rows, cols / slice_cols(work.kind), work.tokens);
  const MatmulTraffic t = traffic_of(plan, work);
  const Tile& tile = plan.tile;
  const double once = static_cast<double>(t.weights) / static_cast<double>(plan.token_tiles);
  const double x =
      static_cast<double>(work.tokens * cols) * (work.kind == MatmulKind::kW8A8 ? 1 : 2);
  const double outputs = static_cast<double>(t.outputs_read + t.outputs_written);
  const double moved =
      static_cast<double>(t.weights + t.activations + t.partials_written + t.partials_read) +
      outputs;
  // Units that the busiest multiprocessor works through.
  const double units = static_cast<double>(plan.most_block_units() * plan.slots) / 108;
  const double warps = tile.row_warps * tile.token_warps;
  const double products =
      static_cast<double>(tile.rows) * tile.tokens * tile.slices * slice_cols(work.kind);
  const double rate = work.kind == MatmulKind::kW8A8 ? 2 : 1;
  const double fragments =  // a warp reads its rows and its tokens once
      tile.token_warps * tile.weight_bytes(work.kind) + tile.row_warps * tile.activation_bytes();
  const double mma = products / rate / 2048 / warps;
  const double ldmatrix = tile.activation_bytes() / tile.token_warps / 512.0;
  Times times;
  times.memory = (once + x + outputs) / kMemory;
  times.l2 = moved / kL2;
  times.tensor = units * products / rate / kTensor / kClock;
  times.shared = units * (fragments + tile.stage_bytes(work.kind)) / kShared / kClock;
  times.issue =
      units * warps * (mma + ldmatrix + stage_instructions(work.kind, tile)) / kIssue / kClock;
  times.sum = 0;
  if (t.shared_tiles > 0) {
    times.sum = kMeeting + static_cast<double>(t.partials_read) /
                               static_cast<double>(t.shared_tiles) / kPartials / kClock;
  }
  return times;
}

struct Matrix {
  const char* name;
  int64_t rows, cols;
  Epilogue epilogue;
};
struct Model {
  const char* name;
  int layers;
  Matrix matrices[4];
  Matrix head;
};
constexpr Epilogue kF16 = Epilogue::kStoreF16, kAdd = Epilogue::kAddF32,
                   kSilu = Epilogue::kSiluMulF16, kF32 = Epilogue::kStoreF32;
constexpr Model kModels[] = {{"7B",
                              32,
                              {{"qkv", 12288, 4096, kF16},
                               {"o", 4096, 4096, kAdd},
                               {"gate, up", 22016, 4096, kSilu},
                               {"down", 4096, 11008, kAdd}},
                              {"head", 32000, 4096, kF32}},
                             {"13B",
                              40,
                              {{"qkv", 15360, 5120, kF16},
                               {"o", 5120, 5120, kAdd},
                               {"gate, up", 27648, 5120, kSilu},
                               {"down", 5120, 13824, kAdd}},
                              {"head", 32000, 5120, kF32}},
                             {"70B",
                              80,
                              {{"qkv", 10240, 8192, kF16},
                               {"o", 8192, 8192, kAdd},
                               {"gate, up", 57344, 8192, kSilu},
                               {"down", 8192, 28672, kAdd}},
                              {"head", 32000, 8192, kF32}}};

struct Format {
  const char* name;
  MatmulKind kind;
  int group;
};
constexpr Format kFormats[] = {{"f16", MatmulKind::kF16, 0},
                               {"int8 g32", MatmulKind::kInt8, 32},
                               {"int4 g32", MatmulKind::kInt4, 32},
                               {"int4 g128", MatmulKind::kInt4, 128},
                               {"int8 x int8", MatmulKind::kW8A8, 0}};

// The limit that a time is.
const char* limit(const Times& t) {
  const double most = std::max({t.memory, t.l2, t.tensor, t.shared, t.issue});
  return most == t.memory   ? "memory"
         : most == t.tensor ? "tensor"
         : most == t.l2     ? "L2"
         : most == t.shared ? "shared"
                            : "issue";
}

void print_shapes(const Model& model) {
  for (const Format& f : kFormats) {
    for (const Matrix& m : model.matrices) {
      std::printf("| %s | %s |", f.name, m.name);
      for (int64_t tokens : {1, 8, 16, 32, 64, 128, 256, 2048}) {
        const Times t = times_of({f.kind, f.group, false, m.rows, tokens, m.epilogue}, m.cols);
        std::printf(" %.1f %s |", t.all() / kDecimal, limit(t));
      }
      std::printf("\n");
    }
  }
}

void print_models() {
  for (const Model& model : kModels) {
    for (const Format& f : kFormats) {
      std::printf("| %s | %s |", model.name, f.name);
      for (int64_t tokens : {1, 8, 16, 64, 128, 256, 2048}) {
        double seconds = 0, products = 0;
        for (const Matrix& m : model.matrices) {
          seconds += model.layers *
                     times_of({f.kind, f.group, false, m.rows, tokens, m.epilogue}, m.cols).all();
          products += static_cast<double>(model.layers * m.rows * m.cols * tokens);
        }
        std::printf(" %.2f ms, %.0f |", seconds * 1e3, 2 * products / seconds * 1e-12);
      }
      std::printf("\n");
    }
  }
}

}  // namespace
}  // namespace altiplano::cuda

int main() {
  using namespace altiplano::cuda;
  print_shapes(kModels[0]);
  std::printf("\n");
  print_models();
}
