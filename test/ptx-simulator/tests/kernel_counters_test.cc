// The counters of a whole kernel, gemm_nt of kernels/gemm_f16.cu, against numbers that follow from
// its shape, with and without the swizzle that keeps ldmatrix free of bank conflicts.
#include "check.h"
#include "kernel_files.h"
#include "kernel_inputs.h"
#include "simulated_device.h"

namespace ptx_simulator::test {
namespace {

using altiplano::test::check;

constexpr uint64_t kTile = 64, kSlice = 32, kWarps = 4;  // of the kernel
constexpr uint64_t kM = 128, kN = 64, kK = 96;
constexpr uint64_t kBlocks = (kM / kTile) * (kN / kTile), kSlices = kK / kSlice;

Counters counters_of(const std::string& file) {
  SimulatedDevice device(kernel_file(file), {});
  Random random(1);
  const DeviceArray<uint16_t> a(device, normals_f16(random, kM * kK));
  const DeviceArray<uint16_t> b(device, normals_f16(random, kN * kK));
  const DeviceArray<float> d(device, std::vector<float>(kM * kN));
  const int m = kM, n = kN, k = kK;
  device.launch("gemm_nt", {{kN / kTile, kM / kTile, 1}, {32 * kWarps, 1, 1}, 32768},
                {a.address(), b.address(), d.address(), m, n, k, k, k});
  CHECK(device.findings().empty(), "%s", device.findings().c_str());
  return device.reports()[0].counters;
}

void equal(const char* what, uint64_t found, uint64_t expected) {
  CHECK(found == expected, "%s: %llu, not %llu", what, static_cast<unsigned long long>(found),
        static_cast<unsigned long long>(expected));
}

uint64_t of(const Counters& counters, InstructionClass kind) {
  return counters.warp_instructions_of[static_cast<size_t>(kind)];
}

void run() {
  const Counters counters = counters_of("gemm_f16.ptx");
  // A warp of a block multiplies 32 x 32, in 2 x 4 products of 16 x 8 for each 16 of K.
  const uint64_t warp_slices = kBlocks * kWarps * kSlices;
  equal("multiply-adds", counters.mma_multiply_adds, kM * kN * kK);
  equal("mma", of(counters, InstructionClass::kMma), warp_slices * 2 * 2 * 4);
  equal("ldmatrix", of(counters, InstructionClass::kLdmatrix), warp_slices * 2 * (2 + 2));
  equal("barriers", counters.barriers, warp_slices);
  equal("local memory", counters.local_bytes, 0);

  // Each block reads a tile of each matrix in every slice, 64 bytes of a row at a time.
  const uint64_t read = kBlocks * kSlices * 2 * kTile * kSlice * sizeof(uint16_t);
  equal("bytes read", counters.global_read_bytes, read);
  equal("sectors read", counters.global_read_sectors, read / 32);
  // A store writes every other element of 8 in a row: a sector half full, twice.
  const uint64_t written = kM * kN * sizeof(float);
  equal("bytes written", counters.global_write_bytes, written);
  equal("sectors written", counters.global_write_sectors, 2 * written / 32);

  // Wavefronts of 128 bytes: what is copied in, and what ldmatrix reads, 8 rows of 16 bytes at a
  // time.
  const uint64_t copied = read / 128, loaded = warp_slices * 2 * (2 + 2) * 4;
  equal("wavefronts", counters.shared_wavefronts, copied + loaded);
  equal("ideal wavefronts", counters.shared_ideal_wavefronts, copied + loaded);

  // Without the swizzle, the same chunk of rows 64 bytes apart: two rows span the banks, so four of
  // eight meet in the same ones.
  const Counters plain = counters_of("gemm_f16.UNSWIZZLED.ptx");
  equal("wavefronts without swizzle", plain.shared_wavefronts, copied + 4 * loaded);
  equal("ideal wavefronts without swizzle", plain.shared_ideal_wavefronts, copied + loaded);
}

}  // namespace
}  // namespace ptx_simulator::test

int main() {
  ptx_simulator::test::run();
  std::printf("kernel counters: %s\n", altiplano::test::failures == 0 ? "passed" : "FAILED");
  return altiplano::test::failures == 0 ? 0 : 1;
}
