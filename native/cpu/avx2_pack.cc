// Packing with AVX2: pack_tile.h, compiled for its vectors.
#include "cpu/avx2.h"
#include "cpu/pack_tile.h"

namespace altiplano::cpu::avx2 {

void pack_tile(const CanonicalRows& rows, uint8_t* tile) {
  pack_tile_of<kTileRows, kTileRows>(rows, tile);
}

}  // namespace altiplano::cpu::avx2
