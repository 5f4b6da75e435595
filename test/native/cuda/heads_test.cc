// The epilogue that rotates q and k, and stores k and v in the cache: every kernel, every type of
// cache, ragged batches at any positions and in any slots, against f64.
#include <algorithm>
#include <array>

#include "cuda/kv_page.h"
#include "cuda/matmul_plan.h"
#include "heads_problem.h"

namespace altiplano::test {

using cuda::MatmulKind;

namespace {

constexpr WeightFormat kFloat = {WeightType::kF16, 0, false}, kInt8 = {WeightType::kInt8, 64, true},
                       kInt4 = {WeightType::kInt4, 32, false};
constexpr KvType kKvTypes[] = {KvType::kF32, KvType::kF16, KvType::kInt8, KvType::kBF16};

// A stack that is one matrix, for each kind of kernel.
struct Kind {
  HeadsPart part;
  ActivationType activations = ActivationType::kF16;
};
std::vector<Kind> kinds(int heads) {
  return {{{heads, kFloat}},
          {{heads, kInt8}},
          {{heads, kInt4}},
          {{heads, kFloat, true}},
          {{heads, {WeightType::kBF16, 0, false}}, ActivationType::kBF16}};
}

}  // namespace

// All tiles: 5 tokens to 130. Heads as 7B has them (as many for k and v), and as 70B (eight times
// fewer); odd numbers of heads of 64, so that tiles and warps have two kinds of them.
void test_heads(CudaDevice& device) {
  Random random(8);
  const auto matmul = cuda::make_matmul(device.kernels());
  matmul->prepare(limits(300, 1024, true));
  size_t type = 0;
  for (const auto& [heads, kv_heads, head_dim] :
       {std::array{2, 2, 128}, {8, 1, 64}, {3, 1, 128}, {5, 2, 64}}) {
    for (const auto& [part, activations] : kinds(heads + 2 * kv_heads)) {
      for (int64_t tokens : {1, 5, 16, 33, 64, 130}) {
        if (quick && tokens != 5 && tokens != 33) continue;
        const HeadsShape shape = {
            heads, kv_heads, head_dim, random.integer(40, 200), kKvTypes[type++ % 4], activations};
        HeadsProblem problem(device, *matmul, shape, {part}, random);
        problem.check(problem.activations(tokens), tokens);
      }
      ++type;  // another type of cache for the same number of tokens
    }
  }
}

// q, k and v in different formats, and two of one: each matrix knows which heads it has.
void test_heads_of_parts(CudaDevice& device) {
  Random random(9);
  const auto matmul = cuda::make_matmul(device.kernels());
  matmul->prepare(limits(300, 1024, true));
  for (int head_dim : {64, 128}) {
    for (KvType type : kKvTypes) {
      const HeadsShape shape = {3, 1, head_dim, 120, type};
      HeadsProblem two(device, *matmul, shape, {{4, kInt4}, {1, kInt8}}, random);
      two.check(two.activations(9), 9);
      HeadsProblem three(device, *matmul, shape, {{3, kFloat}, {1, kInt8, true}, {1, kInt4}},
                         random);
      three.check(three.activations(40), 40);
    }
  }
}

// The kernel for other head dimensions, in the same way: it, too, stores nothing of a token without
// a slot.
void test_heads_apart(CudaDevice& device) {
  Random random(13);
  const auto matmul = cuda::make_matmul(device.kernels());
  matmul->prepare(limits(300, 1024));
  for (const int head_dim : {6, 34, 64, 128}) {
    for (const KvType type : kKvTypes) {
      HeadsProblem problem(device, *matmul, {3, 1, head_dim, 70, type}, {{5, kInt8}}, random);
      problem.check(problem.activations(15), 15, HeadsProblem::kApart);
    }
  }
}

// Blocks that run through several tiles, begin and end within one, and share some: what they leave
// each other is added up before it is rotated, and the ring goes on around the epilogue. Every
// kernel that multiplies is among them.
void test_heads_sharing(CudaDevice& device) {
  Random random(10);
  size_t turn = 0;
  bool seen[cuda::kMatmulKinds][cuda::kTiles] = {};
  for (int multiprocessors : {1, 2, 5}) {
    const auto matmul = cuda::make_matmul(device.kernels(), multiprocessors);
    matmul->prepare(limits(300, 4096, true));
    cuda::PlanDevice planned;
    planned.multiprocessors = multiprocessors;
    for (int64_t tokens : {3, 16, 30, 64, 200}) {
      if (quick && tokens > 16) continue;
      for (size_t kind = 0; kind < kinds(1).size(); ++kind, ++turn) {
        HeadsShape shape = {4, 2, 64, random.integer(520, 640), kKvTypes[turn / 3 % 4]};
        if (turn % 2 == 0) shape.heads = 2, shape.kv_heads = 1, shape.head_dim = 128;
        const Kind k = kinds(shape.heads + 2 * shape.kv_heads)[kind];
        shape.activations = k.activations;
        HeadsProblem problem(device, *matmul, shape, {k.part}, random);
        for (int seed = 1; seed < (quick ? 2 : 3); ++seed) {
          device.set_seed(seed);
          problem.check(problem.activations(tokens), tokens);
        }
        const cuda::PackedMatrix& m = problem.matrix(0);
        const auto plan = cuda::plan_matmul(planned, m.kind, m.shape.rows, m.slices, tokens);
        seen[static_cast<int>(m.kind)][plan.tile_index] = true;
      }
    }
  }
  device.set_seed(1);
  for (int kind = 0; kind < cuda::kMatmulKinds; ++kind) {
    for (int tile = 0; tile < (quick ? 2 : cuda::kTiles); ++tile) {
      CHECK(seen[kind][tile], "kind %d, tile %d is not among them", kind, tile);
    }
  }
}

// NaN and infinity spoil their own token alone; zeros have the scale zero; and of numbers far below
// f16's the scales still fit.
void test_heads_extremes(CudaDevice& device) {
  Random random(11);
  const auto matmul = cuda::make_matmul(device.kernels());
  matmul->prepare(limits(300, 1024, true));
  for (KvType type : kKvTypes) {
    for (int head_dim : {64, 128}) {
      const HeadsShape shape = {1, 1, head_dim, 48, type};
      HeadsProblem problem(device, *matmul, shape, {{3, kFloat}}, random);
      std::vector<float> x = problem.activations(6);
      x[2 * shape.cols + 7] = NAN;
      x[3 * shape.cols + 47] = INFINITY;
      std::fill_n(&x[4 * shape.cols], shape.cols, 0.f);
      problem.check(x, 6);
      for (const float weight : {0x1p-70f, 0x1p-96f}) {
        HeadsProblem tiny(device, *matmul, shape, {{3, {WeightType::kF32, 0, false}, true}}, random,
                          weight);
        tiny.check(tiny.activations(6, 0x1p-10f), 6);
      }
    }
  }
}

// Every number is written once, in whole sectors: the columns are those of 7B and 70B, the heads a
// sixteenth. Beside the operands only the rotations are read, and 4 bytes of a position and of a
// slot, by each warp that has heads of a token.
void test_heads_traffic(CudaDevice& device) {
  Random random(12);
  for (const KvType type : kKvTypes) {
    for (const int64_t tokens : {6, 64}) {
      if (!device.simulated() || (quick && tokens > 6)) continue;
      const auto matmul = cuda::make_matmul(device.kernels());
      matmul->prepare(limits(tokens, 4096));
      const HeadsShape shape = {4, 2, 128, 2048, type};
      const int heads = shape.heads + 2 * shape.kv_heads;
      HeadsProblem problem(device, *matmul, shape, {{heads, kInt4}}, random);
      const auto launches = problem.check(problem.activations(tokens), tokens);
      CHECK(launches.size() == 1, "%zu launches", launches.size());
      const int64_t rows = heads * shape.head_dim;
      const cuda::MatmulPlan plan =
          cuda::plan_matmul({}, MatmulKind::kInt4, rows, shape.cols / 64, tokens);
      const cuda::MatmulTraffic t = cuda::traffic_of(
          plan, {MatmulKind::kInt4, 32, false, rows, tokens, cuda::Epilogue::kHeads});
      const int64_t stored = tokens - tokens / 7;  // the others have no slot
      const auto element = static_cast<int64_t>(cuda::kv_element_bytes(type));
      const int64_t scale = type == KvType::kInt8 ? 32 : 0;  // a sector
      const int64_t outputs = tokens * shape.heads * shape.head_dim * 2 +
                              stored * 2 * shape.kv_heads * (shape.head_dim * element + scale);
      const int64_t written =
          t.partials_written + (t.sharing_blocks + t.shared_tiles) * 32 + outputs;
      const auto found = static_cast<int64_t>(launches[0].global_write_sectors) * 32;
      CHECK(found == written, "%lld tokens: wrote %lld bytes, not %lld",
            static_cast<long long>(tokens), static_cast<long long>(found),
            static_cast<long long>(written));
      const int64_t rotated = shape.heads + shape.kv_heads;
      const int64_t read = t.weights + t.activations + t.partials_read + t.sharing_blocks * 32 +
                           tokens * (rotated * (shape.head_dim * 4 + 32) + 2 * shape.kv_heads * 32);
      const auto sectors = static_cast<int64_t>(launches[0].global_read_sectors) * 32;
      CHECK(sectors == read, "%lld tokens: read %lld bytes, not %lld",
            static_cast<long long>(tokens), static_cast<long long>(sectors),
            static_cast<long long>(read));
    }
  }
}

}  // namespace altiplano::test
