// The large memories of a block: its shared memory with its shadow, and the registers of its warps.
// A host thread keeps those of launches before for later ones, since fresh pages from the operating
// system would cost a small launch more than running it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "machine/shared_memory.h"

namespace ptx_simulator {

class BlockStorage {
 public:
  // Registers are zero; shared memory needs a reset() before each block.
  static BlockStorage take(uint32_t shared_bytes, size_t register_bytes);
  static void give_back(BlockStorage storage);

  SharedMemory& shared() const { return *shared_; }
  std::byte* registers() const { return registers_.get(); }  // aligned to 64

 private:
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  class Spares;

  BlockStorage(uint32_t shared_bytes, size_t register_bytes);
  size_t bytes() const;  // about

  std::unique_ptr<SharedMemory> shared_;
  std::unique_ptr<std::byte, Free> registers_;
  size_t register_bytes_;
};

}  // namespace ptx_simulator
