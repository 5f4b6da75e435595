// Work off the JavaScript thread: a Runner is one native thread with a queue (and a second one
// where work goes on by itself, on a GPU), and run_async turns a function for that thread and a
// function for the way back into a promise. Models do not use libuv's pool: its few threads belong
// to the application's file and DNS work.
#pragma once

#include <napi.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <type_traits>
#include <utility>

#include "addon/errors.h"

namespace altiplano::addon {

class Runner {
 public:
  explicit Runner(Napi::Env env);
  ~Runner();
  Runner(const Runner&) = delete;
  Runner& operator=(const Runner&) = delete;

  // Runs `work` on the runner's thread, in order of the calls, and then `done` on the JavaScript
  // thread; neither may throw. Neither runs if the runner is stopped before. From the JavaScript
  // thread. A pending job keeps Node alive; an idle runner does not.
  //
  // With `wait`, that runs in between, on a second thread, in order too: `work` only starts
  // something, and `wait` waits for it. Up to `kStarted` such jobs are between the two; a job
  // without `wait` starts when none is.
  void post(std::function<void()> work, std::function<void(Napi::Env)> done,
            std::function<void()> wait = nullptr);
  static constexpr int kStarted = 2;

  // Called before the thread is joined when the JavaScript environment ends, so that a long job can
  // be told to stop.
  void on_teardown(std::function<void()> fn) { on_teardown_ = std::move(fn); }

  // Drops what is queued and joins the threads. Idempotent. From the JavaScript thread.
  void stop();

 private:
  struct Job {
    Runner* runner;
    std::function<void()> work;
    std::function<void(Napi::Env)> done;
    std::function<void()> wait;
  };

  static void call_js(napi_env env, napi_value, void*, void* data);
  static void tear_down(void* self);
  void work();
  void wait();
  void deliver(std::unique_ptr<Job> job);

  napi_env env_;
  napi_threadsafe_function to_js_ = nullptr;
  int pending_ = 0;  // on the JavaScript thread
  std::function<void()> on_teardown_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::unique_ptr<Job>> queue_;
  std::deque<std::unique_ptr<Job>> started_;
  int between_ = 0;  // jobs that were started and still wait
  bool stopping_ = false;
  std::thread thread_;
  std::thread waiting_thread_;  // from the first job with `wait` on
};

// Runs `T work()` on the runner's thread and resolves with `Napi::Value to_js(Napi::Env, T&)`, or
// rejects with what either of them threw. With `wait`, `void wait(T&)` runs in between, unless
// `work` threw; see Runner::post.
template <class Work, class ToJs>
Napi::Promise run_async(
    Napi::Env env, Runner& runner, Work work, ToJs to_js,
    std::type_identity_t<std::function<void(decltype(work())&)>> wait = nullptr) {
  using T = decltype(work());
  struct State {
    State(Napi::Env env, Work w, ToJs j) : deferred(env), work(std::move(w)), to_js(std::move(j)) {}
    Napi::Promise::Deferred deferred;
    Work work;
    ToJs to_js;
    std::optional<T> result;
    std::exception_ptr failure;
  };
  auto state = std::make_shared<State>(env, std::move(work), std::move(to_js));
  std::function<void()> waiting;
  if (wait) {
    waiting = [state, wait = std::move(wait)] {
      if (state->failure) return;
      try {
        wait(*state->result);
      } catch (...) {
        state->failure = std::current_exception();
      }
    };
  }
  runner.post(
      [state] {
        try {
          state->result.emplace(state->work());
        } catch (...) {
          state->failure = std::current_exception();
        }
      },
      [state](Napi::Env js) {
        try {
          if (state->failure) std::rethrow_exception(state->failure);
          state->deferred.Resolve(state->to_js(js, *state->result));
        } catch (...) {
          state->deferred.Reject(current_exception_to_js(js));
        }
      },
      std::move(waiting));
  return state->deferred.Promise();
}

// For work without a result.
struct Nothing {};

}  // namespace altiplano::addon
