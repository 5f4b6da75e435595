// Matrix multiplication with f16 weights and f16 activations.
#include "cuda/matmul.cuh"

namespace altiplano::cuda {

template <int kIndex>
using Shape = MatmulShape<MatmulKind::kF16, kIndex>;

extern "C" __global__ void __launch_bounds__(Shape<0>::kThreads, Shape<0>::kTile.blocks)
    matmul_f16_8(const __grid_constant__ MatmulParameters p) {
  matmul<MatmulKind::kF16, 0>(p);
}

extern "C" __global__ void __launch_bounds__(Shape<1>::kThreads, Shape<1>::kTile.blocks)
    matmul_f16_16(const __grid_constant__ MatmulParameters p) {
  matmul<MatmulKind::kF16, 1>(p);
}

extern "C" __global__ void __launch_bounds__(Shape<2>::kThreads, Shape<2>::kTile.blocks)
    matmul_f16_32(const __grid_constant__ MatmulParameters p) {
  matmul<MatmulKind::kF16, 2>(p);
}

extern "C" __global__ void __launch_bounds__(Shape<3>::kThreads, Shape<3>::kTile.blocks)
    matmul_f16_64(const __grid_constant__ MatmulParameters p) {
  matmul<MatmulKind::kF16, 3>(p);
}

extern "C" __global__ void __launch_bounds__(Shape<4>::kThreads, Shape<4>::kTile.blocks)
    matmul_f16_128(const __grid_constant__ MatmulParameters p) {
  matmul<MatmulKind::kF16, 4>(p);
}

extern "C" __global__ void __launch_bounds__(Shape<5>::kThreads, Shape<5>::kTile.blocks)
    matmul_f16_256x128(const __grid_constant__ MatmulParameters p) {
  matmul<MatmulKind::kF16, 5>(p);
}

}  // namespace altiplano::cuda
