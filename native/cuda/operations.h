// The kernels beside matmul, with their grids: one function for each operation, asynchronous on a
// stream. Pointers are device memory; strides count elements. Activations of 16 bits are f16 or
// bf16, as the shape says.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "backend.h"
#include "cuda/attention.h"
#include "cuda/canonical.h"
#include "cuda/kernel.h"
#include "cuda/matmul.h"

namespace altiplano::cuda {

class Operations {
 public:
  // `shape` decides which kernels are loaded.
  Operations(KernelLibrary& kernels, const AttentionShape& shape);

  // x [T][x_stride] f32 = rows of the embedding
  void embed(const Stream& stream, WeightFormat format, const CanonicalView& embedding,
             uint32_t count, CUdeviceptr tokens, CUdeviceptr chosen, CUdeviceptr x,
             int64_t x_stride) const;
  // out [T] = rmsnorm(x) * weight, of 16 bits or int8; x [T][x_stride] f32, x_stride a multiple of
  // 4
  void rmsnorm(const Stream& stream, uint32_t count, CUdeviceptr x, int64_t x_stride,
               CUdeviceptr weight, float eps, int64_t cols, const Activations& out) const;
  // qkv [T][stride]; rotations [positions][head_dim / 2] (cos, sin)
  void rope_and_store(const Stream& stream, const StepTokens& tokens, CUdeviceptr qkv,
                      int64_t stride, CUdeviceptr rotations, const KvCache& cache, int layer) const;
  // out [T][out_stride] = silu(gate) * up of gate_up [T][2 cols], all f16
  void silu_mul(const Stream& stream, uint32_t count, CUdeviceptr gate_up, int64_t cols,
                CUdeviceptr out, int64_t out_stride) const;
  // pairs [count][source, destination]
  void copy_pages(const Stream& stream, const KvCache& cache, CUdeviceptr pairs,
                  int64_t count) const;
  // out [rows] = rows of h [T], both of 16 bits or both as int8, with one stride
  void gather_rows(const Stream& stream, const Activations& h, CUdeviceptr rows, uint32_t count,
                   const Activations& out) const;
  // logits [rows][vocab] f32 to what `requests` ask for; `chosen` [rows] gets the best ids
  void row_results(const Stream& stream, CUdeviceptr logits, int64_t vocab, uint32_t rows,
                   CUdeviceptr requests, CUdeviceptr inputs, CUdeviceptr records,
                   CUdeviceptr results, CUdeviceptr chosen) const;
  // keys [rows][keys_stride] u64, or 0 if no row wants more than kCandidatesInSharedMemory
  void candidates(const Stream& stream, CUdeviceptr logits, int64_t vocab, uint32_t rows,
                  CUdeviceptr requests, CUdeviceptr results, CUdeviceptr keys,
                  int64_t keys_stride) const;

 private:
  const AttentionShape shape_;
  Kernel embed_[5];  // by WeightType
  Kernel rmsnorm_, rmsnorm_int8_, rope_, silu_mul_, copy_pages_, gather_rows_, row_results_,
      candidates_shared_, candidates_global_;
};

}  // namespace altiplano::cuda
