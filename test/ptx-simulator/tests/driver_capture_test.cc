// The simulated driver: streams that are captured into graphs, and what must not be done meanwhile.
#include <future>

#include "driver_api.h"

namespace driver_test {
namespace {

CUstream make_stream(unsigned flags = CU_STREAM_NON_BLOCKING) {
  CUstream stream = nullptr;
  OK(cuStreamCreate(&stream, flags));
  return stream;
}

CUstreamCaptureStatus status_of(CUstream stream) {
  CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_INVALIDATED;
  OK(cuStreamIsCapturing(stream, &status));
  return status;
}

void begin(CUstream stream, CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_GLOBAL) {
  OK(cuStreamBeginCapture(stream, mode));
}

// The capture is invalid, and its end says so.
void expect_invalid(CUstream stream) {
  CHECK(status_of(stream) == CU_STREAM_CAPTURE_STATUS_INVALIDATED, "the capture is still valid");
  CUgraph graph = reinterpret_cast<CUgraph>(1);
  EXPECT(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(stream, &graph));
  CHECK(graph == nullptr, "a graph of an invalid capture");
  CHECK(status_of(stream) == CU_STREAM_CAPTURE_STATUS_NONE, "still captured");
}

void test_a_stream_becomes_a_graph() {
  Context context;
  Kernels kernels;
  const CUfunction add = kernels["add"];
  CUstream stream = make_stream();
  Buffer x(4);
  Pinned from(4), to(4);
  from.words()[0] = 1;
  to.words()[0] = 0;
  OK(cuMemsetD32(x, 0, 1));
  OK(cuCtxSynchronize());
  CHECK(status_of(stream) == CU_STREAM_CAPTURE_STATUS_NONE, "captured at the start");
  begin(stream);
  CHECK(status_of(stream) == CU_STREAM_CAPTURE_STATUS_ACTIVE, "not captured");
  OK(cuMemcpyHtoDAsync(x, from.data(), 4, stream));
  OK_LAUNCH(add, {.stream = stream}, CUdeviceptr{x}, CUdeviceptr{x}, 10u, 1u);
  OK_LAUNCH(add, {.stream = stream}, CUdeviceptr{x}, CUdeviceptr{x}, 100u, 1u);
  OK(cuMemcpyDtoHAsync(to.data(), x, 4, stream));
  OK(cuLaunchHostFunc(
      stream, [](void* p) { *static_cast<uint32_t*>(p) += 1000; }, to.data()));
  CUstreamCaptureStatus status;
  cuuint64_t id = 0;
  CUgraph captured = nullptr;
  const CUgraphNode* tail = nullptr;
  size_t count = 0;
  OK(cuStreamGetCaptureInfo(stream, &status, &id, &captured, &tail, nullptr, &count));
  CHECK(id != 0 && count == 1 && captured != nullptr, "%zu nodes at the end", count);
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuGraphDestroy(captured));
  CUgraph graph;
  OK(cuStreamEndCapture(stream, &graph));
  CHECK(graph == captured, "another graph");
  CHECK(to.words()[0] == 0 && x.read() == 0, "captured work was done");
  OK(cuGraphGetNodes(graph, nullptr, &count));
  CHECK(count == 5, "%zu nodes", count);
  CUgraphNode nodes[5];
  OK(cuGraphGetNodes(graph, nodes, &count));
  constexpr CUgraphNodeType kTypes[] = {CU_GRAPH_NODE_TYPE_MEMCPY, CU_GRAPH_NODE_TYPE_KERNEL,
                                        CU_GRAPH_NODE_TYPE_KERNEL, CU_GRAPH_NODE_TYPE_MEMCPY,
                                        CU_GRAPH_NODE_TYPE_HOST};
  for (int i = 0; i < 5; ++i) {
    CUgraphNodeType type;
    OK(cuGraphNodeGetType(nodes[i], &type));
    CHECK(type == kTypes[i], "node %d has type %d", i, type);
  }
  CUgraphExec exec;
  OK(cuGraphInstantiate(&exec, graph, 0));
  for (uint32_t i = 0; i < 4; ++i) {
    from.words()[0] = i;
    OK(cuGraphLaunch(exec, stream));
    OK(cuStreamSynchronize(stream));
    CHECK(to.words()[0] == 1110 + i, "%u", to.words()[0]);
  }
  // Captured again with other arguments, and updated: what a decoder does at each step.
  begin(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
  OK(cuMemcpyHtoDAsync(x, from.data(), 4, stream));
  OK_LAUNCH(add, {.stream = stream}, CUdeviceptr{x}, CUdeviceptr{x}, 20u, 1u);
  OK_LAUNCH(add, {.stream = stream}, CUdeviceptr{x}, CUdeviceptr{x}, 200u, 1u);
  OK(cuMemcpyDtoHAsync(to.data(), x, 4, stream));
  OK(cuLaunchHostFunc(
      stream, [](void*) {}, nullptr));
  CUgraph again;
  OK(cuStreamEndCapture(stream, &again));
  CUgraphExecUpdateResultInfo info;
  OK(cuGraphExecUpdate(exec, again, &info));
  OK(cuGraphLaunch(exec, stream));
  OK(cuStreamSynchronize(stream));
  CHECK(to.words()[0] == 223, "%u", to.words()[0]);
  OK(cuGraphExecDestroy(exec));
  OK(cuGraphDestroy(graph));
  OK(cuGraphDestroy(again));
  OK(cuStreamDestroy(stream));
}

// a -> (b in one stream, c in the other) -> d
void test_forks_and_joins() {
  Context context;
  Kernels kernels;
  const CUfunction add = kernels["add"];
  CUstream first = make_stream(), second = make_stream();
  CUevent fork, join;
  OK(cuEventCreate(&fork, CU_EVENT_DISABLE_TIMING));
  OK(cuEventCreate(&join, CU_EVENT_DISABLE_TIMING));
  Buffer x(4), y(4), z(4);
  const auto step = [&](CUstream stream, const Buffer& out, const Buffer& in, uint32_t value) {
    OK_LAUNCH(add, {.stream = stream}, CUdeviceptr{out}, CUdeviceptr{in}, value, 1u);
  };
  begin(first);
  OK(cuMemsetD32Async(x, 1, 1, first));
  OK(cuEventRecord(fork, first));
  OK(cuStreamWaitEvent(second, fork, 0));
  CHECK(status_of(second) == CU_STREAM_CAPTURE_STATUS_ACTIVE, "the second stream did not join");
  OK(cuEventSynchronize(join));  // never recorded
  EXPECT(CUDA_ERROR_CAPTURED_EVENT, cuEventSynchronize(fork));
  CUgraph graph;
  EXPECT(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED, cuStreamEndCapture(second, &graph));
  expect_invalid(first);  // an event of a capture was synchronised with

  begin(first);
  OK(cuMemsetD32Async(x, 1, 1, first));
  OK(cuEventRecord(fork, first));
  OK(cuStreamWaitEvent(second, fork, 0));
  step(first, y, x, 10);
  step(second, z, x, 100);
  OK(cuEventRecord(join, second));
  OK(cuStreamWaitEvent(first, join, 0));
  step(first, x, z, 0);
  OK(cuStreamEndCapture(first, &graph));
  CHECK(status_of(second) == CU_STREAM_CAPTURE_STATUS_NONE, "the second stream is still captured");
  size_t edges = 0;
  OK(cuGraphGetEdges(graph, nullptr, nullptr, nullptr, &edges));
  CHECK(edges == 4, "%zu edges", edges);
  CUgraphExec exec;
  OK(cuGraphInstantiate(&exec, graph, 0));
  for (int i = 0; i < 10; ++i) {
    OK(cuGraphLaunch(exec, first));
    OK(cuStreamSynchronize(first));
    CHECK(x.read() == 101 && y.read() == 11, "%u %u", x.read(), y.read());
  }
  OK(cuGraphExecDestroy(exec));
  OK(cuGraphDestroy(graph));

  // Work of the second stream that is not joined.
  begin(first);
  OK(cuEventRecord(fork, first));
  OK(cuStreamWaitEvent(second, fork, 0));
  step(second, z, x, 1);
  EXPECT(CUDA_ERROR_STREAM_CAPTURE_UNJOINED, cuStreamEndCapture(first, &graph));
  CHECK(graph == nullptr && status_of(second) == CU_STREAM_CAPTURE_STATUS_NONE, "still captured");

  // Two captures cannot become one, and work outside cannot be waited for.
  begin(first);
  begin(second);
  OK(cuEventRecord(fork, first));
  EXPECT(CUDA_ERROR_STREAM_CAPTURE_MERGE, cuStreamWaitEvent(second, fork, 0));
  expect_invalid(first);
  expect_invalid(second);
  OK(cuEventRecord(join, second));
  begin(first);
  EXPECT(CUDA_ERROR_STREAM_CAPTURE_ISOLATION, cuStreamWaitEvent(first, join, 0));
  expect_invalid(first);
  for (CUevent event : {fork, join}) OK(cuEventDestroy(event));
  for (CUstream stream : {first, second}) OK(cuStreamDestroy(stream));
  CHECK(live().graphs == 0, "graphs live");
}

void test_illegal_calls() {
  Context context;
  Kernels kernels;
  CUstream stream = make_stream(), blocking = make_stream(CU_STREAM_DEFAULT);
  CUevent event;
  OK(cuEventCreate(&event, 0));
  Buffer x(4);
  CUdeviceptr pointer;
  uint32_t word = 0;
  // Looking at the stream.
  begin(stream);
  EXPECT(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, cuStreamSynchronize(stream));
  EXPECT_LAUNCH(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, kernels["bounded"], {.stream = stream});
  expect_invalid(stream);
  begin(stream);
  EXPECT(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, cuStreamQuery(stream));
  expect_invalid(stream);
  begin(stream);
  EXPECT(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, cuCtxSynchronize());
  expect_invalid(stream);
  // What may synchronise behind the scenes.
  begin(stream);
  EXPECT(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, cuMemAlloc(&pointer, 4));
  expect_invalid(stream);
  begin(stream);
  EXPECT(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, cuMemcpyDtoH(&word, x, 4));
  expect_invalid(stream);
  begin(stream);
  EXPECT(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, cuEventQuery(event));
  expect_invalid(stream);
  // The default stream and a blocking one.
  begin(blocking, CU_STREAM_CAPTURE_MODE_RELAXED);
  CUstreamCaptureStatus status;
  EXPECT(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, cuStreamIsCapturing(nullptr, &status));
  CHECK(status_of(blocking) == CU_STREAM_CAPTURE_STATUS_ACTIVE, "a question ended the capture");
  EXPECT(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, cuMemsetD32Async(x, 0, 1, nullptr));
  expect_invalid(blocking);
  EXPECT(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
         cuStreamBeginCapture(nullptr, CU_STREAM_CAPTURE_MODE_GLOBAL));
  begin(stream);
  EXPECT(CUDA_ERROR_ILLEGAL_STATE, cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
  CUgraph graph;
  OK(cuStreamEndCapture(stream, &graph));
  OK(cuGraphDestroy(graph));
  EXPECT(CUDA_ERROR_ILLEGAL_STATE, cuStreamEndCapture(stream, &graph));
  // A stream that is destroyed takes its capture along.
  begin(stream);
  OK(cuStreamDestroy(stream));
  CHECK(live().graphs == 0, "graphs live");
  OK(cuStreamDestroy(blocking));
  OK(cuEventDestroy(event));
}

// Which threads a capture concerns.
void test_modes() {
  Context context;
  CUstream stream = make_stream();
  CUgraph graph;
  const auto allocate_elsewhere = [&](CUstreamCaptureMode mode) {
    return std::async(std::launch::async,
                      [&context, mode]() mutable {
                        CUdeviceptr pointer = 0;
                        cuda().cuCtxSetCurrent(context);
                        cuda().cuThreadExchangeStreamCaptureMode(&mode);
                        const CUresult code = cuda().cuMemAlloc(&pointer, 4);
                        cuda().cuMemFree(pointer);
                        return code;
                      })
        .get();
  };
  begin(stream, CU_STREAM_CAPTURE_MODE_GLOBAL);
  CUresult code = allocate_elsewhere(CU_STREAM_CAPTURE_MODE_GLOBAL);
  CHECK(code == CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "%s", name_of(code).c_str());
  expect_invalid(stream);
  for (const auto mode : {CU_STREAM_CAPTURE_MODE_THREAD_LOCAL, CU_STREAM_CAPTURE_MODE_RELAXED}) {
    begin(stream, CU_STREAM_CAPTURE_MODE_GLOBAL);
    code = allocate_elsewhere(mode);
    CHECK(code == CUDA_SUCCESS, "mode %d: %s", mode, name_of(code).c_str());
    OK(cuStreamEndCapture(stream, &graph));
    OK(cuGraphDestroy(graph));
    begin(stream, mode);
    code = allocate_elsewhere(CU_STREAM_CAPTURE_MODE_GLOBAL);
    CHECK(code == CUDA_SUCCESS, "capture in mode %d: %s", mode, name_of(code).c_str());
    OK(cuStreamEndCapture(stream, &graph));
    OK(cuGraphDestroy(graph));
  }
  // In relaxed mode nothing is forbidden.
  begin(stream, CU_STREAM_CAPTURE_MODE_RELAXED);
  CUdeviceptr pointer;
  OK(cuMemAlloc(&pointer, 4));
  OK(cuMemFree(pointer));
  OK(cuStreamEndCapture(stream, &graph));
  OK(cuGraphDestroy(graph));
  // The thread that begins a capture ends it, but in relaxed mode.
  begin(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
  std::thread([&] {
    OK(cuCtxSetCurrent(context));
    EXPECT(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, cuStreamEndCapture(stream, &graph));
  }).join();
  OK(cuStreamEndCapture(stream, &graph));
  OK(cuGraphDestroy(graph));
  OK(cuStreamDestroy(stream));
}

void test_capture_to_a_graph() {
  Context context;
  Kernels kernels;
  CUstream stream = make_stream();
  Buffer x(4);
  CUgraph graph, ended;
  CUgraphNode before;
  OK(cuGraphCreate(&graph, 0));
  OK(cuGraphAddEmptyNode(&before, graph, nullptr, 0));
  OK(cuStreamBeginCaptureToGraph(stream, graph, &before, nullptr, 1,
                                 CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
  OK(cuMemsetD32Async(x, 5, 1, stream));
  OK(cuStreamUpdateCaptureDependencies(stream, &before, nullptr, 1,
                                       CU_STREAM_SET_CAPTURE_DEPENDENCIES));
  OK_LAUNCH(kernels["bounded"], {.stream = stream});
  OK(cuStreamEndCapture(stream, &ended));
  CHECK(ended == graph, "another graph");
  size_t count = 0;
  OK(cuGraphNodeGetDependentNodes(before, nullptr, nullptr, &count));
  CHECK(count == 2, "%zu nodes depend on the first", count);
  OK(cuGraphDestroy(graph));
  OK(cuStreamDestroy(stream));
}

}  // namespace
}  // namespace driver_test

int main() {
  using namespace driver_test;  // NOLINT
  return run_all({TEST(test_a_stream_becomes_a_graph), TEST(test_forks_and_joins),
                  TEST(test_illegal_calls), TEST(test_modes), TEST(test_capture_to_a_graph)});
}
