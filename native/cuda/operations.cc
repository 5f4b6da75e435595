#include "cuda/operations.h"

#include "cuda/rope_parameters.h"
#include "cuda/row_results.h"

namespace altiplano::cuda {
namespace {

constexpr uint32_t kRowThreads = 256;     // for a row of activations; rmsnorm.cu has the same
constexpr uint32_t kLogitThreads = 1024;  // for a row of logits; candidates.cu has the same
constexpr uint32_t kRopeWarps = 4;

template <class T>
T* pointer(CUdeviceptr address) {
  return reinterpret_cast<T*>(address);
}

uint32_t blocks(int64_t threads, uint32_t of_block) {
  return static_cast<uint32_t>((threads + of_block - 1) / of_block);
}

bool is_bf16(const AttentionShape& shape) { return shape.activations == ActivationType::kBF16; }

const char* rope_kernel(const AttentionShape& shape) {
  // In the order of KvType.
  static constexpr const char* kNames[2][kKvTypes] = {
      {"rope_f16_kv_f32", "rope_f16_kv_f16", "rope_f16_kv_int8", "rope_f16_kv_bf16"},
      {"rope_bf16_kv_f32", "rope_bf16_kv_f16", "rope_bf16_kv_int8", "rope_bf16_kv_bf16"}};
  return kNames[is_bf16(shape)][static_cast<size_t>(shape.kv_type)];
}

}  // namespace

Operations::Operations(KernelLibrary& kernels, const AttentionShape& shape)
    : shape_(shape),
      embed_{kernels.find("embed", "embed_f32"), kernels.find("embed", "embed_f16"),
             kernels.find("embed", "embed_bf16"), kernels.find("embed", "embed_int8"),
             kernels.find("embed", "embed_int4")},
      rmsnorm_(kernels.find("rmsnorm", is_bf16(shape) ? "rmsnorm_bf16" : "rmsnorm_f16")),
      rmsnorm_int8_(kernels.find("rmsnorm", "rmsnorm_int8")),
      rope_(kernels.find("rope", rope_kernel(shape))),
      silu_mul_(kernels.find("silu_mul", "silu_mul")),
      copy_pages_(kernels.find("copy_pages", "copy_pages")),
      gather_rows_(kernels.find("gather_rows", "gather_rows")),
      row_results_(kernels.find("row_results", "row_results")),
      candidates_shared_(kernels.find("candidates", "candidates_shared")),
      candidates_global_(kernels.find("candidates", "candidates_global")) {}

void Operations::embed(const Stream& stream, WeightFormat format, const CanonicalView& embedding,
                       uint32_t count, CUdeviceptr tokens, CUdeviceptr chosen, CUdeviceptr x,
                       int64_t x_stride) const {
  embed_[static_cast<size_t>(format.type)].launch(stream, {count}, {kRowThreads}, 0, embedding,
                                                  tokens, chosen, x, x_stride);
}

void Operations::rmsnorm(const Stream& stream, uint32_t count, CUdeviceptr x, int64_t x_stride,
                         CUdeviceptr weight, float eps, int64_t cols,
                         const Activations& out) const {
  const auto columns = static_cast<int32_t>(cols);
  if (out.scales == 0) {
    rmsnorm_.launch(stream, {count}, {kRowThreads}, 0, x, x_stride, weight, eps, columns,
                    out.values, out.stride);
  } else {
    rmsnorm_int8_.launch(stream, {count}, {kRowThreads}, 0, x, x_stride, weight, eps, columns,
                         out.values, out.stride, out.scales);
  }
}

void Operations::rope_and_store(const Stream& stream, const StepTokens& tokens, CUdeviceptr qkv,
                                int64_t stride, CUdeviceptr rotations, const KvCache& cache,
                                int layer) const {
  const uint32_t heads = blocks(shape_.heads + shape_.kv_heads, kRopeWarps);
  const RopeParameters p{.qkv = pointer<void>(qkv),
                         .positions = pointer<const int32_t>(tokens.positions),
                         .slots = pointer<const int32_t>(tokens.slots),
                         .rotations = pointer<const float>(rotations),
                         .pages = pointer<uint8_t>(cache.layer(layer)),
                         .head_bytes = cache.head_bytes,
                         .stride = static_cast<int32_t>(stride),
                         .heads = shape_.heads,
                         .kv_heads = shape_.kv_heads,
                         .head_dim = shape_.head_dim};
  rope_.launch(stream, {tokens.count, heads}, {32, kRopeWarps}, 0, p);
}

void Operations::silu_mul(const Stream& stream, uint32_t count, CUdeviceptr gate_up, int64_t cols,
                          CUdeviceptr out, int64_t out_stride) const {
  silu_mul_.launch(stream, {count, blocks(cols, kRowThreads)}, {kRowThreads}, 0, gate_up,
                   static_cast<int32_t>(cols), out, static_cast<int32_t>(out_stride));
}

void Operations::copy_pages(const Stream& stream, const KvCache& cache, CUdeviceptr pairs,
                            int64_t count) const {
  if (count == 0) return;
  copy_pages_.launch(
      stream, {blocks(cache.page_bytes / 16, kRowThreads), static_cast<uint32_t>(shape_.layers)},
      {kRowThreads}, 0, cache.pages, cache.layer_bytes, cache.page_bytes, pairs,
      static_cast<int32_t>(count));
}

void Operations::gather_rows(const Stream& stream, const Activations& h, CUdeviceptr rows,
                             uint32_t count, const Activations& out) const {
  const auto row_bytes = static_cast<int32_t>(h.stride * (h.scales == 0 ? 2 : 1));
  gather_rows_.launch(stream, {count}, {kRowThreads}, 0, h.values, h.scales, rows, row_bytes,
                      out.values, out.scales);
}

void Operations::row_results(const Stream& stream, CUdeviceptr logits, int64_t vocab, uint32_t rows,
                             CUdeviceptr requests, CUdeviceptr inputs, CUdeviceptr records,
                             CUdeviceptr results, CUdeviceptr chosen) const {
  row_results_.launch(stream, {rows}, {kLogitThreads}, 0, logits, vocab, requests, inputs, records,
                      results, chosen);
}

void Operations::candidates(const Stream& stream, CUdeviceptr logits, int64_t vocab, uint32_t rows,
                            CUdeviceptr requests, CUdeviceptr results, CUdeviceptr keys,
                            int64_t keys_stride) const {
  if (keys == 0) {
    candidates_shared_.launch(stream, {rows}, {kLogitThreads}, 0, logits, vocab, requests, results);
  } else {
    candidates_global_.launch(stream, {rows}, {kLogitThreads}, 0, logits, vocab, requests, results,
                              keys, keys_stride);
  }
}

}  // namespace altiplano::cuda
