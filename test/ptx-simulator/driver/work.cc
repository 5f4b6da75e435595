#include "driver/work.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "driver/driver.h"
#include "driver/queue.h"
#include "machine/warp.h"

namespace ptx_simulator::driver {
namespace {

// A box of bytes: rows of `width`, `pitch` apart, in layers `layer` apart.
struct Box {
  uint64_t begin;
  uint64_t pitch;
  uint64_t layer;
  bool must_be_known;
  uint64_t at(uint64_t y, uint64_t z) const { return begin + z * layer + y * pitch; }
};

Box box(CUmemorytype type, const void* host, CUdeviceptr device, uint64_t pitch, uint64_t height,
        uint64_t x, uint64_t y, uint64_t z) {
  const uint64_t base = type == CU_MEMORYTYPE_HOST ? reinterpret_cast<uint64_t>(host) : device;
  return {base + z * pitch * height + y * pitch + x, pitch, pitch * height,
          type == CU_MEMORYTYPE_DEVICE};
}

Box source_of(const CUDA_MEMCPY3D& c) {
  return box(c.srcMemoryType, c.srcHost, c.srcDevice, c.srcPitch, c.srcHeight, c.srcXInBytes,
             c.srcY, c.srcZ);
}
Box destination_of(const CUDA_MEMCPY3D& c) {
  return box(c.dstMemoryType, c.dstHost, c.dstDevice, c.dstPitch, c.dstHeight, c.dstXInBytes,
             c.dstY, c.dstZ);
}

// Findings that do not stop a kernel come before, and threads of the host may add more behind.
CUresult error_of(const LaunchReport& report) {
  if (!report.stopped) return CUDA_SUCCESS;
  for (auto finding = report.findings.rbegin(); finding != report.findings.rend(); ++finding) {
    switch (finding->kind) {
      case FindingKind::kOutOfBounds:
      case FindingKind::kUseAfterFree:
        return CUDA_ERROR_ILLEGAL_ADDRESS;
      case FindingKind::kMisaligned:
        return CUDA_ERROR_MISALIGNED_ADDRESS;
      case FindingKind::kIllegalInstruction:
        return CUDA_ERROR_ILLEGAL_INSTRUCTION;
      case FindingKind::kDeadlock:
        return CUDA_ERROR_LAUNCH_TIMEOUT;
      default:
        break;
    }
  }
  return CUDA_ERROR_LAUNCH_FAILED;
}

struct Execution {
  const std::shared_ptr<Context>& context;

  // A driver function's own finding, in a report of its own.
  void failed(const char* name, const RangeProblem& problem) const {
    Driver& state = driver();
    const Lock lock(state.mutex);
    note_finding(state, context, name, problem);
    context->fail(CUDA_ERROR_ILLEGAL_ADDRESS);
  }

  void operator()(const EmptyWork&) const {}
  void operator()(const GraphWork&) const {}  // launched node by node (graph.cc)

  void operator()(const HostWork& work) const {
    thread_state().in_host_function = true;
    work.function(work.data);
    thread_state().in_host_function = false;
  }

  void operator()(const CopyWork& work) const {
    const auto allocations = GlobalMemory::instance().snapshot();
    // Memory may have been freed since the call, or since the graph was made.
    if (const auto problem = check(*allocations, work))
      return failed("asynchronous copy", *problem);
    const CUDA_MEMCPY3D& copy = work.copy;
    const Box from = source_of(copy);
    const Box to = destination_of(copy);
    if (!work.staged.empty()) {
      std::memcpy(reinterpret_cast<void*>(to.begin), work.staged.data(), work.staged.size());
      return;
    }
    for (uint64_t z = 0; z < copy.Depth; ++z)
      for (uint64_t y = 0; y < copy.Height; ++y)
        std::memmove(reinterpret_cast<void*>(to.at(y, z)),
                     reinterpret_cast<const void*>(from.at(y, z)), copy.WidthInBytes);
  }

  void operator()(const FillWork& work) const {
    const auto allocations = GlobalMemory::instance().snapshot();
    if (const auto problem = check(*allocations, work))
      return failed("asynchronous memset", *problem);
    for (size_t y = 0; y < work.height; ++y) {
      const uint64_t row = work.address + y * work.pitch;
      if (work.element_bytes == 1)
        std::memset(reinterpret_cast<void*>(row), static_cast<int>(work.value), work.width);
      else if (work.element_bytes == 2)
        std::fill_n(reinterpret_cast<uint16_t*>(row), work.width,
                    static_cast<uint16_t>(work.value));
      else
        std::fill_n(reinterpret_cast<uint32_t*>(row), work.width, work.value);
    }
  }

  void operator()(const KernelWork& work) const {
    Driver& state = driver();
    const Program& program = *work.function->program;
    LaunchContext launch;
    LaunchOptions options;
    bool injected;
    {
      const Lock lock(state.mutex);
      if (state.functions.find(work.function->handle) == nullptr) {
        note_finding(state, context, work.function->name.c_str(),
                     {FindingKind::kUseAfterFree, "the module of the kernel was unloaded"});
        context->fail(CUDA_ERROR_ILLEGAL_ADDRESS);
        return;
      }
      const Settings& settings = state.settings;
      options.host_threads = settings.host_threads;
      options.most_warp_instructions = settings.most_warp_instructions;
      // The same for all launches, as it would be on a GPU, whatever the schedule.
      launch.approximation_seed = static_cast<uint32_t>(settings.arithmetic);
      launch.accumulation_order = static_cast<AccumulationOrder>(settings.arithmetic % 4);
      options.seed = random_by_seed(settings.seed, 0, state.launches++);
      injected = state.settings.launches.hit();
    }
    LaunchReport report;
    if (injected) {
      report.kernel = program.name;
      report.grid = work.grid;
      report.block = work.block;
      report.dynamic_shared_bytes = work.dynamic_shared_bytes;
      report.stopped = true;
    } else {
      launch.program = &program;
      launch.grid = work.grid;
      launch.block = work.block;
      launch.shared_bytes = program.static_shared_bytes + work.dynamic_shared_bytes;
      launch.parameters = work.parameters;
      launch.allocations = GlobalMemory::instance().snapshot();
      launch.seed = options.seed;
      launch.device = context->device;
      report = run(launch, options);
      report.dynamic_shared_bytes = work.dynamic_shared_bytes;
    }
    const Lock lock(state.mutex);
    const CUresult code = injected ? CUDA_ERROR_LAUNCH_FAILED : error_of(report);
    note_report(state, context, std::move(report));
    if (code != CUDA_SUCCESS) context->fail(code);
  }
};

std::string hexadecimal(uint64_t value) {
  char text[32];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

uint64_t extent(uint64_t width, uint64_t height, uint64_t depth, uint64_t pitch, uint64_t layer) {
  if (width == 0 || height == 0 || depth == 0) return 0;
  return (depth - 1) * layer + (height - 1) * pitch + width;
}

}  // namespace

void execute(const std::shared_ptr<Context>& context, const Work& work) {
  try {
    std::visit(Execution{context}, work);
  } catch (const std::exception& error) {
    // A fault of the simulator, not of what it runs; it must not end the process of a test.
    std::fprintf(stderr, "ptx-simulator: %s\n", error.what());
    context->fail(CUDA_ERROR_UNKNOWN);
  }
}

std::optional<RangeProblem> check_range(const AllocationMap& allocations, uint64_t address,
                                        uint64_t bytes, bool must_be_known) {
  if (bytes == 0) return std::nullopt;
  const Allocation* found = allocations.find(address);
  const std::string range = std::to_string(bytes) + " bytes at " + hexadecimal(address);
  if (found == nullptr) {
    if (!must_be_known) return std::nullopt;
    std::string text = range + " lie in no allocation";
    if (const Allocation* below = allocations.nearest_below(address))
      text += "; " + std::to_string(address - below->end()) + " bytes behind the end of " +
              below->name + " (" + std::to_string(below->size_bytes) + " bytes)";
    return RangeProblem{FindingKind::kOutOfBounds, text};
  }
  if (!found->is_live)
    return RangeProblem{FindingKind::kUseAfterFree,
                        range + " lie in " + found->name + ", which was freed"};
  if (bytes > found->end() - address)
    return RangeProblem{FindingKind::kOutOfBounds,
                        range + " go " + std::to_string(bytes - (found->end() - address)) +
                            " bytes past the end of " + found->name + " (" +
                            std::to_string(found->size_bytes) + " bytes)"};
  return std::nullopt;
}

std::optional<RangeProblem> check(const AllocationMap& allocations, const CopyWork& work) {
  const CUDA_MEMCPY3D& copy = work.copy;
  const Box to = destination_of(copy);
  const Box from = source_of(copy);
  const auto bytes = [&](const Box& b) {
    return extent(copy.WidthInBytes, copy.Height, copy.Depth, b.pitch, b.layer);
  };
  if (auto problem = check_range(allocations, to.begin, bytes(to), to.must_be_known)) {
    problem->text = "the destination's " + problem->text;
    return problem;
  }
  if (!work.staged.empty()) return std::nullopt;
  if (auto problem = check_range(allocations, from.begin, bytes(from), from.must_be_known)) {
    problem->text = "the source's " + problem->text;
    return problem;
  }
  return std::nullopt;
}

std::optional<RangeProblem> check(const AllocationMap& allocations, const FillWork& work) {
  return check_range(allocations, work.address,
                     extent(work.width * work.element_bytes, work.height, 1, work.pitch, 0), true);
}

CopyWork linear_copy(CUmemorytype to, uint64_t destination, CUmemorytype from, uint64_t source,
                     size_t bytes) {
  CopyWork work;
  CUDA_MEMCPY3D& copy = work.copy;
  copy.dstMemoryType = to;
  if (to == CU_MEMORYTYPE_HOST)
    copy.dstHost = reinterpret_cast<void*>(destination);
  else
    copy.dstDevice = destination;
  copy.srcMemoryType = from;
  if (from == CU_MEMORYTYPE_HOST)
    copy.srcHost = reinterpret_cast<const void*>(source);
  else
    copy.srcDevice = source;
  copy.WidthInBytes = bytes;
  copy.Height = copy.Depth = 1;
  copy.srcPitch = copy.dstPitch = bytes;
  copy.srcHeight = copy.dstHeight = 1;
  return work;
}

}  // namespace ptx_simulator::driver
