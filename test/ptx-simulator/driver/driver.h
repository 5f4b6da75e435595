// The state of the process, and what every function of the API begins with.
//
// One mutex guards everything: the driver API is called a few thousand times a second at most, and
// tests want to be repeatable before they want to be parallel. Kernels, copies and host functions
// run without it, on the workers of the streams (queue.h).
//
// Not there: textures and arrays, peer access, memory shared between processes, virtual memory
// management, green contexts, the cuLibrary functions, linking (cuLink), streams' memory
// operations, graphs with events, allocations or conditions as nodes, graph launches inside of a
// capture. Most of these functions are not exported, so that nobody takes them for granted; where
// one is a case of a function that is, it answers CUDA_ERROR_NOT_SUPPORTED, or that a capture does
// not support it.
//
// The state is never destroyed, and the library is never unloaded (-z nodelete): workers may still
// run when a process ends.
#pragma once

#include <cuda.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "driver/graph.h"
#include "driver/objects.h"
#include "driver/reports.h"
#include "driver/settings.h"

namespace ptx_simulator::driver {

using Lock = std::unique_lock<std::mutex>;

struct Driver {
  std::mutex mutex;
  std::condition_variable changed;  // a task is done, wanted, or was submitted

  Settings settings;
  Reports reports;
  bool initialized = false;
  bool exiting = false;
  std::vector<Device> devices;

  Table<CUcontext, Context> contexts;
  Table<CUstream, Stream> streams;  // those that the application created
  Table<CUevent, Event> events;
  Table<CUmodule, LoadedModule> modules;
  Table<CUfunction, LoadedFunction> functions;
  Table<CUmemoryPool, MemoryPool> pools;
  Table<CUgraph, Graph> graphs;
  Table<CUgraphExec, GraphExec> graph_execs;
  std::map<CUgraphNode, GraphNode*> nodes;
  std::map<uint64_t, Memory> memory;  // by address
  std::vector<std::shared_ptr<Capture>> captures;

  // By its text. Tests load the same modules hundreds of times.
  std::map<std::string, std::shared_ptr<ParsedPtx>> parsed;

  uint64_t next_id = 1;  // of contexts, streams, allocations, captures
  uint64_t launches = 0;
  uint64_t pending = 0;
  uint64_t abandoned = 0;
};

Driver& driver();

// What an API function throws to end with a code. The message is kept for the tests.
struct Failure {
  CUresult code;
  std::string message;
};
[[noreturn]] void fail(CUresult code, std::string message = {});
inline void require(bool condition, CUresult code, const char* message = "") {
  if (!condition) fail(code, message);
}
// The usual case.
inline void require(bool condition, const char* message = "invalid argument") {
  if (!condition) fail(CUDA_ERROR_INVALID_VALUE, message);
}

// State of a thread.
struct ThreadState {
  std::vector<CUcontext> contexts;  // the last is current
  CUstreamCaptureMode capture_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
  bool in_host_function = false;
  std::string message;
};
ThreadState& thread_state();

// What a function needs before it runs.
enum Need : unsigned {
  kNothing = 0,
  kInit = 1,     // cuInit was called
  kContext = 2,  // and a context is current
  kHealthy = 4,  // which has not failed
  // And has not failed at the end: functions that wait for work. Those that free things ask for
  // this alone, and do their part before they tell.
  kHealthyAfter = 8,
  // May synchronise or allocate behind the scenes: forbidden while some streams are captured.
  kNotInCapture = 16,
};
inline constexpr unsigned kUsable = kInit | kContext | kHealthy;
inline constexpr unsigned kWaits = kUsable | kHealthyAfter;

// A call in progress: the mutex, held, and the current context.
struct Call {
  Driver& state;
  Lock lock;
  std::shared_ptr<Context> context;
};

CUresult begin(Call& call, const char* name, unsigned needs);
CUresult end(Call& call, unsigned needs);
// The code for the exception being handled.
CUresult caught();

// Every function of the API is one of these around its body. `name` is __func__, which is the
// symbol, since cuda.h renames the functions that have versions.
template <class Body>
CUresult api(const char* name, unsigned needs, Body body) noexcept {
  try {
    Call call{driver(), Lock(driver().mutex), nullptr};
    if (const CUresult code = begin(call, name, needs); code != CUDA_SUCCESS) return code;
    body(call);
    return end(call, needs);
  } catch (...) {
    return caught();
  }
}

// --- look-ups that fail with the right code ---
std::shared_ptr<Context> find_context(Driver& state, CUcontext handle);
Device& find_device(Driver& state, CUdevice device);
// Null and CU_STREAM_LEGACY are the current context's default stream.
std::shared_ptr<Stream> find_stream(Call& call, CUstream handle);
std::shared_ptr<Event> find_event(Call& call, CUevent handle);
std::shared_ptr<LoadedFunction> find_function(Call& call, CUfunction handle);

}  // namespace ptx_simulator::driver
