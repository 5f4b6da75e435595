// Which block computes what. As long as there is a tile for every block, each takes one, so that
// blocks that run together are neighbours and find each other's operands in L2. What is left then,
// fewer than two tiles for each block, is a line of units (stages of tiles), of which each block
// takes an equal stretch: all multiprocessors are busy to the end, whatever the shape.
//
// A tile that several blocks share is added up by the one that comes last, always in the order of
// the blocks: the same launch gives the same bits every time. Nobody waits for anybody.
#pragma once

#include "cuda/matmul_parameters.h"

namespace altiplano::cuda {

// The first unit of a block's stretch.
__device__ inline int first_unit(const MatmulParameters& p, int block) {
  return block * p.block_units + min(block, p.longer_blocks);
}

// The block that a unit of the line belongs to.
__device__ inline int block_of(const MatmulParameters& p, int unit) {
  const int longer = p.longer_blocks * (p.block_units + 1);
  return unit < longer ? unit / (p.block_units + 1)
                       : p.longer_blocks + (unit - longer) / p.block_units;
}

// Units of a block, in its own tiles and in its stretch.
__device__ inline int units_of(const MatmulParameters& p, int block) {
  return p.whole_tiles * p.tile_units + first_unit(p, block + 1) - first_unit(p, block);
}

// The first tile of the line.
__device__ inline int first_line_tile(const MatmulParameters& p) {
  return p.whole_tiles * static_cast<int>(gridDim.x);
}

// Where a block is in its work.
struct Place {
  int tile;
  int step;  // of the tile's units
  int row_tile;
  int token_tile;
  int whole_left;  // tiles of its own, this one included

  __device__ explicit Place(const MatmulParameters& p)
      : tile(static_cast<int>(blockIdx.x)), step(0), whole_left(p.whole_tiles) {
    if (whole_left == 0) begin_stretch(p);
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
    if (whole_left > 1) {
      --whole_left;
      tile += static_cast<int>(gridDim.x);
    } else if (whole_left == 1) {
      whole_left = 0;
      begin_stretch(p);
    } else {
      ++tile;
    }
    find(p);
  }

 private:
  __device__ void begin_stretch(const MatmulParameters& p) {
    const int unit = first_unit(p, static_cast<int>(blockIdx.x));
    tile = first_line_tile(p) + unit / p.tile_units;
    step = unit % p.tile_units;
  }
  __device__ void find(const MatmulParameters& p) {
    const int band = tile / (kBandTiles * p.row_tiles);
    const int within = tile - band * kBandTiles * p.row_tiles;
    // Behind the last tile, where nothing is loaded any more, the band may be empty.
    const int width = max(1, min(kBandTiles, p.token_tiles - band * kBandTiles));
    row_tile = within / width;
    token_tile = band * kBandTiles + within % width;
  }
};

// How a tile of the line is shared: blocks `first` to `last`.
struct Sharing {
  int first;
  int last;

  __device__ Sharing(const MatmulParameters& p, int tile) {
    const int unit = (tile - first_line_tile(p)) * p.tile_units;
    first = block_of(p, unit);
    last = block_of(p, unit + p.tile_units - 1);
  }
  // A block has two places for partial sums: one for the tile that it begins and another block
  // ends, and one for the tile that another block began.
  __device__ int slot(int block) const { return 2 * block + (block == first ? 1 : 0); }
};

}  // namespace altiplano::cuda
