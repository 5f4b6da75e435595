#include "driver/fatbin.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace ptx_simulator {
namespace {

using Kind = ImageError::Kind;

constexpr uint32_t kMagic = 0xba55ed50;
constexpr uint16_t kVersion = 1;
// What the compiler's start-up code holds: a pointer to the fat binary.
constexpr uint32_t kWrapperMagic = 0x466243b1;

constexpr uint32_t kElfMagic = 0x464c457f;

struct Header {
  uint32_t magic;
  uint16_t version;
  uint16_t header_bytes;
  uint64_t content_bytes;  // behind the header
};
static_assert(sizeof(Header) == 16);

struct EntryHeader {
  uint16_t kind;
  uint16_t version;
  uint32_t header_bytes;   // names and options lie behind the fixed part
  uint64_t content_bytes;  // padded to a multiple of 8
  uint32_t compressed_bytes;
  uint32_t options_offset;
  uint16_t ptx_minor;
  uint16_t ptx_major;
  uint32_t target;
  uint32_t name_offset;
  uint32_t name_bytes;
  uint64_t flags;
  uint64_t reserved;
  uint64_t uncompressed_bytes;
};
static_assert(sizeof(EntryHeader) == 64);

constexpr uint16_t kEntryPtx = 1;
constexpr uint16_t kEntryElf = 2;
constexpr uint64_t kFlagLz4 = 0x2000;
constexpr uint64_t kFlagZstandard = 0x8000;

struct Wrapper {
  uint32_t magic;
  uint32_t version;
  const void* image;
  const void* unused;
};

[[noreturn]] void damaged(const std::string& what) {
  throw ImageError(Kind::kInvalid, "the fat binary is damaged: " + what);
}

// Up to the first zero, which text that is padded has at its end.
std::string_view until_zero(const char* text, size_t most_bytes) {
  return {text, most_bytes == SIZE_MAX ? std::strlen(text) : strnlen(text, most_bytes)};
}

bool looks_like_ptx(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t\r\n\f\v");
  if (first == std::string_view::npos) return false;
  text.remove_prefix(first);
  return text.substr(0, 8) == ".version" || text.substr(0, 2) == "//" || text.substr(0, 2) == "/*";
}

struct Entry {
  uint16_t kind;
  int target;
  bool is_compressed;
  std::string_view content;
  std::string where;  // for messages
};

std::vector<Entry> entries_of(const char* begin, size_t size_bytes) {
  Header header;
  if (size_bytes < sizeof(header)) damaged("its header is cut off");
  std::memcpy(&header, begin, sizeof(header));
  if (header.version != kVersion || header.header_bytes < sizeof(header)) {
    damaged("version " + std::to_string(header.version) + " with a header of " +
            std::to_string(header.header_bytes) + " bytes is not known");
  }
  if (header.header_bytes > size_bytes || header.content_bytes > size_bytes - header.header_bytes) {
    damaged("its header promises " + std::to_string(header.content_bytes) + " bytes");
  }
  std::vector<Entry> entries;
  const char* const content = begin + header.header_bytes;
  for (uint64_t place = 0; place < header.content_bytes;) {
    const uint64_t left = header.content_bytes - place;
    const std::string where = "the entry at byte " + std::to_string(header.header_bytes + place);
    EntryHeader entry;
    if (left < sizeof(entry)) damaged(where + " is cut off");
    std::memcpy(&entry, content + place, sizeof(entry));
    if (entry.header_bytes < sizeof(entry) || entry.header_bytes > left ||
        entry.content_bytes > left - entry.header_bytes) {
      damaged(where + " has " + std::to_string(entry.header_bytes) + " and " +
              std::to_string(entry.content_bytes) + " bytes where " + std::to_string(left) +
              " are left");
    }
    entries.push_back({entry.kind,
                       static_cast<int>(entry.target),
                       (entry.flags & (kFlagLz4 | kFlagZstandard)) != 0,
                       {content + place + entry.header_bytes, entry.content_bytes},
                       where});
    place += entry.header_bytes + entry.content_bytes;
  }
  return entries;
}

std::vector<PtxImage> images_of_fat_binary(const char* begin, size_t size_bytes) {
  std::vector<PtxImage> images;
  for (const Entry& entry : entries_of(begin, size_bytes)) {
    if (entry.kind != kEntryPtx) continue;
    PtxImage image{entry.target, {}, entry.is_compressed};
    if (!image.is_compressed) {
      image.text = until_zero(entry.content.data(), entry.content.size());
      if (!looks_like_ptx(image.text)) damaged(entry.where + " says that it is PTX, and is not");
    }
    images.push_back(image);
  }
  return images;
}

}  // namespace

std::vector<PtxImage> ptx_images(const void* image, size_t size_bytes) {
  if (image == nullptr || size_bytes == 0) throw ImageError(Kind::kInvalid, "there is no image");
  const char* const begin = static_cast<const char*>(image);
  // Byte by byte, as text may be shorter than four.
  uint32_t magic = 0;
  for (size_t i = 0; i < sizeof(magic) && i < size_bytes; ++i) {
    magic |= static_cast<uint32_t>(static_cast<unsigned char>(begin[i])) << (8 * i);
    if (begin[i] == '\0') break;
  }
  if (magic == kMagic) return images_of_fat_binary(begin, size_bytes);
  if (magic == kWrapperMagic && size_bytes == SIZE_MAX) {
    Wrapper wrapper;
    std::memcpy(&wrapper, image, sizeof(wrapper));
    std::memcpy(&magic, wrapper.image, sizeof(magic));
    if (magic != kMagic) damaged("what it points to is none");
    return images_of_fat_binary(static_cast<const char*>(wrapper.image), SIZE_MAX);
  }
  if (magic == kElfMagic) {
    throw ImageError(Kind::kNoPtx, "the image is machine code alone; the simulator runs PTX");
  }
  const std::string_view text = until_zero(begin, size_bytes);
  if (!looks_like_ptx(text)) {
    throw ImageError(Kind::kInvalid, "the image is neither a fat binary nor PTX");
  }
  return {{0, text, false}};
}

std::string_view ptx_for_device(const void* image, size_t size_bytes, int device_target) {
  const PtxImage* best = nullptr;
  const std::vector<PtxImage> images = ptx_images(image, size_bytes);
  for (const PtxImage& candidate : images) {
    if (candidate.target > device_target) continue;
    if (best == nullptr || candidate.target > best->target) best = &candidate;
  }
  if (best == nullptr) {
    throw ImageError(
        Kind::kNoPtx,
        images.empty()
            ? "the fat binary has no PTX; build with code=compute_80 as well"
            : "the fat binary has no PTX for sm_" + std::to_string(device_target) + " or earlier");
  }
  if (best->is_compressed) {
    throw ImageError(Kind::kNoPtx,
                     "the PTX is compressed; build with -Xfatbin -compress-mode=none");
  }
  return best->text;
}

std::vector<MachineCode> machine_code(const void* image, size_t size_bytes) {
  const char* begin = static_cast<const char*>(image);
  uint32_t magic = 0;
  if (begin == nullptr || ptx_images(image, size_bytes).empty()) return {};
  std::memcpy(&magic, begin, std::min(size_bytes, sizeof(magic)));
  if (magic == kWrapperMagic) {
    Wrapper wrapper;
    std::memcpy(&wrapper, image, sizeof(wrapper));
    begin = static_cast<const char*>(wrapper.image);
  } else if (magic != kMagic) {
    return {};
  }
  std::vector<MachineCode> code;
  for (const Entry& entry : entries_of(begin, size_bytes)) {
    if (entry.kind == kEntryElf && !entry.is_compressed)
      code.push_back({entry.target, entry.content});
  }
  return code;
}

}  // namespace ptx_simulator
