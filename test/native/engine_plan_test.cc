// Plans of steps that must be refused, one by one and by thousands of random changes. Memory safety
// stands on these checks, so that the tests mean most under AddressSanitizer.
#include <algorithm>
#include <climits>
#include <cmath>
#include <limits>

#include "engine_support.h"

namespace altiplano::test {
namespace {

constexpr int kLengths[] = {40, 3, 34};

// A valid plan that uses every array: three sequences, one from the middle on.
Batch valid_plan(const std::vector<Sequence>& sequences, int vocab) {
  const Stretch stretches[] = {
      {&sequences[2], 0, 34}, {&sequences[0], 30, 40}, {&sequences[1], 0, 3}};
  Batch batch = make_batch(stretches);
  want(batch, {.token = 46, .candidates = 3, .ids = {1, vocab - 1}});
  want(batch, {.token = 33, .candidates = vocab, .inverse_temperature = 0.5, .full = true});
  want(batch, {.token = 43, .ids = {0}});
  batch.page_copies = {sequences[0].pages[0], sequences[2].pages[1]};
  return batch;
}

// Every array of int32.
std::vector<std::vector<int32_t>*> arrays(Batch& b) {
  return {&b.tokens, &b.positions,  &b.slots, &b.sequence_starts, &b.block_table, &b.block_starts,
          &b.rows,   &b.candidates, &b.ids,   &b.id_starts,       &b.page_copies};
}

template <class T>
void change_size(std::vector<T>& values, Random& random) {
  switch (random.integer(0, 4)) {
    case 0:
      values.clear();
      return;
    case 1:
      if (!values.empty()) values.pop_back();
      return;
    case 2:
      values.push_back(values.empty() ? T{} : values.back());
      return;
    case 3:
      values.resize(values.size() / 2);
      return;
    default:
      values.insert(values.begin() + random.integer(0, static_cast<int64_t>(values.size())), T{});
  }
}

int32_t odd_value(int32_t before, const ModelSpec& spec, Random& random) {
  const Config& c = spec.config;
  const int64_t values[] = {INT_MIN,
                            INT_MIN + 1,
                            -4,
                            -3,
                            -1,
                            0,
                            1,
                            int64_t{before} - 1,
                            int64_t{before} + 1,
                            int64_t{before} + kKvPageTokens,
                            c.max_positions - 1,
                            c.max_positions,
                            c.vocab_size - 1,
                            c.vocab_size,
                            c.kv_pages - 1,
                            c.kv_pages,
                            c.kv_pages * kKvPageTokens - 1,
                            c.kv_pages * kKvPageTokens,
                            random.integer(-50, 50),
                            INT_MAX};
  return static_cast<int32_t>(values[random.integer(0, std::size(values) - 1)]);
}

void mutate(Batch& batch, const ModelSpec& spec, Random& random) {
  const std::vector<std::vector<int32_t>*> all = arrays(batch);
  switch (random.integer(0, 15)) {
    case 0: {
      const float values[] = {NAN, INFINITY, -INFINITY, -1, 0, 1e-45f, 3e38f};
      for (float& value : batch.inverse_temperatures) value = values[random.integer(0, 6)];
      return;
    }
    case 1:
      return change_size(batch.inverse_temperatures, random);
    case 2:
      return change_size(batch.full_rows, random);
    case 3:
      for (uint8_t& full : batch.full_rows) full = static_cast<uint8_t>(random.integer(0, 255));
      return;
    case 4:
    case 5:
    case 6:
      return change_size(*all[random.integer(0, static_cast<int64_t>(all.size()) - 1)], random);
    case 7: {  // two arrays change places
      std::swap(*all[random.integer(0, static_cast<int64_t>(all.size()) - 1)],
                *all[random.integer(0, static_cast<int64_t>(all.size()) - 1)]);
      return;
    }
    case 8: {  // the elements of one array change places
      std::vector<int32_t>& values = *all[random.integer(0, static_cast<int64_t>(all.size()) - 1)];
      for (size_t i = 1; i < values.size(); ++i) {
        std::swap(values[i], values[random.integer(0, static_cast<int64_t>(i))]);
      }
      return;
    }
    default: {
      std::vector<int32_t>& values = *all[random.integer(0, static_cast<int64_t>(all.size()) - 1)];
      if (values.empty()) return;
      int32_t& value = values[random.integer(0, static_cast<int64_t>(values.size()) - 1)];
      value = odd_value(value, spec, random);
    }
  }
}

}  // namespace

void test_refused_plans() {
  const TestModel model(odd_floats());
  const int vocab = model.recipe().vocab;
  Engine engine;
  load(engine, model.spec(), 2);
  Random random(40);
  const std::vector<Sequence> sequences = random_sequences(kLengths, model.spec(), random);
  const Config& c = model.spec().config;
  const auto refused = [&](const char* what, const char* code,
                           const std::function<void(Batch&)>& change) {
    Batch batch = valid_plan(sequences, vocab);
    change(batch);
    const Failure failure = failure_of([&] { engine.step(batch); });
    CHECK(failure.code == code, "%s: %s: %s", what, failure.code.c_str(), failure.message.c_str());
    CHECK(failure.message.find(what) != std::string::npos, "%s is not named: %s", what,
          failure.message.c_str());
  };
  const auto bad_value = [&](const char* what, std::vector<int32_t> Batch::*array, int64_t low,
                             int64_t high) {
    for (const int64_t value : {low - 1, high, int64_t{INT_MIN}, int64_t{INT_MAX}}) {
      refused(what, "ALTIPLANO_OUT_OF_RANGE",
              [&](Batch& b) { (b.*array).back() = static_cast<int32_t>(value); });
    }
  };
  const auto bad_size = [&](const char* what, auto Batch::*array) {
    refused(what, "ALTIPLANO_INTERNAL", [&](Batch& b) { (b.*array).clear(); });
    refused(what, "ALTIPLANO_INTERNAL", [&](Batch& b) { (b.*array).push_back({}); });
  };
  bad_value("tokens", &Batch::tokens, 0, c.vocab_size);
  bad_value("positions", &Batch::positions, 0, c.max_positions);
  bad_value("slots", &Batch::slots, 0, c.kv_pages * kKvPageTokens);
  bad_value("blockTable", &Batch::block_table, 0, c.kv_pages);
  bad_value("rows", &Batch::rows, 0, 47);
  bad_value("candidates", &Batch::candidates, 0, c.vocab_size + 1);
  bad_value("ids", &Batch::ids, 0, c.vocab_size);
  bad_value("pageCopies", &Batch::page_copies, 0, c.kv_pages);
  bad_size("positions", &Batch::positions);
  bad_size("slots", &Batch::slots);
  bad_size("sequenceStarts", &Batch::sequence_starts);
  bad_size("blockStarts", &Batch::block_starts);
  bad_size("candidates", &Batch::candidates);
  bad_size("inverseTemperatures", &Batch::inverse_temperatures);
  bad_size("idStarts", &Batch::id_starts);
  bad_size("fullRows", &Batch::full_rows);
  refused("pageCopies", "ALTIPLANO_INTERNAL", [](Batch& b) { b.page_copies.pop_back(); });
  refused("0 tokens", "ALTIPLANO_OUT_OF_RANGE", [](Batch& b) { b.tokens.clear(); });
  refused("tokens", "ALTIPLANO_OUT_OF_RANGE",
          [&](Batch& b) { b.tokens.resize(c.max_step_tokens + 1); });
  refused("sequenceStarts", "ALTIPLANO_INTERNAL", [](Batch& b) { b.sequence_starts[0] = 1; });
  refused("sequenceStarts", "ALTIPLANO_INTERNAL",
          [](Batch& b) { std::swap(b.sequence_starts[1], b.sequence_starts[2]); });
  refused("blockStarts", "ALTIPLANO_INTERNAL", [](Batch& b) { b.block_starts[1] = -1; });
  refused("idStarts", "ALTIPLANO_INTERNAL", [](Batch& b) { b.id_starts[1] = INT_MAX; });
  refused("token 46 has position 32", "ALTIPLANO_OUT_OF_RANGE",
          [](Batch& b) { b.positions.back() = 32; });  // behind the one page of its sequence
  refused("slot", "ALTIPLANO_INTERNAL", [](Batch& b) { b.slots[40] = b.slots[2]; });
  CHECK(failure_of([&] { engine.step(valid_plan(sequences, vocab)); }).code.empty(),
        "the plan itself is valid");
}

void test_hostile_plans() {
  const TestModel model(odd_floats());
  const int vocab = model.recipe().vocab;
  Random random(41);
  std::vector<Sequence> sequences = random_sequences(kLengths, model.spec(), random);
  for (const KvType kv : {KvType::kF32, KvType::kF16, KvType::kInt8}) {
    Engine engine;
    load(engine, model.spec(), 2, kv);
    const Logits expected = run_alone(engine, sequences, vocab);
    int refusals = 0, results = 0;
    for (int i = 0; i < 1500; ++i) {
      Batch batch = valid_plan(sequences, vocab);
      for (int64_t changes = random.integer(1, 3); changes > 0; --changes) {
        mutate(batch, model.spec(), random);
      }
      const Failure failure = failure_of([&] { engine.step(batch); });
      CHECK(failure.code.empty() || failure.code == "ALTIPLANO_OUT_OF_RANGE" ||
                failure.code == "ALTIPLANO_INTERNAL",
            "%s: %s", failure.code.c_str(), failure.message.c_str());
      ++(failure.code.empty() ? results : refusals);
      if (i % 100 != 99) continue;
      // Whatever such steps wrote to the cache, sequences that start anew are not touched by it.
      shuffle_pages(sequences, model.spec().config.kv_pages, random);
      const Logits again = run_alone(engine, sequences, vocab);
      for (size_t s = 0; s < sequences.size(); ++s) {
        CHECK(same_bits(again[s], expected[s]), "other bits after %d hostile steps", i + 1);
      }
    }
    CHECK(refusals > 300 && results > 100, "%d refusals, %d results", refusals, results);
  }
}

}  // namespace altiplano::test
