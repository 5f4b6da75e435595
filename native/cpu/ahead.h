// Which weights are fetched while others are multiplied, for the x86 kernels with int8 activations.
// In an unnamed namespace, since each file compiles it for its own instruction set.
#pragma once

#include <cstdint>

#include "cpu/kernels.h"

namespace altiplano::cpu {
namespace {

// The tiles that come next, as many lines of them in each part of the tokens: memory would stand
// still while later parts find their weights in the cache.
class Ahead {
 public:
  // Fetches nothing.
  Ahead() = default;

  // `count` tiles of `tile_rows` rows from `tile` on, as far as `w` has them, while tokens are
  // multiplied in `parts` parts, each of which goes through `groups` groups of columns.
  Ahead(const PackedMatrix& w, int64_t tile_rows, int64_t tile, int64_t count, int64_t groups,
        int64_t parts) {
    const int64_t there = (w.rows + tile_rows - 1) / tile_rows - tile;
    const int64_t fetches = kLine * groups * parts;
    if (there <= 0 || fetches == 0) return;
    at_ = w.data + tile * w.tile_bytes;
    left_ = (there < count ? there : count) * static_cast<int64_t>(w.tile_bytes);
    lines_ = (left_ + fetches - 1) / fetches;
  }

  // In a part, for each group of columns; a part has a copy.
  void fetch() {
    for (int64_t i = 0; i < lines_; ++i, at_ += kLine) __builtin_prefetch(at_, 0, 2);
  }

  // Behind a part.
  void advance(int64_t groups) {
    const int64_t fetched = kLine * groups * lines_;
    const int64_t bytes = fetched < left_ ? fetched : left_;
    at_ += bytes;
    left_ -= bytes;
    if (left_ == 0) lines_ = 0;
  }

 private:
  static constexpr int64_t kLine = 64;
  const uint8_t* at_ = nullptr;
  int64_t left_ = 0;   // bytes
  int64_t lines_ = 0;  // for each group of columns
};

}  // namespace
}  // namespace altiplano::cpu
