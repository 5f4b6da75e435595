// The simulated driver: streams are asynchronous to the host and to each other, and ordered as CUDA
// says; a synchronisation that is missing shows.
#include <atomic>

#include "driver_api.h"

namespace driver_test {
namespace {

CUstream make_stream(unsigned flags = CU_STREAM_NON_BLOCKING) {
  CUstream stream = nullptr;
  OK(cuStreamCreate(&stream, flags));
  return stream;
}

// Kernels and copies have not happened when the call returns, and have when the host has waited.
void test_work_is_asynchronous() {
  Context context;
  Kernels kernels;
  Gate gate(kernels);
  CUstream stream = make_stream();
  Buffer out(4);
  Pinned host(4);
  host.words()[0] = 5;
  gate.launch_in(stream, out, 42);
  OK(cuMemcpyDtoHAsync(host.data(), out, 4, stream));
  EXPECT(CUDA_ERROR_NOT_READY, cuStreamQuery(stream));
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  CHECK(host.words()[0] == 5, "the copy happened before the kernel");
  EXPECT(CUDA_ERROR_NOT_READY, cuStreamQuery(stream));
  CHECK(live().pending == 2, "%zu pieces of work left", static_cast<size_t>(live().pending));
  gate.open();
  OK(cuStreamSynchronize(stream));
  CHECK(host.words()[0] == 42, "%u after synchronising", host.words()[0]);
  OK(cuStreamQuery(stream));
  OK(cuStreamDestroy(stream));
}

// Without any work before it, too: one copy in four is delayed until somebody waits.
void test_copies_are_delayed_at_random() {
  Context context;
  CUstream stream = make_stream();
  cuda().ptx_simulator_set("DELAY_US", "200000");
  Buffer out(4);
  Pinned host(4);
  int late = 0;
  OK(cuMemsetD32(out, 42, 1));
  OK(cuCtxSynchronize());
  for (int i = 0; i < 40; ++i) {
    host.words()[0] = 5;
    OK(cuMemcpyDtoHAsync(host.data(), out, 4, stream));
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    late += host.words()[0] == 5;
    OK(cuStreamSynchronize(stream));
    CHECK(host.words()[0] == 42, "not copied after synchronising");
  }
  CHECK(late >= 3, "only %d of 40 copies were late", late);
  cuda().ptx_simulator_set("DELAY_US", "2000");
  OK(cuStreamDestroy(stream));
}

void test_pageable_memory() {
  Context context;
  Kernels kernels;
  Gate gate(kernels);
  CUstream stream = make_stream();
  Buffer out(8);
  // Into pageable memory: done when the call returns.
  gate.launch_in(stream, out, 42);
  std::thread opener = gate.open_later();
  uint32_t word = 0;
  OK(cuMemcpyDtoHAsync(&word, out, 4, stream));
  CHECK(word == 42, "%u", word);
  opener.join();
  // Out of it: read when the call returns, though written later.
  gate.launch_in(stream, out, 1);
  word = 77;
  OK(cuMemcpyHtoDAsync(out, &word, 4, stream));
  word = 0;
  gate.open();
  OK(cuStreamSynchronize(stream));
  CHECK(out.read() == 77, "%u", out.read());
  // Large ones as well.
  std::vector<uint32_t> many(100000, 9);
  Buffer large(400000);
  OK(cuMemcpyHtoDAsync(large, many.data(), 400000, stream));
  std::fill(many.begin(), many.end(), 0);
  OK(cuStreamSynchronize(stream));
  CHECK(large.read() == 9 && large.read(99999) == 9, "%u", large.read(99999));
  // Out of pinned memory: read when it is the copy's turn.
  Pinned pinned(4);
  pinned.words()[0] = 1;
  gate.launch_in(stream, out, 1);
  OK(cuMemcpyHtoDAsync(out, pinned.data(), 4, stream));
  pinned.words()[0] = 2;
  gate.open();
  OK(cuStreamSynchronize(stream));
  CHECK(out.read() == 2, "%u", out.read());
  OK(cuStreamDestroy(stream));
}

void test_events_order_streams() {
  Context context;
  Kernels kernels;
  Gate gate(kernels);
  const CUfunction add = kernels["add"];
  CUstream first = make_stream(), second = make_stream();
  CUevent event;
  OK(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING));
  OK(cuEventQuery(event));  // never recorded: done
  Buffer x(4), y(4);
  for (const bool with_event : {true, false}) {
    OK(cuMemsetD32Async(x, 0, 1, first));
    OK(cuStreamSynchronize(first));
    gate.launch_in(first, x, 10);
    OK(cuEventRecord(event, first));
    if (with_event) OK(cuStreamWaitEvent(second, event, 0));
    OK_LAUNCH(add, {.stream = second}, CUdeviceptr{y}, CUdeviceptr{x}, 1u, 1u);
    EXPECT(CUDA_ERROR_NOT_READY, cuEventQuery(event));
    if (with_event)
      EXPECT(CUDA_ERROR_NOT_READY, cuStreamQuery(second));
    else
      OK(cuStreamSynchronize(second));  // while the other stream is busy
    gate.open();
    OK(cuEventSynchronize(event));
    OK(cuEventQuery(event));
    OK(cuStreamSynchronize(second));
    CHECK(y.read() == (with_event ? 11u : 1u), "%u, event %d", y.read(), with_event);
  }
  OK(cuEventDestroy(event));
  EXPECT(CUDA_ERROR_INVALID_HANDLE, cuEventRecord(event, first));
  OK(cuStreamDestroy(first));
  OK(cuStreamDestroy(second));
  EXPECT(CUDA_ERROR_INVALID_HANDLE, cuStreamSynchronize(second));
}

void test_elapsed_time() {
  Context context;
  Kernels kernels;
  Gate gate(kernels);
  CUevent begin, end, untimed;
  OK(cuEventCreate(&begin, 0));
  OK(cuEventCreate(&end, 0));
  OK(cuEventCreate(&untimed, CU_EVENT_DISABLE_TIMING));
  Buffer out(4);
  float time = -1;
  EXPECT(CUDA_ERROR_INVALID_HANDLE, cuEventElapsedTime(&time, begin, end));
  OK(cuEventRecord(begin, nullptr));
  OK(cuEventSynchronize(begin));
  gate.launch_in(nullptr, out, 1);
  OK(cuEventRecord(end, nullptr));
  OK(cuEventRecord(untimed, nullptr));
  EXPECT(CUDA_ERROR_NOT_READY, cuEventElapsedTime(&time, begin, end));
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  gate.open();
  OK(cuEventSynchronize(end));
  OK(cuEventElapsedTime(&time, begin, end));
  CHECK(time >= 5.f && time < 60000.f, "%f ms", static_cast<double>(time));
  OK(cuEventSynchronize(untimed));
  EXPECT(CUDA_ERROR_INVALID_HANDLE, cuEventElapsedTime(&time, begin, untimed));
  for (CUevent event : {begin, end, untimed}) OK(cuEventDestroy(event));
}

// The legacy default stream and blocking streams wait for each other; non-blocking ones do not.
void test_legacy_default_stream() {
  Context context;
  Kernels kernels;
  Gate gate(kernels);
  const CUfunction add = kernels["add"];
  Buffer x(4), y(4);
  for (const bool blocking : {true, false}) {
    CUstream stream = make_stream(blocking ? CU_STREAM_DEFAULT : CU_STREAM_NON_BLOCKING);
    for (const bool default_first : {true, false}) {
      OK(cuMemsetD32(x, 0, 1));
      OK(cuCtxSynchronize());
      gate.launch_in(default_first ? nullptr : stream, x, 10);
      const CUstream other = default_first ? stream : nullptr;
      OK_LAUNCH(add, {.stream = other}, CUdeviceptr{y}, CUdeviceptr{x}, 1u, 1u);
      if (blocking)
        EXPECT(CUDA_ERROR_NOT_READY, cuStreamQuery(other));
      else
        OK(cuStreamSynchronize(other));  // it has nothing to wait for
      gate.open();
      OK(cuCtxSynchronize());
      CHECK(y.read() == (blocking ? 11u : 1u), "%u, blocking %d, default first %d", y.read(),
            blocking, default_first);
    }
    OK(cuStreamDestroy(stream));
  }
}

void test_host_functions() {
  Context context;
  Kernels kernels;
  Gate gate(kernels);
  CUstream stream = make_stream();
  static std::atomic<int> order;
  order = 0;
  struct Data {
    volatile uint32_t* word;
    uint32_t seen = 0;
    std::atomic<int> place = 0;
    CUresult inside = CUDA_SUCCESS;
  };
  Pinned host(4);
  host.words()[0] = 0;
  Data data{host.words()}, second{host.words()};
  const CUhostFn function = [](void* p) {
    auto* d = static_cast<Data*>(p);
    d->seen = *d->word;
    d->place = ++order;
    d->inside = cuda().cuCtxSynchronize();  // not permitted here
  };
  gate.launch_in(stream, reinterpret_cast<CUdeviceptr>(host.data()), 42);
  OK(cuLaunchHostFunc(stream, function, &data));
  OK(cuStreamAddCallback(
      stream,
      [](CUstream, CUresult status, void* p) {
        auto* d = static_cast<Data*>(p);
        d->inside = status;
        d->place = ++order;
      },
      &second, 0));
  CHECK(data.place == 0, "the function was called before the kernel ended");
  gate.open();
  OK(cuStreamSynchronize(stream));
  CHECK(data.seen == 42 && data.place == 1 && second.place == 2, "saw %u at place %d, %d",
        data.seen, data.place.load(), second.place.load());
  CHECK(data.inside == CUDA_ERROR_NOT_PERMITTED, "%s", name_of(data.inside).c_str());
  CHECK(second.inside == CUDA_SUCCESS, "%s", name_of(second.inside).c_str());
  OK(cuStreamDestroy(stream));
}

void test_properties_of_streams() {
  Context context;
  CUstream stream;
  OK(cuStreamCreateWithPriority(&stream, CU_STREAM_NON_BLOCKING, -100));
  int priority = 1;
  unsigned flags = 0;
  CUcontext owner;
  OK(cuStreamGetPriority(stream, &priority));
  OK(cuStreamGetFlags(stream, &flags));
  OK(cuStreamGetCtx(stream, &owner));
  CHECK(priority == -5 && flags == CU_STREAM_NON_BLOCKING && owner == context, "%d %u", priority,
        flags);
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuStreamCreate(&stream, 16));
  EXPECT(CUDA_ERROR_INVALID_HANDLE, cuStreamSynchronize(reinterpret_cast<CUstream>(&flags)));
  OK(cuStreamSynchronize(CU_STREAM_PER_THREAD));
  Buffer word(4);
  OK(cuMemsetD32Async(word, 3, 1, CU_STREAM_PER_THREAD));
  OK(cuStreamSynchronize(CU_STREAM_PER_THREAD));
  CHECK(word.read() == 3, "%u", word.read());
}

// A stream may be destroyed before its work is done; the work is done nevertheless.
void test_a_stream_destroyed_early() {
  Context context;
  Kernels kernels;
  Gate gate(kernels);
  CUstream stream = make_stream(CU_STREAM_DEFAULT);
  Buffer out(4);
  gate.launch_in(stream, out, 42);
  OK(cuStreamDestroy(stream));
  EXPECT(CUDA_ERROR_INVALID_HANDLE, cuStreamQuery(stream));
  std::thread opener = gate.open_later();
  CHECK(out.read() == 42, "%u", out.read());  // the default stream waits for it, too
  opener.join();
  CHECK(live().streams == 0 && live().pending == 0, "streams or work left");
}

// Memory that is freed waits for the work that uses it.
void test_freeing_waits() {
  Context context;
  Kernels kernels;
  Gate gate(kernels);
  CUstream stream = make_stream();
  CUdeviceptr out;
  OK(cuMemAlloc(&out, 4));
  gate.launch_in(stream, out, 42);
  std::thread opener = gate.open_later();
  OK(cuMemFree(out));
  OK(cuStreamQuery(stream));
  opener.join();
  CHECK(cuda().ptx_simulator_finding_count() == 0, "there are findings");
  OK(cuStreamDestroy(stream));
}

// Several threads, each with streams and memory of its own, in one context.
void test_threads() {
  Context context;
  Kernels kernels;
  const CUfunction add = kernels["add"];
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      if (cuda().cuCtxSetCurrent(context) != CUDA_SUCCESS) ++wrong;
      for (uint32_t i = 0; i < 10; ++i) {
        CUstream stream;
        CUdeviceptr a;
        std::vector<uint32_t> values(100, t);
        wrong += cuda().cuStreamCreate(&stream, i % 2) != CUDA_SUCCESS;
        wrong += cuda().cuMemAlloc(&a, 400) != CUDA_SUCCESS;
        wrong += cuda().cuMemcpyHtoDAsync(a, values.data(), 400, stream) != CUDA_SUCCESS;
        for (int k = 0; k < 5; ++k)
          wrong += launch(add, {.blocks = 4, .stream = stream}, a, a, 1000u, 100u) != CUDA_SUCCESS;
        wrong += cuda().cuMemcpyDtoHAsync(values.data(), a, 400, stream) != CUDA_SUCCESS;
        for (const uint32_t value : values) wrong += value != t + 5000;
        wrong += cuda().cuMemFree(a) != CUDA_SUCCESS;
        wrong += cuda().cuStreamDestroy(stream) != CUDA_SUCCESS;
      }
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0, "%d wrong", wrong.load());
  CHECK(live().allocations == 0 && live().streams == 0, "something is left");
  CHECK(cuda().ptx_simulator_report_count() == 200, "%zu launches",
        cuda().ptx_simulator_report_count());
}

}  // namespace
}  // namespace driver_test

int main() {
  using namespace driver_test;  // NOLINT
  return run_all({TEST(test_work_is_asynchronous), TEST(test_copies_are_delayed_at_random),
                  TEST(test_pageable_memory), TEST(test_events_order_streams),
                  TEST(test_elapsed_time), TEST(test_legacy_default_stream),
                  TEST(test_host_functions), TEST(test_properties_of_streams),
                  TEST(test_a_stream_destroyed_early), TEST(test_freeing_waits),
                  TEST(test_threads)});
}
