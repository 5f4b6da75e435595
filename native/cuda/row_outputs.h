// From the normalised rows of a step to what its wanted rows ask for, with one copy to the host.
#pragma once

#include <functional>
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

  // Makes room for the results of a step; before anything of it is launched. `place` is one of
  // kStepsInFlight; the step that had it before must have been taken. `moved` is called before
  // memory on the device moves that launch() was given.
  void begin(int place, const Batch& batch, RowResults& results, const StepSize& size,
             const std::function<void()>& moved);
  // What launch() launches depends on these and the size of the step alone, and it launches kernels
  // only, if it is not unusual().
  bool wants_candidates() const { return wants_candidates_; }
  bool gathers() const { return gathers_; }
  bool unusual() const { return keys_stride_ > 0 || (many_rows_ && whole_rows_); }
  // Launches everything; h [T].
  void launch(const Linear& head, const Activations& h, const StepInputs& inputs);
  // Then copies the results to the host.
  void copy();
  // After all of it has been waited for. From any thread.
  void take(int place);

 private:
  int64_t rows_at_once() const;
  void copy_rows(int64_t first, int64_t count);

  const Stream& stream_;
  std::shared_ptr<const Context> context_;
  const Operations& operations_;
  Matmul& matmul_;
  const int64_t hidden_, vocab_;
  DeviceMemory gathered_;  // [kLogitRows][D], as h
  DeviceMemory logits_;    // [kLogitRows][V] f32
  DeviceMemory chosen_;    // [R] ids
  DeviceMemory results_;   // see ResultLayout
  DeviceMemory keys_;      // [kLogitRows][keys_stride_], for many candidates
  int64_t keys_stride_ = 0;
  // The step that is being told.
  bool wants_candidates_ = false;
  bool gathers_ = false;  // else the rows are those of h: see wants_every_token()
  bool whole_rows_ = false;
  bool many_rows_ = false;  // more than kLogitRows
  // Of each step under way.
  struct Step {
    PinnedMemory results;
    PinnedMemory rows;  // whole rows asked for
    ResultLayout layout;
    std::vector<int32_t> full_rows;  // [R]: the place of the row among the whole ones, or -1
    const Batch* batch = nullptr;
    RowResults* answer = nullptr;
  };
  Step steps_[kStepsInFlight];
  Step* step_ = nullptr;  // the one that is being told
};

}  // namespace altiplano::cuda
