// Graphs as a whole: making and taking them apart, looking at them.
#include <algorithm>

#include "driver/driver.h"
#include "driver/graph_api.h"

namespace ptx_simulator::driver {

std::shared_ptr<Graph> find_graph(Driver& state, CUgraph handle) {
  auto graph = state.graphs.find(handle);
  require(graph != nullptr, "no such graph");
  return graph;
}

GraphNode& find_node(Driver& state, CUgraphNode handle) {
  const auto node = state.nodes.find(handle);
  require(node != state.nodes.end(), "no such node");
  return *node->second;
}

std::vector<GraphNode*> find_nodes(Driver& state, const Graph& graph, const CUgraphNode* handles,
                                   size_t count) {
  require(count == 0 || handles != nullptr);
  std::vector<GraphNode*> nodes;
  for (size_t i = 0; i < count; ++i) {
    nodes.push_back(&find_node(state, handles[i]));
    require(nodes.back()->graph == &graph, "the node is of another graph");
  }
  return nodes;
}

}  // namespace ptx_simulator::driver

using namespace ptx_simulator::driver;  // NOLINT: the API's functions are in no namespace

namespace {

// How the driver gives lists: without an array, their length; with one, as much as fits, and null
// for the rest.
void give_list(const std::vector<CUgraphNode>& list, CUgraphNode* handles, size_t* count) {
  require(count != nullptr);
  if (handles != nullptr)
    for (size_t i = 0; i < *count; ++i) handles[i] = i < list.size() ? list[i] : nullptr;
  *count = handles == nullptr ? list.size() : std::min(*count, list.size());
}

void give_plain_edges(CUgraphEdgeData* edges, size_t count) {
  if (edges != nullptr) std::fill_n(edges, count, CUgraphEdgeData{});
}

void check_edges(const CUgraphEdgeData* edges, size_t count) {
  for (size_t i = 0; edges != nullptr && i < count; ++i)
    require(edges[i].from_port == 0 && edges[i].to_port == 0 &&
                edges[i].type == CU_GRAPH_DEPENDENCY_TYPE_DEFAULT,
            "sm_80 has no programmatic dependencies");
}

}  // namespace

extern "C" {

CUresult CUDAAPI cuGraphCreate(CUgraph* graph, unsigned flags) {
  return api(__func__, kInit, [&](Call& call) {
    require(graph != nullptr && flags == 0);
    *graph = make_graph(call.state)->handle;
  });
}

CUresult CUDAAPI cuGraphDestroy(CUgraph handle) {
  return api(__func__, kInit, [&](Call& call) {
    const auto graph = find_graph(call.state, handle);
    require(!graph->is_child && !graph->is_captured, "the graph belongs to a node or a capture");
    forget(call.state, *graph);
  });
}

CUresult CUDAAPI cuGraphClone(CUgraph* copy, CUgraph handle) {
  return api(__func__, kInit, [&](Call& call) {
    require(copy != nullptr);
    *copy = clone(call.state, *find_graph(call.state, handle))->handle;
  });
}

CUresult CUDAAPI cuGraphNodeFindInClone(CUgraphNode* found, CUgraphNode original, CUgraph copy) {
  return api(__func__, kInit, [&](Call& call) {
    require(found != nullptr);
    for (const auto& node : find_graph(call.state, copy)->nodes) {
      if (node->original != original) continue;
      *found = node->handle;
      return;
    }
    fail(CUDA_ERROR_INVALID_VALUE, "the graph has no copy of the node");
  });
}

CUresult CUDAAPI cuGraphNodeGetType(CUgraphNode node, CUgraphNodeType* type) {
  return api(__func__, kInit, [&](Call& call) {
    require(type != nullptr);
    *type = type_of(find_node(call.state, node).work);
  });
}

CUresult CUDAAPI cuGraphGetNodes(CUgraph graph, CUgraphNode* nodes, size_t* count) {
  return api(__func__, kInit, [&](Call& call) {
    std::vector<CUgraphNode> list;
    for (const auto& node : find_graph(call.state, graph)->nodes) list.push_back(node->handle);
    give_list(list, nodes, count);
  });
}

CUresult CUDAAPI cuGraphGetRootNodes(CUgraph graph, CUgraphNode* nodes, size_t* count) {
  return api(__func__, kInit, [&](Call& call) {
    std::vector<CUgraphNode> list;
    for (const auto& node : find_graph(call.state, graph)->nodes)
      if (node->dependencies.empty()) list.push_back(node->handle);
    give_list(list, nodes, count);
  });
}

CUresult CUDAAPI cuGraphGetEdges(CUgraph graph, CUgraphNode* from, CUgraphNode* to,
                                 CUgraphEdgeData* edges, size_t* count) {
  return api(__func__, kInit, [&](Call& call) {
    require(count != nullptr && (from == nullptr) == (to == nullptr));
    std::vector<CUgraphNode> begins, ends;
    for (const auto& node : find_graph(call.state, graph)->nodes)
      for (const GraphNode* other : node->dependencies) {
        begins.push_back(other->handle);
        ends.push_back(node->handle);
      }
    size_t same = *count;
    give_list(begins, from, count);
    give_list(ends, to, &same);
    if (from != nullptr) give_plain_edges(edges, *count);
  });
}

CUresult CUDAAPI cuGraphNodeGetDependencies(CUgraphNode handle, CUgraphNode* nodes,
                                            CUgraphEdgeData* edges, size_t* count) {
  return api(__func__, kInit, [&](Call& call) {
    std::vector<CUgraphNode> list;
    for (const GraphNode* other : find_node(call.state, handle).dependencies)
      list.push_back(other->handle);
    give_list(list, nodes, count);
    if (nodes != nullptr) give_plain_edges(edges, *count);
  });
}

CUresult CUDAAPI cuGraphNodeGetDependentNodes(CUgraphNode handle, CUgraphNode* nodes,
                                              CUgraphEdgeData* edges, size_t* count) {
  return api(__func__, kInit, [&](Call& call) {
    const GraphNode& before = find_node(call.state, handle);
    std::vector<CUgraphNode> list;
    for (const auto& node : before.graph->nodes) {
      const auto& all = node->dependencies;
      if (std::find(all.begin(), all.end(), &before) != all.end()) list.push_back(node->handle);
    }
    give_list(list, nodes, count);
    if (nodes != nullptr) give_plain_edges(edges, *count);
  });
}

CUresult CUDAAPI cuGraphAddDependencies(CUgraph handle, const CUgraphNode* from,
                                        const CUgraphNode* to, const CUgraphEdgeData* edges,
                                        size_t count) {
  return api(__func__, kInit, [&](Call& call) {
    const auto graph = find_graph(call.state, handle);
    const auto begins = find_nodes(call.state, *graph, from, count);
    const auto ends = find_nodes(call.state, *graph, to, count);
    check_edges(edges, count);
    for (size_t i = 0; i < count; ++i) {
      auto& all = ends[i]->dependencies;
      require(std::find(all.begin(), all.end(), begins[i]) == all.end(),
              "the dependency exists already");
      require(!depends_on(*begins[i], *ends[i]), "the dependency would close a circle");
      all.push_back(begins[i]);
    }
  });
}

CUresult CUDAAPI cuGraphRemoveDependencies(CUgraph handle, const CUgraphNode* from,
                                           const CUgraphNode* to, const CUgraphEdgeData* edges,
                                           size_t count) {
  return api(__func__, kInit, [&](Call& call) {
    const auto graph = find_graph(call.state, handle);
    const auto begins = find_nodes(call.state, *graph, from, count);
    const auto ends = find_nodes(call.state, *graph, to, count);
    check_edges(edges, count);
    for (size_t i = 0; i < count; ++i)
      require(std::erase(ends[i]->dependencies, begins[i]) != 0, "no such dependency");
  });
}

CUresult CUDAAPI cuGraphDestroyNode(CUgraphNode handle) {
  return api(__func__, kInit, [&](Call& call) {
    GraphNode& node = find_node(call.state, handle);
    Graph& graph = *node.graph;
    require(!graph.is_captured, "the graph is being captured");
    if (const auto* child = std::get_if<GraphWork>(&node.work)) forget(call.state, *child->graph);
    for (const auto& other : graph.nodes) std::erase(other->dependencies, &node);
    call.state.nodes.erase(handle);
    std::erase_if(graph.nodes, [&](const auto& other) { return other.get() == &node; });
  });
}

}  // extern "C"
