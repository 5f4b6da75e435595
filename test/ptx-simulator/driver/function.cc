#include "driver/function.h"

#include <algorithm>
#include <map>

#include "driver/attributes.h"

namespace ptx_simulator::driver {
namespace {

constexpr int kWarp = 32;
constexpr int kRegisterUnit = 256;  // registers are given to a warp in multiples of it
constexpr int kSharedUnit = 128;    // bytes

int round_up(int value, int unit) { return (value + unit - 1) / unit * unit; }

}  // namespace

int estimate_registers(const Program& program, const Function& function) {
  struct Life {
    int first;
    int last;
    int words;
  };
  std::map<uint32_t, Life> lives;  // by the slot's place in the register file
  const int ops = static_cast<int>(program.ops.size());
  const auto use = [&](const Slot& slot, int at) {
    if (slot.none() || slot.constant || slot.bytes == 0) return;
    const auto [life, is_new] = lives.try_emplace(slot.offset, Life{at, at, slot.bytes / 4});
    life->second.last = at;
  };
  for (int at = 0; at < ops; ++at) {
    for (const Slot& slot : program.ops[at].s) use(slot, at);
    for (const Slot& slot : program.ops[at].d) use(slot, at);
  }
  // What lives into a loop lives to its end.
  for (int at = 0; at < ops; ++at) {
    const Op& op = program.ops[at];
    if (op.kind != InstructionClass::kControl || op.target <= 0 || op.target > at) continue;
    for (auto& [offset, life] : lives)
      if (life.first < op.target && life.last >= op.target) life.last = std::max(life.last, at);
  }
  std::vector<int> change(static_cast<size_t>(ops) + 1);
  for (const auto& [offset, life] : lives) {
    change[life.first] += life.words;
    change[life.last] -= life.words;  // its last reader may write to the same register
  }
  int live = 0;
  int most = 0;
  for (const int step : change) most = std::max(most, live += step);

  int limit = kMaxRegistersPerThread;
  const int* bounds =
      function.required_threads[0] != 0 ? function.required_threads : function.max_threads;
  if (bounds[0] != 0) {
    const int threads = bounds[0] * std::max(1, bounds[1]) * std::max(1, bounds[2]);
    const int warps = (threads + kWarp - 1) / kWarp * std::max(1, function.min_blocks);
    limit = std::min(limit, kRegisters / kRegisterUnit / warps * kRegisterUnit / kWarp);
  }
  return std::clamp(round_up(most + 4, 8), 16, std::max(16, limit));
}

int most_threads_with(int registers) {
  return kRegisters / round_up(registers * kWarp, kRegisterUnit) * kWarp;
}

int resident_blocks(const LoadedFunction& function, int threads, size_t dynamic_shared_bytes) {
  if (threads <= 0 || threads > function.max_threads) return 0;
  if (dynamic_shared_bytes > static_cast<size_t>(function.max_dynamic_shared)) return 0;
  const int warps = (threads + kWarp - 1) / kWarp;
  const int of_threads = kThreadsPerMultiprocessor / (warps * kWarp);
  const int of_registers = kRegisters / round_up(function.registers * kWarp, kRegisterUnit) / warps;
  const int shared = static_cast<int>(function.program->static_shared_bytes) +
                     static_cast<int>(dynamic_shared_bytes) + kReservedSharedPerBlock;
  const int of_shared = kSharedPerMultiprocessor / round_up(shared, kSharedUnit);
  return std::min({kBlocksPerMultiprocessor, of_threads, of_registers, of_shared});
}

}  // namespace ptx_simulator::driver
