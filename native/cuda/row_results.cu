// From a row of logits to the little that crosses the bus: the greatest logit, the sums of the
// log-sum-exp, whether all is finite, and the logits of the ids asked for.
//
// Exponentials are f32 (their error is 2^-22 at most where they count), sums are f64 in a fixed
// order. A NaN makes a sum NaN, and so does a greatest logit that is infinite (infinity -
// infinity).
#include "cuda/reduce.cuh"
#include "cuda/row_results.h"

namespace altiplano::cuda {

// A logit and its id. The greater logit is better, of equals (zeros of either sign too) the lower
// id.
struct Best {
  float logit;
  int32_t id;
};

__device__ inline Best better(const Best& a, const Best& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id) ? a : b;
}

// One block per row.
// logits [rows][vocab], requests, records [rows]; inputs, results: words of the step;
// chosen [rows]: what the next step may refer to
extern "C" __global__ void row_results(const float* logits, int64_t vocab,
                                       const RowRequest* requests, const int32_t* inputs,
                                       RowRecord* records, float* results, int32_t* chosen) {
  __shared__ float best_logits[32];
  __shared__ int32_t best_ids[32];
  __shared__ double ones[32], scaleds[32];
  const float* row = logits + blockIdx.x * vocab;
  const RowRequest request = requests[blockIdx.x];

  Best best = {-INFINITY, static_cast<int32_t>(vocab)};
  for (int64_t id = threadIdx.x; id < vocab; id += blockDim.x) {
    const float x = row[id];
    best = better(best, {x == x ? x : -INFINITY, static_cast<int32_t>(id)});
  }
  for (int distance = 16; distance > 0; distance /= 2) {
    const float logit = __shfl_xor_sync(kAllLanes, best.logit, distance);
    const int32_t id = __shfl_xor_sync(kAllLanes, best.id, distance);
    best = better(best, {logit, id});
  }
  if (threadIdx.x % 32 == 0) {
    best_logits[threadIdx.x / 32] = best.logit;
    best_ids[threadIdx.x / 32] = best.id;
  }
  __syncthreads();  // every warp's best is there
  for (unsigned warp = 0; warp < blockDim.x / 32; ++warp) {
    best = better(best, {best_logits[warp], best_ids[warp]});
  }

  double one = 0, scaled = 0;
  for (int64_t id = threadIdx.x; id < vocab; id += blockDim.x) {
    const float below = row[id] - best.logit;
    one += static_cast<double>(expf(below));
    scaled += static_cast<double>(expf(below * request.inverse_temperature));
  }
  const auto add = [](double a, double b) { return a + b; };
  one = reduce_block(one, ones, add);
  scaled = reduce_block(scaled, scaleds, add);
  if (threadIdx.x == 0) {
    chosen[blockIdx.x] = best.id;
    records[blockIdx.x] = {best.logit, one, scaled, isfinite(one) ? 1 : 0, best.id};
    if (request.candidates == 1) {
      results[request.candidate_results] = __int_as_float(best.id);
      results[request.candidate_results + 1] = best.logit;
    }
  }
  for (int i = threadIdx.x; i < request.id_count; i += blockDim.x) {
    results[request.id_results + i] = row[inputs[request.ids + i]];
  }
}

}  // namespace altiplano::cuda
