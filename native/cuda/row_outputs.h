// From the normalised rows of a step to what its wanted rows ask for, with one copy to the host.
#pragma once

#include <memory>

#include "backend.h"
#include "cuda/linear.h"
#include "cuda/operations.h"
#include "cuda/step_inputs.h"

namespace altiplano::cuda {

class RowOutputs {
 public:
  RowOutputs(const Stream& stream, const Operations& operations, Matmul& matmul,
             const StepLimits& limits);
  static uint64_t device_bytes(const StepLimits& limits);
  uint64_t device_bytes() const;

  // Ids that the rows of the step before chose.
  CUdeviceptr chosen() const { return chosen_.get(); }

  // Makes room for the results of a step; before anything of it is launched.
  void begin(const Batch& batch);
  // Launches everything; h [T][h_stride] f16.
  void launch(const Linear& head, CUdeviceptr h, int64_t h_stride, const StepInputs& inputs);
  // After the stream has been waited for.
  void take(const Batch& batch, RowResults& results) const;

 private:
  const Stream& stream_;
  std::shared_ptr<const Context> context_;
  const Operations& operations_;
  Matmul& matmul_;
  const int64_t hidden_stride_, vocab_;
  DeviceMemory gathered_;  // [kLogitRows][hidden_stride] f16
  DeviceMemory logits_;    // [kLogitRows][V] f32
  DeviceMemory chosen_;    // [R] ids
  DeviceMemory results_;   // see ResultLayout
  PinnedMemory host_results_;
  PinnedMemory host_rows_;  // whole rows asked for
  DeviceMemory keys_;       // [kLogitRows][keys_stride_], for many candidates
  int64_t keys_stride_ = 0;
  bool wants_candidates_ = false;
  bool gathers_ = false;  // else the rows are those of h: see wants_every_token()
  ResultLayout layout_;
  std::vector<int32_t> full_rows_;  // [R]: the place of the row among the whole ones, or -1
};

}  // namespace altiplano::cuda
