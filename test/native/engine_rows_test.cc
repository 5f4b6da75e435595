// What a step answers: candidates, log-sum-exp, logits of ids, full rows; and what steps may refer
// to: choices of the step before, and pages to copy.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine_support.h"

namespace altiplano::test {
namespace {

constexpr int kLengths[] = {20, 5};

// All ids, best first, of equal logits the lower id first; NaN last.
std::vector<int32_t> ranking(const float* logits, int vocab) {
  std::vector<int32_t> ids(vocab);
  std::iota(ids.begin(), ids.end(), 0);
  const auto value = [&](int32_t id) { return std::isnan(logits[id]) ? -INFINITY : logits[id]; };
  std::stable_sort(ids.begin(), ids.end(),
                   [&](int32_t a, int32_t b) { return value(a) > value(b); });
  return ids;
}

double log_sum_exp(const float* logits, int vocab, double factor) {
  double most = -INFINITY, sum = 0;
  for (int i = 0; i < vocab; ++i) most = std::max(most, logits[i] * factor);
  for (int i = 0; i < vocab; ++i) sum += std::exp(logits[i] * factor - most);
  return most + std::log(sum);
}

// Makes these rows of the output head equal, so that their logits tie.
void tie_rows(const TestModel& model, std::span<const int32_t> ids) {
  const TensorSpec& head = model.spec().head;
  const uint64_t row_bytes = head.size_bytes / head.rows;
  Random random(30);
  const std::vector<uint8_t> row = random_raw(head.type, head.cols, 0, 1, random);
  for (const int32_t id : ids) model.patch(head, id * row_bytes, row);
}

}  // namespace

void test_rows() {
  const TestModel model(odd_floats());
  const int vocab = model.recipe().vocab;
  const int32_t tied[] = {0, 17, 18, 100, vocab - 1};
  tie_rows(model, tied);
  Engine engine;
  load(engine, model.spec(), 2);
  Random random(20);
  const std::vector<Sequence> sequences = random_sequences(kLengths, model.spec(), random);
  const Stretch stretches[] = {{&sequences[0], 0, 20}, {&sequences[1], 0, 5}};
  Batch batch = make_batch(stretches);
  // Two rounds over the tokens, backwards: rows need no order, and a token may have two.
  std::vector<Wanted> asked;
  int kind = 0;
  for (int round = 0; round < 2; ++round) {
    for (int token = 24; token >= 0; --token, ++kind) {
      Wanted wanted = {.token = token};
      const int counts[] = {0, 1, 2, 7, vocab - 1, vocab};
      wanted.candidates = counts[kind % 6];
      const float inverse_temperatures[] = {1, 0.5, 2.5, 0, 1e-3};
      wanted.inverse_temperature = inverse_temperatures[kind % 5];
      for (int i = kind % 4; i > 0; --i) {
        wanted.ids.push_back(static_cast<int32_t>(random.integer(0, vocab - 1)));
      }
      wanted.full = kind % 3 != 0;
      asked.push_back(wanted);
    }
  }
  for (const Wanted& wanted : asked) want(batch, wanted);
  const RowResults results = engine.step(batch);

  Logits all;
  run_step(engine, sequences, stretches, vocab, all);
  int64_t candidate = 0, full = 0, ties = 0;
  for (size_t r = 0; r < asked.size(); ++r) {
    const Wanted& w = asked[r];
    const float* logits = w.token < 20 ? &all[0][w.token * vocab] : &all[1][(w.token - 20) * vocab];
    if (w.full) {
      CHECK(std::memcmp(&results.full_logits[full], logits, vocab * sizeof(float)) == 0,
            "row %zu: the full row differs", r);
      full += vocab;
    }
    const std::vector<int32_t> ranked = ranking(logits, vocab);
    for (int i = 0; i < w.candidates; ++i, ++candidate) {
      const int32_t id = results.candidate_ids[candidate];
      CHECK(id == ranked[i] && results.candidate_logits[candidate] == logits[id],
            "row %zu: candidate %d is id %d, expected %d", r, i, id, ranked[i]);
      ties += i > 0 && logits[id] == logits[ranked[i - 1]];
    }
    for (size_t i = 0; i < w.ids.size(); ++i) {
      CHECK(results.id_logits[batch.id_starts[r] + i] == logits[w.ids[i]],
            "row %zu: logit of id %d", r, w.ids[i]);
    }
    // A float32 exp or two per term; the sums themselves are wider.
    const double one = log_sum_exp(logits, vocab, 1);
    const double scaled = log_sum_exp(logits, vocab, w.inverse_temperature);
    CHECK(std::abs(results.log_sum_exp[r] - one) < 1e-6 * (1 + std::abs(one)),
          "row %zu: log-sum-exp %.9g, expected %.9g", r, results.log_sum_exp[r], one);
    CHECK(std::abs(results.scaled_log_sum_exp[r] - scaled) < 1e-6 * (1 + std::abs(scaled)),
          "row %zu: scaled log-sum-exp %.9g, expected %.9g", r, results.scaled_log_sum_exp[r],
          scaled);
    CHECK(results.finite[r] == 1, "row %zu: finite is %d", r, results.finite[r]);
  }
  CHECK(ties >= 20, "only %d ties were seen", static_cast<int>(ties));
  CHECK(candidate == static_cast<int64_t>(results.candidate_ids.size()) &&
            candidate == static_cast<int64_t>(results.candidate_logits.size()) &&
            full == static_cast<int64_t>(results.full_logits.size()) &&
            results.finite.size() == asked.size(),
        "the results have other sizes than what was asked for");

  const Stretch one[] = {{&sequences[1], 0, 5}};
  const RowResults nothing = engine.step(make_batch(one));
  CHECK(nothing.finite.empty() && nothing.candidate_ids.empty() && nothing.full_logits.empty(),
        "a step without rows answers with rows");
}

// Norm weights near the largest float make logits of either sign overflow.
void test_rows_that_are_not_finite() {
  const TestModel model(odd_floats());
  const int vocab = model.recipe().vocab;
  std::vector<uint8_t> huge;
  for (int i = 0; i < model.recipe().hidden; ++i) {
    const float value = i % 2 ? 0x1.8p127f : -0x1.8p127f;
    const auto* bytes = reinterpret_cast<const uint8_t*>(&value);
    huge.insert(huge.end(), bytes, bytes + sizeof value);
  }
  model.patch(model.spec().final_norm, 0, huge);
  Engine engine;
  load(engine, model.spec());
  Random random(21);
  const std::vector<Sequence> sequences = random_sequences(kLengths, model.spec(), random);
  const Stretch stretches[] = {{&sequences[0], 0, 20}};
  Batch batch = make_batch(stretches);
  for (int token = 0; token < 20; ++token) {
    want(batch, {.token = token, .candidates = token % 3 ? vocab : 1, .full = true});
  }
  const RowResults results = engine.step(batch);
  int64_t candidate = 0;
  int bad_rows = 0;
  for (int r = 0; r < 20; ++r) {
    const float* logits = &results.full_logits[int64_t{r} * vocab];
    const bool bad =
        std::any_of(logits, logits + vocab, [](float x) { return std::isnan(x) || x == INFINITY; });
    bad_rows += bad;
    CHECK(results.finite[r] == !bad, "row %d: finite is %d", r, results.finite[r]);
    const std::vector<int32_t> ranked = ranking(logits, vocab);
    for (int i = 0; i < batch.candidates[r]; ++i) {
      CHECK(results.candidate_ids[candidate++] == ranked[i], "row %d: candidate %d", r, i);
    }
  }
  CHECK(bad_rows == 20, "only %d rows overflowed", bad_rows);
}

void test_references_to_choices() {
  const TestModel model(quantized_at_load());
  const int vocab = model.recipe().vocab;
  for (const int threads : {1, 3}) {
    Engine engine;
    load(engine, model.spec(), threads);
    Random random(22);
    std::vector<Sequence> sequences = random_sequences(kLengths, model.spec(), random);
    const Stretch prompts[] = {{&sequences[0], 0, 20}, {&sequences[1], 0, 5}};
    Batch prompt = make_batch(prompts);
    // Rows in another order than the sequences; one that asks for no candidates chooses as well.
    want(prompt, {.token = 24});
    want(prompt, {.token = 3, .candidates = 1});
    want(prompt, {.token = 19, .candidates = 4, .full = true});
    CHECK(failure_of([&] {
            Batch early = prompt;
            early.tokens[4] = -1;
            engine.step(early);
          }).code == "ALTIPLANO_OUT_OF_RANGE",
          "a reference before the first step");
    engine.step(prompt);

    Logits all;
    run_step(engine, sequences, prompts, vocab, all);  // for what should have been chosen
    engine.step(prompt);
    const int32_t chosen[] = {ranking(&all[1][4 * vocab], vocab)[0],
                              ranking(&all[0][3 * vocab], vocab)[0],
                              ranking(&all[0][19 * vocab], vocab)[0]};

    for (Sequence& sequence : sequences) sequence.tokens.resize(sequence.tokens.size() + 2);
    const Stretch next[] = {{&sequences[1], 5, 6}, {&sequences[0], 20, 22}};
    Batch referring = make_batch(next);
    referring.tokens = {-1, -3, -2};
    for (int token = 0; token < 3; ++token) want(referring, {.token = token, .full = true});
    const std::vector<float> found = engine.step(referring).full_logits;
    Batch plain = referring;
    plain.tokens = {chosen[0], chosen[2], chosen[1]};
    CHECK(same_bits(found, engine.step(plain).full_logits), "choices are not the best ids");

    // The step before wanted three rows.
    referring.tokens[0] = -4;
    CHECK(failure_of([&] { engine.step(referring); }).code == "ALTIPLANO_OUT_OF_RANGE",
          "a reference to a row that was not there");
    referring.tokens[0] = -3;  // a refused step does not count as the step before
    CHECK(failure_of([&] { engine.step(referring); }).code.empty(), "after a refused step");
    engine.cancel();
    CHECK(failure_of([&] { engine.step(referring); }).code == "ALTIPLANO_ABORTED", "cancelled");
    engine.resume();
    CHECK(failure_of([&] { engine.step(referring); }).code == "ALTIPLANO_OUT_OF_RANGE",
          "a reference to a step that was cancelled");
  }
}

void test_page_copies() {
  const TestModel model(odd_floats());
  const int vocab = model.recipe().vocab;
  for (const KvType kv : {KvType::kF32, KvType::kF16, KvType::kInt8}) {
    Engine engine;
    load(engine, model.spec(), 2, kv);
    Random random(23);
    const int lengths[] = {40, 40};
    std::vector<Sequence> sequences = random_sequences(lengths, model.spec(), random);
    Sequence& original = sequences[0];
    Sequence& fork = sequences[1];
    std::copy_n(original.tokens.begin(), 36, fork.tokens.begin());
    const Logits expected = run_alone(engine, sequences, vocab);

    // Both share the first page. The second is copied to the fork's by way of a third, in order;
    // the third is overwritten afterwards.
    shuffle_pages(sequences, model.spec().config.kv_pages, random);
    const int32_t used[] = {original.pages[0], original.pages[1], fork.pages[0], fork.pages[1]};
    const int32_t shared = used[0], source = used[1], between = used[2], target = used[3];
    Logits logits;
    const Stretch prefix[] = {{&original, 0, 36}};
    run_step(engine, sequences, prefix, vocab, logits);
    fork.pages = {shared, target};
    const Stretch both[] = {{&fork, 36, 40}, {&original, 36, 40}};
    Batch batch = make_batch(both);
    batch.page_copies = {source, between, between, target, shared, between, source, source};
    for (int token = 0; token < 8; ++token) want(batch, {.token = token, .full = true});
    const std::vector<float> rows = engine.step(batch).full_logits;
    const int64_t after = int64_t{36} * vocab, count = int64_t{4} * vocab;
    const auto rest = [&](const std::vector<float>& whole) {
      return std::vector<float>(whole.begin() + after, whole.begin() + after + count);
    };
    CHECK(same_bits({rows.begin(), rows.begin() + count}, rest(expected[1])),
          "the fork goes on with other bits");
    CHECK(same_bits({rows.begin() + count, rows.end()}, rest(expected[0])),
          "the original goes on with other bits");
  }
}

}  // namespace altiplano::test
