#include "cuda/row_outputs.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

namespace altiplano::cuda {
namespace {

// Rows whose logits are computed together: a tile of tokens of the matrix multiplication.
constexpr int64_t kLogitRows = 128;
// Words of results that a row usually asks for.
constexpr int64_t kUsualResults = 256;

int64_t logit_rows(const StepLimits& limits) { return std::min(kLogitRows, limits.tokens); }

size_t gathered_bytes(const StepLimits& limits) {
  return activation_bytes(logit_rows(limits), limits.hidden_size);
}
size_t logits_bytes(const StepLimits& limits) {
  return static_cast<size_t>(logit_rows(limits) * limits.vocab_size) * sizeof(float);
}
size_t chosen_bytes(const StepLimits& limits) { return static_cast<size_t>(limits.tokens) * 4; }
size_t results_bytes(const StepLimits& limits) {
  return static_cast<size_t>(limits.tokens) * (sizeof(RowRecord) + kUsualResults * 4);
}

}  // namespace

RowOutputs::RowOutputs(const Stream& stream, const Operations& operations, Matmul& matmul,
                       const StepLimits& limits)
    : stream_(stream),
      context_(stream.context()),
      operations_(operations),
      matmul_(matmul),
      hidden_(limits.hidden_size),
      vocab_(limits.vocab_size),
      gathered_(context_, gathered_bytes(limits), "the rows of the output head"),
      logits_(context_, logits_bytes(limits), "logits"),
      chosen_(context_, chosen_bytes(limits), "chosen tokens"),
      results_(context_, results_bytes(limits), "the results of steps") {
  for (Step& step : steps_) {
    step.results = PinnedMemory(context_, results_bytes(limits), "the results of steps");
  }
}

uint64_t RowOutputs::device_bytes(const StepLimits& limits) {
  return gathered_bytes(limits) + logits_bytes(limits) + chosen_bytes(limits) +
         results_bytes(limits);
}

uint64_t RowOutputs::device_bytes() const {
  return gathered_.bytes() + logits_.bytes() + chosen_.bytes() + results_.bytes() + keys_.bytes();
}

void RowOutputs::begin(int place, const Batch& batch, RowResults& results, const StepSize& size,
                       const std::function<void()>& moved) {
  step_ = &steps_[place];
  step_->batch = &batch;
  step_->answer = &results;
  step_->layout = result_layout(batch, size.rows);
  step_->full_rows.clear();
  int32_t full = 0;
  for (const uint8_t wanted : batch.full_rows) step_->full_rows.push_back(wanted ? full++ : -1);
  whole_rows_ = full > 0;
  many_rows_ = size.rows > rows_at_once();

  // All of this is rare but for whole rows: more results than usual, or a token asked for twice.
  const size_t bytes = static_cast<size_t>(step_->layout.words) * 4;
  if (results_.bytes() < bytes) {
    moved();
    results_ = {};
    results_ = DeviceMemory(context_, bytes, "the results of a step");
  }
  if (step_->results.bytes() < bytes) {
    step_->results = {};
    step_->results = PinnedMemory(context_, bytes, "the results of a step");
  }
  if (const size_t wanted = static_cast<size_t>(size.rows) * 4; chosen_.bytes() < wanted) {
    moved();
    DeviceMemory more(context_, wanted, "chosen tokens");
    copy_on_device(stream_, more.get(), chosen_.get(), chosen_.bytes());
    stream_.synchronize();
    chosen_ = std::move(more);
  }
  const size_t row_bytes = static_cast<size_t>(full) * static_cast<size_t>(vocab_) * sizeof(float);
  if (step_->rows.bytes() < row_bytes) {
    step_->rows = {};
    step_->rows = PinnedMemory(context_, row_bytes, "whole rows of logits");
  }
  gathers_ = !wants_every_token(batch);
  const int32_t most = batch.candidates.empty() ? 0 : *std::ranges::max_element(batch.candidates);
  wants_candidates_ = most > 1;  // one comes with the sums
  keys_stride_ = 0;
  if (most > kCandidatesInSharedMemory) {
    keys_stride_ = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(most)));
    const int64_t rows = std::min<int64_t>(kLogitRows, size.rows);
    const size_t key_bytes = static_cast<size_t>(rows * keys_stride_) * sizeof(uint64_t);
    if (keys_.bytes() < key_bytes) {
      moved();
      keys_ = {};
      keys_ = DeviceMemory(context_, key_bytes, "sorting candidates");
    }
  }
}

int64_t RowOutputs::rows_at_once() const {
  return static_cast<int64_t>(logits_.bytes()) / (vocab_ * static_cast<int64_t>(sizeof(float)));
}

void RowOutputs::launch(const Linear& head, const Activations& h, const StepInputs& inputs) {
  const auto& w = static_cast<const CudaLinear&>(head);
  const int64_t rows = step_->layout.rows;
  for (int64_t first = 0; first < rows; first += rows_at_once()) {
    const int64_t count = std::min(rows_at_once(), rows - first);
    const auto blocks = static_cast<uint32_t>(count);
    Activations x = from_token(h, first);
    if (gathers_) {
      x = h.scales != 0 ? int8_activations(gathered_.get(), rows_at_once(), hidden_)
                        : float_activations(gathered_.get(), hidden_);
      operations_.gather_rows(stream_, h, inputs.rows() + first * 4, blocks, x);
    }
    for (const CudaLinear::Part& part : w.parts) {
      matmul_.multiply(stream_, part.matrix, x, count, Epilogue::kStoreF32,
                       logits_.get() + part.first_row * sizeof(float), vocab_);
    }
    const CUdeviceptr requests = inputs.requests() + first * sizeof(RowRequest);
    operations_.row_results(stream_, logits_.get(), vocab_, blocks, requests, inputs.words(),
                            results_.get() + first * sizeof(RowRecord), results_.get(),
                            chosen_.get() + first * 4);
    if (wants_candidates_) {
      operations_.candidates(stream_, logits_.get(), vocab_, blocks, requests, results_.get(),
                             keys_stride_ > 0 ? keys_.get() : 0, keys_stride_);
    }
    if (many_rows_) copy_rows(first, count);  // before the next ones take their place
  }
}

void RowOutputs::copy_rows(int64_t first, int64_t count) {
  const size_t row_bytes = static_cast<size_t>(vocab_) * sizeof(float);
  const auto wanted = static_cast<int64_t>(step_->full_rows.size());
  for (int64_t r = first; r < std::min(first + count, wanted); ++r) {
    const int32_t place = step_->full_rows[static_cast<size_t>(r)];
    if (place < 0) continue;
    copy_to_host(stream_, step_->rows.data() + static_cast<size_t>(place) * row_bytes,
                 logits_.get() + static_cast<size_t>(r - first) * row_bytes, row_bytes);
  }
}

void RowOutputs::copy() {
  if (!many_rows_) copy_rows(0, step_->layout.rows);
  copy_to_host(stream_, step_->results.data(), results_.get(),
               static_cast<size_t>(step_->layout.words) * 4);
}

void RowOutputs::take(int place) {
  const Step& step = steps_[place];
  const Batch& batch = *step.batch;
  RowResults& results = *step.answer;
  const uint8_t* const host = step.results.data();
  for (size_t r = 0; r < batch.rows.size(); ++r) {
    RowRecord record;
    std::memcpy(&record, host + r * sizeof(record), sizeof(record));
    const bool finite = record.finite != 0;
    results.finite[r] = finite;
    results.log_sum_exp[r] = finite ? record.maximum + std::log(record.one) : NAN;
    results.scaled_log_sum_exp[r] =
        finite ? record.maximum * batch.inverse_temperatures[r] + std::log(record.scaled) : NAN;
  }
  const uint8_t* pair = host + step.layout.candidates * 4;
  for (size_t i = 0; i < results.candidate_ids.size(); ++i, pair += 8) {
    std::memcpy(&results.candidate_ids[i], pair, 4);
    std::memcpy(&results.candidate_logits[i], pair + 4, 4);
  }
  std::memcpy(results.id_logits.data(), host + step.layout.ids * 4, results.id_logits.size() * 4);
  std::memcpy(results.full_logits.data(), step.rows.data(), results.full_logits.size() * 4);
}

}  // namespace altiplano::cuda
