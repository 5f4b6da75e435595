// Loading, unloading, and cancelling from another thread. Run under ThreadSanitizer as well.
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "cpu/cpu_backend.h"
#include "engine_support.h"

namespace altiplano::test {
namespace {

constexpr int kLengths[] = {40, 9};

// Large enough for a load and a step to take milliseconds.
Recipe large() {
  Recipe recipe = quantized_at_load();
  recipe.name = "large";
  recipe.hidden = 256;
  recipe.intermediate = 500;
  recipe.head_dim = 64;
  recipe.vocab = 700;
  return recipe;
}

void expect_bits(Engine& engine, const std::vector<Sequence>& sequences, const Logits& expected,
                 int vocab, const char* what) {
  const Logits found = run_alone(engine, sequences, vocab);
  for (size_t s = 0; s < sequences.size(); ++s) {
    CHECK(same_bits(found[s], expected[s]), "%s: other bits", what);
  }
}

uint64_t weight_bytes(const ModelSpec& spec) {
  return estimate(spec, *cpu::backend_sizes()).weights;
}

}  // namespace

void test_life_cycle() {
  const TestModel first(odd_floats()), second(blocks());
  const int vocab = first.recipe().vocab;
  Random random(60);
  const std::vector<Sequence> sequences = random_sequences(kLengths, first.spec(), random);
  Engine engine;
  const auto code_of_step = [&] { return failure_of([&] { engine.step({}); }).code; };
  CHECK(code_of_step() == "ALTIPLANO_DISPOSED", "a step before the load");
  CHECK(engine.memory().weights == 0 && engine.monitor().total_bytes == 0, "not empty");
  engine.unload();  // nothing to do

  load(engine, first.spec(), 2);
  CHECK(engine.memory().weights == weight_bytes(first.spec()), "weights of %llu bytes",
        static_cast<unsigned long long>(engine.memory().weights));
  CHECK(engine.memory().kv > 0 && engine.memory().workspace > 0, "no cache, no workspace");
  const Logits expected = run_alone(engine, sequences, vocab);
  CHECK(failure_of([&] { load(engine, second.spec()); }).code == "ALTIPLANO_INTERNAL",
        "a second load");
  expect_bits(engine, sequences, expected, vocab, "after a refused second load");

  // A second engine beside it, and each from a thread of its own.
  Engine other;
  load(other, first.spec(), 3);
  std::thread thread([&] { expect_bits(other, sequences, expected, vocab, "beside another"); });
  for (int i = 0; i < 5; ++i) run_alone(engine, sequences, vocab);
  thread.join();

  engine.unload();
  engine.unload();
  CHECK(engine.memory().weights + engine.memory().kv + engine.memory().workspace == 0,
        "memory is counted after unload");
  CHECK(code_of_step() == "ALTIPLANO_DISPOSED", "a step after unload");
  load(engine, second.spec(), 2);
  CHECK(engine.memory().weights == weight_bytes(second.spec()), "another model in its place");
  engine.unload();
  load(engine, first.spec());
  for (const char* file : {"first", "second"}) ::unlink(first.folder().file(file).c_str());
  expect_bits(engine, sequences, expected, vocab, "the files are gone");
}

void test_cancelled_loads() {
  const TestModel model(large());
  const int vocab = model.recipe().vocab;
  Random random(61);
  const std::vector<Sequence> sequences = random_sequences(kLengths, model.spec(), random);
  Engine undisturbed;
  load(undisturbed, model.spec(), 2);
  const Logits expected = run_alone(undisturbed, sequences, vocab);
  const int64_t total = undisturbed.monitor().total_bytes;

  int midway = 0;
  for (int i = 0; i < 12; ++i) {
    // Cancels when about i tenths have been read; the last two, never in time.
    Engine engine;
    std::atomic<bool> ended = false;
    std::thread watcher([&] {
      int64_t seen = 0;
      while (!ended) {
        const int64_t done = engine.monitor().done_bytes;
        CHECK(done >= seen && done <= total, "progress from %lld to %lld of %lld",
              static_cast<long long>(seen), static_cast<long long>(done),
              static_cast<long long>(total));
        seen = done;
        if (done > 0 && done >= total * i / 10) break;
        std::this_thread::yield();
      }
      if (i < 10) engine.cancel();
    });
    const Failure failure = failure_of([&] { load(engine, model.spec(), 2); });
    ended = true;
    watcher.join();
    CHECK(failure.code.empty() || (i < 10 && failure.code == "ALTIPLANO_ABORTED"), "%s: %s",
          failure.code.c_str(), failure.message.c_str());
    if (!failure.code.empty()) {
      const int64_t done = engine.monitor().done_bytes;
      midway += done > 0 && done < total;
      CHECK(failure_of([&] { load(engine, model.spec()); }).code == "ALTIPLANO_ABORTED",
            "a load before resume");
      engine.resume();
      load(engine, model.spec(), 2);
      CHECK(engine.monitor().done_bytes == total && engine.monitor().total_bytes == total,
            "progress starts anew");
    }
    engine.resume();
    if (i % 4 == 0) expect_bits(engine, sequences, expected, vocab, "after a cancelled load");
  }
  CHECK(midway > 0, "no load was cancelled midway");
}

void test_cancelled_steps() {
  const TestModel model(large());
  Random random(62);
  const std::vector<Sequence> sequences = random_sequences(kLengths, model.spec(), random);
  Engine engine;
  load(engine, model.spec(), 2);
  const Stretch whole[] = {{&sequences[0], 0, 40}, {&sequences[1], 0, 9}};
  Batch batch = make_batch(whole);
  for (int token = 0; token < 49; ++token) want(batch, {.token = token, .full = true});
  auto start = std::chrono::steady_clock::now();
  const std::vector<float> expected = engine.step(batch).full_logits;
  const auto took = std::chrono::steady_clock::now() - start;

  // On a busy machine the canceller may come too late many times over.
  int cancelled = 0;
  for (int i = 0; i < 20 || (cancelled == 0 && i < 1000); ++i) {
    std::atomic<bool> started = false;
    std::thread canceller([&] {
      while (!started) std::this_thread::yield();
      std::this_thread::sleep_for(took * (i % 20) / 20);
      engine.cancel();
    });
    started = true;
    const Failure failure = failure_of([&] { engine.step(batch); });
    canceller.join();
    CHECK(failure.code.empty() || failure.code == "ALTIPLANO_ABORTED", "%s: %s",
          failure.code.c_str(), failure.message.c_str());
    cancelled += !failure.code.empty();
    CHECK(failure_of([&] { engine.step(batch); }).code == "ALTIPLANO_ABORTED",
          "a step before resume");
    engine.resume();
    if (i % 8 == 0) {
      CHECK(same_bits(engine.step(batch).full_logits, expected),
            "other bits after a cancelled step");
    }
  }
  CHECK(cancelled > 0, "no step was cancelled in the middle");
}

}  // namespace altiplano::test
