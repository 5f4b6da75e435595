// What host and device agree on about attention: on tensor cores attention_decode.cu for sequences
// with few query rows in a step, attention_prefill.cu for the others; attention.cu where these do
// not fit. See docs/cuda-kernels.md.
//
// A query row is a token and a query head of one KV head: row r of an item is its token r / group
// and head r % group of the group. Rows of one KV head see the same keys and share their loads.
#pragma once

#include <cstdint>

namespace altiplano::cuda {

// Tokens of one sequence that follow each other in the step. Words of the step's inputs.
struct AttentionItem {
  int32_t first_token;
  int32_t tokens;       // 0: nothing to do
  int32_t block_begin;  // where the sequence's pages stand
  int32_t visible;      // keys that the farthest of the tokens sees
};

inline constexpr int kDecodeRows = 16;    // the most of an item in attention_decode.cu
inline constexpr int kPrefillRows = 128;  // in attention_prefill.cu
// A page of 32 keys goes to one warp of a decode block, which has four.
inline constexpr int kDecodeWarps = 4;

inline constexpr int kDecodeSlots = 5;  // of 16 keys or values, per warp
constexpr int prefill_slots(int element_bytes) { return element_bytes == 1 ? 5 : 3; }
constexpr int prefill_tile_keys(int element_bytes, int head_dim) {
  // The unpacking of int8 takes registers that 64 keys of 128 dimensions do not leave.
  return element_bytes == 1 && head_dim == 128 ? 32 : 64;
}

// Bytes of keys or values in shared memory: in int8 with their scales.
constexpr int kv_tile_bytes(int element_bytes, int head_dim, int keys) {
  return keys * (head_dim * element_bytes + (element_bytes == 1 ? 8 : 0));
}
constexpr int decode_rings_bytes(int element_bytes, int head_dim) {
  return kDecodeWarps * kDecodeSlots * kv_tile_bytes(element_bytes, head_dim, 16);
}
// Where q [kDecodeRows][head_dim] passes through: a slot of 16 bits holds it, one of int8 does not.
constexpr int decode_queries_at(int element_bytes, int head_dim) {
  return element_bytes == 2 ? (kDecodeSlots - 1) * kv_tile_bytes(element_bytes, head_dim, 16)
                            : decode_rings_bytes(element_bytes, head_dim);
}
constexpr int decode_shared_bytes(int element_bytes, int head_dim) {
  return decode_rings_bytes(element_bytes, head_dim) +
         (element_bytes == 2 ? 0 : kDecodeRows * head_dim * 2);
}
constexpr int prefill_shared_bytes(int element_bytes, int head_dim) {
  return kPrefillRows * head_dim * 2 +
         prefill_slots(element_bytes) *
             kv_tile_bytes(element_bytes, head_dim, prefill_tile_keys(element_bytes, head_dim));
}

struct AttentionParameters {
  const void* qkv;           // [T][stride], f16 or bf16: q of all heads first
  void* out;                 // [T][out_stride], the same
  const int32_t* words;      // the step's inputs
  const int32_t* positions;  // [T]
  const AttentionItem* items;
  const uint8_t* pages;  // of the layer: [pages][kv_heads][head_bytes]
  int64_t head_bytes;
  // Decode only, where keys are split over blocks: [items][kv_heads][splits][kDecodeRows]
  // [head_dim + 2], and a counter for each item and KV head that is 0 between launches.
  float* parts;
  uint32_t* counters;
  int32_t stride;
  int32_t out_stride;
  int32_t kv_heads;
  int32_t group;        // query heads of a KV head
  int32_t split_pages;  // decode: pages of a block
  int32_t splits;       // decode: blocks of an item and KV head, at most
  float scale;          // of scores: log2(e) / sqrt(head_dim)
};

// For attention.cu, which takes no items.
struct GeneralAttentionParameters {
  const void* qkv;             // [T][stride]: q of all heads first
  void* out;                   // [T][out_stride]
  const int32_t* words;        // the step's inputs
  const int32_t* positions;    // [T]
  const int32_t* block_begin;  // [T]: where the pages of a token's sequence begin in `words`
  const uint8_t* pages;        // of the layer: [pages][kv_heads][head_bytes]
  int64_t head_bytes;
  int32_t stride;
  int32_t out_stride;
  int32_t heads;
  int32_t kv_heads;
  int32_t head_dim;
  float scale;  // of scores: 1 / sqrt(head_dim)
};

}  // namespace altiplano::cuda
