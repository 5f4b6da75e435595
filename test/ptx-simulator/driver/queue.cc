#include "driver/queue.h"

#include <csignal>
#include <system_error>

namespace ptx_simulator::driver {
namespace {

bool all_done(const Task& task) {
  for (const auto& other : task.after)
    if (!other->done) return false;
  return true;
}

// One task in four is delayed.
void delay(Driver& state, Lock& lock, const Stream& stream, const Task& task) {
  const uint64_t most = state.settings.delay_us;
  if (task.wanted || most == 0) return;
  const uint64_t random = random_by_seed(state.settings.seed, stream.id, task.number);
  if (random % 4 != 0) return;
  const auto time = std::chrono::microseconds(1 + (random >> 8) % most);
  state.changed.wait_for(lock, time, [&] { return task.wanted || state.exiting; });
}

void work(std::shared_ptr<Stream> stream) {
  Driver& state = driver();
  Lock lock(state.mutex);
  for (;;) {
    state.changed.wait(lock, [&] { return !stream->queue.empty() || stream->closed; });
    if (stream->queue.empty()) break;
    const std::shared_ptr<Task> task = stream->queue.front();
    state.changed.wait(lock, [&] { return all_done(*task); });
    delay(state, lock, *stream, *task);
    // A process that ends does not wait for its device.
    if (state.exiting) state.changed.wait(lock, [] { return false; });

    if (task->body && (task->always || stream->context->error == CUDA_SUCCESS)) {
      lock.unlock();
      task->body();
      lock.lock();
    }
    // What the body holds may be large, or the last reference to an object.
    std::function<void()> body = std::move(task->body);
    task->body = nullptr;
    task->after.clear();
    task->done = true;
    task->finished = std::chrono::steady_clock::now();
    --state.pending;
    stream->queue.pop_front();
    state.changed.notify_all();
    lock.unlock();
    body = nullptr;
    lock.lock();
  }
  stream->has_worker = false;
  stream->last = nullptr;
  std::erase(stream->context->draining, stream);
  // A stream and its context hold each other until here.
  stream->context = nullptr;
}

// A worker takes no signals: they are for the threads of the application.
void start_worker(std::shared_ptr<Stream> stream) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    std::thread(work, std::move(stream)).detach();
  } catch (const std::system_error&) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    fail(CUDA_ERROR_OPERATING_SYSTEM, "no thread for a stream");
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

}  // namespace

uint64_t random_by_seed(uint64_t seed, uint64_t kind, uint64_t n) {
  // splitmix64 over the three.
  uint64_t x = seed * 0x9E3779B97F4A7C15u + kind * 0xBF58476D1CE4E5B9u + n;
  for (int round = 0; round < 2; ++round) {
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    x ^= x >> 31;
  }
  return x;
}

std::shared_ptr<Stream> make_stream(Driver& state, std::shared_ptr<Context> context, unsigned flags,
                                    int priority) {
  auto stream = std::make_shared<Stream>();
  stream->context = std::move(context);
  stream->flags = flags;
  stream->priority = priority;
  stream->id = state.next_id++;
  return stream;
}

std::vector<std::shared_ptr<Stream>> streams_of(Driver& state,
                                                const std::shared_ptr<Context>& context) {
  std::vector<std::shared_ptr<Stream>> found;
  if (context->legacy != nullptr) found.push_back(context->legacy);
  for (const auto& [thread, stream] : context->per_thread) found.push_back(stream);
  for (const auto& [handle, stream] : state.streams)
    if (stream->context == context) found.push_back(stream);
  for (const auto& stream : context->draining) found.push_back(stream);
  return found;
}

std::shared_ptr<Task> submit(Driver& state, Stream& stream, std::function<void()> body,
                             TaskOptions options) {
  if (!stream.has_worker) start_worker(stream.shared_from_this());
  stream.has_worker = true;
  auto task = std::make_shared<Task>();
  task->body = std::move(body);
  task->always = options.always;
  task->number = stream.submitted++;
  const auto add = [&](const std::shared_ptr<Task>& other) {
    if (other != nullptr && !other->done) task->after.push_back(other);
  };
  add(stream.last);
  for (const auto& other : options.after) add(other);
  if (stream.is_legacy) {
    // The legacy stream waits for all blocking streams, and they wait for it.
    for (const auto& other : streams_of(state, stream.context))
      if (other->blocking()) add(other->last);
  } else if (stream.blocking() && stream.context->legacy != nullptr) {
    add(stream.context->legacy->last);
  }
  stream.last = task;
  stream.queue.push_back(task);
  ++state.pending;
  state.changed.notify_all();
  if (options.wanted) want(state, task);
  return task;
}

void want(Driver& state, const std::shared_ptr<Task>& task) {
  if (task == nullptr || task->done || task->wanted) return;
  std::vector<Task*> open{task.get()};
  while (!open.empty()) {
    Task* next = open.back();
    open.pop_back();
    if (next->wanted || next->done) continue;
    next->wanted = true;
    for (const auto& before : next->after) open.push_back(before.get());
  }
  state.changed.notify_all();
}

void wait_for(Driver& state, Lock& lock, const std::shared_ptr<Task>& task) {
  if (task == nullptr) return;
  want(state, task);
  state.changed.wait(lock, [&] { return task->done; });
}

void wait_for_all(Driver& state, Lock& lock, const std::shared_ptr<Context>& context) {
  std::vector<std::shared_ptr<Task>> tasks;
  for (const auto& stream : streams_of(state, context)) tasks.push_back(stream->last);
  for (const auto& task : tasks) want(state, task);
  for (const auto& task : tasks) wait_for(state, lock, task);
}

void close(Driver& state, Stream& stream) {
  stream.closed = true;
  if (!stream.has_worker)
    stream.context = nullptr;
  else
    stream.context->draining.push_back(stream.shared_from_this());
  state.changed.notify_all();
}

}  // namespace ptx_simulator::driver
