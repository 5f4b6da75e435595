// From a row of logits to the little that crosses the bus: the greatest logit, the sums of the
// log-sum-exp, whether all is finite, and the logits of the ids asked for.
//
// Exponentials are f32 (their error is 2^-22 at most where they count), and so are sums of four of
// them; sums of those are f64. Their order is fixed. A NaN makes a sum NaN, and so does a greatest
// logit that is infinite (infinity - infinity).
//
// A thread loads kQuads times four logits at once, where a loop would wait for each: 32 turns of it
// for Llama 2's vocabulary, and as many again for the sums. There the loads of the greatest logit
// are all, and stay in registers for the sums.
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

constexpr int kThreads = 1024;  // operations.cc has the same
constexpr int kQuads = 8;       // of a thread
constexpr int kChunk = kThreads * kQuads * 4;

// Four logits of a row at a time, kThreads quads apart. What lies behind the row is left out.
struct Logits {
  float4 at[kQuads];

  static __device__ int64_t first_id(int64_t chunk, int i) {
    return chunk + (i * kThreads + threadIdx.x) * 4;
  }
  __device__ void load(const float* row, int64_t vocab, int64_t chunk) {
#pragma unroll
    for (int i = 0; i < kQuads; ++i) {
      const int64_t id = first_id(chunk, i);
      at[i] = float4{};
      if (vocab % 4 == 0) {  // then every row begins at a multiple of 16 bytes
        if (id < vocab) at[i] = *reinterpret_cast<const float4*>(row + id);
      } else {
        if (id < vocab) at[i].x = row[id];
        if (id + 1 < vocab) at[i].y = row[id + 1];
        if (id + 2 < vocab) at[i].z = row[id + 2];
        if (id + 3 < vocab) at[i].w = row[id + 3];
      }
    }
  }
};

// The sum of fn(logit) of a quad.
template <class Fn>
__device__ inline double sum_of_four(const float4& v, int64_t id, int64_t vocab, const Fn& fn) {
  const float a = fn(v.x), b = fn(v.y), c = fn(v.z), d = fn(v.w);
  return static_cast<double>(((id < vocab ? a : 0) + (id + 1 < vocab ? b : 0)) +
                             ((id + 2 < vocab ? c : 0) + (id + 3 < vocab ? d : 0)));
}

// One block of kThreads threads per row.
// logits [rows][vocab], requests, records [rows]; inputs, results: words of the step;
// chosen [rows]: what the next step may refer to
extern "C" __global__ void __launch_bounds__(kThreads)
    row_results(const float* logits, int64_t vocab, const RowRequest* requests,
                const int32_t* inputs, RowRecord* records, float* results, int32_t* chosen) {
  __shared__ float best_logits[32];
  __shared__ int32_t best_ids[32];
  __shared__ double ones[32], scaleds[32];
  const float* row = logits + blockIdx.x * vocab;
  const RowRequest request = requests[blockIdx.x];

  Best best = {-INFINITY, static_cast<int32_t>(vocab)};
  Logits held;
  for (int64_t chunk = 0; chunk < vocab; chunk += kChunk) {
    held.load(row, vocab, chunk);
#pragma unroll
    for (int i = 0; i < kQuads; ++i) {
      const int64_t id = Logits::first_id(chunk, i);
      const float four[4] = {held.at[i].x, held.at[i].y, held.at[i].z, held.at[i].w};
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const bool counts = id + k < vocab && four[k] == four[k];
        const float x = counts ? four[k] : -INFINITY;
        best = better(best, {x, static_cast<int32_t>(id) + k});
      }
    }
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
  const bool is_scaled = request.inverse_temperature != 1;
  for (int64_t chunk = 0; chunk < vocab; chunk += kChunk) {
    if (vocab > kChunk) held.load(row, vocab, chunk);
#pragma unroll
    for (int i = 0; i < kQuads; ++i) {
      const int64_t id = Logits::first_id(chunk, i);
      one += sum_of_four(held.at[i], id, vocab, [&](float x) { return expf(x - best.logit); });
      if (is_scaled) {
        scaled += sum_of_four(held.at[i], id, vocab, [&](float x) {
          return expf((x - best.logit) * request.inverse_temperature);
        });
      }
    }
  }
  if (!is_scaled) scaled = one;
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
