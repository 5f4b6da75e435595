// Sums over long arrays that many blocks share. Every block leaves its part in global memory and
// takes a ticket; who takes the last one adds the parts, always in the same order.
#include "ptx.cuh"
#include "reduce.cuh"

namespace {
constexpr int kMostWarps = 32;
}

// sum[1] of x[length]; count[0]: how many x are not finite; largest[0]: the greatest |x| of the
// finite ones, as bits. parts: [gridDim.x]. tickets[0] must be 0 and is 0 again afterwards; so must
// count[0] and largest[0] be.
extern "C" __global__ void __launch_bounds__(1024)
    split_sum(const float* __restrict__ x, long long length, float* parts, unsigned* tickets,
              unsigned* count, unsigned* largest, float* sum) {
  __shared__ float scratch[kMostWarps];
  __shared__ float last_scratch[kMostWarps];
  __shared__ bool is_last;
  float part = 0.f;
  unsigned wrong = 0, greatest = 0;
  for (long long i = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x; i < length;
       i += static_cast<long long>(gridDim.x) * blockDim.x) {
    const float v = x[i];
    if (isfinite(v)) {
      part += v;
      greatest = max(greatest, __float_as_uint(fabsf(v)));
    } else {
      ++wrong;
    }
  }
  wrong = __reduce_add_sync(0xFFFFFFFFu, wrong);
  greatest = __reduce_max_sync(0xFFFFFFFFu, greatest);
  if (threadIdx.x % 32 == 0) {
    if (wrong > 0) atomicAdd(count, wrong);
    atomicMax(largest, greatest);
  }
  part = reduce::over_block<reduce::Sum>(part, scratch);
  if (threadIdx.x == 0) {
    parts[blockIdx.x] = part;
    __threadfence();  // the part is there before the ticket says so
    is_last = atomicAdd(tickets, 1u) == gridDim.x - 1;
  }
#ifdef WAITS_FOR_ABSENT_BLOCK
  while (threadIdx.x == 0 && atomicAdd(tickets, 0u) <= gridDim.x) {
  }
#endif
  __syncthreads();
  if (!is_last) return;
  __threadfence();
  const volatile float* const all = parts;
  part = 0.f;
  for (unsigned i = threadIdx.x; i < gridDim.x; i += blockDim.x) part += all[i];
  part = reduce::over_block<reduce::Sum>(part, last_scratch);
  if (threadIdx.x == 0) {
    *sum = part;
    *tickets = 0;
  }
}

// x: [rows][length]. The sums of gridDim.y slices of a row are added to sums[rows] in any order.
extern "C" __global__ void __launch_bounds__(1024)
    split_rows(const float* __restrict__ x, int length, float* sums) {
  __shared__ float scratch[kMostWarps];
  x += static_cast<size_t>(blockIdx.x) * length;
  float part = 0.f;
  for (int i = blockIdx.y * blockDim.x + threadIdx.x; i < length; i += gridDim.y * blockDim.x) {
    part += x[i];
  }
  part = reduce::over_block<reduce::Sum>(part, scratch);
  if (threadIdx.x == 0) atomicAdd(&sums[blockIdx.x], part);
}
