// How matrices are read from files, in slices of rows and columns, and how much memory a model
// takes: as much as was estimated.
#include <algorithm>

#include "cpu/cpu_backend.h"
#include "engine_support.h"
#include "llama/forward.h"
#include "util/file.h"

namespace altiplano::test {
namespace {

struct Bytes {
  int64_t row;       // bytes of a row
  int64_t block;     // columns of a block
  int64_t in_block;  // bytes of a block
  std::vector<uint8_t> whole;
};

Bytes read_whole(const TensorSpec& t) {
  const FileTypeInfo& type = info(t.type);
  Bytes bytes = {t.cols / type.block * type.block_bytes, type.block, type.block_bytes, {}};
  bytes.whole.resize(t.size_bytes);
  File(t.file).read_at(t.offset, bytes.whole.data(), bytes.whole.size());
  return bytes;
}

void expect_slice(const MatrixSource& source, const Bytes& expected, const MatrixSlice& s) {
  constexpr uint8_t kGuard = 0xa5;
  const int64_t width = s.cols / expected.block * expected.in_block;
  std::vector<uint8_t> out(static_cast<size_t>(s.rows * width + 1), kGuard);
  source.read(s, out.data());
  bool same = out.back() == kGuard;
  for (int64_t r = 0; r < s.rows; ++r) {
    const int64_t at =
        (s.row_begin + r) * expected.row + s.col_begin / expected.block * expected.in_block;
    same = same && std::equal(&out[r * width], &out[r * width] + width, &expected.whole[at]);
  }
  CHECK(same, "%s: rows %lld + %lld, columns %lld + %lld", source.name(),
        static_cast<long long>(s.row_begin), static_cast<long long>(s.rows),
        static_cast<long long>(s.col_begin), static_cast<long long>(s.cols));
}

// Slices at random and at the borders.
void check_slices(const MatrixSource& source, const Bytes& expected, Random& random) {
  const int64_t rows = source.rows(), cols = source.cols(), block = expected.block;
  expect_slice(source, expected, {0, rows, 0, cols});
  expect_slice(source, expected, {rows - 1, 1, cols - block, block});
  expect_slice(source, expected, {0, rows, cols, 0});
  expect_slice(source, expected, {rows, 0, 0, cols});
  for (int i = 0; i < 20; ++i) {
    const int64_t row = random.integer(0, rows - 1);
    const int64_t column = random.integer(0, cols / block - 1);
    expect_slice(source, expected,
                 {row, random.integer(1, rows - row), column * block,
                  random.integer(1, cols / block - column) * block});
  }
  std::vector<MatrixSlice> refused = {
      {-1, 1, 0, cols},        {0, -1, 0, cols},
      {rows, 1, 0, cols},      {1, rows, 0, cols},
      {0, 1, -block, 0},       {0, 1, 0, -block},
      {0, 1, cols, block},     {0, 1, block, cols},
      {1, INT64_MAX, 0, cols}, {0, 1, block, INT64_MAX / block * block}};
  if (block > 1) {
    refused.push_back({0, 1, 1, block});
    refused.push_back({0, 1, 0, block - 1});
  }
  for (const MatrixSlice& s : refused) {
    uint8_t out = 0;
    CHECK(failure_of([&] { source.read(s, &out); }).code == "ALTIPLANO_INTERNAL",
          "%s: reads rows %lld + %lld, columns %lld + %lld", source.name(),
          static_cast<long long>(s.row_begin), static_cast<long long>(s.rows),
          static_cast<long long>(s.col_begin), static_cast<long long>(s.cols));
  }
}

}  // namespace

void test_matrix_slices() {
  Random random(40);
  for (const Recipe* recipe : all_recipes()) {
    const TestModel model(*recipe);
    const std::unique_ptr<TestModel> interleaved = model.interleaved();
    ModelSpec spec = model.spec(), interleaved_spec = interleaved->spec();
    const std::vector<TensorSpec*> tensors = TestModel::tensors(spec);
    for (size_t i = 0; i < tensors.size(); ++i) {
      const TensorSpec& t = *tensors[i];
      if (t.rows == 1) continue;
      const Bytes expected = read_whole(t);
      const File file(t.file);
      check_slices(*matrix_source(t, file), expected, random);
      if (!t.name.ends_with(".q") && !t.name.ends_with(".k")) continue;
      // The same matrix, from a file that has its rows in the other order.
      const TensorSpec& other = *TestModel::tensors(interleaved_spec)[i];
      const File other_file(other.file);
      CHECK(read_whole(other).whole != expected.whole, "%s: the files agree", t.name.c_str());
      check_slices(*matrix_source(other, other_file, recipe->head_dim), expected, random);
    }
  }
}

void test_bad_rows_are_named() {
  const TestModel sound(odd_floats());
  ModelSpec spec = sound.spec();
  for (size_t i = 0; i < TestModel::tensors(spec).size(); ++i) {
    const TestModel damaged(odd_floats());
    ModelSpec copy = damaged.spec();
    const TensorSpec& t = *TestModel::tensors(copy)[i];
    if (t.rows == 1) continue;
    // All bits set are a NaN in every float type. The last row is that of a tile far behind.
    const std::vector<uint8_t> row(t.size_bytes / t.rows, 0xff);
    damaged.patch(t, t.size_bytes - row.size(), row);
    Engine engine;
    const Failure failure = failure_of([&] { load(engine, copy, 2); });
    const std::string expected =
        "tensor " + t.name + ": row " + std::to_string(t.rows - 1) + " holds";
    CHECK(failure.message.starts_with(expected), "%s, expected %s", failure.message.c_str(),
          expected.c_str());
  }
}

void test_memory() {
  for (const Recipe* recipe : all_recipes()) {
    const TestModel model(*recipe);
    const ModelSpec& spec = model.spec();
    for (const KvType kv : {KvType::kF32, KvType::kF16, KvType::kInt8}) {
      Engine engine;
      load(engine, spec, 2, kv);
      ModelSpec changed = spec;
      changed.config.kv_type = kv;
      const MemoryUse memory = engine.memory();
      const MemoryUse expected = estimate(changed, *cpu::backend_sizes());
      CHECK(memory.weights == expected.weights, "%s: weights", recipe->name);
      CHECK(memory.kv == expected.kv, "%s: KV cache", recipe->name);
      CHECK(memory.workspace == expected.workspace, "%s: workspace", recipe->name);
    }
  }
}

}  // namespace altiplano::test
