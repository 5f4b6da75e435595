// A sequence of launches that is recorded once and then repeated as one: a CUDA graph. The driver
// starts its kernels behind each other without the host, which would need longer to launch a small
// kernel than the device to run it.
#pragma once

#include <cuda.h>

#include <cstdint>
#include <vector>

#include "cuda/context.h"
#include "cuda/kernel.h"

namespace altiplano::cuda {

class Graph {
 public:
  // Records what is launched on `stream` from now on; nothing of it runs. Nothing may be allocated
  // or waited for meanwhile by this thread. Throws Error.
  explicit Graph(const Stream& stream);
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  // Ends the recording, and makes it ready to run. Throws Error; the graph is then of no use.
  void finish();
  // Runs all of it, asynchronously; behind what was launched before, itself included.
  void launch() const;

  // The launches of a kernel, for update().
  std::vector<CUgraphNode> launches_of(const Kernel& kernel) const;
  // The argument that was recorded, of a kernel that takes one struct.
  template <class T>
  T argument_of(CUgraphNode node) const {
    return *static_cast<const T*>(parameters_of(node).kernelParams[0]);
  }
  // Changes grid.x and the argument of such a launch, for the runs to come.
  void update(CUgraphNode node, uint32_t grid_x, void* argument);

 private:
  CUDA_KERNEL_NODE_PARAMS parameters_of(CUgraphNode node) const;
  void check_call(CUresult result, const char* call) const;

  const Stream& stream_;
  bool recording_ = true;
  CUgraph graph_ = nullptr;
  CUgraphExec executable_ = nullptr;
};

}  // namespace altiplano::cuda
