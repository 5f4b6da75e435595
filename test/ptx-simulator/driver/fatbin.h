// The PTX in what cuModuleLoadData takes: a fat binary as nvcc -fatbin makes it, or PTX text.
//
// A fat binary is a header and entries, each with a header of its own: PTX, or machine code, which
// the simulator does not run. Entries may be compressed (nvcc's default since CUDA 12.8 is
// Zstandard, before it was LZ4); that is not read, so builds for the simulator say
// `-Xfatbin -compress-mode=none`. The format is not documented; what is relied upon was seen in
// nvcc 13's output, and any other version number is refused.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace ptx_simulator {

class ImageError : public std::runtime_error {
 public:
  enum class Kind {
    kInvalid,  // no image, or a damaged one
    kNoPtx,    // nothing in it that the simulator could run
  };
  ImageError(Kind error_kind, const std::string& what)
      : std::runtime_error(what), kind(error_kind) {}
  const Kind kind;
};

struct PtxImage {
  int target = 0;         // 80 of compute_80; 0 if the image is PTX text, which says it itself
  std::string_view text;  // in the image's memory; empty if it is compressed
  bool is_compressed = false;
};

// All PTX entries, in their order. `size_bytes` is how much may be read, if that is known; a fat
// binary's header says how long it is, PTX text ends with a zero. Throws ImageError.
std::vector<PtxImage> ptx_images(const void* image, size_t size_bytes = SIZE_MAX);

// The entry that a device runs: of the highest target that is not above the device's.
std::string_view ptx_for_device(const void* image, size_t size_bytes, int device_target);

// All machine code that is not compressed: cubins, which are ELF files. None for PTX text. The
// simulator does not run it, but it tells what ptxas made of a kernel (machine_code.h).
struct MachineCode {
  int target = 0;  // 80 of sm_80
  std::string_view elf;
};
std::vector<MachineCode> machine_code(const void* image, size_t size_bytes = SIZE_MAX);

}  // namespace ptx_simulator
