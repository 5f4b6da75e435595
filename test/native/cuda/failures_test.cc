// Every allocation, every kernel and every other call of the driver in the life of an engine (load,
// a prompt, decoding, unload) fails once. What is asked of each failure:
//   - it is an Error with a code, whose message names the call, the device, and for a kernel its
//     name and grid; or nobody is told, because it happened while something was taken down
//   - the engine is usable: the same step goes through when it is repeated, and all results of the
//     life are those of a life without failures. After a kernel that failed on the device, which
//     spoils the context, the engine fails again, and is usable when it has been loaded anew
//   - in the end nothing of it is alive, contexts included
// The calls are counted, not listed: whatever an engine comes to call is tried.
#include <algorithm>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "cuda/cuda_backend.h"
#include "cuda/driver.h"
#include "device.h"
#include "llama/engine.h"
#include "tiny_model.h"
#include "util/error.h"

namespace altiplano::test {
namespace {

// A device of its own, so that its context comes and goes with the engine.
constexpr int kGpu = 1;

// The simulator's functions.
struct Simulator {
#define ALTIPLANO_SIMULATOR(name)        \
  decltype(ptx_simulator_##name)* name = \
      simulator<decltype(ptx_simulator_##name)>("ptx_simulator_" #name)
  ALTIPLANO_SIMULATOR(fail_allocation);
  ALTIPLANO_SIMULATOR(fail_launch);
  ALTIPLANO_SIMULATOR(fail_call);
  ALTIPLANO_SIMULATOR(clear_faults);
  ALTIPLANO_SIMULATOR(allocations);
  ALTIPLANO_SIMULATOR(launches);
  ALTIPLANO_SIMULATOR(calls);
  ALTIPLANO_SIMULATOR(live);
  ALTIPLANO_SIMULATOR(finding_count);
  ALTIPLANO_SIMULATOR(clear_reports);
#undef ALTIPLANO_SIMULATOR

  ptx_simulator_objects objects() const {
    ptx_simulator_objects o;
    live(&o);
    return o;
  }
};

// Functions of the driver that are called, and how often.
using Counts = std::vector<std::pair<std::string, uint64_t>>;
Counts calls_so_far(const Simulator& simulator) {
  Counts counts;
#define ALTIPLANO_COUNT(name) counts.push_back({#name, simulator.calls(#name)});
  ALTIPLANO_CUDA_FUNCTIONS(ALTIPLANO_COUNT)
#undef ALTIPLANO_COUNT
  return counts;
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// --- the steps of a life ------------------------------------------------------------------------

struct Row {
  int32_t token;
  int32_t candidates = 1;
  bool full = false;
  std::vector<int32_t> ids = {};
};

void add_rows(Batch& b, const std::vector<Row>& rows) {
  b.id_starts = {0};
  for (const Row& row : rows) {
    b.rows.push_back(row.token);
    b.candidates.push_back(row.candidates);
    b.inverse_temperatures.push_back(1);
    b.full_rows.push_back(row.full);
    b.ids.insert(b.ids.end(), row.ids.begin(), row.ids.end());
    b.id_starts.push_back(static_cast<int32_t>(b.ids.size()));
  }
}

// Two prompts, of five tokens and of two.
Batch prompts() {
  Batch b;
  b.tokens = {7, 11, 13, 17, 19, 23, 29};
  b.positions = {0, 1, 2, 3, 4, 0, 1};
  b.slots = {0, 1, 2, 3, 4, 32, 33};
  b.sequence_starts = {0, 5, 7};
  b.block_table = {0, 1};
  b.block_starts = {0, 1, 2};
  add_rows(b, {{.token = 4}, {.token = 6}});
  return b;
}

// The next token of both: what the rows of the step before chose. `first` is the row of the first.
Batch decode(int32_t step, const Row& first = {.token = 0}) {
  Batch b;
  b.tokens = {-1, -2};
  b.positions = {4 + step, 1 + step};
  b.slots = {4 + step, 33 + step};
  b.sequence_starts = {0, 1, 2};
  b.block_table = {0, 1};
  b.block_starts = {0, 1, 2};
  add_rows(b, {first, {.token = 1}});
  return b;
}

// A copy of the first sequence goes on, beside a new prompt.
Batch fork(int32_t step) {
  Batch b;
  b.tokens = {5, 31, 37, 41};
  b.positions = {4 + step, 0, 1, 2};
  b.slots = {64 + 4 + step, 96, 97, 98};
  b.sequence_starts = {0, 1, 4};
  b.block_table = {2, 3};
  b.block_starts = {0, 1, 2};
  b.page_copies = {0, 2};
  add_rows(b, {{.token = 0, .ids = {3, 4}}, {.token = 3, .candidates = 2}});
  return b;
}

// With steps of the same shape, which are recorded once and then run again, and one that asks for
// more than usual, so that what is kept for results has to grow.
std::vector<Batch> steps_of_a_life(int32_t vocab) {
  const Row everything = {.token = 0, .candidates = vocab, .full = true};
  return {prompts(), decode(1), decode(2), decode(3, everything), decode(4), fork(5)};
}

// --- a life -------------------------------------------------------------------------------------

struct Failure {
  std::string code, message;
};

struct Life {
  std::vector<Failure> failures;
  std::vector<RowResults> results;  // of all steps, when they were through
  Counts before_unload;
};

// The tokens of a step that refers to what rows of the step before chose.
void name_choices(Batch& batch, const Batch& before, const RowResults& results) {
  for (int32_t& token : batch.tokens) {
    if (token >= 0) continue;
    size_t first = 0;  // candidate of the row
    for (int32_t row = 0; row < -token - 1; ++row) first += before.candidates[row];
    token = results.candidate_ids[first];
  }
}

// An engine that lives once.
class Living {
 public:
  // `known` is a life without failures: a step after a failed one cannot refer to what rows chose.
  // `happened` tells that the failure has come; two steps more are then enough.
  Living(const Simulator& simulator, const ModelSpec& spec, const Life* known,
         const std::function<bool()>& happened)
      : simulator_(simulator),
        spec_(spec),
        known_(known),
        happened_(happened),
        steps_(steps_of_a_life(spec.config.vocab_size)) {}

  // Loads, steps, unloads; what fails is done again.
  Life run() {
    constexpr int kMostLoads = 3;
    for (int loads = 0; loads < kMostLoads; ++loads) {
      if (!attempt([&] {
            engine_.load(spec_, cuda::make_backend(kGpu, std::make_unique<MadeUpReader>()));
          })) {
        CHECK(engine_.memory().weights == 0, "an engine that was not loaded holds something");
        continue;
      }
      life_.results.clear();
      const bool usable = step_through();
      running_.clear();
      life_.before_unload = calls_so_far(simulator_);
      engine_.unload();
      if (usable) break;
    }
    return std::move(life_);
  }

 private:
  template <class Fn>
  bool attempt(const Fn& fn) {
    try {
      fn();
      return true;
    } catch (const Error& e) {
      life_.failures.push_back({e.code(), e.what()});
      return false;
    }
  }

  // As the scheduler does it: a step is submitted while the one before runs. False if the engine
  // cannot be used any more.
  bool step_through() {
    std::vector<RowResults>& done = life_.results;
    size_t end = steps_.size();
    while (done.size() < end) {
      const size_t next = done.size() + running_.size();
      if (happened_()) end = std::min(end, next + 2);
      const bool may_submit = next < end && running_.size() < kStepsInFlight;
      if (may_submit ? attempt([&] { running_.push_back(engine_.submit(steps_[next])); })
                     : finish(&done)) {
        continue;
      }
      // What still runs comes to its end, and all from the step that failed is done again.
      while (!running_.empty()) finish(nullptr);
      Batch again = steps_[done.size()];
      if (known_ != nullptr && !done.empty()) {
        name_choices(again, steps_[done.size() - 1], known_->results[done.size() - 1]);
      }
      if (!attempt([&] { done.push_back(engine_.step(again)); })) return false;
    }
    return true;
  }

  // The oldest step.
  bool finish(std::vector<RowResults>* results) {
    const std::unique_ptr<Engine::Step> step = std::move(running_.front());
    running_.pop_front();
    if (!attempt([&] { engine_.finish(); })) return false;
    if (results != nullptr) results->push_back(std::move(step->results));
    return true;
  }

  const Simulator& simulator_;
  const ModelSpec& spec_;
  const Life* const known_;
  const std::function<bool()>& happened_;
  const std::vector<Batch> steps_;
  Engine engine_;
  std::deque<std::unique_ptr<Engine::Step>> running_;
  Life life_;
};

Life live(const Simulator& simulator, const ModelSpec& spec, const Life* known,
          const std::function<bool()>& happened) {
  Life life;
  // A thread of its own, as an engine has: the current contexts of a thread end with it.
  std::thread([&] { life = Living(simulator, spec, known, happened).run(); }).join();
  return life;
}

bool same(const RowResults& a, const RowResults& b) {
  return a.candidate_ids == b.candidate_ids && same_bits(a.candidate_logits, b.candidate_logits) &&
         same_bits(a.id_logits, b.id_logits) && same_bits(a.full_logits, b.full_logits) &&
         a.log_sum_exp == b.log_sum_exp && a.finite == b.finite;
}

// --- the test -----------------------------------------------------------------------------------

// Functions whose failure nobody is told, because they are called to take something down.
bool takes_down(const std::string& name) {
  for (const char* part : {"Destroy", "Free", "Unload", "Release", "Pop"}) {
    if (contains(name, part)) return true;
  }
  return false;
}

class Failures {
 public:
  Failures() : model_(kGpu) {
    simulator_.clear_faults();
    before_ = simulator_.objects();
    healthy_ = live(simulator_, model_.spec(), nullptr, [] { return false; });
    allocations_ = simulator_.allocations();
    launches_ = simulator_.launches();
    counts_ = calls_so_far(simulator_);
    CHECK(healthy_.failures.empty(), "%s",
          healthy_.failures.empty() ? "" : healthy_.failures[0].message.c_str());
    nothing_is_left("no failure", 0, false);
  }

  void run() {
    // Of the calls of a function, all; in a hurry some.
    const uint64_t stride = quick ? 8 : 1;
    CHECK(allocations_ > 30 && launches_ > 50, "little is counted: %d allocations, %d kernels",
          static_cast<int>(allocations_), static_cast<int>(launches_));
    for (uint64_t n = 1; n <= allocations_; n += stride) allocation(n);
    for (uint64_t n = 1; n <= launches_; n += stride) kernel(n);
    uint64_t all = 0;
    for (size_t i = 0; i < counts_.size(); ++i) {
      const auto& [name, count] = counts_[i];
      for (uint64_t n = 1; n <= count; n += stride)
        call(name, n, n > healthy_.before_unload[i].second);
      all += count;
    }
    // Kernels that were stopped have reports that tell so.
    CHECK(simulator_.finding_count() == 0, "%d findings in kernels",
          static_cast<int>(simulator_.finding_count()));
    simulator_.clear_reports();
    std::printf("  failed once each: %s%d allocations, %d kernels, %d calls\n",
                quick ? "one in eight of " : "", static_cast<int>(allocations_),
                static_cast<int>(launches_), static_cast<int>(all));
  }

 private:
  void allocation(uint64_t n) {
    simulator_.clear_faults();
    simulator_.fail_allocation(n);
    const Life life =
        live(simulator_, model_.spec(), &healthy_, [&] { return simulator_.allocations() >= n; });
    went_on("allocation", n, life, 1, 1);
    for (const Failure& f : life.failures) {
      CHECK(f.code == "ALTIPLANO_OUT_OF_MEMORY" && contains(f.message, "asked for") &&
                contains(f.message, "GPU 1"),
            "allocation %d: %s, %s", static_cast<int>(n), f.code.c_str(), f.message.c_str());
    }
    nothing_is_left("allocation", n, false);
  }

  // Fails on the device, some time after it was launched, and the context with it.
  void kernel(uint64_t n) {
    simulator_.clear_faults();
    simulator_.fail_launch(n);
    const Life life =
        live(simulator_, model_.spec(), &healthy_, [&] { return simulator_.launches() >= n; });
    // All that is tried before the engine is loaded anew; a load that fails gives its context back.
    went_on("kernel", n, life, 1, kStepsInFlight + 2);
    for (const Failure& f : life.failures) {
      CHECK(f.code == "ALTIPLANO_CUDA_FAILED" && contains(f.message, "LAUNCH_FAILED") &&
                contains(f.message, "GPU 1"),
            "kernel %d: %s, %s", static_cast<int>(n), f.code.c_str(), f.message.c_str());
    }
    nothing_is_left("kernel", n, false);
  }

  void call(const std::string& name, uint64_t n, bool unloading) {
    simulator_.clear_faults();
    simulator_.fail_call(name.c_str(), n, CUDA_ERROR_UNKNOWN);
    const Life life = live(simulator_, model_.spec(), &healthy_,
                           [&] { return simulator_.calls(name.c_str()) >= n; });
    // A context is also made current in order to free something.
    const bool silent = unloading || takes_down(name) || name == "cuCtxPushCurrent";
    went_on(name.c_str(), n, life, silent ? 0 : 1, 1);
    const char* const names[] = {name.c_str(), "GPU 1", "CUDA_ERROR_UNKNOWN"};
    for (const Failure& f : life.failures) {
      CHECK(f.code == "ALTIPLANO_CUDA_FAILED", "%s, call %d: %s", name.c_str(), static_cast<int>(n),
            f.code.c_str());
      for (const char* part : names) {
        CHECK(contains(f.message, part), "%s, call %d: no \"%s\" in %s", name.c_str(),
              static_cast<int>(n), part, f.message.c_str());
      }
      if (name == "cuLaunchKernel") {
        CHECK(contains(f.message, "(kernel ") && contains(f.message, ", grid "), "%s",
              f.message.c_str());
      }
    }
    if (name == "cuDevicePrimaryCtxRelease") {
      simulator_.clear_faults();
      cuda::driver().cuDevicePrimaryCtxRelease(kGpu);  // once more: it did not take place
    }
    if (name == "cuGraphDestroy")
      before_.graphs = simulator_.objects().graphs;  // they have no context
    nothing_is_left(name.c_str(), n, silent);
  }

  void went_on(const char* what, uint64_t n, const Life& life, size_t least, size_t most) {
    const size_t failed = life.failures.size();
    CHECK(failed >= least && failed <= most, "%s %d: %d failures", what, static_cast<int>(n),
          static_cast<int>(failed));
    bool right = life.results.size() >= 2 && life.results.size() <= healthy_.results.size();
    for (size_t i = 0; right && i < life.results.size(); ++i) {
      right = same(life.results[i], healthy_.results[i]);
    }
    CHECK(right, "%s %d: the steps do not come out as without a failure (%s)", what,
          static_cast<int>(n), failed == 0 ? "" : life.failures.back().message.c_str());
  }

  // What could not be freed, because just that failed, goes with its context.
  void nothing_is_left(const char* what, uint64_t n, bool may_abandon) {
    const ptx_simulator_objects now = simulator_.objects();
    const auto same = [&](const char* objects, uint64_t a, uint64_t b) {
      CHECK(a == b, "%s %d: %d %s are left", what, static_cast<int>(n), static_cast<int>(b - a),
            objects);
    };
    same("contexts", before_.contexts, now.contexts);
    same("allocations", before_.allocations, now.allocations);
    same("bytes", before_.allocated_bytes, now.allocated_bytes);
    same("streams", before_.streams, now.streams);
    same("events", before_.events, now.events);
    same("modules", before_.modules, now.modules);
    same("graphs", before_.graphs, now.graphs);
    same("executable graphs", before_.graph_execs, now.graph_execs);
    if (!may_abandon) same("objects of a context that is gone", before_.abandoned, now.abandoned);
    before_.abandoned = now.abandoned;
  }

  const Simulator simulator_;
  const TinyModel model_;
  ptx_simulator_objects before_;
  Life healthy_;
  uint64_t allocations_ = 0, launches_ = 0;
  Counts counts_;
};

}  // namespace

void test_failures(CudaDevice& device) {
  if (!device.simulated()) return;  // faults are the simulator's
  Failures().run();
}

}  // namespace altiplano::test
