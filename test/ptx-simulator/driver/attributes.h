// The limits of the simulated device, an A100-SXM4-80GB.
#pragma once

#include <cuda.h>

#include <optional>

namespace ptx_simulator::driver {

inline constexpr const char* kDeviceName = "NVIDIA A100-SXM4-80GB";
inline constexpr int kComputeCapability = 80;

inline constexpr int kMultiprocessors = 108;
inline constexpr int kMaxThreadsPerBlock = 1024;
inline constexpr int kMaxBlockZ = 64;
inline constexpr int kMaxGridX = 0x7fffffff;
inline constexpr int kMaxGridYZ = 65535;
inline constexpr int kSharedPerBlock = 48 * 1024;
inline constexpr int kSharedPerBlockOptIn = 163 * 1024;
inline constexpr int kSharedPerMultiprocessor = 164 * 1024;
inline constexpr int kReservedSharedPerBlock = 1024;
inline constexpr int kRegisters = 65536;  // per block, and per multiprocessor
inline constexpr int kMaxRegistersPerThread = 255;
inline constexpr int kThreadsPerMultiprocessor = 2048;
inline constexpr int kBlocksPerMultiprocessor = 32;

// Nothing for a number that is no attribute.
std::optional<int> device_attribute(CUdevice_attribute attribute, int ordinal);

}  // namespace ptx_simulator::driver
