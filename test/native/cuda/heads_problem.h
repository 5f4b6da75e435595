// q, k and v for tests: a stack of matrices, multiplied and rotated, and what came of it.
#pragma once

#include <vector>

#include "matmul_problem.h"

namespace altiplano::test {

// A matrix of the stack, with so many whole heads.
struct HeadsPart {
  int heads;
  WeightFormat format;
  bool int8_activations = false;
};

struct HeadsShape {
  int heads, kv_heads, head_dim;
  int64_t cols;
  KvType kv_type;
  ActivationType activations = ActivationType::kF16;
};

// Weights of such a stack, on the device too. `parts` have heads + 2 * kv_heads in all.
class HeadsProblem {
 public:
  HeadsProblem(CudaDevice& device, cuda::Matmul& matmul, const HeadsShape& shape,
               const std::vector<HeadsPart>& parts, Random& random, float weight = 1.f);

  // Multiplies x[T][cols] (numbers of the type of activations), tokens at random positions and
  // slots, every seventh in no slot; checks q, k, v, that nothing else was written, and that there
  // are no bank conflicts. Returns the launches of the multiplications, if they were simulated.
  enum Way : uint8_t { kFused, kApart };  // Epilogue::kHeads; or kStore16, then the kernel rope
  std::vector<ptx_simulator_report> check(const std::vector<float>& x, int64_t tokens,
                                          Way way = kFused);
  std::vector<float> activations(int64_t tokens, float deviation = 1.f) {
    return normals_of(shape_.activations, tokens * shape_.cols, random_, deviation);
  }
  const cuda::PackedMatrix& matrix(size_t part) const { return parts_[part].packed; }

 private:
  struct Part {
    int first_head;
    Matrix matrix;
    cuda::PackedMatrix packed;
  };
  struct Result;

  std::vector<Expected> expected_head(Way way, int head, const float* x, int position) const;
  void check_token(const Result& result, int64_t token, const float* x, int position,
                   int slot) const;
  void check_head(const char* what, const std::vector<Expected>& expected, KvType type,
                  const uint8_t* numbers, const float* scale) const;

  CudaDevice& device_;
  cuda::Matmul& matmul_;
  const HeadsShape shape_;
  Random& random_;
  std::vector<Part> parts_;
  std::vector<float> rotations_;
};

}  // namespace altiplano::test
