#include "cuda/attention.h"

#include <cmath>

#include "cuda/kv_page.h"

namespace altiplano::cuda {
namespace {

constexpr uint32_t kGeneralWarps = 4;  // attention.cu has the same
constexpr uint32_t kUsualSharedBytes = 48 << 10;

int group_of(const AttentionShape& shape) { return shape.heads / shape.kv_heads; }

uint32_t general_shared_bytes(int head_dim) {
  return (1 + kGeneralWarps) * static_cast<uint32_t>(head_dim) * sizeof(float);
}

int element_bytes(KvType type) { return static_cast<int>(kv_element_bytes(type)); }

bool is_bf16(const AttentionShape& shape) { return shape.activations == ActivationType::kBF16; }

const char* tile_kernel(bool prefill, const AttentionShape& shape) {
  // By activations, whether the cache is in int8, and whether a head has 128 dimensions.
  static constexpr const char* kNames[2][2][2][2] = {
      {{{"attention_decode_f16_64", "attention_decode_f16_128"},
        {"attention_decode_int8_64", "attention_decode_int8_128"}},
       {{"attention_decode_bf16_64", "attention_decode_bf16_128"},
        {"attention_decode_bf16_int8_64", "attention_decode_bf16_int8_128"}}},
      {{{"attention_prefill_f16_64", "attention_prefill_f16_128"},
        {"attention_prefill_int8_64", "attention_prefill_int8_128"}},
       {{"attention_prefill_bf16_64", "attention_prefill_bf16_128"},
        {"attention_prefill_bf16_int8_64", "attention_prefill_bf16_int8_128"}}}};
  return kNames[prefill][is_bf16(shape)][shape.kv_type == KvType::kInt8][shape.head_dim == 128];
}

const char* general_kernel(const AttentionShape& shape) {
  // In the order of KvType.
  static constexpr const char* kNames[2][kKvTypes] = {
      {"attention_f16_kv_f32", "attention_f16_kv_f16", "attention_f16_kv_int8",
       "attention_f16_kv_bf16"},
      {"attention_bf16_kv_f32", "attention_bf16_kv_f16", "attention_bf16_kv_int8",
       "attention_bf16_kv_bf16"}};
  return kNames[is_bf16(shape)][static_cast<size_t>(shape.kv_type)];
}

uint64_t parts_bytes(const AttentionShape& shape, int multiprocessors) {
  return static_cast<uint64_t>(most_attention_parts(multiprocessors)) * kDecodeRows *
         static_cast<uint64_t>(shape.head_dim + 2) * sizeof(float);
}

uint64_t counters_bytes(int multiprocessors) {
  return static_cast<uint64_t>(most_attention_parts(multiprocessors)) * sizeof(uint32_t);
}

template <class T>
T* pointer(CUdeviceptr address) {
  return reinterpret_cast<T*>(address);
}

}  // namespace

Attention::Attention(const Stream& stream, KernelLibrary& kernels, const AttentionShape& shape,
                     int multiprocessors)
    : shape_(shape),
      multiprocessors_(multiprocessors > 0 ? multiprocessors
                                           : kernels.context()->device().multiprocessors),
      tiles_(has_attention_tiles(shape)) {
  const std::shared_ptr<const Context>& context = kernels.context();
  const CurrentContext current(*context);
  const auto find = [&](const char* source, const char* name, uint32_t shared) {
    const Kernel kernel = kernels.find(source, name);
    if (shared > kUsualSharedBytes) kernel.allow_shared_bytes(static_cast<int>(shared));
    return kernel;
  };
  if (!tiles_) {
    general_ = find("attention", general_kernel(shape), general_shared_bytes(shape.head_dim));
    return;
  }
  const int bytes = element_bytes(shape.kv_type);
  prefill_ = find("attention_prefill", tile_kernel(true, shape),
                  static_cast<uint32_t>(prefill_shared_bytes(bytes, shape.head_dim)));
  decode_ = find("attention_decode", tile_kernel(false, shape),
                 static_cast<uint32_t>(decode_shared_bytes(bytes, shape.head_dim)));
  parts_ = DeviceMemory(context, parts_bytes(shape, multiprocessors_), "attention");
  counters_ = DeviceMemory(context, counters_bytes(multiprocessors_), "attention");
  fill_bytes(stream, counters_.get(), 0, counters_.bytes());
}

uint64_t Attention::device_bytes(const AttentionShape& shape, int multiprocessors) {
  if (!has_attention_tiles(shape)) return 0;
  return parts_bytes(shape, multiprocessors) + counters_bytes(multiprocessors);
}

void Attention::launch(const Stream& stream, const StepTokens& tokens, CUdeviceptr qkv,
                       int64_t stride, const KvCache& cache, int layer, CUdeviceptr out,
                       int64_t out_stride) const {
  const float scale = 1.0f / std::sqrt(static_cast<float>(shape_.head_dim));
  if (!tiles_) {
    const GeneralAttentionParameters p{.qkv = pointer<const void>(qkv),
                                       .out = pointer<void>(out),
                                       .words = pointer<const int32_t>(tokens.words),
                                       .positions = pointer<const int32_t>(tokens.positions),
                                       .block_begin = pointer<const int32_t>(tokens.block_begin),
                                       .pages = pointer<const uint8_t>(cache.layer(layer)),
                                       .head_bytes = cache.head_bytes,
                                       .stride = static_cast<int32_t>(stride),
                                       .out_stride = static_cast<int32_t>(out_stride),
                                       .heads = shape_.heads,
                                       .kv_heads = shape_.kv_heads,
                                       .head_dim = shape_.head_dim,
                                       .scale = scale};
    general_.launch(stream, {tokens.count, static_cast<uint32_t>(shape_.heads)},
                    {kGeneralWarps * 32}, general_shared_bytes(shape_.head_dim), p);
    return;
  }
  const int bytes = element_bytes(shape_.kv_type);
  const auto kv_heads = static_cast<uint32_t>(shape_.kv_heads);
  AttentionParameters p{.qkv = pointer<const void>(qkv),
                        .out = pointer<void>(out),
                        .words = pointer<const int32_t>(tokens.words),
                        .positions = pointer<const int32_t>(tokens.positions),
                        .items = pointer<const AttentionItem>(tokens.attention_items),
                        .pages = pointer<const uint8_t>(cache.layer(layer)),
                        .head_bytes = cache.head_bytes,
                        .parts = pointer<float>(parts_.get()),
                        .counters = pointer<uint32_t>(counters_.get()),
                        .stride = static_cast<int32_t>(stride),
                        .out_stride = static_cast<int32_t>(out_stride),
                        .kv_heads = shape_.kv_heads,
                        .group = group_of(shape_),
                        .split_pages = 0,
                        .splits = 1,
                        .scale = scale * 1.44269504f};
  prefill_.launch(stream, {tokens.prefill_items, kv_heads}, {128},
                  static_cast<uint32_t>(prefill_shared_bytes(bytes, shape_.head_dim)), p);
  if (tokens.decode_items == 0) return;
  const AttentionSplit split = split_of(tokens);
  p.items += tokens.prefill_items;
  p.split_pages = split.pages;
  p.splits = split.splits;
  decode_.launch(stream, {static_cast<uint32_t>(split.splits), kv_heads, tokens.decode_items},
                 {kDecodeWarps * 32},
                 static_cast<uint32_t>(decode_shared_bytes(bytes, shape_.head_dim)), p);
}

AttentionSplit Attention::split_of(const StepTokens& tokens) const {
  if (!tiles_ || tokens.decode_items == 0) return {};
  return split_keys(tokens.decode_items, shape_.kv_heads, tokens.decode_pages, multiprocessors_);
}

std::vector<CUgraphNode> Attention::split_launches(const Graph& graph) const {
  return tiles_ ? graph.launches_of(decode_) : std::vector<CUgraphNode>();
}

void Attention::set_split(Graph& graph, const std::vector<CUgraphNode>& launches,
                          const AttentionSplit& split) {
  for (const CUgraphNode node : launches) {
    auto p = graph.argument_of<AttentionParameters>(node);
    p.split_pages = split.pages;
    p.splits = split.splits;
    graph.update(node, static_cast<uint32_t>(split.splits), &p);
  }
}

}  // namespace altiplano::cuda
