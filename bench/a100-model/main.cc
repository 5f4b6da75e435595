// What the kernels as they are should do on an A100-80GB: counted bytes, operations, launches and
// waves, times constants that are fixed beforehand (machine.h). A model, not a measurement:
// docs/a100-model.md has its assumptions.
//   a100_model [anchors | published | goals | attention | launches | parts | decode | prefill |
//               matmul]...   default: all
#include <cstdio>
#include <cstring>

#include "tables.h"

namespace altiplano::a100 {
namespace {

struct Section {
  const char* name;
  const char* title;
  void (*print)();
};
constexpr Section kSections[] = {
    {"anchors", "The constants, fed with published schemes", print_anchors},
    {"published", "Beside published figures", print_published},
    {"goals", "Goals", print_goals},
    {"attention", "Decode attention: share of 2039 GB/s in %, by the constants / with the waiting",
     print_attention},
    {"launches", "A step of 7B, int4 g128, batch 1, context 1k", print_launches},
    {"parts", "What a step of decoding consists of, ms", print_parts},
    {"decode", "Decoding", print_decode_table},
    {"prefill", "Prompts", print_prefill_table},
    {"matmul", "Matrix multiplication", print_matmul_tables}};

int run(int argc, char** argv) {
  bool known = true;
  for (int i = 1; i < argc; ++i) {
    bool found = false;
    for (const Section& s : kSections) found = found || std::strcmp(s.name, argv[i]) == 0;
    known = known && found;
  }
  if (!known) {
    std::fprintf(stderr, "usage: a100_model [SECTION]...\n");
    for (const Section& s : kSections) std::fprintf(stderr, "  %-10s%s\n", s.name, s.title);
    return 2;
  }
  for (const Section& s : kSections) {
    bool wanted = argc == 1;
    for (int i = 1; i < argc; ++i) wanted = wanted || std::strcmp(s.name, argv[i]) == 0;
    if (!wanted) continue;
    std::printf("### %s\n\n", s.title);
    s.print();
    std::printf("\n");
  }
  return 0;
}

}  // namespace
}  // namespace altiplano::a100

int main(int argc, char** argv) { return altiplano::a100::run(argc, argv); }
