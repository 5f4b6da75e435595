// Which block computes what. All stages of all output tiles form a line of units; each block takes
// an equal stretch, so that all multiprocessors are busy to the end, whatever the shape. A tile
// that several blocks share is added up by the one that comes last, always in the order of the
// blocks: the same launch gives the same bits every time. Nobody waits for anybody.
#pragma once

#include "cuda/matmul_parameters.h"

namespace altiplano::cuda {

// The first unit of a block.
__device__ inline int first_unit(const MatmulParameters& p, int block) {
  return block * p.block_units + min(block, p.longer_blocks);
}

// The block that a unit belongs to.
__device__ inline int block_of(const MatmulParameters& p, int unit) {
  const int longer = p.longer_blocks * (p.block_units + 1);
  return unit < longer ? unit / (p.block_units + 1)
                       : p.longer_blocks + (unit - longer) / p.block_units;
}

// A place in the line.
struct Place {
  int tile;
  int step;  // of the tile's units
  int row_tile;
  int token_tile;

  __device__ Place(const MatmulParameters& p, int unit)
      : tile(unit / p.tile_units), step(unit % p.tile_units) {
    find(p);
  }
  // To the next unit; true if that is in another tile.
  __device__ bool advance(const MatmulParameters& p) {
    if (++step < p.tile_units) return false;
    next_tile(p);
    return true;
  }
  // To the first unit of the next tile.
  __device__ void next_tile(const MatmulParameters& p) {
    step = 0;
    ++tile;
    find(p);
  }

 private:
  __device__ void find(const MatmulParameters& p) {
    const int band = tile / (kBandTiles * p.row_tiles);
    const int within = tile - band * kBandTiles * p.row_tiles;
    const int width = min(kBandTiles, p.token_tiles - band * kBandTiles);
    row_tile = within / width;
    token_tile = band * kBandTiles + within % width;
  }
};

// How a tile is shared: blocks `first` to `last`.
struct Sharing {
  int first;
  int last;

  __device__ Sharing(const MatmulParameters& p, int tile)
      : first(block_of(p, tile * p.tile_units)),
        last(block_of(p, tile * p.tile_units + p.tile_units - 1)) {}
  // A block has two places for partial sums: one for the tile that it begins and another block
  // ends, and one for the tile that another block began.
  __device__ int slot(int block) const { return 2 * block + (block == first ? 1 : 0); }
};

}  // namespace altiplano::cuda
