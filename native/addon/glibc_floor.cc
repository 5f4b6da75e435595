// Keeps the addon loadable where glibc is older than the one it was built with (down to 2.34).
//
// The unwinder of a statically linked libgcc asks glibc's _dl_find_object (new in 2.35) which
// module a program counter lies in, with no other way to go. The definition here takes its place at
// link time and answers with dl_iterate_phdr, as the unwinder itself did before GCC 12. It is
// reached only when an exception is thrown.
#if defined(__linux__)
#include <features.h>
#endif

#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 35)
#include <dlfcn.h>
#include <link.h>

#include <cstddef>
#include <cstdint>

namespace {

struct Search {
  uintptr_t pc;
  dl_find_object* found;
};

// Called for every loaded module; not 0 ends the search.
int look_into_module(dl_phdr_info* module, size_t, void* data) {
  Search& search = *static_cast<Search*>(data);
  uintptr_t begin = UINTPTR_MAX;
  uintptr_t end = 0;
  uintptr_t eh_frame = 0;
  bool inside = false;
  for (int i = 0; i < module->dlpi_phnum; ++i) {
    const ElfW(Phdr)& segment = module->dlpi_phdr[i];
    const uintptr_t start = module->dlpi_addr + segment.p_vaddr;
    if (segment.p_type == PT_GNU_EH_FRAME) eh_frame = start;
    if (segment.p_type != PT_LOAD) continue;
    const uintptr_t stop = start + segment.p_memsz;
    inside = inside || (search.pc >= start && search.pc < stop);
    if (start < begin) begin = start;
    if (stop > end) end = stop;
  }
  if (!inside || eh_frame == 0) return 0;
  *search.found = {};
  search.found->dlfo_map_start = reinterpret_cast<void*>(begin);
  search.found->dlfo_map_end = reinterpret_cast<void*>(end);
  search.found->dlfo_eh_frame = reinterpret_cast<void*>(eh_frame);
  return 1;
}

}  // namespace

// 0 if the module of `pc` was found, -1 if there is none, as glibc's.
extern "C" __attribute__((visibility("hidden"))) int _dl_find_object(
    void* pc, dl_find_object* found) noexcept {
  Search search{reinterpret_cast<uintptr_t>(pc), found};
  return dl_iterate_phdr(look_into_module, &search) != 0 ? 0 : -1;
}
#endif
