// Matrix multiplication with bf16 weights and bf16 activations.
#include "cuda/matmul.cuh"

namespace altiplano::cuda {

template <int kIndex>
using Shape = MatmulShape<MatmulKind::kBF16, kIndex>;

extern "C" __global__ void __launch_bounds__(Shape<0>::kThreads, Shape<0>::kTile.blocks)
    matmul_bf16_8(const __grid_constant__ MatmulParameters p) {
  matmul<MatmulKind::kBF16, 0>(p);
}

extern "C" __global__ void __launch_bounds__(Shape<1>::kThreads, Shape<1>::kTile.blocks)
    matmul_bf16_16(const __grid_constant__ MatmulParameters p) {
  matmul<MatmulKind::kBF16, 1>(p);
}

extern "C" __global__ void __launch_bounds__(Shape<2>::kThreads, Shape<2>::kTile.blocks)
    matmul_bf16_32(const __grid_constant__ MatmulParameters p) {
  matmul<MatmulKind::kBF16, 2>(p);
}

extern "C" __global__ void __launch_bounds__(Shape<3>::kThreads, Shape<3>::kTile.blocks)
    matmul_bf16_64(const __grid_constant__ MatmulParameters p) {
  matmul<MatmulKind::kBF16, 3>(p);
}

extern "C" __global__ void __launch_bounds__(Shape<4>::kThreads, Shape<4>::kTile.blocks)
    matmul_bf16_128(const __grid_constant__ MatmulParameters p) {
  matmul<MatmulKind::kBF16, 4>(p);
}

extern "C" __global__ void __launch_bounds__(Shape<5>::kThreads, Shape<5>::kTile.blocks)
    matmul_bf16_256x128(const __grid_constant__ MatmulParameters p) {
  matmul<MatmulKind::kBF16, 5>(p);
}

}  // namespace altiplano::cuda
