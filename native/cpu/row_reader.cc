#include "cpu/row_reader.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <string>
#include <vector>

#include "cpu/convert.h"
#include "util/error.h"
#include "util/thread_pool.h"

namespace altiplano::cpu {
namespace {

// File bytes that a thread reads at once: still in the second-level cache when it converts them.
constexpr int64_t kReadBytes = 256 << 10;

class CpuRowReader : public RowReader {
 public:
  CpuRowReader(int threads, const Kernels& kernels) : k_(kernels), pool_(threads) {}

  void to_float(FileType type, const uint8_t* raw, int64_t count, float* out) override {
    cpu::to_float(k_, type, raw, count, out);
  }

  void read(const MatrixPart& part, int64_t row_begin, int64_t rows, const CanonicalArrays& out,
            LoadMonitor& monitor) override {
    const FileTypeInfo& type = info(part.source->type());
    const int64_t row_bytes = part.source->cols() / type.block * type.block_bytes;
    const int64_t piece_rows = std::max<int64_t>(1, kReadBytes / row_bytes);
    std::atomic<bool> failed{false};
    std::exception_ptr failure;  // written once, by the piece that sets `failed`
    pool_.parallel_for((rows + piece_rows - 1) / piece_rows, [&](int64_t piece) {
      if (failed.load(std::memory_order_relaxed)) return;
      if (monitor.cancelled.load(std::memory_order_relaxed)) return;
      const int64_t begin = piece * piece_rows, count = std::min(piece_rows, rows - begin);
      try {
        convert(part, row_begin, begin, count, count * row_bytes, out);
        monitor.done_bytes += count * row_bytes;
      } catch (...) {
        if (!failed.exchange(true)) failure = std::current_exception();
      }
    });
    try {
      if (failure) std::rethrow_exception(failure);
    } catch (const Error& e) {
      throw Error(e.code(), std::string("tensor ") + part.source->name() + ": " + e.what());
    }
    if (monitor.cancelled) throw Error("ALTIPLANO_ABORTED", "loading was cancelled");
  }

 private:
  // Rows begin .. begin + count - 1 of those that start with row_begin.
  void convert(const MatrixPart& part, int64_t row_begin, int64_t begin, int64_t count,
               int64_t raw_bytes, const CanonicalArrays& out) {
    const MatrixSource& source = *part.source;
    const WeightFormat format = part.format;
    const int64_t cols = source.cols();
    std::vector<uint8_t> raw(static_cast<size_t>(raw_bytes));
    source.read({row_begin + begin, count, 0, cols}, raw.data());
    RowConverter converter(k_);
    const CanonicalRows rows =
        converter.convert(source.type(), raw.data(), count, cols, format, row_begin + begin);
    const int64_t bytes = canonical_row_bytes(format, cols), groups = format.groups(cols);
    std::memcpy(static_cast<uint8_t*>(out.values) + begin * bytes, rows.values, count * bytes);
    if (rows.scales != nullptr) {
      std::copy_n(rows.scales, count * groups, out.scales + begin * groups);
    }
    if (rows.zeros != nullptr) std::copy_n(rows.zeros, count * groups, out.zeros + begin * groups);
  }

  const Kernels& k_;
  ThreadPool pool_;
};

}  // namespace

std::unique_ptr<RowReader> make_row_reader(int threads, const Kernels& kernels) {
  return std::make_unique<CpuRowReader>(threads, kernels);
}

}  // namespace altiplano::cpu
