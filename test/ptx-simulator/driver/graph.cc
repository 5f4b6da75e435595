#include "driver/graph.h"

#include <algorithm>
#include <map>
#include <set>

#include "driver/driver.h"
#include "driver/queue.h"

namespace ptx_simulator::driver {
namespace {

// Appends a graph's steps. The first and last step of each node are the same but for child graphs.
void append(Plan& plan, const Graph& graph, const std::vector<int>& after_first) {
  std::map<const GraphNode*, std::pair<int, int>> places;
  const auto add = [&](CUgraphNode node, Work work, std::vector<int> after) {
    plan.steps.push_back({node, std::move(work), std::move(after), true});
    return static_cast<int>(plan.steps.size()) - 1;
  };
  for (const auto& node : graph.nodes) {
    const auto* child = std::get_if<GraphWork>(&node->work);
    if (child == nullptr) {
      const int step = add(node->handle, node->work, {});
      places[node.get()] = {step, step};
      continue;
    }
    const int first = add(node->handle, EmptyWork{}, {});
    append(plan, *child->graph, {first});
    std::vector<int> inside;
    for (int step = first; step < static_cast<int>(plan.steps.size()); ++step)
      inside.push_back(step);
    places[node.get()] = {first, add(nullptr, EmptyWork{}, std::move(inside))};
  }
  for (const auto& node : graph.nodes) {
    std::vector<int>& after = plan.steps[places.at(node.get()).first].after;
    after = after_first;
    for (const GraphNode* other : node->dependencies) after.push_back(places.at(other).second);
  }
}

}  // namespace

std::shared_ptr<Graph> make_graph(Driver& state) {
  auto graph = std::make_shared<Graph>();
  state.graphs.add(graph);
  return graph;
}

GraphNode* add_node(Driver& state, Graph& graph, const std::vector<GraphNode*>& dependencies,
                    Work work) {
  auto node = std::make_unique<GraphNode>();
  node->handle = reinterpret_cast<CUgraphNode>(next_handle());
  node->graph = &graph;
  node->work = std::move(work);
  for (GraphNode* other : dependencies) {
    auto& known = node->dependencies;
    if (std::find(known.begin(), known.end(), other) == known.end()) known.push_back(other);
  }
  state.nodes[node->handle] = node.get();
  graph.nodes.push_back(std::move(node));
  return graph.nodes.back().get();
}

std::shared_ptr<Graph> clone(Driver& state, const Graph& graph) {
  auto copy = make_graph(state);
  std::map<const GraphNode*, GraphNode*> twins;
  for (const auto& node : graph.nodes) {
    Work work = node->work;
    if (auto* child = std::get_if<GraphWork>(&work)) {
      child->graph = clone(state, *child->graph);
      child->graph->is_child = true;
    }
    GraphNode* twin = add_node(state, *copy, {}, std::move(work));
    twin->original = node->handle;
    twins[node.get()] = twin;
  }
  for (const auto& node : graph.nodes)
    for (const GraphNode* other : node->dependencies)
      twins[node.get()]->dependencies.push_back(twins.at(other));
  return copy;
}

void forget(Driver& state, Graph& graph) {
  for (const auto& node : graph.nodes) {
    if (auto* child = std::get_if<GraphWork>(&node->work)) forget(state, *child->graph);
    state.nodes.erase(node->handle);
  }
  state.graphs.remove(graph.handle);
}

bool depends_on(const GraphNode& node, const GraphNode& other) {
  std::vector<const GraphNode*> open{&node};
  std::set<const GraphNode*> seen;
  while (!open.empty()) {
    const GraphNode* next = open.back();
    open.pop_back();
    if (next == &other) return true;
    if (!seen.insert(next).second) continue;
    open.insert(open.end(), next->dependencies.begin(), next->dependencies.end());
  }
  return false;
}

std::shared_ptr<Plan> make_plan(const Graph& graph) {
  auto plan = std::make_shared<Plan>();
  append(*plan, graph, {});
  return plan;
}

void run(const std::shared_ptr<Context>& context, const Plan& plan, uint64_t seed) {
  const size_t steps = plan.steps.size();
  std::vector<std::vector<int>> before(steps);
  std::vector<size_t> missing(steps);
  std::vector<int> ready;
  for (size_t step = 0; step < steps; ++step) {
    missing[step] = plan.steps[step].after.size();
    for (const int other : plan.steps[step].after) before[other].push_back(static_cast<int>(step));
    if (missing[step] == 0) ready.push_back(static_cast<int>(step));
  }
  for (uint64_t count = 0; !ready.empty(); ++count) {
    std::swap(ready[random_by_seed(seed, 1, count) % ready.size()], ready.back());
    const int step = ready.back();
    ready.pop_back();
    if (context->error != CUDA_SUCCESS) return;
    if (plan.steps[step].enabled) execute(context, plan.steps[step].work);
    for (const int next : before[step])
      if (--missing[next] == 0) ready.push_back(next);
  }
}

CUgraphNodeType type_of(const Work& work) {
  constexpr CUgraphNodeType kTypes[] = {CU_GRAPH_NODE_TYPE_EMPTY,  CU_GRAPH_NODE_TYPE_KERNEL,
                                        CU_GRAPH_NODE_TYPE_MEMCPY, CU_GRAPH_NODE_TYPE_MEMSET,
                                        CU_GRAPH_NODE_TYPE_HOST,   CU_GRAPH_NODE_TYPE_GRAPH};
  return kTypes[work.index()];
}

CUgraphExecUpdateResult can_replace(const Work& before, const Work& after) {
  if (before.index() != after.index()) return CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED;
  if (const auto* kernel = std::get_if<KernelWork>(&before)) {
    const auto& other = std::get<KernelWork>(after);
    if (kernel->function->module->context != other.function->module->context)
      return CU_GRAPH_EXEC_UPDATE_ERROR_UNSUPPORTED_FUNCTION_CHANGE;
  } else if (const auto* copy = std::get_if<CopyWork>(&before)) {
    // Only copies of consecutive bytes can change, and not the kind of memory.
    const CUDA_MEMCPY3D& a = copy->copy;
    const CUDA_MEMCPY3D& b = std::get<CopyWork>(after).copy;
    const auto is_linear = [](const CUDA_MEMCPY3D& c) { return c.Height == 1 && c.Depth == 1; };
    if (a.srcMemoryType != b.srcMemoryType || a.dstMemoryType != b.dstMemoryType || !is_linear(a) ||
        !is_linear(b))
      return CU_GRAPH_EXEC_UPDATE_ERROR_PARAMETERS_CHANGED;
  } else if (const auto* fill = std::get_if<FillWork>(&before)) {
    if (fill->height != 1 || std::get<FillWork>(after).height != 1)
      return CU_GRAPH_EXEC_UPDATE_ERROR_PARAMETERS_CHANGED;
  }
  return CU_GRAPH_EXEC_UPDATE_SUCCESS;
}

}  // namespace ptx_simulator::driver
