// The simulated driver: injected faults, reports, settings from the environment, and processes that
// end in the middle of it all. Those run in processes of their own: this program, called again.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "driver_api.h"

namespace driver_test {
namespace {

// --- what an application does, with every step checked: it either works, or leaves nothing ---

class Application {
 public:
  // The first code that was not success.
  CUresult run() {
    const bool ok =
        step(cuda().cuInit(0)) && step(cuda().cuDevicePrimaryCtxRetain(&context_, 0)) &&
        step(cuda().cuCtxSetCurrent(context_)) && step(cuda().cuModuleLoadData(&module_, kPtx)) &&
        step(cuda().cuModuleGetFunction(&add_, module_, "add")) &&
        step(cuda().cuStreamCreate(&stream_, CU_STREAM_NON_BLOCKING)) &&
        step(cuda().cuEventCreate(&event_, CU_EVENT_DISABLE_TIMING)) &&
        step(cuda().cuMemAlloc(&x_, 400)) && step(cuda().cuMemAllocHost(&host_, 400)) &&
        step(cuda().cuMemsetD32Async(x_, 1, 100, stream_)) && capture() &&
        step(cuda().cuGraphInstantiate(&exec_, graph_, 0)) &&
        step(cuda().cuGraphLaunch(exec_, stream_)) &&
        step(launch(add_, {.blocks = 4, .stream = stream_}, x_, x_, 10u, 100u)) &&
        step(cuda().cuMemcpyDtoHAsync(host_, x_, 400, stream_)) &&
        step(cuda().cuEventRecord(event_, stream_)) && step(cuda().cuEventSynchronize(event_)) &&
        step(static_cast<uint32_t*>(host_)[99] == 16 ? CUDA_SUCCESS : CUDA_ERROR_UNKNOWN);
    static_cast<void>(ok);
    return code_;
  }
  // Gives back what there is, whatever the answers.
  ~Application() {
    if (exec_ != nullptr) cuda().cuGraphExecDestroy(exec_);
    if (graph_ != nullptr) cuda().cuGraphDestroy(graph_);
    if (host_ != nullptr) cuda().cuMemFreeHost(host_);
    if (x_ != 0) cuda().cuMemFree(x_);
    if (event_ != nullptr) cuda().cuEventDestroy(event_);
    if (stream_ != nullptr) cuda().cuStreamDestroy(stream_);
    if (module_ != nullptr) cuda().cuModuleUnload(module_);
    if (context_ != nullptr) {
      cuda().cuCtxSetCurrent(nullptr);
      cuda().cuDevicePrimaryCtxRelease(0);
    }
  }

 private:
  bool step(CUresult code) {
    if (code_ == CUDA_SUCCESS) code_ = code;
    return code == CUDA_SUCCESS;
  }
  bool capture() {
    if (!step(cuda().cuStreamBeginCapture(stream_, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)))
      return false;
    step(launch(add_, {.blocks = 4, .stream = stream_}, x_, x_, 5u, 100u));
    step(cuda().cuStreamEndCapture(stream_, &graph_));
    return code_ == CUDA_SUCCESS;
  }

  CUresult code_ = CUDA_SUCCESS;
  CUcontext context_ = nullptr;
  CUmodule module_ = nullptr;
  CUfunction add_ = nullptr;
  CUstream stream_ = nullptr;
  CUevent event_ = nullptr;
  CUdeviceptr x_ = 0;
  void* host_ = nullptr;
  CUgraph graph_ = nullptr;
  CUgraphExec exec_ = nullptr;
};

void expect_nothing_live() {
  const ptx_simulator_objects o = live();
  CHECK(o.contexts + o.allocations + o.streams + o.events + o.modules + o.graphs + o.graph_execs +
                o.pending ==
            0,
        "left: %zu contexts, %zu allocations, %zu streams, %zu events, %zu modules, %zu graphs, "
        "%zu executable graphs, %zu pieces of work",
        size_t{o.contexts}, size_t{o.allocations}, size_t{o.streams}, size_t{o.events},
        size_t{o.modules}, size_t{o.graphs}, size_t{o.graph_execs}, size_t{o.pending});
}

// Every allocation, every kernel and every call fails in turn.
void test_every_fault() {
  cuda().ptx_simulator_clear_faults();
  { CHECK(Application().run() == CUDA_SUCCESS, "fails without a fault"); }
  const uint64_t allocations = cuda().ptx_simulator_allocations();
  const uint64_t launches = cuda().ptx_simulator_launches();
  CHECK(allocations == 2 && launches == 2, "%zu allocations, %zu launches", size_t{allocations},
        size_t{launches});
  for (uint64_t n = 1; n <= allocations; ++n) {
    cuda().ptx_simulator_fail_allocation(n);
    const CUresult code = Application().run();
    CHECK(code == CUDA_ERROR_OUT_OF_MEMORY, "allocation %zu: %s", size_t{n}, name_of(code).c_str());
    expect_nothing_live();
  }
  for (uint64_t n = 1; n <= launches; ++n) {
    cuda().ptx_simulator_clear_reports();
    cuda().ptx_simulator_fail_launch(n);
    const CUresult code = Application().run();
    CHECK(code == CUDA_ERROR_LAUNCH_FAILED, "kernel %zu: %s", size_t{n}, name_of(code).c_str());
    expect_nothing_live();
    ptx_simulator_report report;
    CHECK(cuda().ptx_simulator_report_count() == n, "%zu reports",
          cuda().ptx_simulator_report_count());
    cuda().ptx_simulator_get_report(n - 1, &report);
    CHECK(report.stopped == 1 && report.findings == 0, "the report of a kernel that failed");
  }
  const char* const functions[] = {"cuInit",
                                   "cuDevicePrimaryCtxRetain",
                                   "cuCtxSetCurrent",
                                   "cuModuleLoadData",
                                   "cuModuleGetFunction",
                                   "cuStreamCreate",
                                   "cuEventCreate",
                                   "cuMemAlloc",
                                   "cuMemAllocHost",
                                   "cuMemsetD32Async",
                                   "cuStreamBeginCapture",
                                   "cuStreamEndCapture_v9",
                                   "cuGraphInstantiateWithFlags",
                                   "cuGraphLaunch",
                                   "cuLaunchKernel",
                                   "cuMemcpyDtoHAsync_v2",
                                   "cuEventRecord",
                                   "cuEventSynchronize"};
  for (const char* function : functions) {
    cuda().ptx_simulator_clear_faults();
    cuda().ptx_simulator_fail_call(function, 1, CUDA_ERROR_SYSTEM_NOT_READY);
    const CUresult code = Application().run();
    CHECK(code == CUDA_ERROR_SYSTEM_NOT_READY, "%s: %s", function, name_of(code).c_str());
    CHECK(cuda().ptx_simulator_calls(function) >= 1, "%s was not counted", function);
    if (std::string(function) == "cuStreamEndCapture_v9") {
      // The capture went on until its stream was destroyed.
      CHECK(live().graphs == 0, "the graph of a capture that was abandoned");
    }
    expect_nothing_live();
  }
  // The second call of one, of three.
  cuda().ptx_simulator_clear_faults();
  cuda().ptx_simulator_fail_call("cuLaunchKernel", 2, CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES);
  CHECK(Application().run() == CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, "the second launch");
  CHECK(Application().run() == CUDA_SUCCESS, "a fault happens twice");
  CHECK(cuda().ptx_simulator_calls("") > 50, "%zu calls", size_t{cuda().ptx_simulator_calls("")});
  cuda().ptx_simulator_clear_faults();
  CHECK(cuda().ptx_simulator_calls("") == 0, "calls after clearing");
}

// --- processes ---

std::string temporary(const char* name) {
  const std::string file = "ptx_driver_test_" + std::to_string(getpid()) + "_" + name;
  return std::filesystem::temp_directory_path() / file;
}
std::string contents(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

struct Ended {
  int status;  // of waitpid
  std::string errors;
};
// This program with an argument and settings, for at most 20 seconds.
Ended run_child(const char* argument, const std::vector<std::string>& settings) {
  const std::string errors = temporary("errors");
  const pid_t child = fork();
  if (child == 0) {
    for (const std::string& setting : settings) putenv(const_cast<char*>(setting.c_str()));
    if (std::freopen(errors.c_str(), "w", stderr) == nullptr) _exit(100);
    execl("/proc/self/exe", "child", argument, nullptr);
    _exit(101);
  }
  Ended ended{};
  for (int i = 0; i < 2000; ++i) {
    if (waitpid(child, &ended.status, WNOHANG) == child) {
      ended.errors = contents(errors);
      unlink(errors.c_str());
      return ended;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  kill(child, SIGKILL);
  waitpid(child, &ended.status, 0);
  ended.errors = "it hung; " + contents(errors);
  unlink(errors.c_str());
  return ended;
}
void expect_exit(const Ended& ended, int status, const char* what) {
  CHECK(WIFEXITED(ended.status) && WEXITSTATUS(ended.status) == status, "%s: status %x, %s", what,
        static_cast<unsigned>(ended.status), ended.errors.c_str());
}

// A kernel runs, another one waits, copies wait: and the process ends.
int child_ends_at_work() {
  OK(cuInit(0));
  CUcontext context;
  OK(cuCtxCreate(&context, nullptr, 0, 0));
  auto* kernels = new Kernels;  // none of it is given back
  auto* gate = new Gate(*kernels);
  CUdeviceptr x;
  OK(cuMemAlloc(&x, 4));
  for (const unsigned flags : {0u, 1u}) {
    CUstream stream;
    OK(cuStreamCreate(&stream, flags));
    gate->launch_in(stream, x, 1);
    OK(cuMemsetD32Async(x, 1, 1, stream));
  }
  // A thread that waits for it, which it does for ever.
  std::thread([context] {
    cuda().cuCtxSetCurrent(context);
    cuda().cuCtxSynchronize();
  }).detach();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  return altiplano::test::failures;
}

// Static objects give back their memory when the main thread has ended.
struct Late {
  CUdeviceptr pointer = 0;
  ~Late() {
    if (pointer != 0) _exit(cuda().cuMemFree(pointer) == CUDA_SUCCESS ? 42 : 43);
  }
};
Late late;

int child_frees_late() {
  OK(cuInit(0));
  CUcontext context;
  OK(cuCtxCreate(&context, nullptr, 0, 0));
  OK(cuMemAlloc(&late.pointer, 4));
  return altiplano::test::failures;
}

// The library is closed while its threads work, and opened again.
int child_closes_the_library() {
  OK(cuInit(0));
  CUcontext context;
  OK(cuCtxCreate(&context, nullptr, 0, 0));
  {
    Kernels kernels;
    auto* gate = new Gate(kernels);
    CUdeviceptr x;
    OK(cuMemAlloc(&x, 4));
    gate->launch_in(nullptr, x, 1);
    dlclose(cuda().library);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    gate->open();
    void* again = dlopen(PTX_SIMULATOR_DRIVER, RTLD_NOW | RTLD_LOCAL);
    const auto synchronize =
        reinterpret_cast<decltype(&cuCtxSynchronize)>(dlsym(again, "cuCtxSynchronize"));
    CHECK(synchronize() == CUDA_SUCCESS, "the work is lost");
  }
  return altiplano::test::failures;
}

int child_finds() {
  OK(cuInit(0));
  CUcontext context;
  OK(cuCtxCreate(&context, nullptr, 0, 0));
  Kernels kernels;
  Buffer x(4);
  OK_LAUNCH(kernels["racy"], {.threads = 64}, CUdeviceptr{x});
  const CUresult code = cuda().cuCtxSynchronize();
  return code;
}

int child_runs() { return Application().run(); }

void test_a_process_ends_at_work() {
  expect_exit(run_child("ends-at-work", {}), 0, "ends at work");
  expect_exit(run_child("frees-late", {}), 42, "frees late");
  expect_exit(run_child("closes-the-library", {}), 0, "closes the library");
}

void test_reports_in_a_file() {
  const std::string path = temporary("report");
  unlink(path.c_str());
  expect_exit(run_child("finds", {"PTX_SIMULATOR_REPORT=" + path}), 0, "finds");
  const std::string text = contents(path);
  const size_t first_line = text.find('\n');
  CHECK(text.find("{\"kernel\":\"racy\"") == 0, "%s", text.c_str());
  CHECK(text.find("\"kind\":\"shared race\"") < first_line, "%s", text.c_str());
  CHECK(text.find("{\"exit\":true,\"contexts\":1,\"allocations\":0,") == first_line + 1, "%s",
        text.c_str());
  CHECK(text.find('\n', first_line + 1) == text.size() - 1, "not two lines: %s", text.c_str());
  unlink(path.c_str());
  // And on demand.
  cuda().ptx_simulator_clear_reports();
  CHECK(Application().run() == CUDA_SUCCESS, "it fails");
  CHECK(cuda().ptx_simulator_write_reports(path.c_str()) == 0, "not written");
  const std::string two = contents(path);
  CHECK(std::count(two.begin(), two.end(), '\n') == 2, "%s", two.c_str());
  CHECK(cuda().ptx_simulator_write_reports("/nowhere/at/all") == -1, "written to nowhere");
  unlink(path.c_str());
}

void test_strict() {
  const Ended strict = run_child("finds", {"PTX_SIMULATOR_STRICT=1"});
  expect_exit(strict, CUDA_ERROR_ASSERT % 256, "strict");
  CHECK(strict.errors.find("shared race in kernel racy") != std::string::npos, "%s",
        strict.errors.c_str());
  const Ended lenient = run_child("finds", {});
  expect_exit(lenient, 0, "lenient");
  CHECK(lenient.errors.empty(), "%s", lenient.errors.c_str());
}

void test_the_environment() {
  expect_exit(run_child("runs", {}), 0, "runs");
  expect_exit(run_child("runs", {"PTX_SIMULATOR_FAIL_ALLOCATION=2"}), CUDA_ERROR_OUT_OF_MEMORY,
              "allocation");
  expect_exit(run_child("runs", {"PTX_SIMULATOR_FAIL_LAUNCH=1"}), CUDA_ERROR_LAUNCH_FAILED % 256,
              "launch");
  expect_exit(run_child("runs", {"PTX_SIMULATOR_FAIL=cuInit:2:1,cuMemAlloc:1:100"}), 100, "call");
  expect_exit(run_child("runs", {"PTX_SIMULATOR_DEVICES=0"}), CUDA_ERROR_NO_DEVICE, "no device");
  expect_exit(run_child("runs", {"PTX_SIMULATOR_MEMORY=399"}), CUDA_ERROR_OUT_OF_MEMORY, "memory");
  const Ended wrong = run_child("runs", {"PTX_SIMULATOR_SEED=three"});
  expect_exit(wrong, 0, "wrong setting");
  CHECK(wrong.errors.find("PTX_SIMULATOR_SEED=three") != std::string::npos, "%s",
        wrong.errors.c_str());
}

}  // namespace
}  // namespace driver_test

int main(int count, char** arguments) {
  using namespace driver_test;  // NOLINT
  const std::string child = count > 1 ? arguments[1] : "";
  if (child == "ends-at-work") return child_ends_at_work();
  if (child == "frees-late") return child_frees_late();
  if (child == "closes-the-library") return child_closes_the_library();
  if (child == "finds") return child_finds();
  if (child == "runs") return child_runs();
  return run_all({TEST(test_every_fault), TEST(test_a_process_ends_at_work),
                  TEST(test_reports_in_a_file), TEST(test_strict), TEST(test_the_environment)});
}
