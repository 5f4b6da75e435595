// Matrix multiplication of int8 weights with int8 activations.
#include "cuda/matmul.cuh"

namespace altiplano::cuda {

template <int kIndex>
using Shape = MatmulShape<MatmulKind::kW8A8, kIndex>;

extern "C" __global__ void __launch_bounds__(Shape<0>::kThreads, Shape<0>::kTile.blocks)
    matmul_w8a8_8(const __grid_constant__ MatmulParameters p) {
  matmul<MatmulKind::kW8A8, 0>(p);
}

extern "C" __global__ void __launch_bounds__(Shape<1>::kThreads, Shape<1>::kTile.blocks)
    matmul_w8a8_16(const __grid_constant__ MatmulParameters p) {
  matmul<MatmulKind::kW8A8, 1>(p);
}

extern "C" __global__ void __launch_bounds__(Shape<2>::kThreads, Shape<2>::kTile.blocks)
    matmul_w8a8_32(const __grid_constant__ MatmulParameters p) {
  matmul<MatmulKind::kW8A8, 2>(p);
}

extern "C" __global__ void __launch_bounds__(Shape<3>::kThreads, Shape<3>::kTile.blocks)
    matmul_w8a8_64(const __grid_constant__ MatmulParameters p) {
  matmul<MatmulKind::kW8A8, 3>(p);
}

extern "C" __global__ void __launch_bounds__(Shape<4>::kThreads, Shape<4>::kTile.blocks)
    matmul_w8a8_128(const __grid_constant__ MatmulParameters p) {
  matmul<MatmulKind::kW8A8, 4>(p);
}

extern "C" __global__ void __launch_bounds__(Shape<5>::kThreads, Shape<5>::kTile.blocks)
    matmul_w8a8_256x128(const __grid_constant__ MatmulParameters p) {
  matmul<MatmulKind::kW8A8, 5>(p);
}

}  // namespace altiplano::cuda
