// What a step needs of the host, on the device: the arrays of the batch, packed and copied at once.
#pragma once

#include <cuda.h>

#include <cstdint>
#include <functional>
#include <memory>

#include "backend.h"
#include "cuda/attention.h"
#include "cuda/memory.h"
#include "cuda/row_results.h"

namespace altiplano::cuda {

// How many tokens and rows a step is computed with: its own, or more, so that steps of many sizes
// are the same launches. What pads it has tokens 0 at position 0 that are stored nowhere and see
// page 0, and rows that ask for nothing.
struct StepSize {
  int64_t tokens = 0;
  int64_t rows = 0;
  // Attention gets an item of decode for each token, some of which may have nothing to do; the
  // batch must not need others. Else the items that the batch has.
  bool decodes = false;
};

// Where the results of a step stand, in 4-byte words: a RowRecord for each row, then what each row
// asked for. Whole rows are apart.
struct ResultLayout {
  int64_t rows = 0;
  int64_t candidates = 0;  // begin of the (id, logit) pairs of all rows
  int64_t ids = 0;         // begin of the logits of the ids asked for
  int64_t words = 0;       // of all
};
ResultLayout result_layout(const Batch& batch, int64_t rows);

class StepInputs {
 public:
  // Room for steps of `tokens` tokens and `pages` pages; larger ones make it grow. `group`: query
  // heads of a KV head where attention takes items, else 0.
  StepInputs(std::shared_ptr<const Context> context, int64_t tokens, int64_t pages, int group);
  static uint64_t device_bytes(int64_t tokens, int64_t pages);

  // Packs the arrays and copies them, asynchronously. `place` is one of kStepsInFlight; the step
  // that had it before must have ended. Of decodes of one size, what words(), tokens(),
  // step_tokens(), rows() and requests() give is the same, but for decode_pages, until `moved`,
  // which is called before the memory on the device moves.
  void set(const Stream& stream, int place, const Batch& batch, const StepSize& size,
           const std::function<void()>& moved);
  // A single step of its own size.
  void set(const Stream& stream, const Batch& batch) {
    const auto tokens = static_cast<int64_t>(batch.tokens.size());
    set(stream, 0, batch, {tokens, static_cast<int64_t>(batch.rows.size())}, [] {});
  }

  // All of the step that was set; 4-byte words, those of the row requests and offsets count from
  // words().
  CUdeviceptr words() const { return device_.get(); }
  CUdeviceptr tokens() const { return at(tokens_); }  // [T]
  // Positions, slots, where the pages of each token stand, and the items of attention.
  const StepTokens& step_tokens() const { return step_tokens_; }
  CUdeviceptr rows() const { return at(rows_); }                // [R]
  CUdeviceptr requests() const { return at(requests_); }        // [R] RowRequest
  CUdeviceptr page_copies() const { return at(page_copies_); }  // pairs

  uint64_t device_bytes() const { return device_.bytes(); }

 private:
  CUdeviceptr at(int64_t word) const { return device_.get() + static_cast<CUdeviceptr>(word) * 4; }

  std::shared_ptr<const Context> context_;
  PinnedMemory host_[kStepsInFlight];
  DeviceMemory device_;
  const int group_;
  StepTokens step_tokens_;
  int64_t tokens_ = 0, rows_ = 0, requests_ = 0, page_copies_ = 0;
};

}  // namespace altiplano::cuda
