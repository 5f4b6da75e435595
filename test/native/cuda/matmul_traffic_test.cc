// What a multiplication moves: counted by the simulator, equal to the model of matmul_plan.h to the
// byte; and what that model says of all Llama 2 shapes.
#include <utility>

#include "cuda/matmul_plan.h"
#include "matmul_problem.h"

namespace altiplano::test {

using cuda::Epilogue;
using cuda::MatmulKind;
using cuda::MatmulPlan;
using cuda::PackedMatrix;
using cuda::RowOrder;

namespace {

struct Llama {
  const char* name;
  int64_t hidden, kv, feed_forward;
};
constexpr Llama kLlamas[] = {
    {"7B", 4096, 4096, 11008}, {"13B", 5120, 5120, 13824}, {"70B", 8192, 1024, 28672}};
constexpr int64_t kVocabulary = 32000;

struct Product {
  const char* name;
  int64_t rows, cols;
  Epilogue epilogue;
};
std::vector<Product> products(const Llama& l) {
  return {{"qkv", l.hidden + 2 * l.kv, l.hidden, Epilogue::kStore16},
          {"o", l.hidden, l.hidden, Epilogue::kAddF32},
          {"gate and up", 2 * l.feed_forward, l.hidden, Epilogue::kSiluMul},
          {"down", l.hidden, l.feed_forward, Epilogue::kAddF32},
          {"head", kVocabulary, l.hidden, Epilogue::kStoreF32}};
}

WeightFormat format_of(MatmulKind kind, int group, bool zero_points) {
  if (kind == MatmulKind::kInt8) return {WeightType::kInt8, group, zero_points};
  if (kind == MatmulKind::kInt4) return {WeightType::kInt4, group, zero_points};
  return {kind == MatmulKind::kBF16 ? WeightType::kBF16 : WeightType::kF16, 0, false};
}
ActivationType activations_of(MatmulKind kind) {
  return kind == MatmulKind::kBF16 ? ActivationType::kBF16 : ActivationType::kF16;
}

// Counts one launch and compares it with the model, as if the device had so many multiprocessors.
void check_traffic(CudaDevice& device, MatmulKind kind, int group, bool zero_points, int64_t rows,
                   int64_t cols, int64_t tokens, Epilogue epilogue, int multiprocessors = 108) {
  Random random(7);
  const bool int8_activations = kind == MatmulKind::kW8A8;
  const auto matmul = cuda::make_matmul(device.kernels(), multiprocessors);
  matmul->prepare(limits(tokens, cols, int8_activations));
  const Matrix m = random_matrix(format_of(kind, group, zero_points), rows, cols, random);
  const RowOrder order = epilogue == Epilogue::kSiluMul ? RowOrder::kGateUp : RowOrder::kPlain;
  const PackedMatrix w =
      pack(device, *matmul, m, order, int8_activations, random, activations_of(kind));
  const std::vector<float> x = normals_of(activations_of(kind), tokens * cols, random);
  std::vector<float> before;
  if (epilogue == Epilogue::kAddF32) before = random.normals(tokens * rows);
  device.launches();
  multiply(device, *matmul, w, x, tokens, epilogue, before.empty() ? nullptr : &before);
  const std::vector<ptx_simulator_report> launches = device.launches();
  if (!device.simulated()) return;

  CHECK(launches.size() == (int8_activations ? 2u : 1u), "%zu launches", launches.size());
  const ptx_simulator_report& r = launches.back();
  const MatmulPlan plan =
      cuda::plan_matmul({multiprocessors}, kind, rows, cols / cuda::slice_cols(kind), tokens);
  const cuda::MatmulTraffic t =
      cuda::traffic_of(plan, {kind, group, zero_points, rows, tokens, epilogue});
  CHECK(r.grid[0] == static_cast<uint32_t>(plan.blocks), "as many blocks as planned");
  // A count of one sector, read and written, for each block that shares a tile, and one more for
  // setting the counter back. W8A8 reads four row scales for four rows, and a scale for each
  // token, per lane and output: neighbours of one sector.
  int64_t read =
      t.weights + t.activations + t.partials_read + t.outputs_read + t.sharing_blocks * 32;
  const int64_t written =
      t.partials_written + t.outputs_written + (t.sharing_blocks + t.shared_tiles) * 32;
  const auto sectors = static_cast<int64_t>(r.global_read_sectors) * 32;
  const auto written_sectors = static_cast<int64_t>(r.global_write_sectors) * 32;
  if (int8_activations) {
    const int64_t scales = sectors - read;
    CHECK(scales > 0 && scales <= tokens * rows * 4, "%lld bytes of scales for %lld x %lld",
          static_cast<long long>(scales), static_cast<long long>(tokens),
          static_cast<long long>(rows));
    read = sectors;
  }
  CHECK(sectors == read && written_sectors == written,
        "%s %lld x %lld, %lld tokens: read %lld bytes, %lld by the model; wrote %lld, %lld",
        describe(m.format), static_cast<long long>(rows), static_cast<long long>(cols),
        static_cast<long long>(tokens), static_cast<long long>(sectors),
        static_cast<long long>(read), static_cast<long long>(written_sectors),
        static_cast<long long>(written));
  CHECK(r.shared_wavefronts == r.shared_ideal_wavefronts,
        "%s, %lld tokens: %llu wavefronts, %llu without bank conflicts", describe(m.format),
        static_cast<long long>(tokens), static_cast<unsigned long long>(r.shared_wavefronts),
        static_cast<unsigned long long>(r.shared_ideal_wavefronts));
  CHECK(r.local_bytes == 0, "local memory is not used");
  CHECK(r.mma_multiply_adds ==
            static_cast<uint64_t>(plan.units() * plan.tile.rows * plan.tile.tokens *
                                  plan.tile.slices * cuda::slice_cols(kind)),
        "no products beyond the tiles'");
}

// Bytes in canonical form, of everything once.
double ideal_bytes(MatmulKind kind, int group, bool zero_points, const Product& p, int64_t tokens) {
  const double weights = static_cast<double>(p.rows * p.cols);
  const double group_bytes = has_groups(kind) ? (zero_points ? 3.0 : 2.0) / group : 0;
  const double weight_bytes = is_float(kind)              ? 2
                              : kind == MatmulKind::kInt4 ? 0.5 + group_bytes
                                                          : 1 + group_bytes;
  const double output = p.epilogue == Epilogue::kSiluMul   ? 1
                        : p.epilogue == Epilogue::kStore16 ? 2
                        : p.epilogue == Epilogue::kAddF32  ? 8
                                                           : 4;
  return weights * weight_bytes +
         static_cast<double>(tokens) *
             (static_cast<double>(p.cols) * (kind == MatmulKind::kW8A8 ? 1 : 2) +
              static_cast<double>(p.rows) * output);
}

}  // namespace

// Shapes of 7B and 70B with an eighth or a sixteenth of their rows: columns, and with them stages,
// sharing and the ring, are those of the model; blocks are fewer, as a simulated multiply-add takes
// a nanosecond.
void test_matmul_traffic(CudaDevice& device) {
  using enum MatmulKind;
  using enum Epilogue;
  check_traffic(device, kInt4, 32, false, 1536, 4096, 1, kStore16);
  check_traffic(device, kInt4, 128, true, 512, 4096, 8, kAddF32);
  check_traffic(device, kInt4, 32, false, 512, 11008, 16, kAddF32);
  check_traffic(device, kInt4, 64, false, 2752, 4096, 4, kSiluMul);
  check_traffic(device, kInt8, 32, false, 768, 4096, 1, kStore16);
  check_traffic(device, kInt8, 64, true, 512, 4096, 30, kStoreF32);
  check_traffic(device, kF16, 0, false, 768, 8192, 2, kStore16);
  check_traffic(device, kBF16, 0, false, 768, 4096, 3, kStore16);
  check_traffic(device, kW8A8, 0, false, 768, 4096, 5, kStore16);
  if (quick) return;
  check_traffic(device, kInt4, 32, false, 768, 4096, 64, kStore16);
  check_traffic(device, kInt4, 128, false, 3584, 1024, 512, kSiluMul);
  check_traffic(device, kInt8, 32, false, 512, 1024, 200, kStoreF32);
  check_traffic(device, kF16, 0, false, 7168, 512, 128, kSiluMul);
  check_traffic(device, kF16, 0, false, 512, 2048, 61, kAddF32);
  check_traffic(device, kW8A8, 0, false, 7168, 1024, 256, kSiluMul);
  // Tiles of 256 x 128 and 128 x 128 that blocks share.
  check_traffic(device, kF16, 0, false, 1024, 512, 256, kStore16, 3);
  check_traffic(device, kInt4, 32, false, 768, 512, 128, kAddF32, 5);
  check_traffic(device, kW8A8, 0, false, 1024, 512, 256, kStoreF32, 3);
}

// Of every matrix of every Llama 2: nearly all of the device works to the end; what comes from
// memory is hardly more than the canonical bytes (padding, here none); and of what L2 serves,
// activations and partial sums that several blocks read stay small for few tokens.
void test_matmul_plans(CudaDevice&) {
  struct Format {
    MatmulKind kind;
    int group;
    bool zero_points;
  };
  using enum MatmulKind;
  const std::vector<Format> formats = {{kF16, 0, false},   {kInt8, 32, false}, {kInt8, 128, false},
                                       {kInt4, 32, false}, {kInt4, 64, false}, {kInt4, 128, false},
                                       {kInt4, 128, true}, {kW8A8, 0, false},  {kBF16, 0, false}};
  for (const Llama& llama : kLlamas) {
    for (const Product& p : products(llama)) {
      for (const Format& f : formats) {
        for (int64_t tokens : {1, 2, 8, 16, 24, 32, 64, 128, 256, 512, 1024, 2048}) {
          const MatmulPlan plan =
              cuda::plan_matmul({}, f.kind, p.rows, p.cols / cuda::slice_cols(f.kind), tokens);
          const auto fail = [&](const char* what, double found) {
            CHECK(false, "%s %s, kind %d group %d, %lld tokens: %s %g", llama.name, p.name,
                  static_cast<int>(f.kind), f.group, static_cast<long long>(tokens), what, found);
          };
          const double waves = cuda::wave_efficiency(plan);
          if (waves < 0.92) fail("last wave", waves);
          // Of devices with less shared memory (sm_86, sm_89), too, the tile is one that fits.
          const cuda::PlanDevice small = {84, 99 << 10, 100 << 10};
          const MatmulPlan on_small =
              cuda::plan_matmul(small, f.kind, p.rows, p.cols / cuda::slice_cols(f.kind), tokens);
          if (!cuda::fits(small, f.kind, on_small.tile_index)) {
            fail("does not fit", on_small.tile_index);
          }

          // From memory: packed weights once (blocks of one row tile run together), x and y once.
          const cuda::MatrixShape shape = {format_of(f.kind, f.group, f.zero_points),
                                           p.rows,
                                           p.cols,
                                           RowOrder::kPlain,
                                           f.kind == kW8A8,
                                           activations_of(f.kind)};
          const double ideal = ideal_bytes(f.kind, f.group, f.zero_points, p, tokens);
          const double outside_weights = ideal - ideal_bytes(f.kind, f.group, f.zero_points, p, 0);
          const double memory = static_cast<double>(cuda::packed_bytes(shape)) + outside_weights;
          if (memory / ideal > 1.03) fail("bytes from memory over ideal", memory / ideal);

          // From L2, with few tokens.
          const cuda::MatmulTraffic t =
              cuda::traffic_of(plan, {f.kind, f.group, f.zero_points, p.rows, tokens, p.epilogue});
          const double moved =
              static_cast<double>(t.weights + t.activations + t.partials_written + t.partials_read +
                                  t.outputs_read + t.outputs_written);
          if (tokens == 1 && moved / ideal > 1.08) fail("bytes from L2 over ideal", moved / ideal);
        }
      }
    }
  }
}

}  // namespace altiplano::test
