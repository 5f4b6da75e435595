#include "cuda/graph.h"

#include <string>

#include "cuda/devices.h"
#include "cuda/driver.h"

namespace altiplano::cuda {

Graph::Graph(const Stream& stream) : stream_(stream) {
  // Other threads, of other models too, go on to allocate and to wait.
  check_call(driver().cuStreamBeginCapture(stream_.get(), CU_STREAM_CAPTURE_MODE_THREAD_LOCAL),
             "cuStreamBeginCapture");
}

Graph::~Graph() {
  if (recording_) {
    with_context(*stream_.context(), [&] { driver().cuStreamEndCapture(stream_.get(), &graph_); });
  }
  // Graphs belong to no context.
  if (executable_ != nullptr) driver().cuGraphExecDestroy(executable_);
  if (graph_ != nullptr) driver().cuGraphDestroy(graph_);
}

void Graph::finish() {
  check_call(driver().cuStreamEndCapture(stream_.get(), &graph_), "cuStreamEndCapture");
  recording_ = false;  // what failed is tried again by the destructor: the stream must not stay so
  check_call(driver().cuGraphInstantiate(&executable_, graph_, 0), "cuGraphInstantiate");
}

void Graph::launch() const {
  check_call(driver().cuGraphLaunch(executable_, stream_.get()), "cuGraphLaunch");
}

std::vector<CUgraphNode> Graph::launches_of(const Kernel& kernel) const {
  size_t count = 0;
  check_call(driver().cuGraphGetNodes(graph_, nullptr, &count), "cuGraphGetNodes");
  std::vector<CUgraphNode> nodes(count), found;
  check_call(driver().cuGraphGetNodes(graph_, nodes.data(), &count), "cuGraphGetNodes");
  for (const CUgraphNode node : nodes) {
    CUgraphNodeType type;
    check_call(driver().cuGraphNodeGetType(node, &type), "cuGraphNodeGetType");
    if (type == CU_GRAPH_NODE_TYPE_KERNEL && kernel.is(parameters_of(node).func)) {
      found.push_back(node);
    }
  }
  return found;
}

void Graph::update(CUgraphNode node, uint32_t grid_x, void* argument) {
  CUDA_KERNEL_NODE_PARAMS p = parameters_of(node);
  p.gridDimX = grid_x;
  p.kernelParams = &argument;
  check_call(driver().cuGraphExecKernelNodeSetParams(executable_, node, &p),
             "cuGraphExecKernelNodeSetParams");
}

CUDA_KERNEL_NODE_PARAMS Graph::parameters_of(CUgraphNode node) const {
  CUDA_KERNEL_NODE_PARAMS p = {};
  check_call(driver().cuGraphKernelNodeGetParams(node, &p), "cuGraphKernelNodeGetParams");
  return p;
}

void Graph::check_call(CUresult result, const char* call) const {
  check(result, call,
        [&] { return "the graph of a step, " + describe(stream_.context()->device()); });
}

}  // namespace altiplano::cuda
