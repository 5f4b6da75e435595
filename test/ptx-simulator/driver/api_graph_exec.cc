// Executable graphs: launching them, and changing them without making them anew.
#include "driver/capture.h"
#include "driver/driver.h"
#include "driver/graph_api.h"
#include "driver/queue.h"

using namespace ptx_simulator::driver;  // NOLINT: the API's functions are in no namespace

namespace {

std::shared_ptr<GraphExec> find_exec(Driver& state, CUgraphExec handle) {
  auto exec = state.graph_execs.find(handle);
  require(exec != nullptr, "no such executable graph");
  return exec;
}

CUgraphExec instantiate(Call& call, CUgraph handle, unsigned long long flags) {
  constexpr unsigned long long kKnown = CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH |
                                        CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD |
                                        CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY;
  require((flags & ~kKnown) == 0, "unknown or unsupported flags");
  const auto graph = find_graph(call.state, handle);
  require(!graph->is_captured, "the graph is being captured");
  auto exec = std::make_shared<GraphExec>();
  exec->context = call.context;
  exec->plan = make_plan(*graph);
  exec->flags = flags;
  return call.state.graph_execs.add(std::move(exec));
}

void launch(Call& call, const std::shared_ptr<GraphExec>& exec,
            const std::shared_ptr<Stream>& stream) {
  require(exec->context == stream->context, CUDA_ERROR_INVALID_HANDLE,
          "the graph and the stream are of different contexts");
  check_no_implicit_dependency(call.state, *stream);
  Driver& state = call.state;
  const uint64_t seed = random_by_seed(state.settings.seed, 2, state.next_id++);
  const auto body = [context = exec->context, plan = exec->plan, seed] {
    run(context, *plan, seed);
  };
  // A host node tells the host something, as a host function does.
  bool tells = false;
  for (const Plan::Step& step : exec->plan->steps)
    tells |= std::holds_alternative<HostWork>(step.work);
  exec->last =
      submit(state, *stream, body, {.after = {exec->last}, .always = false, .wanted = tells});
}

// A plan that launches may be using is never changed: the next launch gets a new one.
Plan::Step& step_to_change(const std::shared_ptr<GraphExec>& exec, CUgraphNode node,
                           std::shared_ptr<Plan>& plan) {
  require(node != nullptr);
  plan = std::make_shared<Plan>(*exec->plan);
  for (Plan::Step& step : plan->steps)
    if (step.node == node) return step;
  fail(CUDA_ERROR_INVALID_VALUE, "the executable graph has no such node");
}

void change(Call& call, CUgraphExec handle, CUgraphNode node, Work work) {
  const auto exec = find_exec(call.state, handle);
  std::shared_ptr<Plan> plan;
  Plan::Step& step = step_to_change(exec, node, plan);
  require(can_replace(step.work, work) == CU_GRAPH_EXEC_UPDATE_SUCCESS,
          "an executable graph cannot be changed in this way");
  step.work = std::move(work);
  exec->plan = std::move(plan);
}

// The first difference that forbids an update, and the node of the new graph that shows it.
CUgraphExecUpdateResult compare(const Plan& before, const Plan& after, CUgraphNode& node) {
  for (size_t i = 0; i < std::min(before.steps.size(), after.steps.size()); ++i) {
    node = after.steps[i].node;
    if (before.steps[i].after != after.steps[i].after)
      return CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
    const auto result = can_replace(before.steps[i].work, after.steps[i].work);
    if (result != CU_GRAPH_EXEC_UPDATE_SUCCESS) return result;
  }
  node = nullptr;
  return before.steps.size() == after.steps.size() ? CU_GRAPH_EXEC_UPDATE_SUCCESS
                                                   : CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
}

}  // namespace

extern "C" {

CUresult CUDAAPI cuGraphInstantiate(CUgraphExec* exec, CUgraph graph, unsigned long long flags) {
  return api(__func__, kUsable, [&](Call& call) {
    require(exec != nullptr);
    *exec = instantiate(call, graph, flags);
  });
}

CUresult CUDAAPI cuGraphInstantiateWithParams(CUgraphExec* exec, CUgraph graph,
                                              CUDA_GRAPH_INSTANTIATE_PARAMS* parameters) {
  return api(__func__, kUsable, [&](Call& call) {
    require(exec != nullptr && parameters != nullptr);
    parameters->hErrNode_out = nullptr;
    parameters->result_out = CUDA_GRAPH_INSTANTIATE_ERROR;
    if (parameters->flags & CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD)
      find_stream(call, parameters->hUploadStream);
    *exec = instantiate(call, graph, parameters->flags);
    parameters->result_out = CUDA_GRAPH_INSTANTIATE_SUCCESS;
  });
}

CUresult CUDAAPI cuGraphExecGetFlags(CUgraphExec handle, cuuint64_t* flags) {
  return api(__func__, kInit, [&](Call& call) {
    require(flags != nullptr);
    *flags = find_exec(call.state, handle)->flags;
  });
}

// There is nothing to upload; the call only has its place in the stream.
CUresult CUDAAPI cuGraphUpload(CUgraphExec handle, CUstream stream_handle) {
  return api(__func__, kUsable, [&](Call& call) {
    find_exec(call.state, handle);
    auto stream = find_stream(call, stream_handle);
    check_not_captured(*stream);
    check_no_implicit_dependency(call.state, *stream);
    submit(call.state, *stream, nullptr);
  });
}

CUresult CUDAAPI cuGraphLaunch(CUgraphExec handle, CUstream stream_handle) {
  return api(__func__, kUsable, [&](Call& call) {
    const auto exec = find_exec(call.state, handle);
    auto stream = find_stream(call, stream_handle);
    check_not_captured(*stream);  // as a child node: not simulated
    launch(call, exec, stream);
  });
}

CUresult CUDAAPI cuGraphExecDestroy(CUgraphExec handle) {
  return api(__func__, kInit, [&](Call& call) {
    find_exec(call.state, handle);
    call.state.graph_execs.remove(handle);  // launches hold their plan
  });
}

CUresult CUDAAPI cuGraphExecUpdate(CUgraphExec handle, CUgraph graph,
                                   CUgraphExecUpdateResultInfo* result) {
  return api(__func__, kUsable, [&](Call& call) {
    require(result != nullptr);
    *result = {CU_GRAPH_EXEC_UPDATE_ERROR, nullptr, nullptr};
    const auto exec = find_exec(call.state, handle);
    auto plan = make_plan(*find_graph(call.state, graph));
    result->result = compare(*exec->plan, *plan, result->errorNode);
    require(result->result == CU_GRAPH_EXEC_UPDATE_SUCCESS, CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE,
            "the graph differs too much");
    // Nodes keep the names that they had when the executable graph was made.
    for (size_t i = 0; i < plan->steps.size(); ++i) {
      plan->steps[i].node = exec->plan->steps[i].node;
      plan->steps[i].enabled = exec->plan->steps[i].enabled;
    }
    exec->plan = std::move(plan);
  });
}

CUresult CUDAAPI cuGraphExecKernelNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                                const CUDA_KERNEL_NODE_PARAMS* parameters) {
  return api(__func__, kUsable, [&](Call& call) {
    require(parameters != nullptr);
    change(call, exec, node, kernel_work(call, *parameters));
  });
}

CUresult CUDAAPI cuGraphExecMemcpyNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                                const CUDA_MEMCPY3D* parameters,
                                                CUcontext context) {
  return api(__func__, kUsable, [&](Call& call) {
    require(parameters != nullptr);
    find_context(call.state, context);
    change(call, exec, node, copy_work(call, *parameters));
  });
}

CUresult CUDAAPI cuGraphExecMemsetNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                                const CUDA_MEMSET_NODE_PARAMS* parameters,
                                                CUcontext context) {
  return api(__func__, kUsable, [&](Call& call) {
    require(parameters != nullptr);
    find_context(call.state, context);
    change(call, exec, node, fill_work(call, *parameters));
  });
}

CUresult CUDAAPI cuGraphExecHostNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                              const CUDA_HOST_NODE_PARAMS* parameters) {
  return api(__func__, kUsable, [&](Call& call) {
    require(parameters != nullptr);
    change(call, exec, node, host_work(*parameters));
  });
}

CUresult CUDAAPI cuGraphExecNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                          CUgraphNodeParams* parameters) {
  return api(__func__, kUsable, [&](Call& call) {
    require(parameters != nullptr);
    change(call, exec, node, work_of(call, *parameters));
  });
}

CUresult CUDAAPI cuGraphNodeSetEnabled(CUgraphExec handle, CUgraphNode node, unsigned enabled) {
  return api(__func__, kUsable, [&](Call& call) {
    const auto exec = find_exec(call.state, handle);
    std::shared_ptr<Plan> plan;
    Plan::Step& step = step_to_change(exec, node, plan);
    const CUgraphNodeType type = type_of(step.work);
    require(type == CU_GRAPH_NODE_TYPE_KERNEL || type == CU_GRAPH_NODE_TYPE_MEMCPY ||
                type == CU_GRAPH_NODE_TYPE_MEMSET,
            "nodes of this type cannot be disabled");
    step.enabled = enabled != 0;
    exec->plan = std::move(plan);
  });
}

CUresult CUDAAPI cuGraphNodeGetEnabled(CUgraphExec handle, CUgraphNode node, unsigned* enabled) {
  return api(__func__, kUsable, [&](Call& call) {
    require(enabled != nullptr);
    const auto exec = find_exec(call.state, handle);
    std::shared_ptr<Plan> copy;
    *enabled = step_to_change(exec, node, copy).enabled ? 1 : 0;
  });
}

}  // extern "C"
