#include "tiny_model.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <string>

#include "../check.h"

namespace altiplano::test {
namespace {

constexpr int kHidden = 32, kIntermediate = 48, kHeads = 2, kKvHeads = 1, kHeadDim = 64;
constexpr int kVocab = 48;

std::string empty_file(size_t bytes) {
  std::string name = std::filesystem::temp_directory_path() / "altiplano-tiny-XXXXXX";
  const int file = mkstemp(name.data());
  const bool made = file >= 0 && ftruncate(file, static_cast<off_t>(bytes)) == 0;
  if (file >= 0) close(file);
  CHECK(made, "%s cannot be made", name.c_str());
  return name;
}

}  // namespace

void MadeUpReader::to_float(FileType, const uint8_t*, int64_t count, float* out) {
  std::fill_n(out, count, 0.5f);
}

void MadeUpReader::read(const MatrixPart& part, int64_t row_begin, int64_t rows,
                        const CanonicalArrays& out, LoadMonitor&) {
  Random random(static_cast<uint32_t>(row_begin + 100 * part.source->rows()));
  const Matrix m = random_matrix(part.format, rows, part.source->cols(), random);
  std::copy(m.values.begin(), m.values.end(), static_cast<uint8_t*>(out.values));
  std::copy(m.scales.begin(), m.scales.end(), out.scales);
  std::copy(m.zeros.begin(), m.zeros.end(), out.zeros);
}

TinyModel::TinyModel(int gpu) {
  Config& c = spec_.config;
  c.hidden_size = kHidden;
  c.intermediate_size = kIntermediate;
  c.layers = 1;
  c.heads = kHeads;
  c.kv_heads = kKvHeads;
  c.head_dim = kHeadDim;
  c.vocab_size = kVocab;
  c.rms_norm_eps = 1e-5f;
  for (int i = 0; i < kHeadDim / 2; ++i) c.inverse_frequencies.push_back(1. / (i + 1));
  c.max_positions = 128;
  c.max_step_tokens = 8;
  c.kv_type = KvType::kInt8;
  c.kv_pages = 6;
  c.gpu = gpu;

  const std::string file = empty_file(kHidden * sizeof(float));
  const auto tensor = [&](int64_t rows, int64_t cols, WeightFormat format) {
    TensorSpec t;
    t.name = "made up";
    t.rows = rows;
    t.cols = cols;
    t.file = file;
    t.size_bytes = static_cast<uint64_t>(rows * cols) * sizeof(float);
    t.format = format;
    return t;
  };
  const WeightFormat f16 = {WeightType::kF16, 0, false}, bf16 = {WeightType::kBF16, 0, false},
                     int8 = {WeightType::kInt8, 32, true}, int4 = {WeightType::kInt4, 32, false};
  spec_.embedding = tensor(kVocab, kHidden, bf16);
  for (int l = 0; l < c.layers; ++l) {
    LayerSpec layer;
    layer.attention_norm = layer.feed_forward_norm = tensor(1, kHidden, {});
    layer.q = tensor(kHeads * kHeadDim, kHidden, int8);
    layer.k = layer.v = tensor(kKvHeads * kHeadDim, kHidden, f16);
    layer.o = tensor(kHidden, kHeads * kHeadDim, int4);
    layer.gate = tensor(kIntermediate, kHidden, int8);
    layer.up = tensor(kIntermediate, kHidden, int4);
    layer.down = tensor(kHidden, kIntermediate, f16);
    spec_.layers.push_back(layer);
  }
  spec_.final_norm = tensor(1, kHidden, {});
  spec_.head = tensor(kVocab, kHidden, int8);
}

TinyModel::~TinyModel() { unlink(spec_.embedding.file.c_str()); }

}  // namespace altiplano::test
