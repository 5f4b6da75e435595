// Attention with AVX-512; the algorithm is x86_attend.h.
#include "cpu/avx512.h"
#include "cpu/avx512_lanes.h"
#include "cpu/x86_attend.h"

namespace altiplano::cpu::avx512 {

void attend(const AttendArgs& args) { attend_with<Lanes>(args); }

}  // namespace altiplano::cpu::avx512
