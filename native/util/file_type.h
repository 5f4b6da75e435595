// Element types of tensors in checkpoint files, with the block layout of the quantized ones. One
// row per type; what a type becomes in memory is decided in TypeScript and done in cpu/convert.cc.
#pragma once

#include <cstdint>
#include <cstring>

namespace altiplano {

enum class FileType : uint8_t { kF32, kF16, kBF16, kQ8_0, kQ4_0, kQ6_K };

struct FileTypeInfo {
  const char* name;
  int block;        // elements of a block
  int block_bytes;  // bytes of a block
};

inline constexpr FileTypeInfo kFileTypes[] = {
    {"F32", 1, 4},    {"F16", 1, 2},    {"BF16", 1, 2},
    {"Q8_0", 32, 34}, {"Q4_0", 32, 18}, {"Q6_K", 256, 210},
};

inline constexpr int kFileTypeCount = sizeof(kFileTypes) / sizeof(kFileTypes[0]);

inline const FileTypeInfo& info(FileType type) { return kFileTypes[static_cast<int>(type)]; }

}  // namespace altiplano
