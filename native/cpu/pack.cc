#include "cpu/pack.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cpu/convert.h"
#include "util/aligned_memory.h"
#include "util/error.h"

namespace altiplano::cpu {
namespace {

// File bytes that are read at once: few enough that they are still in the second-level cache when
// they are converted and packed.
constexpr int64_t kReadBytes = 256 << 10;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// What a thread needs beside the matrix. Kept from piece to piece: fresh memory costs more than
// what is done in it.
struct Scratch {
  explicit Scratch(const Kernels& k) : converter(k) {}
  std::vector<uint8_t> raw;
  RowConverter converter;
};

// Hands out as many as are in use at once.
class ScratchPool {
 public:
  explicit ScratchPool(const Kernels& k) : k_(k) {}

  std::unique_ptr<Scratch> take() {
    const std::lock_guard lock(mutex_);
    if (free_.empty()) return std::make_unique<Scratch>(k_);
    std::unique_ptr<Scratch> scratch = std::move(free_.back());
    free_.pop_back();
    return scratch;
  }
  void give_back(std::unique_ptr<Scratch> scratch) {
    const std::lock_guard lock(mutex_);
    free_.push_back(std::move(scratch));
  }

 private:
  const Kernels& k_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Scratch>> free_;
};

// A piece of work is what begins in one huge page of memory. The kernel clears a page when it is
// first written to; two threads that write to the same new page would both clear one, and clearing
// memory takes about as long as reading the file.
struct Pieces {
  Pieces(const PackJob& job, int tile_rows)
      : tiles(ceil_div(job.matrix.rows, tile_rows)),
        tile_bytes(static_cast<int64_t>(job.matrix.tile_bytes)),
        lead(static_cast<int64_t>(reinterpret_cast<uintptr_t>(job.tiles) % kHugePageBytes)),
        count(ceil_div(lead + tiles * tile_bytes, kPageBytes)) {}

  // The first piece begins with the matrix, the others with the first tile in their page.
  int64_t first_tile(int64_t piece) const {
    return std::clamp<int64_t>(ceil_div(piece * kPageBytes - lead, tile_bytes), 0, tiles);
  }

  static constexpr auto kPageBytes = static_cast<int64_t>(kHugePageBytes);
  int64_t tiles;
  int64_t tile_bytes;
  int64_t lead;  // from the start of a page to that of the matrix
  int64_t count;
};

// Tiles first .. last-1 of a matrix.
void pack_tiles(const Kernels& k, const PackJob& job, int64_t first, int64_t last, Scratch& scratch,
                LoadMonitor& monitor) {
  const MatrixSource& source = *job.source;
  const FileTypeInfo& type = info(source.type());
  const int64_t cols = source.cols();
  const int64_t row_bytes = cols / type.block * type.block_bytes;
  const int64_t tiles_at_once = std::max<int64_t>(1, kReadBytes / (row_bytes * k.tile_rows));
  for (int64_t tile = first; tile < last;) {
    if (monitor.cancelled.load(std::memory_order_relaxed)) return;
    const int64_t end = std::min(tile + tiles_at_once, last);
    const int64_t row = tile * k.tile_rows;
    const int64_t rows = std::min(end * k.tile_rows, source.rows()) - row;
    scratch.raw.resize(static_cast<size_t>(rows * row_bytes));
    source.read({row, rows, 0, cols}, scratch.raw.data());
    for (int64_t done = 0; done < rows; done += k.tile_rows, ++tile) {
      const CanonicalRows canonical = scratch.converter.convert(
          source.type(), scratch.raw.data() + done * row_bytes,
          std::min<int64_t>(k.tile_rows, rows - done), cols, job.matrix.format, row + done);
      k.pack_tile(canonical, job.tiles + tile * static_cast<int64_t>(job.matrix.tile_bytes));
    }
    monitor.done_bytes += rows * row_bytes;
  }
}

}  // namespace

void pack_matrices(const Kernels& k, ThreadPool& pool, std::span<const PackJob> jobs,
                   LoadMonitor& monitor) {
  // Pieces of all matrices are one list, so that threads need not wait at the end of each.
  struct Piece {
    size_t job;
    int64_t first, last;  // tiles
  };
  std::vector<Piece> list;
  for (size_t j = 0; j < jobs.size(); ++j) {
    const Pieces pieces(jobs[j], k.tile_rows);
    for (int64_t p = 0; p < pieces.count; ++p) {
      list.push_back({j, pieces.first_tile(p), pieces.first_tile(p + 1)});
    }
  }
  ScratchPool scratches(k);
  std::atomic<bool> failed{false};
  // Written once, by the piece that sets `failed`.
  std::exception_ptr failure;
  size_t failed_job = 0;
  pool.parallel_for(static_cast<int64_t>(list.size()), [&](int64_t i) {
    if (failed.load(std::memory_order_relaxed)) return;
    const Piece& piece = list[static_cast<size_t>(i)];
    try {
      std::unique_ptr<Scratch> scratch = scratches.take();
      pack_tiles(k, jobs[piece.job], piece.first, piece.last, *scratch, monitor);
      scratches.give_back(std::move(scratch));
    } catch (...) {
      // Only kept: wording it allocates memory and could itself throw, here on a worker.
      if (failed.exchange(true)) return;
      failure = std::current_exception();
      failed_job = piece.job;
    }
  });
  try {
    if (failure) std::rethrow_exception(failure);
  } catch (const Error& e) {
    throw Error(e.code(),
                std::string("tensor ") + jobs[failed_job].source->name() + ": " + e.what());
  }
  if (monitor.cancelled) throw Error("ALTIPLANO_ABORTED", "loading was cancelled");
}

}  // namespace altiplano::cpu
