#include "addon/engine.h"

#include <algorithm>
#include <memory>
#include <mutex>

#include "addon/devices.h"
#include "addon/errors.h"
#include "addon/from_js.h"
#include "addon/run_async.h"
#include "llama/engine.h"
#include "util/error.h"

namespace altiplano::addon {
namespace {

Napi::Object memory_to_js(Napi::Env env, const MemoryUse& memory) {
  Napi::Object o = Napi::Object::New(env);
  o.Set("weightsBytes", Napi::Number::New(env, static_cast<double>(memory.weights)));
  o.Set("kvBytes", Napi::Number::New(env, static_cast<double>(memory.kv)));
  o.Set("workspaceBytes", Napi::Number::New(env, static_cast<double>(memory.workspace)));
  return o;
}

template <class T>
Napi::Value array_to_js(Napi::Env env, const std::vector<T>& values) {
  auto array = Napi::TypedArrayOf<T>::New(env, values.size());
  std::copy(values.begin(), values.end(), array.Data());
  return array;
}

Napi::Value results_to_js(Napi::Env env, const RowResults& results) {
  Napi::Object o = Napi::Object::New(env);
  o.Set("candidateIds", array_to_js(env, results.candidate_ids));
  o.Set("candidateLogits", array_to_js(env, results.candidate_logits));
  o.Set("logSumExp", array_to_js(env, results.log_sum_exp));
  o.Set("scaledLogSumExp", array_to_js(env, results.scaled_log_sum_exp));
  o.Set("idLogits", array_to_js(env, results.id_logits));
  o.Set("fullLogits", array_to_js(env, results.full_logits));
  o.Set("finite", array_to_js(env, results.finite));
  return o;
}

// An engine and what is needed to cancel the jobs that were submitted before a call of cancel().
struct Model {
  Engine engine;
  std::mutex mutex;
  uint64_t cancels = 0;

  void cancel() {
    std::lock_guard lock(mutex);
    ++cancels;
    engine.cancel();
  }

  // At the start of a job that was submitted after `seen` cancellations.
  void start(uint64_t seen) {
    std::lock_guard lock(mutex);
    if (seen != cancels) throw Error("ALTIPLANO_ABORTED", "cancelled before it started");
    engine.resume();
  }
};

static_assert(Runner::kStarted == kStepsInFlight);

class EngineWrap : public Napi::ObjectWrap<EngineWrap> {
 public:
  explicit EngineWrap(const Napi::CallbackInfo& info)
      : Napi::ObjectWrap<EngineWrap>(info), model_(std::make_shared<Model>()) {
    guarded(info.Env(), [&] { runner_ = std::make_unique<Runner>(info.Env()); });
    runner_->on_teardown([model = model_] { model->cancel(); });
  }

  ~EngineWrap() override {
    runner_.reset();
    report_memory(Env(), 0);
  }

  Napi::Value load(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&] {
      // Chosen on this thread, because JavaScript may change the environment meanwhile.
      const cpu::Kernels* kernels = &cpu::select_kernels();
      ModelSpec spec = model_spec_from_js(info[0]);
      const bool on_gpu = spec.config.gpu >= 0;
      steps_overlap_ = on_gpu;
      return submit(
          info.Env(),
          [model = model_, kernels, spec = std::move(spec)] {
            check(spec);  // before it decides how many threads are started
            model->engine.load(spec, make_backend(spec.config, *kernels));
            return model->engine.memory();
          },
          [this, on_gpu](Napi::Env env, const MemoryUse& m) {
            // What lies on a GPU is no reason to collect garbage.
            report_memory(env, on_gpu ? 0 : static_cast<int64_t>(m.weights + m.kv + m.workspace));
            return env.Undefined();
          });
    });
  }

  Napi::Value step(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&] {
      using Step = std::unique_ptr<Engine::Step>;
      const auto finish = [model = model_](Step&) { model->engine.finish(); };
      auto start = [model = model_, finish, batch = batch_from_js(info[0]),
                    overlap = steps_overlap_]() mutable {
        Step step = model->engine.submit(std::move(batch));
        if (!overlap) finish(step);
        return step;
      };
      const auto to_js = [](Napi::Env env, Step& step) {
        return results_to_js(env, step->results);
      };
      if (!steps_overlap_) return submit(info.Env(), std::move(start), to_js);
      return submit(info.Env(), std::move(start), to_js, finish);
    });
  }

  Napi::Value dispose(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    return guarded(env, [&]() -> Napi::Value {
      if (disposed_) return disposal_.Value();
      const Napi::Promise promise = run_async(
          env, *runner_,
          [model = model_] {
            model->engine.unload();
            return Nothing{};
          },
          [this](Napi::Env js, Nothing&) {
            [[maybe_unused]] const Napi::Value self = Value();  // alive in this handle scope
            Unref();
            runner_->stop();
            report_memory(js, 0);
            return js.Undefined();
          });
      Ref();  // until the promise settles
      disposed_ = true;
      disposal_ = Napi::Persistent(promise.As<Napi::Object>());
      return promise;
    });
  }

  Napi::Value cancel(const Napi::CallbackInfo& info) {
    model_->cancel();
    return info.Env().Undefined();
  }

  Napi::Value progress(const Napi::CallbackInfo& info) {
    const LoadMonitor& monitor = model_->engine.monitor();
    Napi::Object o = Napi::Object::New(info.Env());
    o.Set("doneBytes", Napi::Number::New(info.Env(), static_cast<double>(monitor.done_bytes)));
    o.Set("totalBytes", Napi::Number::New(info.Env(), static_cast<double>(monitor.total_bytes)));
    return o;
  }

 private:
  // run_async with cancellation; the object stays alive until the promise settles.
  template <class Work, class ToJs>
  Napi::Value submit(Napi::Env env, Work work, ToJs to_js,
                     std::type_identity_t<std::function<void(decltype(work())&)>> wait = nullptr) {
    if (disposed_) throw Error("ALTIPLANO_DISPOSED", "the engine was disposed");
    uint64_t cancels;
    {
      std::lock_guard lock(model_->mutex);
      cancels = model_->cancels;
    }
    using T = decltype(work());
    struct Outcome {
      std::optional<T> value;
      std::exception_ptr failure;
    };
    std::function<void(Outcome&)> waiting;
    if (wait) {
      waiting = [wait = std::move(wait)](Outcome& outcome) {
        if (outcome.failure) return;
        try {
          wait(*outcome.value);
        } catch (...) {
          outcome.failure = std::current_exception();
        }
      };
    }
    const Napi::Promise promise = run_async(
        env, *runner_,
        [model = model_, cancels, work = std::move(work)]() mutable {
          Outcome outcome;
          try {
            model->start(cancels);
            outcome.value.emplace(work());
          } catch (...) {
            outcome.failure = std::current_exception();
          }
          return outcome;
        },
        [this, to_js = std::move(to_js)](Napi::Env js, Outcome& outcome) -> Napi::Value {
          [[maybe_unused]] const Napi::Value self = Value();  // alive in this handle scope
          Unref();
          if (outcome.failure) std::rethrow_exception(outcome.failure);
          return to_js(js, *outcome.value);
        },
        std::move(waiting));
    Ref();
    return promise;
  }

  // Tells V8 how much memory hangs on this object.
  void report_memory(Napi::Env env, int64_t bytes) {
    Napi::MemoryManagement::AdjustExternalMemory(env, bytes - reported_bytes_);
    reported_bytes_ = bytes;
  }

  std::shared_ptr<Model> model_;
  std::unique_ptr<Runner> runner_;
  bool steps_overlap_ = false;  // a GPU's: one is launched while the one before runs
  bool disposed_ = false;
  Napi::ObjectReference disposal_;  // the promise of dispose()
  int64_t reported_bytes_ = 0;
};

}  // namespace

Napi::Function engine_class(Napi::Env env) {
  using E = EngineWrap;
  return E::DefineClass(
      env, "Engine",
      {E::InstanceMethod("load", &E::load), E::InstanceMethod("step", &E::step),
       E::InstanceMethod("dispose", &E::dispose), E::InstanceMethod("cancel", &E::cancel),
       E::InstanceMethod("progress", &E::progress)});
}

Napi::Value estimate(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const ModelSpec spec = model_spec_from_js(info[0]);
    check(spec);
    return memory_to_js(info.Env(), altiplano::estimate(spec, *backend_sizes(spec.config)));
  });
}

}  // namespace altiplano::addon
