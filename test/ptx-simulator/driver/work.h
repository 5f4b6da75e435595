// What a stream can be asked to do. The same work is done at once by a task of a stream, or kept in
// a node of a graph and done at each launch of it.
#pragma once

#include <cuda.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "driver/objects.h"
#include "machine/global_memory.h"
#include "machine/report.h"

namespace ptx_simulator::driver {

struct KernelWork {
  std::shared_ptr<LoadedFunction> function;
  std::array<uint32_t, 3> grid{};
  std::array<uint32_t, 3> block{};
  uint32_t dynamic_shared_bytes = 0;
  std::vector<std::byte> parameters;  // as the kernel's parameter space lies
};

struct CopyWork {
  CUDA_MEMCPY3D copy{};
  std::vector<std::byte> staged;  // a copy of the source, if it must not be read later
};

struct FillWork {
  uint64_t address = 0;
  size_t pitch = 0;
  uint32_t value = 0;
  uint32_t element_bytes = 1;  // 1, 2 or 4
  size_t width = 0;            // elements
  size_t height = 1;
};

struct HostWork {
  CUhostFn function = nullptr;
  void* data = nullptr;
};

struct EmptyWork {};

// A node with a graph of its own.
struct GraphWork {
  std::shared_ptr<Graph> graph;
};

using Work = std::variant<EmptyWork, KernelWork, CopyWork, FillWork, HostWork, GraphWork>;

// Does the work, without the driver's mutex. What goes wrong makes the context fail.
void execute(const std::shared_ptr<Context>& context, const Work& work);

// A problem with a range of memory that a driver function is given: what kind, and a sentence.
struct RangeProblem {
  FindingKind kind;
  std::string text;
};
// Bytes from `address` on. Unless it `must_be_known`, memory that the driver did not give out is
// the application's own, of which nothing can be said.
std::optional<RangeProblem> check_range(const AllocationMap& allocations, uint64_t address,
                                        uint64_t bytes, bool must_be_known);
std::optional<RangeProblem> check(const AllocationMap& allocations, const CopyWork& work);
std::optional<RangeProblem> check(const AllocationMap& allocations, const FillWork& work);

// A copy of consecutive bytes. The types say which addresses must be the driver's.
CopyWork linear_copy(CUmemorytype to, uint64_t destination, CUmemorytype from, uint64_t source,
                     size_t bytes);

}  // namespace ptx_simulator::driver
