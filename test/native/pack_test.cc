// Packing matrices that span huge pages: pieces of work begin at pages, wherever the matrix lies.
#include "cpu/pack.h"

#include "cpu/dispatch.h"
#include "engine_support.h"
#include "util/aligned_memory.h"

namespace altiplano::test {
namespace {

// An f32 matrix whose elements are computed: every one is different, and exact in f32.
class ComputedMatrix : public MatrixSource {
 public:
  ComputedMatrix(int64_t rows, int64_t cols, float first)
      : rows_(rows), cols_(cols), first_(first) {}
  const char* name() const override { return "computed"; }
  FileType type() const override { return FileType::kF32; }
  int64_t rows() const override { return rows_; }
  int64_t cols() const override { return cols_; }
  float at(int64_t row, int64_t col) const {
    return first_ + static_cast<float>(row * cols_ + col);
  }
  void read(const MatrixSlice& s, uint8_t* out) const override {
    for (int64_t row = s.row_begin; row < s.row_begin + s.rows; ++row) {
      for (int64_t col = s.col_begin; col < s.col_begin + s.cols; ++col) {
        const float value = at(row, col);
        std::memcpy(out, &value, sizeof(value));
        out += sizeof(value);
      }
    }
  }

 private:
  int64_t rows_, cols_;
  float first_;
};

}  // namespace

void test_packing_across_pages() {
  const Kernels& k = cpu::select_kernels();
  // 6 MiB in tiles that no page is a multiple of; one row; and tiles larger than a page.
  const ComputedMatrix sources[] = {{3001, 509, 0.f}, {1, 64, -1e6f}, {9, 140'001, 1.f}};
  for (int threads : {1, 3}) {
    ThreadPool pool(threads);
    Arena arena;
    arena.allocate(1000, "what lies before");  // so that no matrix starts with a page
    std::vector<cpu::PackJob> jobs;
    for (const ComputedMatrix& source : sources) {
      const size_t tile_bytes = k.packed_tile_bytes({}, source.cols());
      const int64_t tiles = (source.rows() + k.tile_rows - 1) / k.tile_rows;
      uint8_t* data = arena.allocate(static_cast<size_t>(tiles) * tile_bytes, "a test");
      CHECK(reinterpret_cast<uintptr_t>(data) % 64 == 0, "matrix at %p", static_cast<void*>(data));
      jobs.push_back({&source, {{}, source.rows(), source.cols(), data, tile_bytes}, data});
    }
    LoadMonitor monitor;
    cpu::pack_matrices(k, pool, jobs, monitor);
    int64_t bytes = 0;
    for (size_t i = 0; i < std::size(sources); ++i) {
      const ComputedMatrix& source = sources[i];
      std::vector<float> row(static_cast<size_t>(source.cols()));
      int64_t wrong = 0;
      for (int64_t r = 0; r < source.rows(); ++r) {
        k.unpack_row(jobs[i].matrix, r, row.data());
        for (int64_t c = 0; c < source.cols(); ++c) wrong += row[c] != source.at(r, c);
      }
      CHECK(wrong == 0, "matrix %zu, %d threads: %lld wrong elements", i, threads,
            static_cast<long long>(wrong));
      bytes += source.rows() * source.cols() * 4;
    }
    CHECK(monitor.done_bytes == bytes, "%lld bytes done, expected %lld",
          static_cast<long long>(monitor.done_bytes), static_cast<long long>(bytes));
  }
}

}  // namespace altiplano::test
