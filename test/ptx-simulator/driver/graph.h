// Graphs: nodes of work with dependencies, and their executable form.
#pragma once

#include <cuda.h>

#include <memory>
#include <utility>
#include <vector>

#include "driver/work.h"

namespace ptx_simulator::driver {

struct Driver;

struct GraphNode {
  CUgraphNode handle = nullptr;
  Graph* graph = nullptr;
  Work work;
  std::vector<GraphNode*> dependencies;  // without duplicates
  CUgraphNode original = nullptr;        // that it was cloned from
  // What kernelParams of cuGraphKernelNodeGetParams points to.
  std::vector<void*> parameter_pointers;
};

struct Graph {
  CUgraph handle = nullptr;
  std::vector<std::unique_ptr<GraphNode>> nodes;  // in the order they were made
  bool is_child = false;                          // owned by a node
  bool is_captured = false;                       // and the capture has not ended
};

// A graph made ready: child graphs are spliced in, between a step that begins and one that ends
// them. Never changed once it is shared with a launch.
struct Plan {
  struct Step {
    CUgraphNode node = nullptr;  // null for the end of a child graph
    Work work;
    std::vector<int> after;
    bool enabled = true;
  };
  std::vector<Step> steps;
};

struct GraphExec {
  CUgraphExec handle = nullptr;
  std::shared_ptr<Context> context;
  std::shared_ptr<const Plan> plan;
  unsigned long long flags = 0;
  std::shared_ptr<Task> last;  // launches of one executable graph do not overlap
};

std::shared_ptr<Graph> make_graph(Driver& state);
GraphNode* add_node(Driver& state, Graph& graph, const std::vector<GraphNode*>& dependencies,
                    Work work);
// Deep, child graphs included.
std::shared_ptr<Graph> clone(Driver& state, const Graph& graph);
// Forgets the handles of the graph, its nodes and its child graphs.
void forget(Driver& state, Graph& graph);
// Whether a node comes after another (or is the same), however far away.
bool depends_on(const GraphNode& node, const GraphNode& other);

// Throws Failure for a graph that cannot run.
std::shared_ptr<Plan> make_plan(const Graph& graph);
// Does all steps, one after the other, in an order that is random by seed within the dependencies:
// a dependency that is missing shows.
void run(const std::shared_ptr<Context>& context, const Plan& plan, uint64_t seed);

CUgraphNodeType type_of(const Work& work);
// Why a step cannot take the place of another in an executable graph, or success.
CUgraphExecUpdateResult can_replace(const Work& before, const Work& after);

}  // namespace ptx_simulator::driver
