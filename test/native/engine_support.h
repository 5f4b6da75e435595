// What the engine's tests share: a small random model in temporary files, its forward pass in
// float64 straight from the equations, and steps for sequences of tokens.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "check.h"
#include "llama/engine.h"
#include "util/error.h"

namespace altiplano::test {

// How a tensor is stored, and what the engine keeps it as.
struct Kind {
  FileType type;
  WeightFormat format;
};

struct Recipe {
  const char* name;
  int hidden, intermediate, layers, heads, kv_heads, head_dim, vocab;
  Kind embedding, q, k, v, o, gate, up, down, head;
  FileType norms;
  bool tied;
};

// Three models: float types with odd sizes and six heads to two; every block type with four heads
// to one; and tied embeddings with matrices that are quantized while they load.
const Recipe& odd_floats();
const Recipe& blocks();
const Recipe& quantized_at_load();
std::span<const Recipe* const> all_recipes();

// A folder that goes away with everything in it.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::string file(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// A model on disk, in two files, its tensors at any offset.
class TestModel {
 public:
  explicit TestModel(const Recipe& recipe, uint32_t seed = 1);
  // The same weights with the rows of q and k in the order of interleaved rotary pairs.
  std::unique_ptr<TestModel> interleaved() const;

  const Recipe& recipe() const { return recipe_; }
  // Ready to load, with room for 24 pages, 96 positions, 100 tokens in a step, and one thread.
  const ModelSpec& spec() const { return spec_; }
  // The weights that the engine keeps, [rows][cols].
  const std::vector<double>& values(const TensorSpec& tensor) const {
    return values_.at(tensor.name);
  }
  // Overwrites bytes of a tensor on disk; returns what was there.
  std::vector<uint8_t> patch(const TensorSpec& tensor, uint64_t at,
                             std::span<const uint8_t> bytes) const;
  const TemporaryFolder& folder() const { return folder_; }
  // All tensors of a spec, in the order in which they are loaded.
  static std::vector<TensorSpec*> tensors(ModelSpec& spec);

 private:
  struct Stored {
    TensorSpec spec;
    std::vector<uint8_t> raw;
  };
  TestModel(const Recipe& recipe, std::vector<Stored> stored, bool interleaved_rotary);
  void write();

  Recipe recipe_;
  TemporaryFolder folder_;
  std::vector<Stored> stored_;
  std::map<std::string, std::vector<double>> values_;
  ModelSpec spec_;
};

// Random bytes of a tensor whose weights have about this deviation around `mean`.
std::vector<uint8_t> random_raw(FileType type, int64_t count, double mean, double deviation,
                                Random& random);
// What the bytes mean, decoded independently of the code under test.
std::vector<double> decode(FileType type, std::span<const uint8_t> raw);

// Logits [tokens][vocab] of a sequence. With f16, keys and values are rounded as the cache rounds
// them.
std::vector<double> reference_logits(const TestModel& model, std::span<const int32_t> tokens,
                                     KvType kv);

// --- loading and stepping -----------------------------------------------------------------------

void load(Engine& engine, const ModelSpec& spec, int threads = 1, KvType kv = KvType::kF32,
          bool int8_activations = false);

struct Sequence {
  std::vector<int32_t> tokens;
  std::vector<int32_t> pages;
};

// Tokens begin .. end-1 of a sequence.
struct Stretch {
  const Sequence* sequence;
  int begin;
  int end;
};

// What is wanted of a token of the batch.
struct Wanted {
  int token;
  int candidates = 0;
  float inverse_temperature = 1;
  std::vector<int32_t> ids = {};
  bool full = false;
};

// A batch without rows.
Batch make_batch(std::span<const Stretch> stretches);
void want(Batch& batch, const Wanted& wanted);

// Random sequences of these lengths, on random pages that are all different.
std::vector<Sequence> random_sequences(std::span<const int> lengths, const ModelSpec& spec,
                                       Random& random);
void shuffle_pages(std::vector<Sequence>& sequences, int64_t kv_pages, Random& random);

// Logits [tokens][vocab] by sequence.
using Logits = std::vector<std::vector<float>>;

// One step with the full rows of all its tokens, which are written to their places in `logits`.
void run_step(Engine& engine, const std::vector<Sequence>& sequences,
              std::span<const Stretch> stretches, int vocab, Logits& logits);

// Every sequence alone, whole, in one step.
Logits run_alone(Engine& engine, const std::vector<Sequence>& sequences, int vocab);

// What was thrown; both empty if nothing.
struct Failure {
  std::string code, message;
};
Failure failure_of(const std::function<void()>& run);

// --- cases, one subject to a file ---------------------------------------------------------------

void test_attention_plan();
void test_thread_pool();
void test_reference();
void test_interleaved_rotary();
void test_same_bits();
void test_rows();
void test_rows_that_are_not_finite();
void test_references_to_choices();
void test_page_copies();
void test_refused_plans();
void test_hostile_plans();
void test_matrix_slices();
void test_packing_across_pages();
void test_bad_rows_are_named();
void test_memory();
void test_damaged_files();
void test_weights_that_are_not_finite();
void test_refused_specs();
void test_life_cycle();
void test_cancelled_loads();
void test_cancelled_steps();

}  // namespace altiplano::test
