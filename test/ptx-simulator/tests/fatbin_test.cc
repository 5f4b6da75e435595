// PTX out of fat binaries: what nvcc 13 made, cut off and damaged in every way.
#include "driver/fatbin.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "check.h"
#include "ptx/module.h"

namespace {

using namespace ptx_simulator;
using altiplano::test::Random;

// nvcc -fatbin -gencode arch=compute_80,code=compute_80 -Xfatbin -compress-mode=none, byte by byte:
// the header of the fat binary, and
const std::vector<uint8_t> kHeader = {0x50, 0xed, 0x55, 0xba, 0x01, 0x00, 0x10, 0x00,
                                      0x98, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00};
// the one of its only entry, 64 bytes and 16 of options, and
const std::vector<uint8_t> kEntry = {
    0x01, 0x00, 0x01, 0x01, 0x50, 0x00, 0x00, 0x00, 0x48, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x40, 0x00, 0x00, 0x00, 0x00, 0x00, 0x09, 0x00, 0x50, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x11, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x48, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00};
// the text, which two zeros follow.
const std::string kText =
    "\n\n\n\n\n\n\n\n.version 9.0\n.target sm_80\n.address_size 64\n\n\n\n.visible .entry k(\n"
    ".param .u64 k_param_0\n)\n{\n.reg .b32 %r<3>;\n.reg .b64 %rd<5>;\n\n\n"
    "ld.param.u64 %rd1, [k_param_0];\ncvta.to.global.u64 %rd2, %rd1;\nmov.u32 %r1, %tid.x;\n"
    "mul.wide.u32 %rd3, %r1, 4;\nadd.s64 %rd4, %rd2, %rd3;\nmov.u32 %r2, 7;\n"
    "st.global.u32 [%rd4], %r2;\nret;\n\n}\n\n";

// Places in an entry's header.
constexpr size_t kKind = 0, kHeaderBytes = 4, kContentBytes = 8, kTarget = 28, kFlags = 40;

std::vector<uint8_t> entry(uint8_t target, const std::string& text, uint16_t flags = 0x11,
                           uint8_t kind = 1) {
  std::vector<uint8_t> bytes = kEntry;
  bytes[kKind] = kind;
  bytes[kTarget] = target;
  std::memcpy(&bytes[kFlags], &flags, 2);
  const uint64_t padded = (text.size() + 7) / 8 * 8;
  std::memcpy(&bytes[kContentBytes], &padded, 8);
  bytes.insert(bytes.end(), text.begin(), text.end());
  bytes.resize(kEntry.size() + padded);
  return bytes;
}

std::vector<uint8_t> fat_binary(const std::vector<std::vector<uint8_t>>& entries) {
  std::vector<uint8_t> bytes = kHeader;
  for (const auto& one : entries) bytes.insert(bytes.end(), one.begin(), one.end());
  const uint64_t content = bytes.size() - kHeader.size();
  std::memcpy(&bytes[8], &content, 8);
  return bytes;
}

// An exact copy on the heap, so that AddressSanitizer sees a read behind it.
std::unique_ptr<uint8_t[]> exact(const std::vector<uint8_t>& bytes, size_t size) {
  auto copy = std::make_unique<uint8_t[]>(size);
  if (size != 0) std::memcpy(copy.get(), bytes.data(), size);
  return copy;
}

struct Outcome {
  std::string text;
  std::optional<ImageError::Kind> error;
};
Outcome read(const std::vector<uint8_t>& bytes, size_t size) {
  const auto copy = exact(bytes, size);
  try {
    return {std::string(ptx_for_device(copy.get(), size, 80)), std::nullopt};
  } catch (const ImageError& error) {
    return {error.what(), error.kind};
  }
}
Outcome read(const std::vector<uint8_t>& bytes) { return read(bytes, bytes.size()); }
std::vector<uint8_t> bytes_of(const std::string& text) { return {text.begin(), text.end()}; }

void check_error(const std::vector<uint8_t>& bytes, ImageError::Kind kind, const char* words) {
  const Outcome outcome = read(bytes);
  CHECK(outcome.error == kind && outcome.text.find(words) != std::string::npos,
        "wanted '%s', got '%s'", words, outcome.text.c_str());
}

void test_what_nvcc_makes() {
  const std::vector<uint8_t> image = fat_binary({entry(80, kText)});
  CHECK(image.size() == 424 && image[8] == 0x98 && image[9] == 1, "not nvcc's %zu bytes",
        image.size());
  CHECK(read(image).text == kText, "the text");
  // Without a known size, as cuModuleLoadData has it.
  CHECK(ptx_for_device(image.data(), SIZE_MAX, 80) == kText, "the text, without a size");
  CHECK(parse(read(image).text).functions.size() == 1, "the text is PTX");
}

void test_choice_of_an_entry() {
  const std::string older = ".version 7.0\n", wanted = ".version 8.0\n", newer = ".version 9.0\n";
  const auto code = entry(80,
                          "\x7f"
                          "ELF",
                          0x11, 2);
  CHECK(read(fat_binary({code, entry(75, older), entry(80, wanted), entry(90, newer)})).text ==
            wanted,
        "the same target");
  CHECK(read(fat_binary({entry(90, newer), entry(75, older), entry(70, wanted)})).text == older,
        "the highest below");
  const std::vector<uint8_t> all = fat_binary({code, entry(75, older), entry(90, newer, 0x8011)});
  const std::vector<PtxImage> images = ptx_images(all.data(), all.size());
  CHECK(images.size() == 2 && images[0].target == 75 && images[1].target == 90 &&
            images[0].text == older && images[1].is_compressed,
        "all entries");
  check_error(fat_binary({entry(90, newer)}), ImageError::Kind::kNoPtx, "no PTX for sm_80");
  check_error(fat_binary({code}), ImageError::Kind::kNoPtx, "has no PTX");
  check_error(fat_binary({}), ImageError::Kind::kNoPtx, "has no PTX");
  check_error(bytes_of("\x7f"
                       "ELF\2\1\1"),
              ImageError::Kind::kNoPtx, "machine code");
  for (uint16_t flags : {0x2011, 0x8011}) {  // -compress-mode=speed, -compress-mode=size
    check_error(fat_binary({entry(80, "\x28\xb5\x2f\xfd", flags)}), ImageError::Kind::kNoPtx,
                "compressed");
  }
}

void test_text() {
  CHECK(read(bytes_of(kText)).text == kText, "PTX text");
  CHECK(read(bytes_of(kText + std::string(3, '\0') + "x")).text == kText, "up to the zero");
  CHECK(ptx_for_device(kText.c_str(), SIZE_MAX, 80) == kText, "without a size");
  CHECK(!read(bytes_of("// generated\n.version 8.0")).error, "a comment first");
  for (const char* text : {"", " ", "\n\n", "P", "__global__ void", "\x50\xed\x55"}) {
    CHECK(read(bytes_of(text)).error == ImageError::Kind::kInvalid, "'%s' is no image", text);
  }
  try {
    ptx_images(nullptr);
    CHECK(false, "no image");
  } catch (const ImageError&) {
  }
}

void test_wrapper() {
  const std::vector<uint8_t> image = fat_binary({entry(80, kText)});
  struct {
    uint32_t magic = 0x466243b1, version = 1;
    const void* data;
    const void* unused = nullptr;
  } wrapper{.data = image.data()};
  CHECK(ptx_for_device(&wrapper, SIZE_MAX, 80) == kText, "through the compiler's wrapper");
}

void test_damage() {
  const std::vector<uint8_t> image = fat_binary({entry(75, kText), entry(80, kText)});
  for (size_t size = 0; size < image.size(); ++size) {
    CHECK(read(image, size).error == ImageError::Kind::kInvalid, "%zu bytes of it", size);
  }
  const auto with = [&](size_t place, uint64_t value, size_t width) {
    std::vector<uint8_t> bytes = image;
    std::memcpy(&bytes[place], &value, width);
    return bytes;
  };
  const size_t entry_at = kHeader.size();
  using Kind = ImageError::Kind;
  check_error(with(4, 2, 2), Kind::kInvalid, "version 2");
  check_error(with(6, 8, 2), Kind::kInvalid, "header of 8 bytes");
  check_error(with(8, UINT64_MAX, 8), Kind::kInvalid, "promises");
  check_error(with(8, image.size() - kHeader.size() - 8, 8), Kind::kInvalid, "are left");
  check_error(with(entry_at + kHeaderBytes, 63, 4), Kind::kInvalid, "entry at byte 16 has 63");
  check_error(with(entry_at + kHeaderBytes, UINT32_MAX, 4), Kind::kInvalid, "entry at byte 16");
  check_error(with(entry_at + kContentBytes, UINT64_MAX, 8), Kind::kInvalid, "entry at byte 16");
  check_error(with(entry_at + kContentBytes, UINT64_MAX - 79, 8), Kind::kInvalid, "are left");
  check_error(with(entry_at + kEntry.size() + 8, 'x', 1), Kind::kInvalid, "is PTX, and is not");

  // Any other damage is an error or finds some text, and reads nothing outside.
  Random random(1);
  for (int round = 0; round < 20000; ++round) {
    std::vector<uint8_t> bytes = image;
    for (int64_t flips = random.integer(1, 4); flips > 0; --flips) {
      // Mostly in the headers; the text is the parser's.
      const size_t place = static_cast<size_t>(random.integer(0, round % 4 == 0 ? 700 : 95));
      bytes[place] = static_cast<uint8_t>(random.integer(0, 255));
    }
    read(bytes);
  }
}

}  // namespace

int main() {
  test_what_nvcc_makes();
  test_choice_of_an_entry();
  test_text();
  test_wrapper();
  test_damage();
  std::printf("fatbin: %d failures\n", altiplano::test::failures);
  return altiplano::test::failures == 0 ? 0 : 1;
}
