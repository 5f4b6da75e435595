// Stream capture: calls that would submit work to a stream make nodes of a graph instead.
#pragma once

#include <memory>
#include <thread>
#include <vector>

#include "driver/graph.h"
#include "driver/objects.h"

namespace ptx_simulator::driver {

struct Driver;
struct Call;

struct Capture {
  std::shared_ptr<Graph> graph;
  std::weak_ptr<Stream> origin;
  CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
  bool is_valid = true;
  bool owns_graph = true;  // not begun with cuStreamBeginCaptureToGraph
  std::thread::id thread;
  uint64_t id = 0;
};

// Submits the work to the stream, or captures it: what every asynchronous function of the API does.
// Returns the task, or null if it was captured.
std::shared_ptr<Task> submit_or_capture(Call& call, const std::shared_ptr<Stream>& stream,
                                        Work work);

// Fails for a function that must not be called while streams are captured in the modes that forbid
// it; the captures become invalid.
void check_not_captured(Driver& state, const char* function);
// Fails if the stream is captured, and makes that invalid: for functions that look at the state of
// a stream.
void check_not_captured(const Stream& stream);
// Fails if any stream of the context is captured: for functions that wait for all.
void check_not_captured(Driver& state, const Context& context);
// Fails if the work of the legacy stream would wait for a stream that is captured; the capture
// becomes invalid, but for functions that only ask.
void check_no_implicit_dependency(Driver& state, const Stream& stream, bool invalidates = true);

void record_captured(const std::shared_ptr<Stream>& stream, Event& event);
// The stream joins the capture of an event.
void wait_captured(const std::shared_ptr<Stream>& stream, const Event& event);
// For a stream that is destroyed, or whose context is.
void abandon(Driver& state, Stream& stream);

}  // namespace ptx_simulator::driver
