// A model that a simulated device runs in milliseconds, for whole lives of an engine on it.
#pragma once

#include <memory>

#include "backend.h"
#include "llama/config.h"

namespace altiplano::test {

// A matrix that is nowhere: MadeUpReader makes its numbers up.
class NamedMatrix : public MatrixSource {
 public:
  NamedMatrix(int64_t rows, int64_t cols) : rows_(rows), cols_(cols) {}
  const char* name() const override { return "made up"; }
  FileType type() const override { return FileType::kF32; }
  int64_t rows() const override { return rows_; }
  int64_t cols() const override { return cols_; }
  void read(const MatrixSlice&, uint8_t*) const override {}

 private:
  const int64_t rows_, cols_;
};

// Random weights, the same whenever they are read; vectors are all one half.
class MadeUpReader : public RowReader {
 public:
  void to_float(FileType type, const uint8_t* raw, int64_t count, float* out) override;
  void read(const MatrixPart& part, int64_t row_begin, int64_t rows, const CanonicalArrays& out,
            LoadMonitor& monitor) override;
};

// A layer with grouped heads of 64, weights of several formats, gate and up in different ones. Its
// tensors lie in an empty file, which lives as long as this.
class TinyModel {
 public:
  explicit TinyModel(int gpu);
  ~TinyModel();
  TinyModel(const TinyModel&) = delete;
  TinyModel& operator=(const TinyModel&) = delete;

  const ModelSpec& spec() const { return spec_; }

 private:
  ModelSpec spec_;
};

}  // namespace altiplano::test
