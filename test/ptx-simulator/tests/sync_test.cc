// The operations of the lanes of a warp against models in plain C++, on random operands and random
// member masks, with lanes that come at different times.
#include <bit>
#include <cstdio>
#include <functional>
#include <optional>
#include <string>

#include "check.h"
#include "tests/run_ptx.h"

namespace ptx_simulator::test {
namespace {

using altiplano::test::Random;

constexpr int kTrials = 40;
constexpr int kSeeds = 20;

// What each lane brings.
struct Operands {
  std::array<uint32_t, 32> a, b, c;
  std::array<uint32_t, 32> mask;   // the member mask of each lane
  std::array<uint32_t, 32> delay;  // turns of a loop before the operation
};
// What each lane gets: the result and the predicate.
struct Result {
  uint32_t d;
  bool p;
};
// Of one lane; null where PTX leaves it undefined.
using Model = std::function<std::optional<Result>(const Operands&, int lane)>;

// `operation` works on %r10, %r11, %r12 (the operands), %r13 (the member mask), %p3 (a is odd), and
// leaves its results in %r20 and %p4.
Kernel kernel_of(const std::string& operation) {
  return Kernel(kernel(".param .u64 in, .param .u64 out", R"(
  .reg .pred %p<8>;
  .reg .b32 %r<32>;
  .reg .b64 %rd<8>;
  mov.u32 %r1, %tid.x;
  ld.param.u64 %rd1, [in];
  ld.param.u64 %rd2, [out];
  mul.wide.u32 %rd3, %r1, 4;
  add.s64 %rd1, %rd1, %rd3;
  add.s64 %rd2, %rd2, %rd3;
  ld.global.u32 %r10, [%rd1];
  ld.global.u32 %r11, [%rd1+128];
  ld.global.u32 %r12, [%rd1+256];
  ld.global.u32 %r13, [%rd1+384];
  ld.global.u32 %r14, [%rd1+512];
  and.b32 %r15, %r10, 1;
  setp.ne.u32 %p3, %r15, 0;
  mov.u32 %r20, 12345;
  setp.ne.u32 %p4, %r1, %r1;
  // Lanes with a mask of zero do not take part.
  setp.eq.u32 %p1, %r13, 0;
  @%p1 bra END;
DELAY:
  setp.eq.u32 %p2, %r14, 0;
  sub.u32 %r14, %r14, 1;
  @!%p2 bra DELAY;
)" + operation + R"(
  selp.u32 %r21, 1, 0, %p4;
  st.global.u32 [%rd2], %r20;
  st.global.u32 [%rd2+128], %r21;
END:
  ret;
)"));
}

Operands random_operands(Random& random, int trial) {
  Operands in;
  const auto bits = [&] { return static_cast<uint32_t>(random.integer(0, UINT32_MAX)); };
  // Two disjoint groups at the same instruction; in the first trials one, of all lanes.
  uint32_t first = trial < 4 ? UINT32_MAX : bits();
  uint32_t second = ~first;
  if (trial % 3 == 0) second = 0;
  const uint32_t few = bits() & 7;
  for (int lane = 0; lane < 32; ++lane) {
    in.a[lane] = trial % 2 == 0 ? bits() : few + (bits() % 17 == 0);
    in.b[lane] = bits() % 40;
    in.c[lane] = bits();
    in.mask[lane] = (first >> lane & 1) != 0 ? first : (second >> lane & 1) != 0 ? second : 0;
    in.delay[lane] = trial % 4 == 0 ? 0 : bits() % 6;
  }
  return in;
}

void check_operation(const char* name, const std::string& operation, const Model& model,
                     const std::function<void(Operands&)>& prepare = nullptr) {
  const Kernel compiled = kernel_of(operation);
  Random random(7);
  for (int trial = 0; trial < kTrials; ++trial) {
    Operands in = random_operands(random, trial);
    if (prepare) prepare(in);
    std::vector<uint32_t> packed;
    for (const auto& part : {in.a, in.b, in.c, in.mask, in.delay}) {
      packed.insert(packed.end(), part.begin(), part.end());
    }
    Buffer<uint32_t> input(packed);
    Buffer<uint32_t> out(64, 777);
    const LaunchReport report =
        run_ptx(compiled, {.seed = static_cast<uint64_t>(trial)}, input, out);
    bool undefined = false;
    for (int lane = 0; lane < 32; ++lane) {
      if (in.mask[lane] == 0) {
        CHECK(out[lane] == 777, "%s: lane %d takes part", name, lane);
        continue;
      }
      const std::optional<Result> expected = model(in, lane);
      if (!expected) {
        undefined = true;
        continue;
      }
      CHECK(out[lane] == expected->d && out[32 + lane] == expected->p,
            "%s, trial %d, lane %d of mask %08x: %08x %u, not %08x %d", name, trial, lane,
            in.mask[lane], out[lane], out[32 + lane], expected->d, expected->p);
    }
    CHECK(!report.stopped && undefined == !report.findings.empty(), "%s, trial %d: %s", name, trial,
          describe(report).c_str());
    CHECK(!undefined || found(report, FindingKind::kIllegalInstruction), "%s", name);
  }
}

// --- shfl ---

// As the PTX document writes it down.
std::optional<Result> shuffled(const std::string& mode, const Operands& in, int lane) {
  const int bval = static_cast<int>(in.b[lane] & 31);
  const int cval = static_cast<int>(in.c[lane] & 31);
  const int segment_mask = static_cast<int>(in.c[lane] >> 8 & 31);
  const int max_lane = (lane & segment_mask) | (cval & ~segment_mask);
  const int min_lane = lane & segment_mask;
  int j = 0;
  bool p = false;
  if (mode == "up") {
    j = lane - bval;
    p = j >= max_lane;
  } else if (mode == "down") {
    j = lane + bval;
    p = j <= max_lane;
  } else if (mode == "bfly") {
    j = lane ^ bval;
    p = j <= max_lane;
  } else {
    j = min_lane | (bval & ~segment_mask);
    p = j <= max_lane;
  }
  if (!p) j = lane;
  if ((in.mask[lane] >> j & 1) == 0) return std::nullopt;
  return Result{in.a[j], p};
}

void test_shuffles() {
  for (const std::string mode : {"up", "down", "bfly", "idx"}) {
    const auto model = [&](const Operands& in, int lane) { return shuffled(mode, in, lane); };
    check_operation("shfl", "shfl.sync." + mode + ".b32 %r20|%p4, %r10, %r11, %r12, %r13;", model);
    // Only those that read from each other: whole warps, and segments as CUDA makes them.
    for (const uint32_t width : {32u, 16u, 8u, 4u, 2u}) {
      check_operation("shfl with a width",
                      "shfl.sync." + mode + ".b32 %r20|%p4, %r10, %r11, %r12, %r13;", model,
                      [&](Operands& in) {
                        in.mask.fill(UINT32_MAX);
                        const uint32_t clamp = mode == "up" ? 0 : 31;
                        in.c.fill((32 - width) << 8 | clamp);
                        for (uint32_t& b : in.b) b %= width;
                      });
    }
    // In place, without a predicate.
    check_operation("shfl in place",
                    "shfl.sync." + mode + ".b32 %r10, %r10, %r11, %r12, %r13; mov.u32 %r20, %r10;",
                    [&](const Operands& in, int lane) {
                      auto result = shuffled(mode, in, lane);
                      if (result) result->p = false;
                      return result;
                    });
  }
}

// --- vote, match, redux, elect ---

template <class Value>
auto over_members(const Operands& in, int lane, Value value) {
  std::vector<decltype(value(0))> all;
  for (int other = 0; other < 32; ++other) {
    if ((in.mask[lane] >> other & 1) != 0) all.push_back(value(other));
  }
  return all;
}

void test_votes() {
  const auto yes = [](const Operands& in, int lane) {
    uint32_t lanes = 0;
    for (int other = 0; other < 32; ++other) lanes |= (in.a[other] & 1) << other;
    return lanes & in.mask[lane];
  };
  const uint32_t untouched = 12345;
  check_operation("vote.all", "vote.sync.all.pred %p4, %p3, %r13;",
                  [&](const Operands& in, int lane) {
                    return Result{untouched, yes(in, lane) == in.mask[lane]};
                  });
  check_operation("vote.any", "vote.sync.any.pred %p4, %p3, %r13;",
                  [&](const Operands& in, int lane) {
                    return Result{untouched, yes(in, lane) != 0};
                  });
  check_operation("vote.any of the negated", "vote.sync.any.pred %p4, !%p3, %r13;",
                  [&](const Operands& in, int lane) {
                    return Result{untouched, yes(in, lane) != in.mask[lane]};
                  });
  check_operation("vote.uni", "vote.sync.uni.pred %p4, %p3, %r13;",
                  [&](const Operands& in, int lane) {
                    return Result{untouched, yes(in, lane) == 0 || yes(in, lane) == in.mask[lane]};
                  });
  check_operation("vote.ballot", "vote.sync.ballot.b32 %r20, %p3, %r13;",
                  [&](const Operands& in, int lane) {
                    return Result{yes(in, lane), false};
                  });
}

void test_matches() {
  const auto equal = [](const Operands& in, int lane) {
    uint32_t lanes = 0;
    for (int other = 0; other < 32; ++other) {
      lanes |= static_cast<uint32_t>(in.a[other] == in.a[lane]) << other;
    }
    return lanes & in.mask[lane];
  };
  const auto any = [&](const Operands& in, int lane) { return Result{equal(in, lane), false}; };
  const auto all = [&](const Operands& in, int lane) {
    const bool every = equal(in, lane) == in.mask[lane];
    return Result{every ? in.mask[lane] : 0, every};
  };
  const auto same = [](Operands& in) { in.a.fill(in.a[0]); };
  // The same bits, in the upper half.
  const std::string wide = ".reg .b64 %w; mov.b64 %w, {%r1, %r10}; and.b64 %w, %w, -4294967296; ";
  check_operation("match.any", "match.any.sync.b32 %r20, %r10, %r13;", any);
  check_operation("match.any.b64", wide + "match.any.sync.b64 %r20, %w, %r13;", any);
  check_operation("match.all", "match.all.sync.b32 %r20|%p4, %r10, %r13;", all);
  check_operation("match.all of equals", "match.all.sync.b32 %r20|%p4, %r10, %r13;", all, same);
  check_operation("match.all.b64", wide + "match.all.sync.b64 %r20|%p4, %w, %r13;", all, same);
  check_operation("match.all alone", "match.all.sync.b32 %r20, %r10, %r13;",
                  [&](const Operands& in, int lane) {
                    return Result{all(in, lane).d, false};
                  });
}

void test_reductions() {
  const auto check = [](const std::string& operation, auto combine) {
    using T = decltype(combine(0, 0));
    check_operation(operation.c_str(), "redux.sync." + operation + " %r20, %r10, %r13;",
                    [&](const Operands& in, int lane) {
                      const auto all = over_members(
                          in, lane, [&](int other) { return static_cast<T>(in.a[other]); });
                      T result = all[0];
                      for (size_t i = 1; i < all.size(); ++i) result = combine(result, all[i]);
                      return Result{static_cast<uint32_t>(result), false};
                    });
  };
  const auto add = [](uint32_t a, uint32_t b) { return a + b; };
  check("add.u32", add);
  check("add.s32", add);  // wraps around
  check("min.u32", [](uint32_t a, uint32_t b) { return a < b ? a : b; });
  check("max.u32", [](uint32_t a, uint32_t b) { return a < b ? b : a; });
  check("min.s32", [](int32_t a, int32_t b) { return a < b ? a : b; });
  check("max.s32", [](int32_t a, int32_t b) { return a < b ? b : a; });
  check("and.b32", [](uint32_t a, uint32_t b) { return a & b; });
  check("or.b32", [](uint32_t a, uint32_t b) { return a | b; });
  check("xor.b32", [](uint32_t a, uint32_t b) { return a ^ b; });
}

void test_elect() {
  // Which member is elected is not specified; that it is one, and that all know it, is.
  const Kernel compiled = kernel_of("elect.sync %r20|%p4, %r13;");
  Random random(9);
  for (int trial = 0; trial < kTrials; ++trial) {
    const Operands in = random_operands(random, trial);
    std::vector<uint32_t> packed(5 * 32);
    std::copy(in.mask.begin(), in.mask.end(), packed.begin() + 3 * 32);
    Buffer<uint32_t> input(packed), out(64);
    const LaunchReport report = run_ptx(compiled, {}, input, out);
    CHECK(clean(report), "%s", describe(report).c_str());
    for (int lane = 0; lane < 32; ++lane) {
      const uint32_t mask = in.mask[lane];
      if (mask == 0) continue;
      CHECK(out[lane] < 32 && (mask >> out[lane] & 1) != 0, "%u is elected", out[lane]);
      CHECK(out[32 + lane] == (out[lane] == static_cast<uint32_t>(lane)), "lane %d", lane);
      CHECK(out[lane] == out[std::countr_zero(mask)], "members disagree");
    }
  }
}

// The halves of a warp meet at two places of the program.
void test_warp_barrier_in_two_branches() {
  const std::string text = kernel(".param .u64 out", R"(
  .reg .pred %p<4>;
  .reg .b32 %r<8>;
  .reg .b64 %rd<4>;
  .shared .align 4 .b8 values[128];
  ld.param.u64 %rd1, [out];
  mov.u32 %r1, %tid.x;
  mul.wide.u32 %rd2, %r1, 4;
  add.s64 %rd1, %rd1, %rd2;
  mov.u32 %r3, values;
  shl.b32 %r2, %r1, 2;
  add.s32 %r4, %r3, %r2;
  xor.b32 %r2, %r2, 64;
  add.s32 %r5, %r3, %r2;
  setp.lt.u32 %p1, %r1, 16;
  @%p1 bra LOW;
  st.shared.u32 [%r4], %r1;
  bar.warp.sync -1;
  ld.shared.u32 %r6, [%r5];
  bra.uni END;
LOW:
  add.u32 %r7, %r1, 1000;
  st.shared.u32 [%r4], %r7;
  bar.warp.sync 0xffffffff;
  ld.shared.u32 %r6, [%r5];
END:
  st.global.u32 [%rd1], %r6;
  ret;
)");
  const Kernel compiled(text);
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Buffer<uint32_t> out(32);
    const LaunchReport report = run_ptx(compiled, {.seed = seed}, out);
    CHECK(clean(report), "%s", describe(report).c_str());
    for (uint32_t t = 0; t < 32; ++t) {
      CHECK(out[t] == (t < 16 ? t + 16 : t - 16 + 1000), "thread %u: %u", t, out[t]);
    }
  }
}

// --- planted bugs ---

void check_planted(const char* name, const std::string& body, FindingKind kind, bool stops,
                   uint32_t threads = 32) {
  const std::string text = kernel("", R"(
  .reg .pred %p<4>;
  .reg .b32 %r<8>;
  mov.u32 %r1, %tid.x;
  setp.lt.u32 %p1, %r1, 16;
)" + body + "\n  ret;\n");
  const Kernel compiled(text);
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const LaunchReport report = run_ptx(compiled, {.grid = {2}, .block = {threads}, .seed = seed});
    CHECK(found(report, kind, line_of(text, "/*here*/")) && report.stopped == stops, "%s: %s", name,
          describe(report).c_str());
  }
}

void test_planted_bugs() {
  check_planted("a lane outside of its own mask",
                "/*here*/ shfl.sync.idx.b32 %r2, %r1, 0, 31, 0x0000ffff;",
                FindingKind::kIllegalInstruction, false);
  check_planted("lanes of the mask have exited",
                "@!%p1 exit;\n /*here*/ vote.sync.ballot.b32 %r2, %p1, -1;",
                FindingKind::kBarrierDivergence, false);
  check_planted("lanes of the mask exit later", R"(
  @!%p1 bra OTHERS;
  /*here*/ redux.sync.add.u32 %r2, %r1, -1;
  bra END;
OTHERS:
  add.u32 %r2, %r1, 1;
END:)",
                FindingKind::kBarrierDivergence, false);
  check_planted("a full mask in both branches", R"(
  @%p1 bra LOW;
  shfl.sync.idx.b32 %r2, %r1, 0, 31, -1;
  bra END;
LOW:
  /*here*/ shfl.sync.idx.b32 %r2, %r1, 0, 31, -1;
END:)",
                FindingKind::kBarrierDivergence, true);
  check_planted("different masks", R"(
  selp.b32 %r3, 0x0001ffff, 0xffffffff, %p1;
  /*here*/ shfl.sync.idx.b32 %r2, %r1, 0, 31, %r3;)",
                FindingKind::kBarrierDivergence, true);
  check_planted("the others wait at a barrier of the block", R"(
  @%p1 bra LOW;
  barrier.sync 0;
  bra END;
LOW:
  /*here*/ bar.warp.sync -1;
END:)",
                FindingKind::kBarrierDivergence, true, 64);
}

}  // namespace
}  // namespace ptx_simulator::test

int main() {
  using namespace ptx_simulator::test;
  test_shuffles();
  test_votes();
  test_matches();
  test_reductions();
  test_elect();
  test_warp_barrier_in_two_branches();
  test_planted_bugs();
  std::printf("sync: %d failures\n", altiplano::test::failures);
  return altiplano::test::failures != 0;
}
