// Files and specs that must be refused with a typed error that names the tensor, leaving nothing
// behind: neither memory (LeakSanitizer sees that) nor open files.
#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>

#include "cpu/cpu_backend.h"
#include "cpu/scalar.h"
#include "engine_support.h"

namespace altiplano::test {
namespace {

int open_files() {
  int count = 0;
  if (DIR* folder = ::opendir("/proc/self/fd")) {
    while (::readdir(folder)) ++count;
    ::closedir(folder);
  }
  return count;
}

// Loads a spec, which must fail with this code and name the tensor; the engine stays empty, and
// (now and then tried) loads the sound model afterwards.
void expect_refused(const TestModel& sound, const ModelSpec& spec, const char* code,
                    const std::string& named, const char* what) {
  Engine engine;
  const int files = open_files();
  const Failure failure = failure_of([&] { load(engine, spec, 2); });
  CHECK(failure.code == code, "%s: code %s, expected %s: %s", what, failure.code.c_str(), code,
        failure.message.c_str());
  CHECK(failure.message.find(named) != std::string::npos, "%s: %s is not named: %s", what,
        named.c_str(), failure.message.c_str());
  CHECK(open_files() == files, "%s: files stay open", what);
  CHECK(engine.memory().weights + engine.memory().kv + engine.memory().workspace == 0,
        "%s: memory is counted", what);
  CHECK(failure_of([&] { engine.step({}); }).code == "ALTIPLANO_DISPOSED", "%s: loaded", what);
  static int calls = 0;
  if (calls++ % 8 != 0) return;
  const Failure second = failure_of([&] { load(engine, sound.spec(), 2); });
  CHECK(second.code.empty(), "%s: the sound model does not load afterwards: %s", what,
        second.message.c_str());
  CHECK(engine.monitor().done_bytes == engine.monitor().total_bytes,
        "%s: progress ends at %lld of %lld bytes", what,
        static_cast<long long>(engine.monitor().done_bytes),
        static_cast<long long>(engine.monitor().total_bytes));
}

// A file of exactly the first `bytes` bytes of a tensor, and the spec that reads it from there.
ModelSpec cut_off(const ModelSpec& spec, size_t index, const std::string& path, uint64_t bytes) {
  ModelSpec changed = spec;
  TensorSpec& tensor = *TestModel::tensors(changed)[index];
  std::vector<char> content(bytes + 1);  // no null pointer for 0 bytes
  std::FILE* from = std::fopen(tensor.file.c_str(), "rb");
  std::fseek(from, static_cast<long>(tensor.offset), SEEK_SET);
  CHECK(std::fread(content.data(), 1, bytes, from) == bytes, "cannot read %s", tensor.file.c_str());
  std::fclose(from);
  std::FILE* to = std::fopen(path.c_str(), "wb");
  std::fwrite(content.data(), 1, bytes, to);
  std::fclose(to);
  tensor.file = path;
  tensor.offset = 0;
  return changed;
}

// Writes a value that is not finite into a tensor of this file type: raw bytes and where they go.
struct Poison {
  const char* what;
  uint64_t at;
  std::vector<uint8_t> bytes;
};

std::vector<Poison> poisons(const TensorSpec& t) {
  const uint64_t last = t.size_bytes - info(t.type).block_bytes;
  switch (t.type) {
    case FileType::kF32:
      return {{"NaN", last, {0, 0, 0xc0, 0x7f}},
              {"another NaN", 0, {1, 0, 0x80, 0xff}},
              {"infinity", last / 8 * 4, {0, 0, 0x80, 0x7f}},
              {"-infinity", last, {0, 0, 0x80, 0xff}}};
    case FileType::kF16:
      return {{"NaN", last, {0, 0x7e}}, {"infinity", 0, {0, 0x7c}}, {"-infinity", last, {0, 0xfc}}};
    case FileType::kBF16:
      return {{"NaN", last, {0x81, 0xff}}, {"infinity", 0, {0x80, 0x7f}}};
    case FileType::kQ8_0:
    case FileType::kQ4_0:
      return {{"NaN scale", last, {1, 0x7c}}, {"infinite scale", 0, {0, 0xfc}}};
    case FileType::kQ6_K:
      return {{"NaN scale", last + 208, {0xff, 0xff}}, {"infinite scale", 208, {0, 0x7c}}};
  }
  return {};
}

// Each number is allowed, but their product, the bytes of the KV cache, is 2^72: it must not wrap
// around to a small cache.
void refuse_a_cache_of_more_than_64_bits() {
  ModelSpec spec;
  Config& c = spec.config;
  c.heads = c.kv_heads = 65536;
  c.head_dim = c.layers = 4096;
  c.kv_pages = int64_t{1} << 24;
  c.hidden_size = c.intermediate_size = c.vocab_size = c.max_positions = c.max_step_tokens = 1;
  c.inverse_frequencies.assign(2048, 1.);
  const auto tensor = [](int64_t rows, int64_t cols) {
    TensorSpec t;
    t.rows = rows;
    t.cols = cols;
    t.size_bytes = static_cast<uint64_t>(rows * cols * 4);
    return t;
  };
  const TensorSpec one = tensor(1, 1), tall = tensor(1 << 28, 1), wide = tensor(1, 1 << 28);
  spec.embedding = spec.final_norm = spec.head = one;
  spec.layers.assign(4096, {one, tall, tall, tall, wide, one, one, one, one});
  Engine engine;
  const Failure failure = failure_of([&] { load(engine, spec); });
  CHECK(failure.code == "ALTIPLANO_OUT_OF_MEMORY", "a cache of 2^72 bytes: %s: %s",
        failure.code.c_str(), failure.message.c_str());
  CHECK(failure.message.find("KV cache") != std::string::npos, "%s", failure.message.c_str());
}

}  // namespace

void test_damaged_files() {
  for (const Recipe* recipe : all_recipes()) {
    const TestModel model(*recipe);
    ModelSpec copy = model.spec();
    const std::vector<TensorSpec*> tensors = TestModel::tensors(copy);
    const std::string path = model.folder().file("damaged");
    const std::string folder = model.folder().file("folder");
    const std::string pipe = model.folder().file("pipe");
    ::mkdir(folder.c_str(), 0700);
    ::mkfifo(pipe.c_str(), 0600);
    for (size_t i = 0; i < tensors.size(); ++i) {
      if (i > 12 && i + 2 < tensors.size()) continue;  // each kind of tensor once
      const TensorSpec& t = *tensors[i];
      for (const uint64_t bytes : {uint64_t{0}, t.size_bytes / 2, t.size_bytes - 1}) {
        expect_refused(model, cut_off(model.spec(), i, path, bytes), "ALTIPLANO_FILE_READ", t.name,
                       "cut off");
      }
      ModelSpec whole = cut_off(model.spec(), i, path, t.size_bytes);
      Engine engine;
      CHECK(failure_of([&] { load(engine, whole); }).code.empty(), "a whole copy is refused");

      const auto elsewhere = [&](const std::string& file, uint64_t offset) {
        ModelSpec changed = model.spec();
        TestModel::tensors(changed)[i]->file = file;
        TestModel::tensors(changed)[i]->offset = offset;
        return changed;
      };
      expect_refused(model, elsewhere(model.folder().file("none"), 0), "ALTIPLANO_FILE_NOT_FOUND",
                     t.name, "missing");
      expect_refused(model, elsewhere(folder, 0), "ALTIPLANO_FILE_READ", t.name, "a folder");
      expect_refused(model, elsewhere(pipe, 0), "ALTIPLANO_FILE_READ", t.name, "a pipe");
      expect_refused(model, elsewhere(path + "/x", 0), "ALTIPLANO_FILE_READ", t.name,
                     "below a file");
      expect_refused(model, elsewhere("", 0), "ALTIPLANO_FILE_NOT_FOUND", t.name, "no name");
      expect_refused(model, elsewhere(t.file, uint64_t{1} << 62), "ALTIPLANO_FILE_READ", t.name,
                     "far behind the end");
    }
  }
}

void test_weights_that_are_not_finite() {
  for (const Recipe* recipe : all_recipes()) {
    const TestModel model(*recipe), damaged(*recipe);
    ModelSpec copy = damaged.spec();
    for (const TensorSpec* t : TestModel::tensors(copy)) {
      if (t->name.starts_with("layers.1")) continue;  // as layer 0
      for (const Poison& poison : poisons(*t)) {
        const std::vector<uint8_t> before = damaged.patch(*t, poison.at, poison.bytes);
        expect_refused(model, damaged.spec(), "ALTIPLANO_CHECKPOINT_INVALID", t->name, poison.what);
        damaged.patch(*t, poison.at, before);
      }
    }
    Engine engine;
    CHECK(failure_of([&] { load(engine, damaged.spec()); }).code.empty(), "not restored");
  }
  // Finite in the file, but not in f16.
  const TestModel model(quantized_at_load());
  const float large = 65520;
  const auto* bytes = reinterpret_cast<const uint8_t*>(&large);
  model.patch(model.spec().layers[0].o, 4 * 17, {bytes, 4});
  expect_refused(TestModel(quantized_at_load()), model.spec(), "ALTIPLANO_CHECKPOINT_INVALID",
                 "layers.0.o", "too large for f16");
}

void test_refused_specs() {
  const TestModel model(blocks());
  const auto refused = [&](const char* named, const char* code,
                           const std::function<void(ModelSpec&)>& change) {
    ModelSpec spec = model.spec();
    change(spec);
    expect_refused(model, spec, code, named, named);
  };
  const auto out_of_range = [&](const char* name, int Config::*field, std::vector<int> values) {
    for (const int value : values) {
      refused(name, "ALTIPLANO_OUT_OF_RANGE", [&](ModelSpec& s) { s.config.*field = value; });
    }
  };
  out_of_range("hiddenSize", &Config::hidden_size, {0, -1, (1 << 24) + 1});
  out_of_range("intermediateSize", &Config::intermediate_size, {0, -1, (1 << 24) + 1});
  out_of_range("layers", &Config::layers, {0, -1, 4097});
  out_of_range("heads", &Config::heads, {0, -8, 65537});
  out_of_range("kvHeads", &Config::kv_heads, {0, -1, 9});
  out_of_range("headDim", &Config::head_dim, {0, 1, 4098});
  out_of_range("vocabSize", &Config::vocab_size, {0, -1, (1 << 24) + 1});
  out_of_range("maxPositions", &Config::max_positions, {0, (1 << 24) + 1});
  out_of_range("maxStepTokens", &Config::max_step_tokens, {0, 65537});
  const auto range = "ALTIPLANO_OUT_OF_RANGE";
  refused("kvPages", range, [](ModelSpec& s) { s.config.kv_pages = 0; });
  refused("kvPages", range, [](ModelSpec& s) { s.config.kv_pages = int64_t{1} << 40; });
  refused("rmsNormEps", range, [](ModelSpec& s) { s.config.rms_norm_eps = NAN; });
  refused("rmsNormEps", range, [](ModelSpec& s) { s.config.rms_norm_eps = -1; });
  refused("inverseFrequencies", range,
          [](ModelSpec& s) { s.config.inverse_frequencies[3] = INFINITY; });
  refused("inverseFrequencies", "ALTIPLANO_INTERNAL",
          [](ModelSpec& s) { s.config.inverse_frequencies.pop_back(); });
  refused("layers", "ALTIPLANO_INTERNAL", [](ModelSpec& s) { s.layers.pop_back(); });
  refused("kvHeads", "ALTIPLANO_CHECKPOINT_UNSUPPORTED",
          [](ModelSpec& s) { s.config.kv_heads = 3; });

  const auto invalid = "ALTIPLANO_CHECKPOINT_INVALID";
  for (size_t i = 0; i < 12; ++i) {
    ModelSpec copy = model.spec();
    const std::string name = TestModel::tensors(copy)[i]->name;
    const auto change = [&](const char* what, const std::function<void(TensorSpec&)>& fn) {
      ModelSpec spec = model.spec();
      fn(*TestModel::tensors(spec)[i]);
      expect_refused(model, spec, invalid, name, what);
    };
    change("one row more", [](TensorSpec& t) { ++t.rows; });
    change("fewer columns", [](TensorSpec& t) { t.cols -= 32; });
    change("shape turned", [](TensorSpec& t) { t.rows = t.cols / 2, t.cols = t.rows * 2 + 2; });
    change("one byte less", [](TensorSpec& t) { --t.size_bytes; });
    change("no bytes", [](TensorSpec& t) { t.size_bytes = 0; });
    change("too many bytes", [](TensorSpec& t) { t.size_bytes = uint64_t{1} << 62; });
    change("offset", [](TensorSpec& t) { t.offset = UINT64_MAX; });
    change("group", [](TensorSpec& t) { t.format = {WeightType::kInt8, 33, false}; });
    change("no group", [](TensorSpec& t) { t.format = {WeightType::kInt4, 0, true}; });
  }
  // 101 columns are no whole number of blocks.
  const TestModel odd(quantized_at_load());
  ModelSpec blocks_of_odd = odd.spec();
  blocks_of_odd.layers[0].down.type = FileType::kQ8_0;
  expect_refused(odd, blocks_of_odd, invalid, "layers.0.down", "blocks");

  refuse_a_cache_of_more_than_64_bits();
}

}  // namespace altiplano::test
