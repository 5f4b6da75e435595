// The kernel table for AVX-VNNI: AVX2 with another multiplication with int8 activations.
#include "cpu/avxvnni.h"

namespace altiplano::cpu {
namespace avxvnni {
namespace {

Kernels make_table() {
  Kernels table = avx2_kernels();
  table.name = "avxvnni";
  table.matmul_int8 = matmul_int8;
  return table;
}

}  // namespace
}  // namespace avxvnni

const Kernels& avxvnni_kernels() {
  static const Kernels table = avxvnni::make_table();
  return table;
}

}  // namespace altiplano::cpu
