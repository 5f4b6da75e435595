// The A100-80GB that the model assumes. What is not measured by anybody here is marked as assumed.
#pragma once

namespace altiplano::a100 {

constexpr double kMultiprocessors = 108;
constexpr double kClock = 1.41e9;
constexpr double kPeakBandwidth = 2039e9;          // bytes a second
constexpr double kF16Peak = 312e12;                // FLOP a second; int8 twice as many
constexpr double kMemoryBytes = 79.0 * (1 << 30);  // of 80 GiB, the driver keeps some

// Fixed: no result may move them.
constexpr double kBandwidth = 0.9 * kPeakBandwidth;
constexpr double kTensor = 0.85 * 1024;  // f16 multiply-adds of a multiprocessor and cycle
constexpr double kNode = 2e-6;           // of a CUDA graph: a kernel or a copy
constexpr double kJavaScript = 10e-6;    // of a step, where nothing hides it

// Assumed.
constexpr double kL2 = 4e12;            // bytes a second, of all multiprocessors; its peak is 7.2
constexpr double kOneBlock = 64;        // bytes that one block reads a cycle from L2
constexpr double kShared = 128;         // bytes of a multiprocessor and cycle
constexpr double kIssue = 4;            // warp instructions of a multiprocessor and cycle
constexpr double kExponentials = 16;    // of a multiprocessor and cycle
constexpr double kConversions = 16;     // of integers to floats: the same unit makes both
constexpr double kMultiplyAdds = 64;    // of f32 outside of the tensor cores
constexpr double kF64 = 32;             // additions of a multiprocessor and cycle
constexpr double kTrip = 270 / kClock;  // a load that L2 serves, from its start to its use
constexpr double kMeeting = 1e-6;  // a partial sum to L2, the count, the first partial sum back
constexpr double kLoadedLatency = 1e-6;  // a load from memory while all multiprocessors load
constexpr double kBus = 25e9;            // bytes a second between host and device

}  // namespace altiplano::a100
