// Weights: matrices on the device, and how they get there from files.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "backend.h"
#include "cuda/canonical.h"
#include "cuda/matmul.h"

namespace altiplano::cuda {

// Stacked matrices. Neighbouring parts of one format are one matrix, which one launch multiplies.
struct CudaLinear : Linear {
  struct Part {
    PackedMatrix matrix;
    int64_t first_row;  // of the stack
  };
  std::vector<Part> parts;  // empty for an embedding that is nothing else
  // An embedding, as embed() reads it: in canonical form.
  WeightFormat embedding_format;
  DeviceMemory embedding_memory;
  CanonicalView embedding = {};

  // Whether all of it is multiplied with int8 activations.
  bool takes_int8() const;
  size_t bytes() const override;
};

// Reads matrices through the host: while one stretch of rows is copied and packed, the next is read
// and converted.
class LinearLoader {
 public:
  // `limits` say what activations are.
  LinearLoader(const Stream& stream, Matmul& matmul, RowReader& reader, const StepLimits& limits);

  std::unique_ptr<CudaLinear> load(std::span<const MatrixPart> parts, LinearUse use,
                                   LoadMonitor& monitor);
  static uint64_t device_bytes(std::span<const PartShape> parts, LinearUse use,
                               bool int8_activations);

 private:
  struct Stage {
    explicit Stage(std::shared_ptr<const Context> context) : copied(std::move(context)) {}
    PinnedMemory host;
    DeviceMemory device;
    Event copied;
  };

  Stage& next_stage(size_t bytes);
  void load_embedding(const MatrixPart& part, CudaLinear& to, LoadMonitor& monitor);
  void load_part(const MatrixPart& part, int64_t first_row, PackedMatrix& to, LoadMonitor& monitor);

  const Stream& stream_;
  std::shared_ptr<const Context> context_;
  Matmul& matmul_;
  RowReader& reader_;
  const StepLimits limits_;
  Stage stages_[2];
  int next_ = 0;
};

}  // namespace altiplano::cuda
