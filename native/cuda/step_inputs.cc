#include "cuda/step_inputs.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace altiplano::cuda {
namespace {

constexpr int64_t kRequestWords = sizeof(RowRequest) / 4;
constexpr int64_t kRecordWords = sizeof(RowRecord) / 4;
static_assert(sizeof(RowRequest) % 4 == 0 && sizeof(RowRecord) % 8 == 0);

constexpr int64_t kItemWords = sizeof(AttentionItem) / 4;

// Of a step with a row and an item of attention for each token, and a few ids for each.
int64_t usual_words(int64_t tokens, int64_t pages) {
  constexpr int64_t kIdsOfRow = 64;
  return 1 + tokens * (5 + kRequestWords + kItemWords + kIdsOfRow) + pages;
}

}  // namespace

ResultLayout result_layout(const Batch& batch, int64_t rows) {
  ResultLayout layout;
  layout.rows = rows;
  layout.candidates = layout.rows * kRecordWords;
  int64_t candidates = 0;
  for (const int32_t count : batch.candidates) candidates += count;
  layout.ids = layout.candidates + 2 * candidates;
  layout.words = layout.ids + static_cast<int64_t>(batch.ids.size());
  return layout;
}

uint64_t StepInputs::device_bytes(int64_t tokens, int64_t pages) {
  return static_cast<uint64_t>(usual_words(tokens, pages)) * 4;
}

StepInputs::StepInputs(std::shared_ptr<const Context> context, int64_t tokens, int64_t pages,
                       int group)
    : context_(std::move(context)), group_(group) {
  const uint64_t bytes = device_bytes(tokens, pages);
  for (PinnedMemory& host : host_) host = PinnedMemory(context_, bytes, "the inputs of steps");
  device_ = DeviceMemory(context_, bytes, "the inputs of steps");
}

void StepInputs::set(const Stream& stream, int place, const Batch& b, const StepSize& size,
                     const std::function<void()>& moved) {
  const auto rows = static_cast<int64_t>(b.rows.size());
  int64_t words = 0;
  const auto room_for = [&](int64_t count) { return std::exchange(words, words + count); };
  // First what stands where the size puts it.
  const int64_t zero = room_for(1);  // page 0, for what pads the step
  tokens_ = room_for(size.tokens);
  const int64_t positions = room_for(size.tokens), slots = room_for(size.tokens),
                block_begin = room_for(size.tokens);
  rows_ = room_for(size.rows);
  requests_ = room_for(size.rows * kRequestWords);
  const int64_t attention = room_for(group_ == 0 ? 0 : size.tokens * kItemWords);
  const int64_t ids = room_for(static_cast<int64_t>(b.ids.size()));
  page_copies_ = room_for(static_cast<int64_t>(b.page_copies.size()));
  const int64_t blocks = room_for(static_cast<int64_t>(b.block_table.size()));
  const auto bytes = static_cast<size_t>(words) * 4;
  if (bytes > device_.bytes()) {
    // Rare: rows that ask for thousands of ids, or pages that many sequences share.
    moved();
    device_ = {};
    device_ = DeviceMemory(context_, bytes, "the inputs of a step");
  }
  PinnedMemory& host = host_[place];
  if (bytes > host.bytes()) {
    host = {};
    host = PinnedMemory(context_, bytes, "the inputs of a step");
  }

  auto* const to = reinterpret_cast<int32_t*>(host.data());
  std::fill_n(to, ids, 0);
  const auto put = [&](int64_t at, const std::vector<int32_t>& values) {
    std::copy(values.begin(), values.end(), to + at);
  };
  put(tokens_, b.tokens);
  put(positions, b.positions);
  std::fill_n(to + slots, size.tokens, -1);
  put(slots, b.slots);
  std::fill_n(to + block_begin, size.tokens, static_cast<int32_t>(zero));
  put(rows_, b.rows);
  put(ids, b.ids);
  put(page_copies_, b.page_copies);
  put(blocks, b.block_table);
  std::vector<int32_t> sequence_blocks;  // where the pages of each sequence stand
  for (size_t s = 0; s + 1 < b.sequence_starts.size(); ++s) {
    sequence_blocks.push_back(static_cast<int32_t>(blocks + b.block_starts[s]));
    std::fill(to + block_begin + b.sequence_starts[s], to + block_begin + b.sequence_starts[s + 1],
              sequence_blocks[s]);
  }
  AttentionItems items;
  if (group_ > 0) items = attention_items(b, sequence_blocks, group_);
  const auto prefill_items = static_cast<int64_t>(items.prefill.size());
  auto decode_items = static_cast<int64_t>(items.decode.size());
  if (size.decodes && group_ > 0) decode_items = size.tokens;
  const auto put_items = [&](int64_t item, const std::vector<AttentionItem>& values) {
    if (values.empty()) return;
    std::memcpy(to + attention + item * kItemWords, values.data(),
                values.size() * sizeof(AttentionItem));
  };
  put_items(0, items.prefill);
  put_items(prefill_items, items.decode);
  step_tokens_ = {.count = static_cast<uint32_t>(size.tokens),
                  .positions = at(positions),
                  .slots = at(slots),
                  .block_begin = at(block_begin),
                  .words = device_.get(),
                  .attention_items = at(attention),
                  .prefill_items = static_cast<uint32_t>(prefill_items),
                  .decode_items = static_cast<uint32_t>(decode_items),
                  .decode_pages = items.decode_pages};
  const ResultLayout layout = result_layout(b, size.rows);
  auto candidates = static_cast<int32_t>(layout.candidates);
  for (int64_t r = 0; r < rows; ++r) {
    const int32_t first_id = b.id_starts[r];
    const RowRequest request = {.inverse_temperature = b.inverse_temperatures[r],
                                .candidates = b.candidates[r],
                                .candidate_results = candidates,
                                .ids = static_cast<int32_t>(ids + first_id),
                                .id_count = b.id_starts[r + 1] - first_id,
                                .id_results = static_cast<int32_t>(layout.ids + first_id)};
    std::memcpy(to + requests_ + r * kRequestWords, &request, sizeof(request));
    candidates += 2 * b.candidates[r];
  }
  copy_to_device(stream, device_.get(), host.data(), bytes);
}

}  // namespace altiplano::cuda
