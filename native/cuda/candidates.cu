// The best `candidates` logits of a row with their ids, best first; of equal ones the lower id
// first; NaN counts as -infinity. The same order as on the CPU (native/cpu/select.cc).
//
// Radix select finds the least logit that is among them, byte by byte from the top, and how many of
// the logits equal to it are; one more pass over the row collects them (of equal ones those of the
// lowest ids), and a bitonic sort puts them in order.
#include "cuda/reduce.cuh"
#include "cuda/row_results.h"

namespace altiplano::cuda {

constexpr int kThreads = 1024;

// Rises with the logit. Zeros of either sign are equal.
__device__ inline uint32_t rank_of(float logit) {
  if (!(logit == logit)) logit = -INFINITY;
  const uint32_t bits = __float_as_uint(logit + 0.0f);  // -0 + 0 is 0
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// Falls with the logit, then rises with the id: what is sorted.
__device__ inline uint64_t key_of(uint32_t rank, uint32_t id) {
  return static_cast<uint64_t>(~rank) << 32 | id;
}

// The inclusive sum of `flag` over the threads of the block up to this one, and over all.
__device__ inline int count_up_to_here(bool flag, int32_t* warp_counts, int& all) {
  const unsigned lanes = __ballot_sync(kAllLanes, flag);
  const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  __syncthreads();  // the counts of the call before have been read
  if (lane == 0) warp_counts[warp] = __popc(lanes);
  __syncthreads();  // all counts are there
  int before = 0;
  all = 0;
  for (unsigned w = 0; w < kThreads / 32; ++w) {
    if (w < warp) before += warp_counts[w];
    all += warp_counts[w];
  }
  return before + __popc(lanes & (0xffffffffu >> (31 - lane)));
}

// One block of kThreads threads. keys: room for the next power of two of the candidates.
__device__ inline void select_and_sort(const float* row, int32_t vocab, const RowRequest& request,
                                       uint64_t* keys, float* results) {
  __shared__ uint32_t histogram[256];
  __shared__ uint32_t chosen_digit, remaining;
  __shared__ int32_t greater, warp_counts[kThreads / 32];
  const int count = request.candidates;

  // Ranks that begin with `prefix` (the bits of `mask`) hold the least one that is wanted;
  // `wanted` of them are.
  uint32_t prefix = 0, mask = 0, wanted = count;
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int i = threadIdx.x; i < 256; i += kThreads) histogram[i] = 0;
    __syncthreads();  // the histogram is empty
    for (int id = threadIdx.x; id < vocab; id += kThreads) {
      const uint32_t rank = rank_of(row[id]);
      if ((rank & mask) == prefix) atomicAdd(&histogram[rank >> shift & 255u], 1u);
    }
    __syncthreads();  // the histogram is complete
    if (threadIdx.x == 0) {
      uint32_t digit = 255, rest = wanted;
      while (histogram[digit] < rest) rest -= histogram[digit--];
      chosen_digit = digit;
      remaining = rest;
    }
    __syncthreads();  // the digit is there; and the histogram may be cleared
    prefix |= chosen_digit << shift;
    mask |= 255u << shift;
    wanted = remaining;
  }

  // All ranks above `prefix`, and the first `wanted` that are equal to it.
  if (threadIdx.x == 0) greater = 0;
  __syncthreads();  // the counter is zero
  int equal_before = 0;
  for (int first = 0; first < vocab; first += kThreads) {
    const int id = first + static_cast<int>(threadIdx.x);
    const uint32_t rank = id < vocab ? rank_of(row[id]) : 0;
    const bool is_equal = id < vocab && rank == prefix;
    int equal_here;
    const int equal_place = equal_before + count_up_to_here(is_equal, warp_counts, equal_here);
    if (id < vocab && rank > prefix) keys[atomicAdd(&greater, 1)] = key_of(rank, id);
    if (is_equal && equal_place <= static_cast<int>(wanted)) {
      keys[count - wanted + equal_place - 1] = key_of(rank, id);
    }
    equal_before += equal_here;
  }
  int size = 1;
  while (size < count) size *= 2;
  for (int i = count + threadIdx.x; i < size; i += kThreads) keys[i] = ~uint64_t{0};

  for (int run = 2; run <= size; run *= 2) {
    for (int distance = run / 2; distance > 0; distance /= 2) {
      __syncthreads();  // the keys of the stage before are there
      for (int i = threadIdx.x; i < size; i += kThreads) {
        const int other = i ^ distance;
        if (other < i) continue;
        const uint64_t a = keys[i], b = keys[other];
        if ((a > b) == ((i & run) == 0)) {
          keys[i] = b;
          keys[other] = a;
        }
      }
    }
  }
  __syncthreads();  // all are in order
  for (int i = threadIdx.x; i < count; i += kThreads) {
    const auto id = static_cast<uint32_t>(keys[i]);
    const float logit = row[id];
    results[request.candidate_results + 2 * i] = __uint_as_float(id);
    results[request.candidate_results + 2 * i + 1] = logit == logit ? logit : -INFINITY;
  }
}

// One block per row. Rows that want one candidate have it from row_results.
// logits [rows][vocab], requests [rows], results: words of the step
extern "C" __global__ void __launch_bounds__(kThreads)
    candidates_shared(const float* logits, int64_t vocab, const RowRequest* requests,
                      float* results) {
  __shared__ uint64_t keys[kCandidatesInSharedMemory];
  const RowRequest request = requests[blockIdx.x];
  if (request.candidates <= 1) return;
  select_and_sort(logits + blockIdx.x * vocab, static_cast<int32_t>(vocab), request, keys, results);
}

// The same for more candidates; keys [rows][keys_stride].
extern "C" __global__ void __launch_bounds__(kThreads)
    candidates_global(const float* logits, int64_t vocab, const RowRequest* requests,
                      float* results, uint64_t* keys, int64_t keys_stride) {
  const RowRequest request = requests[blockIdx.x];
  if (request.candidates <= 1) return;
  select_and_sort(logits + blockIdx.x * vocab, static_cast<int32_t>(vocab), request,
                  keys + blockIdx.x * keys_stride, results);
}

}  // namespace altiplano::cuda
