#include "driver/machine_code.h"

#include <elf.h>

#include <cstring>

namespace ptx_simulator::driver {
namespace {

// A copy of what stands at an offset; zeros beyond the end.
template <class T>
T read(std::string_view bytes, uint64_t offset) {
  T value{};
  if (offset <= bytes.size() && sizeof(T) <= bytes.size() - offset)
    std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

std::string_view text_at(std::string_view bytes, uint64_t offset) {
  if (offset >= bytes.size()) return {};
  bytes.remove_prefix(offset);
  return bytes.substr(0, bytes.find('\0'));
}

}  // namespace

std::map<std::string, int> registers_of(std::string_view elf) {
  std::map<std::string, int> registers;
  if (elf.substr(0, SELFMAG) != ELFMAG) return registers;
  const auto header = read<Elf64_Ehdr>(elf, 0);
  const auto section = [&](uint64_t index) {
    return read<Elf64_Shdr>(elf, header.e_shoff + index * header.e_shentsize);
  };
  const uint64_t names = section(header.e_shstrndx).sh_offset;
  constexpr std::string_view kPrefix = ".text.";
  for (uint64_t i = 0; i < header.e_shnum; ++i) {
    const Elf64_Shdr s = section(i);
    const std::string_view name = text_at(elf, names + s.sh_name);
    if (name.substr(0, kPrefix.size()) != kPrefix) continue;
    registers.emplace(name.substr(kPrefix.size()), static_cast<int>(s.sh_info >> 24));
  }
  return registers;
}

}  // namespace ptx_simulator::driver
