// The random models of the engine's tests.
#include <ftw.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>

#include "cpu/convert.h"
#include "cpu/scalar.h"
#include "engine_support.h"

namespace altiplano::test {
namespace {

constexpr WeightFormat kF32 = {WeightType::kF32, 0, false};
constexpr WeightFormat kF16 = {WeightType::kF16, 0, false};
constexpr WeightFormat kBF16 = {WeightType::kBF16, 0, false};
constexpr WeightFormat kInt8 = {WeightType::kInt8, 32, false};
constexpr WeightFormat kInt4 = {WeightType::kInt4, 32, false};

const Recipe kOddFloats = {.name = "odd floats",
                           .hidden = 37,
                           .intermediate = 71,
                           .layers = 3,
                           .heads = 6,
                           .kv_heads = 2,
                           .head_dim = 10,
                           .vocab = 211,
                           .embedding = {FileType::kF16, kF16},
                           .q = {FileType::kF32, kF32},
                           .k = {FileType::kBF16, kBF16},
                           .v = {FileType::kF16, kF16},
                           .o = {FileType::kF32, kF32},
                           .gate = {FileType::kBF16, kF32},
                           .up = {FileType::kF16, kF32},
                           .down = {FileType::kF32, kF32},
                           .head = {FileType::kBF16, kBF16},
                           .norms = FileType::kF32,
                           .tied = false};

const Recipe kBlocks = {.name = "blocks",
                        .hidden = 256,
                        .intermediate = 160,
                        .layers = 2,
                        .heads = 8,
                        .kv_heads = 2,
                        .head_dim = 32,
                        .vocab = 300,
                        .embedding = {FileType::kQ6_K, kF32},
                        .q = {FileType::kQ8_0, kInt8},
                        .k = {FileType::kQ4_0, kInt4},
                        .v = {FileType::kQ6_K, kF32},
                        .o = {FileType::kQ4_0, kInt8},
                        .gate = {FileType::kQ8_0, kF32},
                        .up = {FileType::kQ4_0, kInt4},
                        .down = {FileType::kQ8_0, kInt8},
                        .head = {FileType::kQ6_K, kF32},
                        .norms = FileType::kF16,
                        .tied = false};

const Recipe kQuantizedAtLoad = {.name = "quantized at load",
                                 .hidden = 70,
                                 .intermediate = 101,
                                 .layers = 2,
                                 .heads = 4,
                                 .kv_heads = 4,
                                 .head_dim = 16,
                                 .vocab = 130,
                                 .embedding = {FileType::kF32, {WeightType::kInt8, 32, true}},
                                 .q = {FileType::kF32, {WeightType::kInt4, 64, true}},
                                 .k = {FileType::kF16, {WeightType::kInt8, 128, false}},
                                 .v = {FileType::kBF16, {WeightType::kInt4, 32, false}},
                                 .o = {FileType::kF32, kF16},
                                 .gate = {FileType::kF16, kBF16},
                                 .up = {FileType::kF32, {WeightType::kInt8, 64, true}},
                                 .down = {FileType::kBF16, {WeightType::kInt4, 128, true}},
                                 .head = {FileType::kF32, kF32},
                                 .norms = FileType::kBF16,
                                 .tied = true};

double half_value(uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const double magnitude =
      exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
  return bits & 0x8000 ? -magnitude : magnitude;
}

uint16_t u16_at(std::span<const uint8_t> raw, size_t at) {
  return static_cast<uint16_t>(raw[at] | raw[at + 1] << 8);
}

void append_u16(std::vector<uint8_t>& raw, uint16_t value) {
  raw.push_back(static_cast<uint8_t>(value));
  raw.push_back(static_cast<uint8_t>(value >> 8));
}

// Weight i of a Q6_K block; dequantize_row_q6_K of ggml, turned inside out.
double q6_k_value(std::span<const uint8_t> block, int i) {
  const int half = i / 128, quarter = i % 128 / 32, lane = i % 32;
  const int low = block[half * 64 + quarter % 2 * 32 + lane] >> (quarter >= 2 ? 4 : 0) & 15;
  const int high = block[128 + half * 32 + lane] >> 2 * quarter & 3;
  const int scale = static_cast<int8_t>(block[192 + i / 16]);
  return half_value(u16_at(block, 208)) * scale * ((low | high << 4) - 32);
}

TensorSpec tensor(const std::string& name, Kind kind, int64_t rows, int64_t cols) {
  TensorSpec t;
  t.name = name;
  t.type = kind.type;
  t.rows = rows;
  t.cols = cols;
  t.format = kind.format;
  t.size_bytes =
      static_cast<uint64_t>(rows * cols / info(kind.type).block * info(kind.type).block_bytes);
  return t;
}

// The specs of a recipe's tensors, without their places on disk.
ModelSpec empty_spec(const Recipe& r) {
  ModelSpec spec;
  Config& c = spec.config;
  c.hidden_size = r.hidden;
  c.intermediate_size = r.intermediate;
  c.layers = r.layers;
  c.heads = r.heads;
  c.kv_heads = r.kv_heads;
  c.head_dim = r.head_dim;
  c.vocab_size = r.vocab;
  c.rms_norm_eps = 1e-5f;
  for (int i = 0; i < r.head_dim / 2; ++i) {
    c.inverse_frequencies.push_back(std::pow(10000., -2. * i / r.head_dim));
  }
  c.max_positions = 96;
  c.max_step_tokens = 100;
  c.kv_pages = 24;
  const Kind norm = {r.norms, kF32};
  const int64_t q = int64_t{r.heads} * r.head_dim, kv = int64_t{r.kv_heads} * r.head_dim;
  spec.embedding = tensor("embedding", r.embedding, r.vocab, r.hidden);
  for (int l = 0; l < r.layers; ++l) {
    const std::string at = "layers." + std::to_string(l) + ".";
    spec.layers.push_back({tensor(at + "attention_norm", norm, 1, r.hidden),
                           tensor(at + "q", r.q, q, r.hidden), tensor(at + "k", r.k, kv, r.hidden),
                           tensor(at + "v", r.v, kv, r.hidden), tensor(at + "o", r.o, r.hidden, q),
                           tensor(at + "feed_forward_norm", norm, 1, r.hidden),
                           tensor(at + "gate", r.gate, r.intermediate, r.hidden),
                           tensor(at + "up", r.up, r.intermediate, r.hidden),
                           tensor(at + "down", r.down, r.hidden, r.intermediate)});
  }
  spec.final_norm = tensor("final_norm", norm, 1, r.hidden);
  spec.tied = r.tied;
  if (!r.tied) spec.head = tensor("head", r.head, r.vocab, r.hidden);
  return spec;
}

// True if the engine keeps the values of the file as they are.
bool lossless(FileType type, WeightFormat format) {
  return format.type == WeightType::kF32 || (format == kF16 && type == FileType::kF16) ||
         (format == kBF16 && type == FileType::kBF16) ||
         (format == kInt8 && (type == FileType::kQ8_0 || type == FileType::kQ4_0)) ||
         (format == kInt4 && type == FileType::kQ4_0);
}

// The weights that the engine keeps of a tensor. What quantization loses is tested elsewhere; here
// its result is taken as it is.
std::vector<double> kept_values(const TensorSpec& t, const std::vector<uint8_t>& raw) {
  if (lossless(t.type, t.format)) return decode(t.type, raw);
  const Kernels& k = cpu::portable_kernels();
  cpu::RowConverter converter(k);
  std::vector<float> values(static_cast<size_t>(t.rows * t.cols));
  k.dequantize(converter.convert(t.type, raw.data(), t.rows, t.cols, t.format), values.data());
  return {values.begin(), values.end()};
}

int remove_entry(const char* path, const struct stat*, int, struct FTW*) { return ::remove(path); }

void write_file(const std::string& path, const std::vector<uint8_t>& bytes) {
  std::FILE* file = std::fopen(path.c_str(), "wb");
  if (!file || std::fwrite(bytes.data(), 1, bytes.size(), file) != bytes.size()) {
    std::perror(path.c_str());
    std::exit(2);
  }
  std::fclose(file);
}

}  // namespace

const Recipe& odd_floats() { return kOddFloats; }
const Recipe& blocks() { return kBlocks; }
const Recipe& quantized_at_load() { return kQuantizedAtLoad; }
std::span<const Recipe* const> all_recipes() {
  static constexpr const Recipe* kAll[] = {&kOddFloats, &kBlocks, &kQuantizedAtLoad};
  return kAll;
}

TemporaryFolder::TemporaryFolder() {
  const char* parent = std::getenv("TMPDIR");
  path_ = std::string(parent && *parent ? parent : "/tmp") + "/altiplano-engine-XXXXXX";
  if (!::mkdtemp(path_.data())) {
    std::perror(path_.c_str());
    std::exit(2);
  }
}

TemporaryFolder::~TemporaryFolder() {
  ::nftw(path_.c_str(), remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

std::vector<uint8_t> random_raw(FileType type, int64_t count, double mean, double deviation,
                                Random& random) {
  std::vector<uint8_t> raw;
  const auto append_half = [&](double value) {
    append_u16(raw, cpu::f32_to_f16_one(static_cast<float>(value)));
  };
  // A scale around `size`, of either sign.
  const auto append_scale = [&](double size) {
    append_half(size * (0.5 + static_cast<double>(random.integer(0, 255)) / 256) *
                (random.integer(0, 1) ? 1 : -1));
  };
  const auto append_bytes = [&](int n, int low, int high) {
    for (int i = 0; i < n; ++i) raw.push_back(static_cast<uint8_t>(random.integer(low, high)));
  };
  if (info(type).block == 1) {
    for (int64_t i = 0; i < count; ++i) {
      const float value = static_cast<float>(mean + deviation * random.normal());
      if (type == FileType::kF32) {
        append_u16(raw, static_cast<uint16_t>(cpu::bits_of(value)));
        append_u16(raw, static_cast<uint16_t>(cpu::bits_of(value) >> 16));
      } else if (type == FileType::kF16) {
        append_half(value);
      } else {
        append_u16(raw, cpu::f32_to_bf16_one(value));
      }
    }
    return raw;
  }
  // Codes are uniform: the divisors are their deviations.
  for (int64_t block = 0; block < count / info(type).block; ++block) {
    if (type == FileType::kQ8_0) {
      append_scale(deviation / 74);
      append_bytes(32, -128, 127);
    } else if (type == FileType::kQ4_0) {
      append_scale(deviation / 4.6);
      append_bytes(16, 0, 255);
    } else {
      append_bytes(128 + 64, 0, 255);
      append_bytes(16, -128, 127);
      append_scale(deviation / (74 * 18.5));
    }
  }
  return raw;
}

std::vector<double> decode(FileType type, std::span<const uint8_t> raw) {
  const FileTypeInfo& block = info(type);
  std::vector<double> values;
  for (; !raw.empty(); raw = raw.subspan(block.block_bytes)) {
    for (int i = 0; i < block.block; ++i) {
      switch (type) {
        case FileType::kF32: {
          float value;
          std::memcpy(&value, raw.data(), 4);
          values.push_back(value);
          break;
        }
        case FileType::kF16:
          values.push_back(half_value(u16_at(raw, 0)));
          break;
        case FileType::kBF16: {
          const uint32_t bits = uint32_t{u16_at(raw, 0)} << 16;
          float value;
          std::memcpy(&value, &bits, 4);
          values.push_back(value);
          break;
        }
        case FileType::kQ8_0:
          values.push_back(half_value(u16_at(raw, 0)) * static_cast<int8_t>(raw[2 + i]));
          break;
        case FileType::kQ4_0:
          values.push_back(half_value(u16_at(raw, 0)) *
                           ((raw[2 + i % 16] >> (i < 16 ? 0 : 4) & 15) - 8));
          break;
        case FileType::kQ6_K:
          values.push_back(q6_k_value(raw, i));
          break;
      }
    }
  }
  return values;
}

std::vector<TensorSpec*> TestModel::tensors(ModelSpec& spec) {
  std::vector<TensorSpec*> all = {&spec.embedding};
  for (LayerSpec& l : spec.layers) {
    for (TensorSpec* t : {&l.attention_norm, &l.q, &l.k, &l.v, &l.o, &l.feed_forward_norm, &l.gate,
                          &l.up, &l.down}) {
      all.push_back(t);
    }
  }
  all.push_back(&spec.final_norm);
  if (!spec.tied) all.push_back(&spec.head);
  return all;
}

TestModel::TestModel(const Recipe& recipe, uint32_t seed)
    : recipe_(recipe), spec_(empty_spec(recipe)) {
  Random random(seed);
  for (const TensorSpec* t : tensors(spec_)) {
    const bool norm = t->rows == 1;
    // Sizes that keep activations and logits around 1.
    const double deviation = norm                    ? 0.1
                             : t == &spec_.embedding ? 0.5
                                                     : 1 / std::sqrt(static_cast<double>(t->cols));
    stored_.push_back({*t, random_raw(t->type, t->rows * t->cols, norm, deviation, random)});
  }
  write();
}

TestModel::TestModel(const Recipe& recipe, std::vector<Stored> stored, bool interleaved_rotary)
    : recipe_(recipe), stored_(std::move(stored)), spec_(empty_spec(recipe)) {
  spec_.config.interleaved_rotary = interleaved_rotary;
  write();
}

void TestModel::write() {
  std::vector<uint8_t> bytes[2];
  const std::string paths[2] = {folder_.file("first"), folder_.file("second")};
  size_t i = 0;
  for (TensorSpec* t : tensors(spec_)) {
    const int file = i % 2;
    bytes[file].resize(bytes[file].size() + i % 7);  // offsets need no alignment
    t->file = paths[file];
    t->offset = bytes[file].size();
    const Stored& stored = stored_[i++];
    bytes[file].insert(bytes[file].end(), stored.raw.begin(), stored.raw.end());
    values_[t->name] = kept_values(*t, stored.raw);
  }
  for (int file = 0; file < 2; ++file) write_file(paths[file], bytes[file]);
}

std::unique_ptr<TestModel> TestModel::interleaved() const {
  std::vector<Stored> stored = stored_;
  const int head_dim = recipe_.head_dim, half = head_dim / 2;
  for (Stored& t : stored) {
    if (!t.spec.name.ends_with(".q") && !t.spec.name.ends_with(".k")) continue;
    const size_t row_bytes = t.raw.size() / static_cast<size_t>(t.spec.rows);
    const std::vector<uint8_t> halves = t.raw;
    for (int64_t row = 0; row < t.spec.rows; ++row) {
      // Row 2i of a head is i of the halves, row 2i + 1 is i + d / 2.
      const int64_t in_head = row % head_dim;
      const int64_t from = row - in_head + in_head / 2 + in_head % 2 * half;
      std::copy_n(halves.begin() + from * row_bytes, row_bytes, t.raw.begin() + row * row_bytes);
    }
  }
  return std::unique_ptr<TestModel>(new TestModel(recipe_, std::move(stored), true));
}

std::vector<uint8_t> TestModel::patch(const TensorSpec& tensor, uint64_t at,
                                      std::span<const uint8_t> bytes) const {
  std::vector<uint8_t> before(bytes.size());
  const long begin = static_cast<long>(tensor.offset + at);
  std::FILE* file = std::fopen(tensor.file.c_str(), "r+b");
  if (!file || std::fseek(file, begin, SEEK_SET) != 0 ||
      std::fread(before.data(), 1, before.size(), file) != before.size() ||
      std::fseek(file, begin, SEEK_SET) != 0 ||
      std::fwrite(bytes.data(), 1, bytes.size(), file) != bytes.size()) {
    std::perror(tensor.file.c_str());
    std::exit(2);
  }
  std::fclose(file);
  return before;
}

}  // namespace altiplano::test
