#include "machine/register_sharing.h"

#include <algorithm>
#include <array>
#include <string>
#include <unordered_map>
#include <vector>

#include "machine/liveness.h"

namespace ptx_simulator {
namespace {

constexpr uint32_t kLanes = 32;
constexpr uint32_t kCacheLine = 64;

// Bytes per lane. The wide ones first, so that all are aligned without gaps; predicates last, 16 to
// a cache line.
constexpr std::array<uint8_t, 3> kWidths = {8, 4, 0};
uint32_t bytes_of_place(uint8_t width) { return width == 0 ? 4 : width * kLanes; }

// One function's registers, numbered.
struct Registers {
  std::unordered_map<uint32_t, uint32_t> number_of_offset;
  std::vector<uint8_t> widths;
  std::vector<uint32_t> places;               // among those of its width
  std::array<size_t, kWidths.size()> used{};  // places of each width

  void add(const Slot& slot) {
    number_of_offset.emplace(slot.offset, static_cast<uint32_t>(widths.size()));
    widths.push_back(slot.bytes);
  }
  uint32_t number(const Slot& slot) const { return number_of_offset.at(slot.offset); }
};

bool is_register(const Slot& slot) { return !slot.none() && !slot.constant; }

RegisterUse use_of(const Op& op, const std::string& opcode, int32_t index, int32_t first_op,
                   const Program& program, const Registers& registers) {
  RegisterUse use;
  for (const Slot& slot : op.s) {
    if (is_register(slot)) use.reads.push_back(registers.number(slot));
  }
  for (const Slot& slot : op.d) {
    if (is_register(slot)) use.writes.push_back(registers.number(slot));
  }
  use.always_writes = op.guard.none();
  if (!use.always_writes) use.reads.push_back(registers.number(op.guard));

  if (opcode == "bra") {
    use.successors.push_back(op.target - first_op);
  } else if (opcode == "brx") {
    for (const int32_t target : program.branch_tables[static_cast<size_t>(op.immediate)]) {
      use.successors.push_back(target - first_op);
    }
  }
  // Lanes whose guard fails go on in any case.
  const bool leaves = opcode == "bra" || opcode == "brx" || opcode == "ret" || opcode == "exit";
  if (!leaves || !use.always_writes) use.successors.push_back(index - first_op + 1);
  return use;
}

Liveness liveness_of(const FunctionLayout& function, const Program& program,
                     const Registers& registers) {
  static const std::string kEnd = "exit";
  const std::vector<Instruction>& instructions = function.function.instructions;
  const int32_t first = function.first_op();
  std::vector<RegisterUse> uses;
  for (size_t i = 0; i <= instructions.size(); ++i) {
    const bool is_end = i == instructions.size();
    const int32_t begin = function.op_of_instruction[i];
    const int32_t end = is_end ? begin + 1 : function.op_of_instruction[i + 1];
    for (int32_t op = begin; op < end; ++op) {
      uses.push_back(use_of(program.ops[static_cast<size_t>(op)],
                            is_end ? kEnd : instructions[i].opcode, op, first, program, registers));
    }
  }
  return Liveness(uses, registers.widths.size());
}

Registers share(const FunctionLayout& function, const Program& program) {
  Registers registers;
  for (const auto& [name, place] : function.registers) {
    registers.add(place.slot);
    if (!place.high.none()) registers.add(place.high);
  }
  const Liveness liveness = liveness_of(function, program, registers);
  registers.places.resize(registers.widths.size());
  for (size_t width = 0; width < kWidths.size(); ++width) {
    std::vector<uint32_t> chosen;
    for (uint32_t reg = 0; reg < registers.widths.size(); ++reg) {
      if (registers.widths[reg] == kWidths[width] && liveness.is_used(reg)) chosen.push_back(reg);
    }
    registers.used[width] = liveness.share(chosen, registers.places);
  }
  return registers;
}

}  // namespace

void share_registers(ProgramLayout& layout) {
  Program& program = layout.program();
  std::vector<Registers> all;
  for (const FunctionLayout& function : layout.functions()) all.push_back(share(function, program));

  // No function shares with another: the caller's values live through a call.
  uint32_t next = 0;
  std::vector<std::array<uint32_t, kWidths.size()>> begins(all.size());
  for (size_t width = 0; width < kWidths.size(); ++width) {
    for (size_t f = 0; f < all.size(); ++f) {
      begins[f][width] = next;
      next += static_cast<uint32_t>(all[f].used[width]) * bytes_of_place(kWidths[width]);
    }
  }
  program.register_bytes = (next + kCacheLine - 1) / kCacheLine * kCacheLine;

  for (size_t f = 0; f < all.size(); ++f) {
    const auto move = [&](Slot& slot) {
      if (!is_register(slot)) return;
      const uint32_t reg = all[f].number(slot);
      const auto width = std::find(kWidths.begin(), kWidths.end(), all[f].widths[reg]);
      const auto index = static_cast<size_t>(width - kWidths.begin());
      slot.offset = begins[f][index] + all[f].places[reg] * bytes_of_place(*width);
    };
    const std::vector<int32_t>& places = layout.functions()[f].op_of_instruction;
    for (int32_t i = places.front(); i <= places.back(); ++i) {
      Op& op = program.ops[static_cast<size_t>(i)];
      for (Slot& slot : op.d) move(slot);
      for (Slot& slot : op.s) move(slot);
      move(op.guard);
    }
  }
}

}  // namespace ptx_simulator
