// The kernel table for AVX-512 with VNNI: starts from AVX2 and overrides. Its matrices have tiles
// of 16 rows.
#include "cpu/avx512.h"

#include "cpu/avx512_lanes.h"
#include "cpu/layout.h"
#include "cpu/portable.h"

namespace altiplano::cpu {
namespace avx512 {
namespace {

void silu_mul(const float* gate, const float* up, int64_t n, float* out) {
  for (int64_t i = 0; i < n; i += Lanes::kLanes) {
    const int lanes = n - i < Lanes::kLanes ? static_cast<int>(n - i) : Lanes::kLanes;
    const __m512 x = Lanes::load(gate + i, lanes);
    const __m512 e = Lanes::exp(Lanes::sub(Lanes::zero(), x));
    const __m512 silu = Lanes::div(x, Lanes::add(Lanes::set(1), e));
    Lanes::store(out + i, Lanes::mul(silu, Lanes::load(up + i, lanes)), lanes);
  }
}

Kernels make_table() {
  Kernels table = avx2_kernels();
  table.name = "avx512";
  table.tile_rows = kWideTileRows;
  table.packed_tile_bytes = portable::packed_tile_bytes<kWideTileRows>;
  table.pack_tile = pack_tile;
  table.unpack_row = portable::unpack_row<kWideTileRows>;
  table.matmul = matmul;
  table.quantize_activations = quantize_activations;
  table.matmul_int8 = matmul_int8;
  table.attend = attend;
  table.silu_mul = silu_mul;
  return table;
}

}  // namespace
}  // namespace avx512

const Kernels& avx512_kernels() {
  static const Kernels table = avx512::make_table();
  return table;
}

}  // namespace altiplano::cpu
