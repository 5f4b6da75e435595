// A loaded model: weights, KV cache and workspace on one backend. Used by one thread at a time, but
// for cancel() and the progress counters.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <utility>

#include "backend.h"
#include "llama/config.h"
#include "llama/forward.h"
#include "llama/weights.h"

namespace altiplano {

// What an engine with such a backend will hold. Of a checked spec.
MemoryUse estimate(const ModelSpec& spec, const BackendSizes& sizes);

class Engine {
 public:
  // Reads and packs the weights on `backend`. Throws Error; the engine is then still empty.
  void load(const ModelSpec& spec, std::unique_ptr<Backend> backend);

  // A step that was submitted; its results are complete when it is finished.
  struct Step {
    Batch batch;
    RowResults results;
  };
  // One step; see backend.h. Throws Error and stays usable.
  RowResults step(Batch batch) {
    const std::unique_ptr<Step> step = submit(std::move(batch));
    finish();
    return std::move(step->results);
  }
  // The same in two parts: the step may still run when submit() returns, and another one be
  // submitted, up to kStepsInFlight, before finish() waits for the oldest. It throws what the step
  // failed with. From any one thread; load() and unload() only when all steps are finished.
  std::unique_ptr<Step> submit(Batch batch);
  void finish();

  // Makes the running load or step, and those that follow until resume(), stop with
  // ALTIPLANO_ABORTED. From any thread.
  void cancel();
  void resume();

  // Frees everything.
  void unload();

  const LoadMonitor& monitor() const { return monitor_; }
  // Bytes held now; zeros when nothing is loaded.
  MemoryUse memory() const { return memory_; }

 private:
  struct Loaded {
    Config config;
    std::unique_ptr<Backend> backend;  // destroyed last
    Weights weights;
    std::unique_ptr<Workspace> workspace;
  };

  LoadMonitor monitor_;
  std::optional<Loaded> loaded_;
  MemoryUse memory_;
  int64_t choices_ = 0;  // rows of the step before
  std::atomic<int> in_flight_{0};
};

}  // namespace altiplano
