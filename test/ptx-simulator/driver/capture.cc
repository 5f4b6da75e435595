#include "driver/capture.h"

#include <algorithm>

#include "driver/driver.h"
#include "driver/queue.h"

namespace ptx_simulator::driver {
namespace {

// The capture that a stream belongs to, if it is still going on.
void require_valid(const Capture& capture) {
  require(capture.is_valid, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "the capture became invalid");
}

std::vector<std::shared_ptr<Stream>> streams_of(Driver& state,
                                                const std::shared_ptr<Capture>& capture) {
  std::vector<std::shared_ptr<Stream>> found;
  for (const auto& [handle, stream] : state.streams)
    if (stream->capture == capture) found.push_back(stream);
  return found;
}

// Ends a capture. Streams that took part are ordinary ones again.
void finish(Driver& state, const std::shared_ptr<Capture>& capture) {
  for (const auto& stream : streams_of(state, capture)) {
    stream->capture = nullptr;
    stream->capture_tail.clear();
  }
  for (const auto& [handle, event] : state.events)
    if (event->capture == capture) {
      event->capture = nullptr;
      event->capture_tail.clear();
    }
  std::erase(state.captures, capture);
  capture->graph->is_captured = false;
}

void begin_capture(Call& call, CUstream handle, CUstreamCaptureMode mode,
                   std::shared_ptr<Graph> graph, std::vector<GraphNode*> tail) {
  require(mode <= CU_STREAM_CAPTURE_MODE_RELAXED);
  auto stream = find_stream(call, handle);
  require(stream->handle != nullptr, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
          "default streams cannot be captured here");
  require(stream->capture == nullptr, CUDA_ERROR_ILLEGAL_STATE, "the stream is captured already");
  auto capture = std::make_shared<Capture>();
  capture->owns_graph = graph == nullptr;
  capture->graph = graph != nullptr ? std::move(graph) : make_graph(call.state);
  capture->graph->is_captured = true;
  capture->origin = stream;
  capture->mode = mode;
  capture->thread = std::this_thread::get_id();
  capture->id = call.state.next_id++;
  call.state.captures.push_back(capture);
  stream->capture = capture;
  stream->capture_tail = std::move(tail);
}

}  // namespace

std::shared_ptr<Task> submit_or_capture(Call& call, const std::shared_ptr<Stream>& stream,
                                        Work work) {
  if (stream->capture != nullptr) {
    require_valid(*stream->capture);
    GraphNode* node =
        add_node(call.state, *stream->capture->graph, stream->capture_tail, std::move(work));
    stream->capture_tail = {node};
    return nullptr;
  }
  check_no_implicit_dependency(call.state, *stream);
  // A host function tells the host that the work before it is done: it is waited for.
  const bool is_host_function = std::holds_alternative<HostWork>(work);
  auto shared = std::make_shared<const Work>(std::move(work));
  return submit(call.state, *stream,
                [context = stream->context, shared] { execute(context, *shared); },
                {.after = {}, .always = false, .wanted = is_host_function});
}

void check_not_captured(Driver& state, const char* function) {
  const CUstreamCaptureMode mode = thread_state().capture_mode;
  if (mode == CU_STREAM_CAPTURE_MODE_RELAXED) return;
  const auto self = std::this_thread::get_id();
  bool forbidden = false;
  for (const auto& capture : state.captures) {
    if (capture->mode == CU_STREAM_CAPTURE_MODE_RELAXED || !capture->is_valid) continue;
    const bool global =
        mode == CU_STREAM_CAPTURE_MODE_GLOBAL && capture->mode == CU_STREAM_CAPTURE_MODE_GLOBAL;
    if (!global && capture->thread != self) continue;
    capture->is_valid = false;
    forbidden = true;
  }
  require(!forbidden, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, function);
}

void check_not_captured(const Stream& stream) {
  if (stream.capture == nullptr) return;
  require_valid(*stream.capture);
  stream.capture->is_valid = false;
  fail(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "the stream is captured");
}

void check_not_captured(Driver& state, const Context& context) {
  bool forbidden = false;
  for (const auto& [handle, stream] : state.streams) {
    if (stream->capture == nullptr || stream->context.get() != &context) continue;
    stream->capture->is_valid = false;
    forbidden = true;
  }
  require(!forbidden, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "a stream of the context is captured");
}

void check_no_implicit_dependency(Driver& state, const Stream& stream, bool invalidates) {
  if (!stream.is_legacy) return;
  bool forbidden = false;
  for (const auto& [handle, other] : state.streams) {
    if (other->capture == nullptr || other->context != stream.context || !other->blocking())
      continue;
    if (invalidates) other->capture->is_valid = false;
    forbidden = true;
  }
  require(!forbidden, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT,
          "the legacy default stream would wait for a stream that is captured");
}

void record_captured(const std::shared_ptr<Stream>& stream, Event& event) {
  require_valid(*stream->capture);
  event.task = nullptr;
  event.capture = stream->capture;
  event.capture_tail = stream->capture_tail;
}

void wait_captured(const std::shared_ptr<Stream>& stream, const Event& event) {
  require_valid(*event.capture);
  if (stream->capture == nullptr) {
    require(!stream->is_legacy, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT,
            "the legacy default stream cannot join a capture");
    // What was submitted to the stream before stays outside of the graph.
    stream->capture = event.capture;
    stream->capture_tail = event.capture_tail;
    return;
  }
  if (stream->capture != event.capture) {
    stream->capture->is_valid = event.capture->is_valid = false;
    fail(CUDA_ERROR_STREAM_CAPTURE_MERGE, "two captures would become one");
  }
  for (GraphNode* node : event.capture_tail) {
    auto& tail = stream->capture_tail;
    if (std::find(tail.begin(), tail.end(), node) == tail.end()) tail.push_back(node);
  }
}

void abandon(Driver& state, Stream& stream) {
  const auto capture = stream.capture;
  if (capture == nullptr) return;
  capture->is_valid = false;
  stream.capture = nullptr;
  stream.capture_tail.clear();
  // Without its first stream nobody can end it.
  if (capture->origin.lock().get() != &stream) return;
  finish(state, capture);
  if (capture->owns_graph) forget(state, *capture->graph);
}

}  // namespace ptx_simulator::driver

using namespace ptx_simulator::driver;  // NOLINT: the API's functions are in no namespace

extern "C" {

CUresult CUDAAPI cuStreamBeginCapture(CUstream stream, CUstreamCaptureMode mode) {
  return api(__func__, kUsable,
             [&](Call& call) { begin_capture(call, stream, mode, nullptr, {}); });
}

CUresult CUDAAPI cuStreamBeginCaptureToGraph(CUstream stream, CUgraph graph,
                                             const CUgraphNode* dependencies,
                                             const CUgraphEdgeData*, size_t count,
                                             CUstreamCaptureMode mode) {
  return api(__func__, kUsable, [&](Call& call) {
    auto target = call.state.graphs.find(graph);
    require(target != nullptr && !target->is_captured, "no such graph");
    require(count == 0 || dependencies != nullptr);
    std::vector<GraphNode*> tail;
    for (size_t i = 0; i < count; ++i) {
      const auto node = call.state.nodes.find(dependencies[i]);
      require(node != call.state.nodes.end() && node->second->graph == target.get(),
              "a dependency is no node of the graph");
      tail.push_back(node->second);
    }
    begin_capture(call, stream, mode, std::move(target), std::move(tail));
  });
}

CUresult CUDAAPI cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode* mode) {
  return api(__func__, kNothing, [&](Call&) {
    require(mode != nullptr && *mode <= CU_STREAM_CAPTURE_MODE_RELAXED);
    std::swap(*mode, thread_state().capture_mode);
  });
}

CUresult CUDAAPI cuStreamEndCapture(CUstream handle, CUgraph* graph) {
  // A capture ends in a context that has failed, too, without a graph.
  return api(__func__, kInit | kContext | kHealthyAfter, [&](Call& call) {
    require(graph != nullptr);
    *graph = nullptr;
    auto stream = find_stream(call, handle);
    const auto capture = stream->capture;
    if (capture != nullptr && call.context->error != CUDA_SUCCESS) capture->is_valid = false;
    require(capture != nullptr, CUDA_ERROR_ILLEGAL_STATE, "the stream is not captured");
    require(capture->origin.lock() == stream, CUDA_ERROR_STREAM_CAPTURE_UNMATCHED,
            "the capture began with another stream");
    require(capture->mode == CU_STREAM_CAPTURE_MODE_RELAXED ||
                capture->thread == std::this_thread::get_id(),
            CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, "another thread began the capture");
    // Every node must lead to the first stream again: it is in its tail, or others depend on it.
    // Forks without a node of their own have nothing to join.
    std::vector<const GraphNode*> open;
    for (const auto& node : capture->graph->nodes) open.push_back(node.get());
    for (const auto& node : capture->graph->nodes)
      for (const GraphNode* other : node->dependencies) std::erase(open, other);
    for (const GraphNode* node : stream->capture_tail) std::erase(open, node);
    std::vector<const GraphNode*> elsewhere;
    for (const auto& other : streams_of(call.state, capture))
      if (other != stream)
        for (const GraphNode* node : other->capture_tail)
          if (std::find(open.begin(), open.end(), node) != open.end()) elsewhere.push_back(node);
    finish(call.state, capture);
    if (capture->is_valid && elsewhere.empty()) {
      *graph = capture->graph->handle;
      return;
    }
    if (capture->owns_graph) forget(call.state, *capture->graph);
    require(capture->is_valid, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "the capture became invalid");
    fail(CUDA_ERROR_STREAM_CAPTURE_UNJOINED, "work of another stream was not joined");
  });
}

CUresult CUDAAPI cuStreamIsCapturing(CUstream handle, CUstreamCaptureStatus* status) {
  return api(__func__, kUsable, [&](Call& call) {
    require(status != nullptr);
    auto stream = find_stream(call, handle);
    check_no_implicit_dependency(call.state, *stream, false);
    *status = stream->capture == nullptr  ? CU_STREAM_CAPTURE_STATUS_NONE
              : stream->capture->is_valid ? CU_STREAM_CAPTURE_STATUS_ACTIVE
                                          : CU_STREAM_CAPTURE_STATUS_INVALIDATED;
  });
}

CUresult CUDAAPI cuStreamGetCaptureInfo(CUstream handle, CUstreamCaptureStatus* status,
                                        cuuint64_t* id, CUgraph* graph,
                                        const CUgraphNode** dependencies,
                                        const CUgraphEdgeData** edges, size_t* count) {
  return api(__func__, kUsable, [&](Call& call) {
    require(status != nullptr);
    auto stream = find_stream(call, handle);
    check_no_implicit_dependency(call.state, *stream, false);
    const auto& capture = stream->capture;
    *status = CU_STREAM_CAPTURE_STATUS_NONE;
    if (capture == nullptr) return;
    *status =
        capture->is_valid ? CU_STREAM_CAPTURE_STATUS_ACTIVE : CU_STREAM_CAPTURE_STATUS_INVALIDATED;
    if (id != nullptr) *id = capture->id;
    if (!capture->is_valid) return;
    // The array is the driver's, and good until the stream's next call.
    thread_local std::vector<CUgraphNode> handles;
    thread_local std::vector<CUgraphEdgeData> plain;
    handles.clear();
    for (const GraphNode* node : stream->capture_tail) handles.push_back(node->handle);
    plain.assign(handles.size(), CUgraphEdgeData{});
    if (graph != nullptr) *graph = capture->graph->handle;
    if (dependencies != nullptr) *dependencies = handles.data();
    if (edges != nullptr) *edges = plain.data();
    if (count != nullptr) *count = handles.size();
  });
}

CUresult CUDAAPI cuStreamUpdateCaptureDependencies(CUstream handle, CUgraphNode* dependencies,
                                                   const CUgraphEdgeData*, size_t count,
                                                   unsigned flags) {
  return api(__func__, kUsable, [&](Call& call) {
    require(flags <= CU_STREAM_SET_CAPTURE_DEPENDENCIES && (count == 0 || dependencies != nullptr));
    auto stream = find_stream(call, handle);
    require(stream->capture != nullptr, CUDA_ERROR_ILLEGAL_STATE, "the stream is not captured");
    require_valid(*stream->capture);
    std::vector<GraphNode*> tail;
    if (flags == CU_STREAM_ADD_CAPTURE_DEPENDENCIES) tail = stream->capture_tail;
    for (size_t i = 0; i < count; ++i) {
      const auto node = call.state.nodes.find(dependencies[i]);
      require(node != call.state.nodes.end() && node->second->graph == stream->capture->graph.get(),
              "a dependency is no node of the captured graph");
      if (std::find(tail.begin(), tail.end(), node->second) == tail.end())
        tail.push_back(node->second);
    }
    stream->capture_tail = std::move(tail);
  });
}

}  // extern "C"
