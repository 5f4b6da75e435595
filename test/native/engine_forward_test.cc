// The logits: against float64, and the same bits for any threads, batch, chunks and pages.
#include <algorithm>
#include <cmath>

#include "engine_support.h"

namespace altiplano::test {
namespace {

// Two pages and one page; one token; a page and one more. 91 tokens in all.
constexpr int kLengths[] = {50, 7, 1, 33};

// Largest difference of a row from the reference, as a share of the row's largest logit.
double worst_error(const std::vector<float>& logits, const std::vector<double>& reference,
                   int vocab) {
  double worst = 0;
  for (size_t first = 0; first < reference.size(); first += vocab) {
    double error = 0, most = 0;
    for (size_t i = first; i < first + vocab; ++i) {
      error = std::max(error, std::abs(logits[i] - reference[i]));
      most = std::max(most, std::abs(reference[i]));
    }
    worst = std::max(worst, error / most);
  }
  return worst;
}

using Schedule = std::vector<std::vector<Stretch>>;  // the stretches of each step

Schedule one_by_one(const std::vector<Sequence>& sequences) {
  Schedule steps;
  for (const Sequence& sequence : sequences) {
    for (int t = 0; t < static_cast<int>(sequence.tokens.size()); ++t) {
      steps.push_back({{&sequence, t, t + 1}});
    }
  }
  return steps;
}

Schedule all_together(const std::vector<Sequence>& sequences, Random& random) {
  std::vector<Stretch> step;
  for (const Sequence& sequence : sequences) {
    step.insert(step.begin() + random.integer(0, static_cast<int64_t>(step.size())),
                {&sequence, 0, static_cast<int>(sequence.tokens.size())});
  }
  return {step};
}

// Some sequences each step, in any order, with a random number of tokens each.
Schedule ragged(const std::vector<Sequence>& sequences, Random& random) {
  Schedule steps;
  std::vector<int> done(sequences.size());
  for (size_t left = sequences.size(); left > 0;) {
    std::vector<Stretch> step;
    for (size_t s = 0; s < sequences.size(); ++s) {
      const int length = static_cast<int>(sequences[s].tokens.size());
      if (done[s] == length || random.integer(0, 3) == 0) continue;
      const int most = random.integer(0, 1) ? 1 : 24;
      const int end = std::min(length, done[s] + static_cast<int>(random.integer(1, most)));
      step.insert(step.begin() + random.integer(0, static_cast<int64_t>(step.size())),
                  {&sequences[s], done[s], end});
      done[s] = end;
      left -= end == length;
    }
    if (!step.empty()) steps.push_back(step);
  }
  return steps;
}

void expect_same(Engine& engine, const std::vector<Sequence>& sequences, const Schedule& steps,
                 const Logits& expected, int vocab, const char* what) {
  Logits logits;
  for (const std::vector<Stretch>& step : steps) {
    run_step(engine, sequences, step, vocab, logits);
  }
  for (size_t s = 0; s < sequences.size(); ++s) {
    CHECK(same_bits(logits[s], expected[s]), "%s: other bits in the sequence of %zu tokens", what,
          sequences[s].tokens.size());
  }
}

}  // namespace

// A chain of n float additions errs by about sqrt(n) u of its terms' size, u = 2^-24, at most by
// n u. Four such chains, one after the other, make a layer, and one more the logits: allowed is the
// sum of their typical errors (what is seen is a fifth of that). With f16 and int8, an error of
// that size makes a few of thousands of keys and values round the other way, by a whole 2^-11
// (bf16: 2^-8), or by 1/127 of the head's largest: one such step is allowed.
void test_reference() {
  for (const Recipe* recipe : all_recipes()) {
    const TestModel model(*recipe);
    Random random(7);
    const int lengths[] = {37, 4};  // the reference is slow
    const std::vector<Sequence> sequences = random_sequences(lengths, model.spec(), random);
    for (const KvType kv : {KvType::kF32, KvType::kF16, KvType::kInt8, KvType::kBF16}) {
      Engine engine;
      load(engine, model.spec(), 2, kv);
      const Logits logits = run_alone(engine, sequences, recipe->vocab);
      const int longest = std::max(recipe->hidden, recipe->intermediate);
      double bound = (4 * recipe->layers + 1) * std::sqrt(longest) * kEps;
      if (kv == KvType::kF16) bound += 0x1p-11;
      if (kv == KvType::kBF16) bound += 0x1p-8;
      if (kv == KvType::kInt8) bound += 1. / 127;
      for (size_t s = 0; s < sequences.size(); ++s) {
        const double error =
            worst_error(logits[s], reference_logits(model, sequences[s].tokens, kv), recipe->vocab);
        CHECK(error <= bound, "%s, kv %d: relative error %.3g, bound %.3g", recipe->name,
              static_cast<int>(kv), error, bound);
      }
    }
  }
}

void test_interleaved_rotary() {
  for (const Recipe* recipe : all_recipes()) {
    const TestModel halves(*recipe);
    const std::unique_ptr<TestModel> pairs = halves.interleaved();
    Random random(8);
    const std::vector<Sequence> sequences = random_sequences(kLengths, halves.spec(), random);
    Engine a, b;
    load(a, halves.spec());
    load(b, pairs->spec(), 3);
    const Logits expected = run_alone(a, sequences, recipe->vocab);
    const Logits found = run_alone(b, sequences, recipe->vocab);
    for (size_t s = 0; s < sequences.size(); ++s) {
      CHECK(same_bits(expected[s], found[s]), "%s: interleaved rows give other bits", recipe->name);
    }
    // The reference rotates the file's own pairs: reordering was not merely undone.
    const std::vector<double> reference =
        reference_logits(*pairs, sequences[1].tokens, KvType::kF32);
    const double error = worst_error(found[1], reference, recipe->vocab);
    CHECK(error < 1e-5, "%s: interleaved, relative error %.3g", recipe->name, error);
    // And the two layouts differ: read as halves, the file means something else.
    ModelSpec wrong = pairs->spec();
    wrong.config.interleaved_rotary = false;
    Engine c;
    load(c, wrong);
    CHECK(!same_bits(run_alone(c, sequences, recipe->vocab)[0], expected[0]),
          "%s: the layout of the rows makes no difference", recipe->name);
  }
}

void test_same_bits() {
  for (const Recipe* recipe : all_recipes()) {
    const TestModel model(*recipe);
    const int vocab = recipe->vocab;
    Random random(9);
    std::vector<Sequence> sequences = random_sequences(kLengths, model.spec(), random);
    for (const auto& [kv, int8] : {std::pair{KvType::kF32, false},
                                   {KvType::kF16, false},
                                   {KvType::kInt8, false},
                                   {KvType::kBF16, false},
                                   {KvType::kF32, true},
                                   {KvType::kInt8, true}}) {
      Logits expected;
      {
        Engine engine;
        load(engine, model.spec(), 1, kv, int8);
        expected = run_alone(engine, sequences, vocab);
      }
      for (const int threads : {1, 2, 3, 5}) {
        if (kv != KvType::kF32 && threads == 3) continue;  // enough
        // The cache keeps what the schedule before left in it: that must not matter either.
        Engine engine;
        load(engine, model.spec(), threads, kv, int8);
        const auto expect = [&](const Schedule& steps, const char* how) {
          char what[100];
          std::snprintf(what, sizeof what, "%s, kv %d, int8 activations %d, %d threads, %s",
                        recipe->name, static_cast<int>(kv), int8, threads, how);
          expect_same(engine, sequences, steps, expected, vocab, what);
          shuffle_pages(sequences, model.spec().config.kv_pages, random);
        };
        shuffle_pages(sequences, model.spec().config.kv_pages, random);
        expect(all_together(sequences, random), "all together");
        expect(ragged(sequences, random), "ragged");
        if (threads <= 2) expect(one_by_one(sequences), "token by token");
        if (threads == 1) expect(ragged(sequences, random), "ragged again");
      }
    }
  }
}

}  // namespace altiplano::test
