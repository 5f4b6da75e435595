// The simulated driver: graphs that are made node by node, and their executable form.
#include <algorithm>
#include <atomic>

#include "driver_api.h"

namespace driver_test {
namespace {

// A kernel node of `add`: out[0] = in[0] + value.
class AddNode {
 public:
  AddNode(CUfunction add, CUdeviceptr out, CUdeviceptr in, uint32_t value)
      : out_(out), in_(in), value_(value) {
    parameters_.func = add;
    parameters_.gridDimX = parameters_.gridDimY = parameters_.gridDimZ = 1;
    parameters_.blockDimX = 32;
    parameters_.blockDimY = parameters_.blockDimZ = 1;
    parameters_.kernelParams = pointers_;
  }
  AddNode(const AddNode&) = delete;
  AddNode& operator=(const AddNode&) = delete;
  operator const CUDA_KERNEL_NODE_PARAMS*() const { return &parameters_; }

 private:
  CUdeviceptr out_, in_;
  uint32_t value_, count_ = 1;
  void* pointers_[4] = {&out_, &in_, &value_, &count_};
  CUDA_KERNEL_NODE_PARAMS parameters_{};
};

CUDA_MEMSET_NODE_PARAMS fill(CUdeviceptr to, uint32_t value, size_t count = 1) {
  return {to, 0, value, 4, count, 1};
}

CUDA_MEMCPY3D to_host(void* to, CUdeviceptr from, size_t bytes) {
  CUDA_MEMCPY3D copy{};
  copy.dstMemoryType = CU_MEMORYTYPE_HOST;
  copy.dstHost = to;
  copy.srcMemoryType = CU_MEMORYTYPE_DEVICE;
  copy.srcDevice = from;
  copy.WidthInBytes = bytes;
  copy.Height = copy.Depth = 1;
  return copy;
}

CUgraphExec instantiate(CUgraph graph) {
  CUgraphExec exec = nullptr;
  OK(cuGraphInstantiate(&exec, graph, 0));
  return exec;
}

void launch_and_wait(CUgraphExec exec) {
  OK(cuGraphLaunch(exec, nullptr));
  OK(cuStreamSynchronize(nullptr));
}

// memset -> add -> add -> copy to the host -> host function, replayed.
void test_a_chain() {
  Context context;
  Kernels kernels;
  const CUfunction add = kernels["add"];
  Buffer x(4);
  Pinned host(4);
  std::atomic<uint32_t> seen = 0;
  struct Data {
    volatile uint32_t* from;
    std::atomic<uint32_t>* to;
  } data{host.words(), &seen};
  CUgraph graph;
  OK(cuGraphCreate(&graph, 0));
  CUgraphNode memset, first, second, copy, tell;
  const auto memset_parameters = fill(x, 5);
  OK(cuGraphAddMemsetNode(&memset, graph, nullptr, 0, &memset_parameters, context));
  OK(cuGraphAddKernelNode(&first, graph, &memset, 1, AddNode(add, x, x, 10)));
  OK(cuGraphAddKernelNode(&second, graph, &first, 1, AddNode(add, x, x, 100)));
  const auto copy_parameters = to_host(host.data(), x, 4);
  OK(cuGraphAddMemcpyNode(&copy, graph, &second, 1, &copy_parameters, context));
  CUDA_HOST_NODE_PARAMS host_parameters{[](void* p) {
                                          auto* d = static_cast<Data*>(p);
                                          *d->to += *d->from;
                                        },
                                        &data};
  OK(cuGraphAddHostNode(&tell, graph, &copy, 1, &host_parameters));
  CUgraphExec exec = instantiate(graph);
  OK(cuGraphUpload(exec, nullptr));
  for (uint32_t i = 1; i <= 5; ++i) {
    launch_and_wait(exec);
    CHECK(host.words()[0] == 115 && seen == 115 * i, "%u, seen %u", host.words()[0], seen.load());
  }
  CHECK(cuda().ptx_simulator_report_count() == 10, "%zu reports",
        cuda().ptx_simulator_report_count());

  // Changes of nodes show in new executable graphs only.
  OK(cuGraphKernelNodeSetParams(first, AddNode(add, x, x, 20)));
  launch_and_wait(exec);
  CHECK(host.words()[0] == 115, "%u", host.words()[0]);
  CUgraphExec newer = instantiate(graph);
  launch_and_wait(newer);
  CHECK(host.words()[0] == 125, "%u", host.words()[0]);
  OK(cuGraphExecDestroy(newer));

  // The executable graph alone can be changed, too.
  OK(cuGraphExecKernelNodeSetParams(exec, first, AddNode(add, x, x, 30)));
  const auto other_memset = fill(x, 1000);
  OK(cuGraphExecMemsetNodeSetParams(exec, memset, &other_memset, context));
  launch_and_wait(exec);
  CHECK(host.words()[0] == 1130, "%u", host.words()[0]);
  Pinned elsewhere(4);
  const auto other_copy = to_host(elsewhere.data(), x, 4);
  OK(cuGraphExecMemcpyNodeSetParams(exec, copy, &other_copy, context));
  launch_and_wait(exec);
  CHECK(elsewhere.words()[0] == 1130, "%u", elsewhere.words()[0]);
  OK(cuGraphNodeSetEnabled(exec, second, 0));
  unsigned enabled = 1;
  OK(cuGraphNodeGetEnabled(exec, second, &enabled));
  CHECK(enabled == 0, "still enabled");
  launch_and_wait(exec);
  CHECK(elsewhere.words()[0] == 1030, "%u", elsewhere.words()[0]);
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuGraphNodeSetEnabled(exec, tell, 0));
  EXPECT(CUDA_ERROR_INVALID_VALUE,
         cuGraphExecKernelNodeSetParams(exec, memset, AddNode(add, x, x, 30)));

  // A graph that is destroyed leaves its executable graph as it is.
  OK(cuGraphDestroy(graph));
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuGraphDestroy(graph));
  launch_and_wait(exec);
  CHECK(elsewhere.words()[0] == 1030, "%u", elsewhere.words()[0]);
  OK(cuGraphExecDestroy(exec));
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuGraphLaunch(exec, nullptr));
  CHECK(live().graphs == 0 && live().graph_execs == 0, "graphs live");
}

void test_launches_are_asynchronous() {
  Context context;
  Kernels kernels;
  Gate gate(kernels);
  Buffer x(4), y(4);
  CUstream stream;
  OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  CUgraph graph;
  CUgraphNode node;
  OK(cuGraphCreate(&graph, 0));
  OK(cuGraphAddKernelNode(&node, graph, nullptr, 0, AddNode(kernels["add"], y, x, 1)));
  CUgraphExec exec = instantiate(graph);
  OK(cuMemsetD32(y, 0, 1));
  OK(cuCtxSynchronize());
  gate.launch_in(stream, x, 10);
  OK(cuGraphLaunch(exec, stream));
  // Changed after its launch: that one still does what it was to do.
  OK(cuGraphExecKernelNodeSetParams(exec, node, AddNode(kernels["add"], y, x, 5)));
  EXPECT(CUDA_ERROR_NOT_READY, cuStreamQuery(stream));
  OK(cuGraphExecDestroy(exec));
  gate.open();
  OK(cuStreamSynchronize(stream));
  CHECK(y.read() == 11, "%u", y.read());
  OK(cuGraphDestroy(graph));
  OK(cuStreamDestroy(stream));
}

// A dependency that is missing shows: the order of independent nodes is random.
void test_missing_dependencies_show() {
  Context context;
  Kernels kernels;
  Buffer x(4), y(4);
  for (const bool dependent : {true, false}) {
    CUgraph graph;
    CUgraphNode a, b;
    OK(cuGraphCreate(&graph, 0));
    OK(cuGraphAddKernelNode(&a, graph, nullptr, 0, AddNode(kernels["add"], x, x, 1)));
    OK(cuGraphAddKernelNode(&b, graph, &a, dependent ? 1 : 0, AddNode(kernels["add"], y, x, 0)));
    CUgraphExec exec = instantiate(graph);
    OK(cuMemsetD32(x, 0, 1));
    int wrong = 0;
    for (uint32_t i = 1; i <= 20; ++i) {
      launch_and_wait(exec);
      wrong += y.read() != i;
    }
    CHECK(dependent ? wrong == 0 : wrong >= 3, "%d of 20 wrong, dependent %d", wrong, dependent);
    OK(cuGraphExecDestroy(exec));
    OK(cuGraphDestroy(graph));
  }
}

void test_topology() {
  Context context;
  CUgraph graph;
  OK(cuGraphCreate(&graph, 0));
  CUgraphNode a, b, c, d;
  OK(cuGraphAddEmptyNode(&a, graph, nullptr, 0));
  OK(cuGraphAddEmptyNode(&b, graph, &a, 1));
  OK(cuGraphAddEmptyNode(&c, graph, &a, 1));
  const CUgraphNode both[] = {b, c};
  OK(cuGraphAddEmptyNode(&d, graph, both, 2));
  size_t count = 0;
  OK(cuGraphGetNodes(graph, nullptr, &count));
  CHECK(count == 4, "%zu nodes", count);
  CUgraphNode nodes[6];
  count = 6;
  OK(cuGraphGetNodes(graph, nodes, &count));
  CHECK(count == 4 && nodes[0] == a && nodes[3] == d && nodes[4] == nullptr, "%zu nodes", count);
  OK(cuGraphGetRootNodes(graph, nullptr, &count));
  CHECK(count == 1, "%zu roots", count);
  OK(cuGraphGetEdges(graph, nullptr, nullptr, nullptr, &count));
  CHECK(count == 4, "%zu edges", count);
  CUgraphNode from[4], to[4];
  OK(cuGraphGetEdges(graph, from, to, nullptr, &count));
  CHECK(from[0] == a && to[0] == b && from[3] == c && to[3] == d, "other edges");
  OK(cuGraphNodeGetDependencies(d, nodes, nullptr, &(count = 6)));
  CHECK(count == 2 && nodes[0] == b && nodes[1] == c, "%zu dependencies", count);
  OK(cuGraphNodeGetDependentNodes(a, nodes, nullptr, &(count = 6)));
  CHECK(count == 2 && nodes[0] == b && nodes[1] == c, "%zu dependent nodes", count);
  CUgraphNodeType type;
  OK(cuGraphNodeGetType(a, &type));
  CHECK(type == CU_GRAPH_NODE_TYPE_EMPTY, "type %d", type);

  EXPECT(CUDA_ERROR_INVALID_VALUE, cuGraphAddDependencies(graph, &d, &a, nullptr, 1));  // a circle
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuGraphAddDependencies(graph, &a, &b, nullptr, 1));  // again
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuGraphAddDependencies(graph, &a, &a, nullptr, 1));
  OK(cuGraphRemoveDependencies(graph, &a, &b, nullptr, 1));
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuGraphRemoveDependencies(graph, &a, &b, nullptr, 1));
  OK(cuGraphAddDependencies(graph, &c, &b, nullptr, 1));
  OK(cuGraphDestroyNode(c));
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuGraphNodeGetType(c, &type));
  OK(cuGraphGetRootNodes(graph, nullptr, &count));
  CHECK(count == 2, "%zu roots", count);
  const CUgraphNode twice[] = {a, a};
  CUgraphNode e;
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuGraphAddEmptyNode(&e, graph, twice, 2));
  CUgraph other;
  OK(cuGraphCreate(&other, 0));
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuGraphAddEmptyNode(&e, other, &a, 1));
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuGraphCreate(&other, 1));
  OK(cuGraphDestroy(other));
  OK(cuGraphDestroy(graph));
}

void test_parameters_of_nodes() {
  Context context;
  Kernels kernels;
  Buffer x(400);
  CUgraph graph;
  OK(cuGraphCreate(&graph, 0));
  CUgraphNode kernel, memset, copy, host;
  OK(cuGraphAddKernelNode(&kernel, graph, nullptr, 0, AddNode(kernels["add"], x, x, 10)));
  CUDA_KERNEL_NODE_PARAMS k;
  OK(cuGraphKernelNodeGetParams(kernel, &k));
  CHECK(k.func == kernels["add"] && k.blockDimX == 32 && k.ctx == context, "%u threads",
        k.blockDimX);
  CHECK(*static_cast<CUdeviceptr*>(k.kernelParams[0]) == x, "another pointer");
  CHECK(*static_cast<uint32_t*>(k.kernelParams[2]) == 10, "value %u",
        *static_cast<uint32_t*>(k.kernelParams[2]));
  k.blockDimX = 2048;
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuGraphKernelNodeSetParams(kernel, &k));
  auto m = fill(x, 7, 100);
  OK(cuGraphAddMemsetNode(&memset, graph, nullptr, 0, &m, context));
  m.width = 101;
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuGraphMemsetNodeSetParams(memset, &m));
  OK(cuGraphMemsetNodeGetParams(memset, &m));
  CHECK(m.width == 100 && m.value == 7 && m.dst == x, "width %zu", m.width);
  std::vector<uint32_t> words(101);
  auto c = to_host(words.data(), x, 404);
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuGraphAddMemcpyNode(&copy, graph, nullptr, 0, &c, context));
  c.WidthInBytes = 400;
  OK(cuGraphAddMemcpyNode(&copy, graph, nullptr, 0, &c, context));
  OK(cuGraphMemcpyNodeGetParams(copy, &c));
  CHECK(c.WidthInBytes == 400, "%zu bytes", c.WidthInBytes);
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuGraphMemsetNodeGetParams(copy, &m));  // of another type
  CUDA_HOST_NODE_PARAMS h{nullptr, nullptr};
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuGraphAddHostNode(&host, graph, nullptr, 0, &h));
  CUgraphNodeParams any{};
  any.type = CU_GRAPH_NODE_TYPE_MEMSET;
  any.memset.dst = x;
  any.memset.value = 9;
  any.memset.elementSize = 4;
  any.memset.width = any.memset.height = 1;
  CUgraphNode generic;
  OK(cuGraphAddNode(&generic, graph, nullptr, nullptr, 0, &any));
  OK(cuGraphMemsetNodeGetParams(generic, &m));
  CHECK(m.value == 9, "value %u", m.value);
  OK(cuGraphDestroy(graph));
}

void test_updates() {
  Context context;
  Kernels kernels;
  const CUfunction add = kernels["add"];
  Buffer x(4), y(4);
  const auto make = [&](uint32_t value, int kernels_wanted, bool chained, bool memset) {
    CUgraph graph;
    CUgraphNode before = nullptr, node;
    OK(cuGraphCreate(&graph, 0));
    if (memset) {
      const auto m = fill(x, 0);
      OK(cuGraphAddMemsetNode(&before, graph, nullptr, 0, &m, context));
    } else {
      OK(cuGraphAddKernelNode(&before, graph, nullptr, 0, AddNode(add, x, y, value)));
    }
    for (int i = 0; i < kernels_wanted; ++i) {
      OK(cuGraphAddKernelNode(&node, graph, &before, chained ? 1 : 0, AddNode(add, x, x, value)));
      before = node;
    }
    return graph;
  };
  CUgraph first = make(1, 2, true, true);
  CUgraphExec exec = instantiate(first);
  launch_and_wait(exec);
  CHECK(x.read() == 2, "%u", x.read());
  CUgraphExecUpdateResultInfo info;
  CUgraph second = make(10, 2, true, true);
  OK(cuGraphExecUpdate(exec, second, &info));
  CHECK(info.result == CU_GRAPH_EXEC_UPDATE_SUCCESS, "result %d", info.result);
  launch_and_wait(exec);
  CHECK(x.read() == 20, "%u", x.read());
  // Nodes of the first graph name the nodes of the executable graph still.
  CUgraphNode nodes[3];
  size_t count = 3;
  OK(cuGraphGetNodes(first, nodes, &count));
  OK(cuGraphExecKernelNodeSetParams(exec, nodes[1], AddNode(add, x, x, 5)));
  launch_and_wait(exec);
  CHECK(x.read() == 15, "%u", x.read());

  struct Row {
    CUgraph graph;
    CUgraphExecUpdateResult result;
  };
  const Row rows[] = {
      {make(1, 1, true, true), CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED},
      {make(1, 3, true, true), CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED},
      {make(1, 2, false, true), CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED},
      {make(1, 2, true, false), CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED},
  };
  for (const Row& row : rows) {
    EXPECT(CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE, cuGraphExecUpdate(exec, row.graph, &info));
    CHECK(info.result == row.result, "row %td: result %d", &row - rows, info.result);
    OK(cuGraphDestroy(row.graph));
  }
  launch_and_wait(exec);  // as before
  CHECK(x.read() == 15, "%u", x.read());
  OK(cuGraphExecDestroy(exec));
  OK(cuGraphDestroy(first));
  OK(cuGraphDestroy(second));
}

void test_children_and_clones() {
  Context context;
  Kernels kernels;
  const CUfunction add = kernels["add"];
  Buffer x(4);
  CUgraph child, parent, copy;
  CUgraphNode inner, before, middle, after;
  OK(cuGraphCreate(&child, 0));
  OK(cuGraphAddKernelNode(&inner, child, nullptr, 0, AddNode(add, x, x, 10)));
  OK(cuGraphCreate(&parent, 0));
  const auto m = fill(x, 1);
  OK(cuGraphAddMemsetNode(&before, parent, nullptr, 0, &m, context));
  OK(cuGraphAddChildGraphNode(&middle, parent, &before, 1, child));
  OK(cuGraphAddKernelNode(&after, parent, &middle, 1, AddNode(add, x, x, 100)));
  OK(cuGraphDestroy(child));  // the node has a copy
  CUgraph inside;
  OK(cuGraphChildGraphNodeGetGraph(middle, &inside));
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuGraphDestroy(inside));
  CUgraphExec exec = instantiate(parent);
  for (int i = 0; i < 5; ++i) {
    launch_and_wait(exec);
    CHECK(x.read() == 111, "%u", x.read());
  }
  // A node of the child graph, changed in the executable graph.
  CUgraphNode twin;
  size_t one = 1;
  OK(cuGraphGetNodes(inside, &twin, &one));
  OK(cuGraphExecKernelNodeSetParams(exec, twin, AddNode(add, x, x, 20)));
  launch_and_wait(exec);
  CHECK(x.read() == 121, "%u", x.read());

  OK(cuGraphClone(&copy, parent));
  OK(cuGraphNodeFindInClone(&twin, after, copy));
  OK(cuGraphKernelNodeSetParams(twin, AddNode(add, x, x, 1000)));
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuGraphNodeFindInClone(&inner, twin, parent));
  OK(cuGraphExecDestroy(exec));
  exec = instantiate(copy);
  launch_and_wait(exec);
  CHECK(x.read() == 1011, "%u", x.read());
  OK(cuGraphExecDestroy(exec));
  OK(cuGraphDestroy(parent));
  OK(cuGraphDestroy(copy));
  CHECK(live().graphs == 0, "graphs live");
}

// What a graph uses may be gone when it is launched.
void test_stale_graphs() {
  for (const bool memory : {true, false}) {
    Context context;
    auto kernels = std::make_unique<Kernels>();
    CUdeviceptr x;
    OK(cuMemAlloc(&x, 4));
    CUgraph graph;
    CUgraphNode node;
    OK(cuGraphCreate(&graph, 0));
    if (memory) {
      const auto m = fill(x, 1);
      OK(cuGraphAddMemsetNode(&node, graph, nullptr, 0, &m, context));
    } else {
      OK(cuGraphAddKernelNode(&node, graph, nullptr, 0, AddNode((*kernels)["add"], x, x, 1)));
    }
    CUgraphExec exec = instantiate(graph);
    launch_and_wait(exec);
    if (memory)
      OK(cuMemFree(x));
    else
      kernels = nullptr;
    OK(cuGraphLaunch(exec, nullptr));
    EXPECT(CUDA_ERROR_ILLEGAL_ADDRESS, cuCtxSynchronize());
    CHECK(cuda().ptx_simulator_finding_count() == 1, "%zu findings",
          cuda().ptx_simulator_finding_count());
    OK(cuGraphExecDestroy(exec));
    OK(cuGraphDestroy(graph));
  }
}

}  // namespace
}  // namespace driver_test

int main() {
  using namespace driver_test;  // NOLINT
  return run_all({TEST(test_a_chain), TEST(test_launches_are_asynchronous),
                  TEST(test_missing_dependencies_show), TEST(test_topology),
                  TEST(test_parameters_of_nodes), TEST(test_updates),
                  TEST(test_children_and_clones), TEST(test_stale_graphs)});
}
