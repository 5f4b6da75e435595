// What the functions of the graph API share.
#pragma once

#include "driver/driver.h"
#include "driver/graph.h"

namespace ptx_simulator::driver {

// They fail with INVALID_VALUE.
std::shared_ptr<Graph> find_graph(Driver& state, CUgraph handle);
GraphNode& find_node(Driver& state, CUgraphNode handle);
std::vector<GraphNode*> find_nodes(Driver& state, const Graph& graph, const CUgraphNode* handles,
                                   size_t count);

// Work from the parameters of a node, checked as far as the real driver checks them when the node
// is made.
KernelWork kernel_work(Call& call, const CUDA_KERNEL_NODE_PARAMS& parameters);
CopyWork copy_work(Call& call, const CUDA_MEMCPY3D& parameters);
FillWork fill_work(Call& call, const CUDA_MEMSET_NODE_PARAMS& parameters);
HostWork host_work(const CUDA_HOST_NODE_PARAMS& parameters);
// Of the types above, and empty nodes.
Work work_of(Call& call, const CUgraphNodeParams& parameters);

}  // namespace ptx_simulator::driver
