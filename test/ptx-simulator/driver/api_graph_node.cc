// Nodes: adding them, reading and changing their parameters.
#include "driver/driver.h"
#include "driver/graph_api.h"

using namespace ptx_simulator::driver;  // NOLINT: the API's functions are in no namespace

namespace {

void add(Call& call, CUgraphNode* handle, CUgraph graph_handle, const CUgraphNode* dependencies,
         size_t count, Work work) {
  require(handle != nullptr);
  const auto graph = find_graph(call.state, graph_handle);
  const auto before = find_nodes(call.state, *graph, dependencies, count);
  for (size_t i = 0; i < before.size(); ++i)
    for (size_t j = 0; j < i; ++j) require(before[i] != before[j], "a dependency is given twice");
  *handle = add_node(call.state, *graph, before, std::move(work))->handle;
}

template <class SomeWork>
SomeWork& work_in(GraphNode& node) {
  auto* work = std::get_if<SomeWork>(&node.work);
  require(work != nullptr, "the node is of another type");
  return *work;
}

// A node keeps its type.
void change(Call& call, CUgraphNode handle, Work work) {
  GraphNode& node = find_node(call.state, handle);
  require(node.work.index() == work.index(), "the node is of another type");
  node.work = std::move(work);
}

}  // namespace

extern "C" {

CUresult CUDAAPI cuGraphAddKernelNode(CUgraphNode* node, CUgraph graph,
                                      const CUgraphNode* dependencies, size_t count,
                                      const CUDA_KERNEL_NODE_PARAMS* parameters) {
  return api(__func__, kUsable, [&](Call& call) {
    require(parameters != nullptr);
    add(call, node, graph, dependencies, count, kernel_work(call, *parameters));
  });
}

CUresult CUDAAPI cuGraphKernelNodeGetParams(CUgraphNode handle,
                                            CUDA_KERNEL_NODE_PARAMS* parameters) {
  return api(__func__, kInit, [&](Call& call) {
    require(parameters != nullptr);
    GraphNode& node = find_node(call.state, handle);
    auto& work = work_in<KernelWork>(node);
    node.parameter_pointers.clear();
    for (const auto& parameter : work.function->program->parameters)
      node.parameter_pointers.push_back(work.parameters.data() + parameter.offset);
    *parameters = {work.function->handle,
                   work.grid[0],
                   work.grid[1],
                   work.grid[2],
                   work.block[0],
                   work.block[1],
                   work.block[2],
                   work.dynamic_shared_bytes,
                   node.parameter_pointers.data(),
                   nullptr,
                   nullptr,
                   work.function->module->context->handle};
  });
}

CUresult CUDAAPI cuGraphKernelNodeSetParams(CUgraphNode node,
                                            const CUDA_KERNEL_NODE_PARAMS* parameters) {
  return api(__func__, kUsable, [&](Call& call) {
    require(parameters != nullptr);
    change(call, node, kernel_work(call, *parameters));
  });
}

CUresult CUDAAPI cuGraphAddMemcpyNode(CUgraphNode* node, CUgraph graph,
                                      const CUgraphNode* dependencies, size_t count,
                                      const CUDA_MEMCPY3D* parameters, CUcontext context) {
  return api(__func__, kUsable, [&](Call& call) {
    require(parameters != nullptr);
    find_context(call.state, context);
    add(call, node, graph, dependencies, count, copy_work(call, *parameters));
  });
}

CUresult CUDAAPI cuGraphMemcpyNodeGetParams(CUgraphNode node, CUDA_MEMCPY3D* parameters) {
  return api(__func__, kInit, [&](Call& call) {
    require(parameters != nullptr);
    *parameters = work_in<CopyWork>(find_node(call.state, node)).copy;
  });
}

CUresult CUDAAPI cuGraphMemcpyNodeSetParams(CUgraphNode node, const CUDA_MEMCPY3D* parameters) {
  return api(__func__, kUsable, [&](Call& call) {
    require(parameters != nullptr);
    change(call, node, copy_work(call, *parameters));
  });
}

CUresult CUDAAPI cuGraphAddMemsetNode(CUgraphNode* node, CUgraph graph,
                                      const CUgraphNode* dependencies, size_t count,
                                      const CUDA_MEMSET_NODE_PARAMS* parameters,
                                      CUcontext context) {
  return api(__func__, kUsable, [&](Call& call) {
    require(parameters != nullptr);
    find_context(call.state, context);
    add(call, node, graph, dependencies, count, fill_work(call, *parameters));
  });
}

CUresult CUDAAPI cuGraphMemsetNodeGetParams(CUgraphNode node, CUDA_MEMSET_NODE_PARAMS* parameters) {
  return api(__func__, kInit, [&](Call& call) {
    require(parameters != nullptr);
    const auto& work = work_in<FillWork>(find_node(call.state, node));
    *parameters = {work.address,       work.pitch, work.value,
                   work.element_bytes, work.width, work.height};
  });
}

CUresult CUDAAPI cuGraphMemsetNodeSetParams(CUgraphNode node,
                                            const CUDA_MEMSET_NODE_PARAMS* parameters) {
  return api(__func__, kUsable, [&](Call& call) {
    require(parameters != nullptr);
    change(call, node, fill_work(call, *parameters));
  });
}

CUresult CUDAAPI cuGraphAddHostNode(CUgraphNode* node, CUgraph graph,
                                    const CUgraphNode* dependencies, size_t count,
                                    const CUDA_HOST_NODE_PARAMS* parameters) {
  return api(__func__, kInit, [&](Call& call) {
    require(parameters != nullptr);
    add(call, node, graph, dependencies, count, host_work(*parameters));
  });
}

CUresult CUDAAPI cuGraphHostNodeGetParams(CUgraphNode node, CUDA_HOST_NODE_PARAMS* parameters) {
  return api(__func__, kInit, [&](Call& call) {
    require(parameters != nullptr);
    const auto& work = work_in<HostWork>(find_node(call.state, node));
    *parameters = {work.function, work.data};
  });
}

CUresult CUDAAPI cuGraphHostNodeSetParams(CUgraphNode node,
                                          const CUDA_HOST_NODE_PARAMS* parameters) {
  return api(__func__, kInit, [&](Call& call) {
    require(parameters != nullptr);
    change(call, node, host_work(*parameters));
  });
}

CUresult CUDAAPI cuGraphAddEmptyNode(CUgraphNode* node, CUgraph graph,
                                     const CUgraphNode* dependencies, size_t count) {
  return api(__func__, kInit,
             [&](Call& call) { add(call, node, graph, dependencies, count, EmptyWork{}); });
}

// The node gets a copy of the graph.
CUresult CUDAAPI cuGraphAddChildGraphNode(CUgraphNode* node, CUgraph graph,
                                          const CUgraphNode* dependencies, size_t count,
                                          CUgraph child) {
  return api(__func__, kInit, [&](Call& call) {
    auto copy = clone(call.state, *find_graph(call.state, child));
    copy->is_child = true;
    try {
      add(call, node, graph, dependencies, count, GraphWork{copy});
    } catch (const Failure&) {
      forget(call.state, *copy);
      throw;
    }
  });
}

CUresult CUDAAPI cuGraphChildGraphNodeGetGraph(CUgraphNode node, CUgraph* graph) {
  return api(__func__, kInit, [&](Call& call) {
    require(graph != nullptr);
    *graph = work_in<GraphWork>(find_node(call.state, node)).graph->handle;
  });
}

CUresult CUDAAPI cuGraphAddNode(CUgraphNode* node, CUgraph graph, const CUgraphNode* dependencies,
                                const CUgraphEdgeData*, size_t count,
                                CUgraphNodeParams* parameters) {
  return api(__func__, kUsable, [&](Call& call) {
    require(parameters != nullptr);
    add(call, node, graph, dependencies, count, work_of(call, *parameters));
  });
}

CUresult CUDAAPI cuGraphNodeSetParams(CUgraphNode node, CUgraphNodeParams* parameters) {
  return api(__func__, kUsable, [&](Call& call) {
    require(parameters != nullptr);
    change(call, node, work_of(call, *parameters));
  });
}

}  // extern "C"
