// Packing with AVX-512: pack_tile.h, compiled for its vectors.
#include "cpu/avx512.h"
#include "cpu/pack_tile.h"

namespace altiplano::cpu::avx512 {

void pack_tile(const CanonicalRows& rows, uint8_t* tile) {
  pack_tile_of<kWideTileRows, kWideTileRows>(rows, tile);
}

}  // namespace altiplano::cpu::avx512
