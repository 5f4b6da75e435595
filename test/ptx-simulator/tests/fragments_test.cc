// Where the elements of matrices lie in the registers of mma.sync and ldmatrix: the formulas of the
// PTX document ("Matrix Fragments for mma.m16n8k16 with floating point type" and its neighbours),
// written down as they stand there and separately from the interpreter. Elements that are alone
// (one in a matrix of zeros) find every place; random matrices check the arithmetic.
#include <algorithm>
#include <numeric>
#include <random>

#include "check.h"
#include "fragment_tables.h"
#include "kernel_inputs.h"
#include "run_ptx.h"

namespace ptx_simulator::test {
namespace {

using altiplano::test::check;
using altiplano::test::failures;

// --- matrices to registers and back ---

using Matrix = std::vector<double>;  // row-major

uint32_t encode(const MmaShape& shape, double value) {
  const float single = static_cast<float>(value);
  uint32_t bits;
  std::memcpy(&bits, &single, sizeof(bits));
  switch (shape.number) {
    case Number::kF16:
      if (!std::isfinite(single))
        return (bits >> 16 & 0x8000) | (std::isnan(single) ? 0x7E00 : 0x7C00);
      return f16_towards_zero(single);
    case Number::kBf16:
      return bits >> 16;
    case Number::kTf32:
      return bits;
    default:
      return static_cast<uint32_t>(static_cast<int>(value)) & ((1u << shape.element_bits) - 1);
  }
}

// Registers [register][lane] of a matrix of so many columns.
std::vector<uint32_t> fragment(const MmaShape& shape, const Matrix& matrix, int columns,
                               int registers, const Formula& place) {
  const int per_register = 32 / shape.element_bits;
  std::vector<uint32_t> words(static_cast<size_t>(registers) * 32);
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < registers * per_register; ++i) {
      const auto [row, column] = place(lane, i);
      words[i / per_register * 32 + lane] |= encode(shape, matrix[row * columns + column])
                                             << i % per_register * shape.element_bits;
    }
  }
  return words;
}

std::vector<uint32_t> accumulator(const MmaShape& shape, const Matrix& c) {
  std::vector<uint32_t> words(shape.c_is_f16 ? 64 : 128);
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const auto [row, column] = c_place(lane, i);
      const double value = c[row * 8 + column];
      if (shape.c_is_f16) {
        words[i / 2 * 32 + lane] |= static_cast<uint32_t>(f16_towards_zero(value)) << i % 2 * 16;
      } else if (shape.number == Number::kInteger) {
        words[i * 32 + lane] = static_cast<uint32_t>(static_cast<int32_t>(value));
      } else {
        const float single = static_cast<float>(value);
        std::memcpy(&words[i * 32 + lane], &single, 4);
      }
    }
  }
  return words;
}

Matrix result(const MmaShape& shape, const uint32_t* words) {
  Matrix d(128);
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const auto [row, column] = c_place(lane, i);
      double& value = d[row * 8 + column];
      const uint32_t word = words[i * 32 + lane];
      if (shape.c_is_f16) {
        value = f16_value(static_cast<uint16_t>(words[i / 2 * 32 + lane] >> i % 2 * 16));
      } else if (shape.number == Number::kInteger) {
        value = static_cast<int32_t>(word);
      } else {
        float single;
        std::memcpy(&single, &word, 4);
        value = single;
      }
    }
  }
  return d;
}

std::string braces(const char* prefix, int count) {
  std::string text = "{";
  for (int i = 0; i < count; ++i) {
    text += (i ? ", " : "") + std::string(prefix) + std::to_string(i);
  }
  return text + "}";
}

// A kernel whose block b multiplies the b-th matrices of its arguments.
std::string mma_kernel(const MmaShape& shape, bool saturate) {
  const int c_registers = shape.c_is_f16 ? 2 : 4;
  std::string body =
      ".reg .b32 %a<8>, %b<8>, %c<8>, %d<8>, %lane, %block, %i;\n.reg .b64 %p, %o;\n"
      "mov.u32 %lane, %tid.x;\nmov.u32 %block, %ctaid.x;\n";
  const auto each = [&](const char* parameter, const char* prefix, int count, bool store) {
    body += std::string("ld.param.u64 %p, [") + parameter + "];\n";
    body += "mad.lo.u32 %i, %block, " + std::to_string(32 * count) + ", %lane;\n";
    body += "mul.wide.u32 %o, %i, 4;\nadd.s64 %p, %p, %o;\n";
    for (int i = 0; i < count; ++i) {
      const std::string place = "[%p+" + std::to_string(128 * i) + "]";
      const std::string name = prefix + std::to_string(i);
      body += store ? "st.global.u32 " + place + ", " + name + ";\n"
                    : "ld.global.u32 " + name + ", " + place + ";\n";
    }
  };
  each("a", "%a", shape.a_registers, false);
  each("b", "%b", shape.b_registers, false);
  each("c", "%c", c_registers, false);
  body += std::string("mma.sync.aligned.") + shape.name + ".row.col." +
          (saturate ? "satfinite." : "") + shape.types + " " + braces("%d", c_registers) + ", " +
          braces("%a", shape.a_registers) + ", " + braces("%b", shape.b_registers) + ", " +
          braces("%c", c_registers) + ";\n";
  each("d", "%d", c_registers, true);
  return kernel(".param .u64 a, .param .u64 b, .param .u64 c, .param .u64 d", body + "exit;\n");
}

struct Problem {
  Matrix a, b, c;  // [16][depth], [depth][8], [16][8]
};

std::vector<Matrix> multiply(const MmaShape& shape, const std::vector<Problem>& problems,
                             bool saturate = false,
                             AccumulationOrder order = AccumulationOrder::kBlocks) {
  std::vector<uint32_t> a, b, c;
  const auto append = [](std::vector<uint32_t>& to, const std::vector<uint32_t>& words) {
    to.insert(to.end(), words.begin(), words.end());
  };
  for (const Problem& problem : problems) {
    append(a, fragment(shape, problem.a, shape.depth, shape.a_registers, shape.a));
    append(b, fragment(shape, problem.b, 8, shape.b_registers, shape.b));
    append(c, accumulator(shape, problem.c));
  }
  const Buffer<uint32_t> a_buffer(a), b_buffer(b), c_buffer(c), d_buffer(c.size());
  Shape launch{.grid = {static_cast<uint32_t>(problems.size())}};
  launch.accumulation_order = order;
  const LaunchReport report =
      run_ptx(mma_kernel(shape, saturate), launch, a_buffer, b_buffer, c_buffer, d_buffer);
  CHECK(clean(report), "%s %s: %s", shape.name, shape.types.c_str(), describe(report).c_str());
  CHECK(report.counters.mma_multiply_adds == problems.size() * 128 * shape.depth,
        "%s: counted %llu multiply-adds", shape.name,
        static_cast<unsigned long long>(report.counters.mma_multiply_adds));
  std::vector<Matrix> results;
  const size_t words = c.size() / problems.size();
  for (size_t i = 0; i < problems.size(); ++i) {
    results.push_back(result(shape, d_buffer.data() + i * words));
  }
  return results;
}

// Numbers from 0 to 7, which all types hold, that together tell rows of 8 and up to 64 k apart.
constexpr int kCodes = 3;
int code(int which, int n, int k) { return which == 0 ? n % 8 : which == 1 ? k % 8 : k / 8; }

void test_places() {
  for (const MmaShape& shape : shapes()) {
    const int depth = shape.depth;
    std::vector<Problem> problems;
    // A single 1 in A picks a row of B, and the other way round.
    for (int which = 0; which < kCodes; ++which) {
      Problem problem{Matrix(16 * depth), Matrix(depth * 8), Matrix(128)};
      for (int k = 0; k < depth; ++k) {
        for (int n = 0; n < 8; ++n) problem.b[k * 8 + n] = code(which, n, k);
      }
      for (int at = 0; at < 16 * depth; ++at) {
        problems.push_back(problem);
        problems.back().a[at] = 1;
      }
      problem.b.assign(problem.b.size(), 0);
      for (int m = 0; m < 16; ++m) {
        for (int k = 0; k < depth; ++k) problem.a[m * depth + k] = code(which, m, k);
      }
      for (int at = 0; at < depth * 8; ++at) {
        problems.push_back(problem);
        problems.back().b[at] = 1;
      }
    }
    problems.push_back({Matrix(16 * depth), Matrix(depth * 8), Matrix(128)});
    std::iota(problems.back().c.begin(), problems.back().c.end(), 1);  // C alone
    const std::vector<Matrix> found = multiply(shape, problems);
    for (size_t p = 0; p < problems.size(); ++p) {
      const Problem& problem = problems[p];
      for (int m = 0; m < 16; ++m) {
        for (int n = 0; n < 8; ++n) {
          double expected = problem.c[m * 8 + n];
          for (int k = 0; k < depth; ++k) {
            expected += problem.a[m * depth + k] * problem.b[k * 8 + n];
          }
          CHECK(found[p][m * 8 + n] == expected, "%s %s problem %zu: d[%d][%d] is %g, not %g",
                shape.name, shape.types.c_str(), p, m, n, found[p][m * 8 + n], expected);
        }
      }
    }
  }
}

// Random matrices in all orders of accumulation, within the bound of instructions/mma.cc.
void test_values() {
  Random random(1);
  for (const MmaShape& shape : shapes()) {
    std::vector<Problem> problems(40);
    const double most = std::ldexp(1, shape.element_bits) - 1;
    for (size_t p = 0; p < problems.size(); ++p) {
      Problem& problem = problems[p];
      const auto fill = [&](Matrix& matrix, size_t size, bool is_signed) {
        matrix.resize(size);
        for (double& v : matrix) {
          if (shape.number == Number::kInteger) {
            v = std::floor(random() % static_cast<uint32_t>(most + 1));
            if (p == 0) v = most;  // the extremes
            if (is_signed && v > most / 2) v -= most + 1;
            if (p == 1) v = is_signed ? -(most + 1) / 2 : most;
          } else {
            // Kept to few bits, so that each type holds it.
            v = static_cast<int>(random() % 255) - 127;
            v = std::ldexp(v, -static_cast<int>(random() % 8) - (shape.c_is_f16 ? 4 : 0));
            if (p % 4 == 0 && random() % 2) v = 0;
          }
        }
      };
      fill(problem.a, 16 * shape.depth, shape.a_signed);
      fill(problem.b, shape.depth * 8, shape.b_signed);
      problem.c.resize(128);
      for (double& v : problem.c) {
        v = shape.number == Number::kInteger ? static_cast<int32_t>(random())
                                             : static_cast<int>(random() % 2048) - 1024;
      }
    }
    for (const auto order : {AccumulationOrder::kBlocks, AccumulationOrder::kSequence,
                             AccumulationOrder::kTree, AccumulationOrder::kNarrowBlocks}) {
      for (const bool saturate : {false, true}) {
        if (saturate && shape.number != Number::kInteger) continue;
        const std::vector<Matrix> found = multiply(shape, problems, saturate, order);
        for (size_t p = 0; p < problems.size(); ++p) {
          const Problem& problem = problems[p];
          for (int at = 0; at < 128; ++at) {
            double sum = problem.c[at], magnitudes = std::fabs(sum);
            for (int k = 0; k < shape.depth; ++k) {
              const double product =
                  problem.a[at / 8 * shape.depth + k] * problem.b[k * 8 + at % 8];
              sum += product;
              magnitudes += std::fabs(product);
            }
            double bound = 2 * shape.depth * 0x1p-23 * magnitudes;
            if (shape.c_is_f16) bound += kEpsF16 * std::fabs(sum) + kLeastF16;
            if (shape.number == Number::kInteger) {
              bound = 0;
              sum = saturate
                        ? std::clamp<double>(sum, INT32_MIN, INT32_MAX)
                        : static_cast<int32_t>(static_cast<uint32_t>(static_cast<int64_t>(sum)));
            }
            CHECK(std::fabs(found[p][at] - sum) <= bound, "%s %s order %d: %.9g, not %.9g",
                  shape.name, shape.types.c_str(), static_cast<int>(order), found[p][at], sum);
          }
        }
      }
    }
  }
}

// An element depends on its row of A and its column of B, and on nothing else.
void test_independence() {
  Random random(2);
  const MmaShape shape = shapes()[0];
  for (const auto order : {AccumulationOrder::kBlocks, AccumulationOrder::kNarrowBlocks}) {
    Problem problem{Matrix(256), Matrix(128), Matrix(128)};
    for (double& v : problem.a) v = f16_value(f16_towards_zero(normal(random)));
    for (double& v : problem.b) v = f16_value(f16_towards_zero(normal(random)));
    std::vector<Problem> problems(8, problem);
    for (int p = 0; p < 8; ++p) {  // the same row and column elsewhere, beside extremes
      for (int k = 0; k < 16; ++k) {
        for (int n = 0; n < 8; ++n) {
          problems[p].b[k * 8 + n] = n == p ? problem.b[k * 8] : p % 2 ? 65504 : 0x1p-24;
        }
        problems[p].a[(2 * p + 1) * 16 + k] = problem.a[k];
      }
    }
    const std::vector<Matrix> found = multiply(shape, problems, false, order);
    for (int p = 0; p < 8; ++p) {
      const double value = found[p][(2 * p + 1) * 8 + p];
      CHECK(value == found[0][8], "problem %d: %a, not %a", p, value, found[0][8]);
    }
  }
}

// Infinities and NaN come through.
void test_not_finite() {
  for (const MmaShape& shape : shapes()) {
    if (shape.number == Number::kInteger) continue;
    Problem problem{Matrix(16 * shape.depth, 1), Matrix(shape.depth * 8, 1), Matrix(128)};
    problem.a[0] = INFINITY;                // row 0: infinite
    problem.a[shape.depth] = NAN;           // row 1: NaN
    problem.a[2 * shape.depth] = INFINITY;  // row 2: infinity minus infinity
    problem.a[2 * shape.depth + 1] = -INFINITY;
    const Matrix d = multiply(shape, {problem})[0];
    for (int n = 0; n < 8; ++n) {
      CHECK(d[n] == INFINITY, "row 0 is %g", d[n]);
      CHECK(std::isnan(d[8 + n]), "row 1 is %g", d[8 + n]);
      CHECK(std::isnan(d[16 + n]), "row 2 is %g", d[16 + n]);
      CHECK(d[24 + n] == shape.depth, "row 3 is %g", d[24 + n]);
    }
  }
}

// All threads of a warp have to take part, in their own time.
void test_whole_warp() {
  const MmaShape shape = shapes()[0];
  std::string text = mma_kernel(shape, false);
  const Buffer<uint32_t> a(128), b(64), c(128), d(128);
  const auto with_guard = [&](const std::string& setup) {
    std::string changed = text;
    changed.insert(changed.find("mma.sync"), setup);
    return changed;
  };
  const std::string predicate = "{\n.reg .pred %g;\nsetp.lt.u32 %g, %lane, 5;\n";
  LaunchReport report = run_ptx(with_guard(predicate + "@%g exit;\n}\n"), {}, a, b, c, d);
  CHECK(found(report, FindingKind::kBarrierDivergence), "exited lanes: %s",
        describe(report).c_str());
  report = run_ptx(text, {.block = {24}}, a, b, c, d);
  CHECK(found(report, FindingKind::kBarrierDivergence), "24 threads: %s", describe(report).c_str());
  // Lanes that come by different ways meet at the instruction.
  report = run_ptx(with_guard(predicate + "@%g bra LATER;\nadd.u32 %lane, %lane, 0;\nLATER:\n}\n"),
                   {}, a, b, c, d);
  CHECK(clean(report), "%s", describe(report).c_str());
}

void test_unknown() {
  const std::string good = mma_kernel(shapes()[0], false);
  const auto fails = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    text.replace(text.find(from), from.size(), to);
    try {
      decode(parse(text), "kernel", {});
    } catch (const PtxError& error) {
      return error.line == line_of(text, "mma.sync");
    }
    return false;
  };
  CHECK(fails("m16n8k16", "m16n8k128"), "an unknown shape");
  CHECK(fails("row.col", "row.row"), "an unknown layout");
  CHECK(fails("f32.f16.f16.f32", "f32.f16.bf16.f32"), "a mixture of types");
  CHECK(fails("f32.f16.f16.f32", "s32.s4.s4.s32"), "a type of other shapes");
  CHECK(fails("f32.f16.f16.f32", "f32.bf16.bf16.f16"), "C of another type than D");
  CHECK(fails("{%a0, %a1, %a2, %a3}", "{%a0, %a1}"), "too few registers");
  CHECK(fails("row.col.", "row.col.satfinite."), "satfinite of floats");
}

// --- ldmatrix ---

// "Each row of 8 elements": thread T of a warp holds of matrix j, in its j-th register, elements
// (row T / 4, columns T % 4 * 2 and the next); with .trans those of the transposed matrix. Threads
// 8 j to 8 j + 7 give the addresses of the rows of matrix j.
void test_ldmatrix() {
  for (const int count : {1, 2, 4}) {
    for (const bool transposed : {false, true}) {
      const std::string number = std::to_string(count);
      std::string body =
          ".reg .b32 %r<8>, %lane, %at, %row;\n.reg .b64 %p, %o;\n"
          ".shared .align 16 .b8 tile[1024];\n"
          "mov.u32 %lane, %tid.x;\n"
          // 512 numbers of 16 bits, 16 by each thread.
          "ld.param.u64 %p, [numbers];\nmul.wide.u32 %o, %lane, 32;\nadd.s64 %p, %p, %o;\n"
          "shl.b32 %at, %lane, 5;\nmov.u32 %row, tile;\nadd.u32 %at, %at, %row;\n";
      for (int i = 0; i < 8; ++i) {
        const std::string offset = std::to_string(4 * i);
        body +=
            "ld.global.u32 %r0, [%p+" + offset + "];\nst.shared.u32 [%at+" + offset + "], %r0;\n";
      }
      body +=
          "bar.sync 0;\nld.param.u64 %p, [rows];\nmul.wide.u32 %o, %lane, 4;\n"
          "add.s64 %p, %p, %o;\nld.global.u32 %at, [%p];\nadd.u32 %at, %at, %row;\n"
          "ldmatrix.sync.aligned.m8n8.x" +
          number + (transposed ? ".trans" : "") + ".shared.b16 " + braces("%r", count) +
          ", [%at];\nld.param.u64 %p, [result];\nadd.s64 %p, %p, %o;\n";
      for (int i = 0; i < count; ++i) {
        body +=
            "st.global.u32 [%p+" + std::to_string(128 * i) + "], %r" + std::to_string(i) + ";\n";
      }
      const std::string text =
          kernel(".param .u64 numbers, .param .u64 rows, .param .u64 result", body + "exit;\n");

      std::vector<uint16_t> numbers(512);
      std::iota(numbers.begin(), numbers.end(), 1000);
      // Rows of 16 bytes anywhere; those of lanes that are not asked are outside shared memory.
      std::vector<uint32_t> rows(32);
      std::iota(rows.begin(), rows.end(), 0);
      std::shuffle(rows.begin(), rows.end(), std::mt19937(3));
      for (uint32_t& row : rows) row *= 16;
      for (int lane = 8 * count; lane < 32; ++lane) rows[lane] = 1 << 20;
      const Buffer<uint16_t> numbers_buffer(numbers);
      const Buffer<uint32_t> rows_buffer(rows), result(static_cast<size_t>(count) * 32);
      const LaunchReport report = run_ptx(text, {}, numbers_buffer, rows_buffer, result);
      CHECK(clean(report), "x%d: %s", count, describe(report).c_str());
      for (int matrix = 0; matrix < count; ++matrix) {
        const auto element = [&](int row, int column) {
          return numbers[rows[8 * matrix + row] / 2 + column];
        };
        for (int lane = 0; lane < 32; ++lane) {
          const int row = lane / 4, column = lane % 4 * 2;
          const uint32_t low = transposed ? element(column, row) : element(row, column);
          const uint32_t high = transposed ? element(column + 1, row) : element(row, column + 1);
          CHECK(result[matrix * 32 + lane] == (low | high << 16), "x%d%s matrix %d lane %d: %08x",
                count, transposed ? ".trans" : "", matrix, lane, result[matrix * 32 + lane]);
        }
      }
    }
  }
}

}  // namespace
}  // namespace ptx_simulator::test

int main() {
  using namespace ptx_simulator::test;
  test_places();
  test_values();
  test_independence();
  test_not_finite();
  test_whole_warp();
  test_unknown();
  test_ldmatrix();
  std::printf("fragments: %s\n", altiplano::test::failures == 0 ? "passed" : "FAILED");
  return altiplano::test::failures == 0 ? 0 : 1;
}
