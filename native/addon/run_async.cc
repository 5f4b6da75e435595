#include "addon/run_async.h"

#include "util/error.h"

namespace altiplano::addon {

Runner::Runner(Napi::Env env) : env_(env) {
  napi_value name = Napi::String::New(env, "altiplano");
  const napi_status status = napi_create_threadsafe_function(
      env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, nullptr, call_js, &to_js_);
  if (status != napi_ok) throw Error("ALTIPLANO_INTERNAL", "no thread-safe function");
  napi_unref_threadsafe_function(env, to_js_);
  // Hooks run in reverse order: this one runs before the one that closes to_js_.
  napi_add_env_cleanup_hook(env, tear_down, this);
  try {
    thread_ = std::thread([this] { work(); });
  } catch (...) {
    stop();
    throw Error("ALTIPLANO_OUT_OF_MEMORY", "the system refuses another thread");
  }
}

Runner::~Runner() { stop(); }

void Runner::tear_down(void* self) { static_cast<Runner*>(self)->stop(); }

void Runner::stop() {
  if (to_js_ == nullptr) return;
  if (on_teardown_) on_teardown_();
  std::deque<std::unique_ptr<Job>> dropped;
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    dropped.swap(queue_);
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
  if (waiting_thread_.joinable()) waiting_thread_.join();
  napi_remove_env_cleanup_hook(env_, tear_down, this);
  napi_release_threadsafe_function(to_js_, napi_tsfn_abort);
  to_js_ = nullptr;
}

void Runner::post(std::function<void()> work, std::function<void(Napi::Env)> done,
                  std::function<void()> wait) {
  if (to_js_ == nullptr) throw Error("ALTIPLANO_DISPOSED", "the engine was disposed");
  if (wait && !waiting_thread_.joinable()) {
    try {
      waiting_thread_ = std::thread([this] { this->wait(); });
    } catch (...) {
      throw Error("ALTIPLANO_OUT_OF_MEMORY", "the system refuses another thread");
    }
  }
  auto job = std::make_unique<Job>(Job{this, std::move(work), std::move(done), std::move(wait)});
  {
    std::lock_guard lock(mutex_);
    queue_.push_back(std::move(job));
  }
  wake_.notify_all();
  // Only after what may throw; `done` cannot run before this function returns to the event loop.
  if (pending_++ == 0) napi_ref_threadsafe_function(env_, to_js_);
}

void Runner::work() {
  for (;;) {
    std::unique_ptr<Job> job;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] {
        return stopping_ || (!queue_.empty() && between_ < (queue_.front()->wait ? kStarted : 1));
      });
      if (stopping_) return;
      job = std::move(queue_.front());
      queue_.pop_front();
      if (job->wait) ++between_;
    }
    job->work();
    if (!job->wait) {
      deliver(std::move(job));
      continue;
    }
    {
      std::lock_guard lock(mutex_);
      started_.push_back(std::move(job));
    }
    wake_.notify_all();
  }
}

// Also when the runner stops: what was started is waited for.
void Runner::wait() {
  for (;;) {
    std::unique_ptr<Job> job;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return !started_.empty() || (stopping_ && between_ == 0); });
      if (started_.empty()) return;
      job = std::move(started_.front());
      started_.pop_front();
    }
    job->wait();
    {
      std::lock_guard lock(mutex_);
      --between_;
    }
    wake_.notify_all();
    deliver(std::move(job));
  }
}

void Runner::deliver(std::unique_ptr<Job> job) {
  if (napi_call_threadsafe_function(to_js_, job.get(), napi_tsfn_nonblocking) == napi_ok) {
    job.release();  // call_js owns it
  }
}

void Runner::call_js(napi_env env, napi_value, void*, void* data) {
  std::unique_ptr<Job> job(static_cast<Job*>(data));
  if (env == nullptr) return;  // the environment ends; the runner may be gone
  Runner& runner = *job->runner;
  if (--runner.pending_ == 0) napi_unref_threadsafe_function(env, runner.to_js_);
  try {
    const Napi::HandleScope scope(env);
    job->done(Napi::Env(env));
  } catch (...) {
    // A worker that is being terminated settles no promises: there is nobody to tell, and Node
    // cannot take a C++ exception.
  }
}

}  // namespace altiplano::addon
