// The kernel table for AVX-512 with VNNI: starts from AVX2 and overrides. Its matrices have tiles
// of 16 rows.
#include "cpu/avx512.h"

#include "cpu/layout.h"
#include "cpu/portable.h"

namespace altiplano::cpu {
namespace avx512 {
namespace {

Kernels make_table() {
  Kernels table = avx2_kernels();
  table.name = "avx512";
  table.tile_rows = kWideTileRows;
  table.packed_tile_bytes = portable::packed_tile_bytes<kWideTileRows>;
  table.pack_tile = portable::pack_tile<kWideTileRows>;
  table.unpack_row = portable::unpack_row<kWideTileRows>;
  table.matmul = matmul;
  table.quantize_activations = quantize_activations;
  table.matmul_int8 = matmul_int8;
  table.attend = attend;
  return table;
}

}  // namespace
}  // namespace avx512

const Kernels& avx512_kernels() {
  static const Kernels table = avx512::make_table();
  return table;
}

}  // namespace altiplano::cpu
