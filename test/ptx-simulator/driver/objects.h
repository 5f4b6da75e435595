// The objects behind the handles of the driver API. A handle is a number that points to nothing and
// is never given out twice: whatever an application passes in is looked up, not dereferenced.
//
// All of it is guarded by the one mutex of the driver (driver.h), but for what a piece of work
// needs while it runs, which it holds itself (work.h).
#pragma once

#include <cuda.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "machine/program.h"

namespace ptx_simulator::driver {

struct Context;
struct Stream;
struct Capture;
struct Graph;
struct GraphNode;

// A place in a stream: it is done when its body has run and everything before it is done.
struct Task {
  std::function<void()> body;                // runs without the mutex; may be empty
  std::vector<std::shared_ptr<Task>> after;  // emptied when done
  bool always = false;                       // runs in a context that has failed, too
  bool wanted = false;                       // somebody waits for it: it is not delayed
  bool done = false;
  uint64_t number = 0;
  std::chrono::steady_clock::time_point finished;
};

struct Stream : std::enable_shared_from_this<Stream> {
  CUstream handle = nullptr;
  std::shared_ptr<Context> context;
  unsigned flags = 0;
  int priority = 0;
  uint64_t id = 0;
  bool is_legacy = false;
  std::deque<std::shared_ptr<Task>> queue;
  std::shared_ptr<Task> last;  // the newest, done or not
  bool closed = false;
  bool has_worker = false;
  uint64_t submitted = 0;
  // While it is captured: the nodes that its next one will depend on.
  std::shared_ptr<Capture> capture;
  std::vector<GraphNode*> capture_tail;

  bool blocking() const { return (flags & CU_STREAM_NON_BLOCKING) == 0; }
};

struct Event {
  CUevent handle = nullptr;
  std::shared_ptr<Context> context;
  unsigned flags = 0;
  std::shared_ptr<Task> task;  // of the last record
  // The last record was captured.
  std::shared_ptr<Capture> capture;
  std::vector<GraphNode*> capture_tail;
};

struct LoadedModule;

// A kernel of a loaded module.
struct LoadedFunction {
  CUfunction handle = nullptr;
  std::shared_ptr<LoadedModule> module;  // which forgets the function when it is unloaded
  std::string name;
  std::shared_ptr<const Program> program;
  int registers = 0;  // per thread
  int max_threads = 0;
  int max_dynamic_shared = 48 * 1024;
  int carveout = -1;
};

// PTX that was parsed once, and its kernels that were decoded: the same for all modules of that
// text, if there are no variables whose addresses stand in the programs.
struct ParsedPtx {
  Module ptx;
  std::map<std::string, std::shared_ptr<const Program>> programs;
};

struct LoadedModule {
  CUmodule handle = nullptr;
  std::shared_ptr<Context> context;
  std::shared_ptr<ParsedPtx> parsed;
  std::shared_ptr<const Module> ptx;  // of `parsed`
  std::map<std::string, uint64_t> addresses;
  std::map<std::string, int> registers;  // of kernels whose machine code is there
  std::map<std::string, std::shared_ptr<LoadedFunction>> functions;  // those asked for
};

struct MemoryPool {
  CUmemoryPool handle = nullptr;
  int device = 0;
  std::map<int, uint64_t> attributes;
  uint64_t used_bytes = 0;
  uint64_t most_used_bytes = 0;
  uint64_t max_bytes = 0;  // 0: as much as the device has
};

// What the driver remembers of memory that it gave out.
struct Memory {
  std::shared_ptr<Context> context;
  uint64_t size_bytes = 0;
  unsigned flags = 0;
  uint64_t number = 0;
  enum class Kind : uint8_t { kDevice, kPinned, kRegistered, kManaged } kind = Kind::kDevice;
  std::shared_ptr<MemoryPool> pool;
  bool free_is_pending = false;  // cuMemFreeAsync was called
};

struct Context {
  CUcontext handle = nullptr;
  int device = 0;
  unsigned flags = 0;
  uint64_t id = 0;
  bool is_primary = false;
  // The first failure on the device: every later call returns it.
  std::atomic<CUresult> error{CUDA_SUCCESS};
  std::shared_ptr<Stream> legacy;
  std::map<std::thread::id, std::shared_ptr<Stream>> per_thread;
  std::vector<std::shared_ptr<Stream>> draining;  // destroyed, with work left
  std::map<CUlimit, size_t> limits;
  CUfunc_cache cache = CU_FUNC_CACHE_PREFER_NONE;

  // Only the first failure counts.
  void fail(CUresult code) {
    CUresult none = CUDA_SUCCESS;
    error.compare_exchange_strong(none, code);
  }
};

struct Device {
  int ordinal = 0;
  std::shared_ptr<Context> primary;
  int primary_references = 0;
  unsigned primary_flags = 0;
  std::shared_ptr<MemoryPool> default_pool;
  std::shared_ptr<MemoryPool> pool;  // the one in use
};

// The next handle, of any kind. Not an address that a processor accepts: an application that
// dereferences a handle crashes.
inline uint64_t next_handle() {
  static std::atomic<uint64_t> next{1};
  return (uint64_t{0xC0DA} << 48) + 64 * next++;
}

// Handles of one kind and their objects, in the order they were made.
template <class Handle, class T>
class Table {
 public:
  Handle add(std::shared_ptr<T> object) {
    const Handle handle = reinterpret_cast<Handle>(next_handle());
    object->handle = handle;
    objects_.emplace(handle, std::move(object));
    return handle;
  }
  // Null if there is no such object, any more or ever.
  std::shared_ptr<T> find(Handle handle) const {
    const auto found = objects_.find(handle);
    return found == objects_.end() ? nullptr : found->second;
  }
  bool remove(Handle handle) { return objects_.erase(handle) != 0; }
  // How many were removed.
  template <class Condition>
  size_t remove_if(Condition condition) {
    return std::erase_if(objects_, [&](const auto& entry) { return condition(*entry.second); });
  }
  size_t size() const { return objects_.size(); }
  auto begin() const { return objects_.begin(); }
  auto end() const { return objects_.end(); }

 private:
  std::map<Handle, std::shared_ptr<T>> objects_;
};

}  // namespace ptx_simulator::driver
