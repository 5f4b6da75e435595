// PTX instructions that C++ has no expression for, each in a small named function. What touches
// memory is volatile and clobbers "memory", so that the compiler keeps its place among loads,
// stores and barriers; what only computes is left to the compiler's scheduling.
#pragma once

#include <cstdint>

namespace altiplano::cuda {

// --- shared memory ------------------------------------------------------------------------------

// The address of shared memory as the instructions below take it: 32 bits within the window of the
// block.
__device__ inline uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// 16 bytes of shared memory, aligned: one quarter-warp a wavefront.
__device__ inline uint4 load_shared_16(uint32_t address) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(address)
               : "memory");
  return v;
}

__device__ inline void store_shared_16(uint32_t address, uint4 v) {
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};"
               :
               : "r"(address), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
               : "memory");
}

__device__ inline void store_shared_8(uint32_t address, uint32_t low, uint32_t high) {
  asm volatile("st.shared.v2.u32 [%0], {%1, %2};" : : "r"(address), "r"(low), "r"(high) : "memory");
}

__device__ inline void store_shared_4(uint32_t address, uint32_t v) {
  asm volatile("st.shared.u32 [%0], %1;" : : "r"(address), "r"(v) : "memory");
}

__device__ inline float2 load_shared_f32_pair(uint32_t address) {
  float2 v;
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(v.x), "=f"(v.y) : "r"(address) : "memory");
  return v;
}

__device__ inline uint32_t load_shared_4(uint32_t address) {
  uint32_t v;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(address) : "memory");
  return v;
}

// Four 8 x 8 matrices of 16-bit numbers (8 rows of 16 bytes each). Lane i gives the address of row
// i % 8 of matrix i / 8; lane 4 g + t receives of each matrix elements 2 t and 2 t + 1 of row g.
__device__ inline void load_matrices(uint32_t address, uint32_t& m0, uint32_t& m1, uint32_t& m2,
                                     uint32_t& m3) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(m0), "=r"(m1), "=r"(m2), "=r"(m3)
               : "r"(address)
               : "memory");
}

// The same, each matrix transposed on its way: lane 4 g + t receives elements (2 t, g) and
// (2 t + 1, g).
__device__ inline void load_matrices_transposed(uint32_t address, uint32_t& m0, uint32_t& m1,
                                                uint32_t& m2, uint32_t& m3) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(m0), "=r"(m1), "=r"(m2), "=r"(m3)
               : "r"(address)
               : "memory");
}

// --- asynchronous copies from global to shared memory -------------------------------------------

// Starts a copy of 16 bytes that bypasses L1. Of the source only the first `source_bytes` (0 to 16)
// are read; zeros follow. With 0 the source address is not used.
__device__ inline void copy_async_16(uint32_t shared, const void* global, uint32_t source_bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"(shared), "l"(__cvta_generic_to_global(global)), "r"(source_bytes)
               : "memory");
}

// 16 bytes, with a policy of how long they stay in L2.
__device__ inline void copy_async_16(uint32_t shared, const void* global, uint64_t policy) {
  asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2;"
               :
               : "r"(shared), "l"(__cvta_generic_to_global(global)), "l"(policy)
               : "memory");
}

// Ends a group of the copies that this thread has started.
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most `kPending` of this thread's groups are not complete. Other threads see its
// copies after a barrier.
template <int kPending>
__device__ inline void wait_copies() {
  asm volatile("cp.async.wait_group %0;" : : "n"(kPending) : "memory");
}

// What is read once leaves L2 first, so that it does not drive out what is read again.
__device__ inline uint64_t policy_evict_first() {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

__device__ inline uint64_t policy_evict_normal() {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

// --- tensor cores -------------------------------------------------------------------------------
// Lane 4 g + t holds, with 2 bytes a number (f16, bf16), of A [16][16]: a[0] row g, columns 2 t, 2
// t + 1; a[1] row g + 8; a[2], a[3] the same 8 columns further. Of B [16][8]: b0 rows 2 t, 2 t + 1
// of column g, b1 8 rows further. Of C and D [16][8]: row g, columns 2 t and 2 t + 1; the same of
// row g + 8. With one byte a number, 4 t .. 4 t + 3 stand for 2 t, 2 t + 1, and 16 for 8.

// d[16][8] += a[16][16] b[16][8] in f32
__device__ inline void mma_f16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ inline void mma_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// d[16][8] += a[16][32] b[32][8] in s32, exact
__device__ inline void mma_s8(int32_t (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// --- bits ---------------------------------------------------------------------------------------

// (a & b) | c in one instruction.
__device__ inline uint32_t and_or(uint32_t a, uint32_t b, uint32_t c) {
  constexpr int kTable = (0xf0 & 0xcc) | 0xaa;
  uint32_t d;
  asm("lop3.b32 %0, %1, %2, %3, %4;" : "=r"(d) : "r"(a), "r"(b), "r"(c), "n"(kTable));
  return d;
}

// Four bytes chosen among those of a (0 to 3) and b (4 to 7), the first by the lowest digit.
template <uint32_t kDigits>
__device__ inline uint32_t pick_bytes(uint32_t a, uint32_t b) {
  uint32_t d;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "n"(kDigits));
  return d;
}

// --- registers ----------------------------------------------------------------------------------

// The same value, of which the compiler knows nothing. What is computed from it stays where it is
// written, instead of being computed before a loop and kept in registers all the way.
__device__ inline int hide(int value) {
  asm volatile("" : "+r"(value));
  return value;
}

// --- between blocks -----------------------------------------------------------------------------

// Adds 1 and returns what was there. What the block wrote before (a barrier in between) is visible
// to whoever sees the new value, and what others wrote before they added is visible after it.
__device__ inline uint32_t count_up(uint32_t* counter) {
  uint32_t before;
  asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], 1;"
               : "=r"(before)
               : "l"(__cvta_generic_to_global(counter))
               : "memory");
  return before;
}

// 8 bytes from L2: L1 is not kept up to date with what other multiprocessors write.
__device__ inline float2 load_l2_8(const float* global) {
  float2 v;
  asm volatile("ld.global.cg.v2.f32 {%0, %1}, [%2];"
               : "=f"(v.x), "=f"(v.y)
               : "l"(__cvta_generic_to_global(global))
               : "memory");
  return v;
}

// 16 bytes from L2; zeros if they are not wanted.
__device__ inline float4 load_l2_16(const float* global, bool wanted) {
  float4 v = make_float4(0.f, 0.f, 0.f, 0.f);
  asm volatile(
      "{\n"
      ".reg .pred wanted;\n"
      "setp.ne.u32 wanted, %5, 0;\n"
      "@wanted ld.global.cg.v4.f32 {%0, %1, %2, %3}, [%4];\n"
      "}"
      : "+f"(v.x), "+f"(v.y), "+f"(v.z), "+f"(v.w)
      : "l"(__cvta_generic_to_global(global)), "r"(static_cast<uint32_t>(wanted))
      : "memory");
  return v;
}

// 16 bytes, aligned.
__device__ inline void store_16(float* global, float4 v) {
  asm volatile("st.global.v4.f32 [%0], {%1, %2, %3, %4};"
               :
               : "l"(__cvta_generic_to_global(global)), "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w)
               : "memory");
}

// 8 bytes, aligned. (The compiler makes two stores of a float2.)
__device__ inline void store_8(float* global, float2 v) {
  asm volatile("st.global.v2.f32 [%0], {%1, %2};"
               :
               : "l"(__cvta_generic_to_global(global)), "f"(v.x), "f"(v.y)
               : "memory");
}

}  // namespace altiplano::cuda
