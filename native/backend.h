// What a device must offer: the operations of a Llama forward pass, named as llama/forward.cc names
// them. Activations are opaque buffers of float rows; everything is allocated before the first
// step. A fused operation is a coarser operation here, with a simple equivalent in every backend.
//
// Shapes: T tokens in the step, D hidden size, H query heads, G KV heads, d head dimension, F
// feed-forward size, V vocabulary.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "util/activation_type.h"
#include "util/file_type.h"
#include "util/kv_type.h"
#include "util/weight_format.h"

namespace altiplano {

// What a buffer is for; a device chooses the element type by it.
enum class BufferKind : uint8_t {
  kResidual,      // the residual stream
  kMatmulInput,   // what a matmul multiplies
  kMatmulOutput,  // what a matmul writes and other operations go on with
};

// Rows of float activations on the device.
class Buffer {
 public:
  virtual ~Buffer() = default;
  virtual size_t bytes() const = 0;
};

// A weight matrix [rows][cols], packed for the device.
class Linear {
 public:
  virtual ~Linear() = default;
  virtual size_t bytes() const = 0;
};

// A rectangle of a matrix.
struct MatrixSlice {
  int64_t row_begin;
  int64_t rows;
  int64_t col_begin;
  int64_t cols;
};

// Where a matrix comes from: read in row and column slices, from any thread, in the file's own
// element type.
class MatrixSource {
 public:
  virtual ~MatrixSource() = default;
  virtual const char* name() const = 0;
  virtual FileType type() const = 0;
  virtual int64_t rows() const = 0;
  virtual int64_t cols() const = 0;
  // The raw bytes of a slice, one row after the other. Its columns begin and end at blocks of the
  // element type. Throws Error: ALTIPLANO_FILE_READ, or ALTIPLANO_INTERNAL for a slice that is not
  // within the matrix.
  virtual void read(const MatrixSlice& slice, uint8_t* out) const = 0;
};

// What a Linear is for.
enum class LinearUse : uint8_t {
  kMatmul,
  kGateUp,            // of two parts: matmul_silu() alone
  kEmbedding,         // embed() alone
  kEmbeddingAndHead,  // a tied embedding: embed() and logits()
};

// One of the matrices that are stacked to a Linear (q, k, v; gate, up), with the format it is kept
// in.
struct MatrixPart {
  const MatrixSource* source;
  WeightFormat format;
};

// What becomes a Linear: parts that are stacked by rows; all have the same number of columns.
struct MatrixStack {
  std::vector<MatrixPart> parts;
  LinearUse use = LinearUse::kMatmul;
};

// Progress and cancellation of a load.
struct LoadMonitor {
  std::atomic<int64_t> done_bytes{0};
  std::atomic<int64_t> total_bytes{0};
  std::atomic<bool> cancelled{false};
};

// Reads and converts tensors on the host, for backends of devices that have no files.
class RowReader {
 public:
  virtual ~RowReader() = default;
  // Values of any file type to f32, exact.
  virtual void to_float(FileType type, const uint8_t* raw, int64_t count, float* out) = 0;
  // Rows row_begin .. row_begin + rows - 1 of a part in its canonical format, on several threads.
  // The arrays of `out` have room for them. Throws Error with the name of the tensor, also
  // ALTIPLANO_ABORTED when the monitor is cancelled.
  virtual void read(const MatrixPart& part, int64_t row_begin, int64_t rows,
                    const CanonicalArrays& out, LoadMonitor& monitor) = 0;
};

// The part of a tensor-parallel group that this process computes. Size 1 is all of the model.
struct Shard {
  int rank = 0;
  int size = 1;
};

struct AttentionShape {
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int layers = 0;
  int64_t max_positions = 0;
  KvType kv_type = KvType::kF32;
  ActivationType activations = ActivationType::kF16;  // see StepLimits
  int64_t kv_pages = 0;
  std::vector<double> inverse_frequencies;  // [head_dim / 2]
};

// The largest step that a backend will be asked for.
struct StepLimits {
  int64_t tokens = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t vocab_size = 0;
  int64_t most_cols = 0;  // of a matrix
  // Whether int8 and int4 matrices are multiplied with activations rounded to int8, or with f32.
  bool int8_activations = false;
  // Of devices that multiply in 16 bits. bf16 is for models whose matrices are all kept in it.
  ActivationType activations = ActivationType::kF16;
};

// The batch of a step; see StepPlan in lib/native.ts. Checked by llama/step.cc.
struct Batch {
  std::vector<int32_t> tokens;           // [T]
  std::vector<int32_t> positions;        // [T]
  std::vector<int32_t> slots;            // [T]
  std::vector<int32_t> sequence_starts;  // [S+1]
  std::vector<int32_t> block_table;
  std::vector<int32_t> block_starts;        // [S+1]
  std::vector<int32_t> rows;                // [R]
  std::vector<int32_t> candidates;          // [R]
  std::vector<float> inverse_temperatures;  // [R]
  std::vector<int32_t> ids;
  std::vector<int32_t> id_starts;    // [R+1]
  std::vector<uint8_t> full_rows;    // [R]
  std::vector<int32_t> page_copies;  // pairs
};

// Whether the wanted rows are all tokens in order, as when every sequence decodes: devices then
// have nothing to gather for the output head.
inline bool wants_every_token(const Batch& batch) {
  if (batch.rows.size() != batch.tokens.size()) return false;
  for (size_t i = 0; i < batch.rows.size(); ++i) {
    if (batch.rows[i] != static_cast<int32_t>(i)) return false;
  }
  return true;
}

// Steps that may be under way at once: one computes while the next is told.
inline constexpr int kStepsInFlight = 2;

// The answer of a step; see StepResult in lib/native.ts. Sized before the step.
struct RowResults {
  std::vector<int32_t> candidate_ids;
  std::vector<float> candidate_logits;
  std::vector<double> log_sum_exp;         // [R]
  std::vector<double> scaled_log_sum_exp;  // [R]
  std::vector<float> id_logits;
  std::vector<float> full_logits;
  std::vector<uint8_t> finite;  // [R]
};

class Backend {
 public:
  virtual ~Backend() = default;

  // --- loading --------------------------------------------------------------------------------
  virtual std::unique_ptr<Buffer> allocate(int64_t rows, int64_t cols, BufferKind kind) = 0;
  // Values of any file type to f32, exact, on the host.
  virtual void to_float(FileType type, const uint8_t* raw, int64_t count, float* out) = 0;
  virtual std::unique_ptr<Buffer> upload(const float* values, int64_t count) = 0;
  // A Linear of each stack. Together, so that threads need not wait for each other behind each.
  // Throws Error, also ALTIPLANO_ABORTED when the monitor is cancelled.
  virtual std::vector<std::unique_ptr<Linear>> prepare(std::span<const MatrixStack> stacks,
                                                       LoadMonitor& monitor) = 0;
  // The KV cache, and what rotary positions need.
  virtual void prepare_attention(const AttentionShape& shape) = 0;
  // What steps need beside the buffers that they are given. After prepare_attention().
  virtual void prepare_steps(const StepLimits& limits) = 0;

  // --- a step ---------------------------------------------------------------------------------
  // begin_step(), the operations, end_step(); then the step may be under way while the next one is
  // told, until finish_step(). At most kStepsInFlight are between begin_step() and finish_step().

  // Takes over the batch and the results (valid until the step is finished), replaces references to
  // earlier choices by token ids, and copies the pages that it asks to be copied. False if the
  // operations must not be called, since the device repeats those of an earlier step.
  virtual bool begin_step(const Batch& batch, RowResults& results) = 0;
  // All of the step has been told.
  virtual void end_step() = 0;
  // In place of end_step(), after a failure or a cancellation between the operations: waits for
  // what of the step still runs.
  virtual void abandon_step() noexcept = 0;
  // Waits for the oldest step that has not been finished; its results are then complete. Throws
  // Error if it failed; it is finished all the same. From any thread, also while a step is told.
  virtual void finish_step() = 0;
  // x[T][D] = rows of the embedding for the step's tokens
  virtual void embed(const Linear& embedding, Buffer& x) = 0;
  // out[T][D] = rmsnorm(x) * weight, in the form in which `next` takes it: the one that multiplies
  // it.
  virtual void rmsnorm(const Buffer& x, const Buffer& weight, float eps, const Linear& next,
                       Buffer& out) = 0;
  // q, k, v = x[T][D] W^T, stacked; q and k are rotated by the tokens' positions. q comes first in
  // the rows of qkv[T][(H + 2G) d]; k and v go to the cache (those of a token whose slot is below 0
  // nowhere), and what qkv has behind q is the backend's own. `adapters` (an adapter index per
  // token, or null) is the place of LoRA; no backend takes one yet, so it must be null.
  virtual void matmul_qkv(const Linear& w, const Buffer& x, Buffer& qkv, int layer,
                          const int32_t* adapters = nullptr) = 0;
  // residual[T][rows] += x[T][cols] W^T
  virtual void matmul_add(const Linear& w, const Buffer& x, Buffer& residual) = 0;
  // out[T][F] = silu(gate) * up, where gate and up are the halves of x[T][D] W^T
  virtual void matmul_silu(const Linear& gate_up, const Buffer& x, Buffer& out) = 0;
  // out[T][H d] = causal attention of q in qkv, as matmul_qkv() left it, over the cached keys and
  // values of each token's sequence
  virtual void attention(const Buffer& qkv, int layer, Buffer& out) = 0;
  // Sums residual[T][D] over the shards of a tensor-parallel group, after each matmul_add();
  // nothing to do for one. Of several, which hold some columns of the matrix each, rank 0 adds its
  // products to the residual and the others put theirs in its place: so the sum has it once.
  virtual void all_reduce(Buffer& residual, const Shard& shard) = 0;
  // The logits of the wanted rows of h[T][D], reduced to what each row asks for: the results.
  virtual void logits(const Linear& head, const Buffer& h) = 0;

  // --- memory ---------------------------------------------------------------------------------
  virtual size_t kv_bytes() const = 0;
  virtual size_t scratch_bytes() const = 0;  // of prepare_attention() and prepare_steps(), else
};

// The shape of a part of a Linear.
struct PartShape {
  WeightFormat format;
  int64_t rows;
  int64_t cols;
};

// Bytes that a backend will take for something, without making it.
class BackendSizes {
 public:
  virtual ~BackendSizes() = default;
  virtual uint64_t buffer(int64_t rows, int64_t cols, BufferKind kind) const = 0;
  virtual uint64_t linear(std::span<const PartShape> parts, LinearUse use,
                          bool int8_activations) const = 0;
  virtual uint64_t kv_cache(const AttentionShape& shape) const = 0;
  virtual uint64_t scratch(const AttentionShape& shape, const StepLimits& limits) const = 0;
};

}  // namespace altiplano
