// A kernel as a program: the ops of its functions, one behind the other.
#include <string_view>
#include <unordered_map>

#include "machine/call_parameters.h"
#include "machine/decoder.h"
#include "machine/layout.h"
#include "machine/register_sharing.h"

namespace ptx_simulator {

namespace {

enum Family { kOther, kFloat, kHalf };

using Rows = std::unordered_map<std::string_view, Decode>;

const Rows& rows_of(Family family) {
  static const auto make = [](std::initializer_list<const InstructionTable*> tables) {
    Rows rows;
    for (const InstructionTable* table : tables) {
      for (const InstructionRow& row : *table) {
        if (!rows.emplace(row.opcode, row.decode).second) {
          throw std::logic_error(std::string("two rows for instruction ") + row.opcode);
        }
      }
    }
    return rows;
  };
  static const Rows kRows[] = {
      make({&kIntegerInstructions, &kConvertInstructions, &kMoveInstructions, &kControlInstructions,
            &kSyncInstructions, &kMemoryInstructions, &kAtomicInstructions, &kAsyncInstructions,
            &kMmaInstructions}),
      make({&kFloatInstructions}), make({&kHalfInstructions})};
  return kRows[family];
}

// By the last type among the modifiers.
Family family_of(const Instruction& instruction) {
  for (size_t i = instruction.modifiers.size(); i-- > 0;) {
    const std::optional<Type> type = type_named(instruction.modifiers[i]);
    if (!type) continue;
    switch (*type) {
      case Type::kF16:
      case Type::kF16x2:
      case Type::kBf16:
      case Type::kBf16x2:
        return kHalf;
      case Type::kF32:
      case Type::kF64:
      case Type::kTf32:
        return kFloat;
      default:
        return kOther;
    }
  }
  return kOther;
}

}  // namespace

Decode find_instruction(const Instruction& instruction) {
  static constexpr Family kOrder[][3] = {
      {kOther, kFloat, kHalf}, {kFloat, kOther, kHalf}, {kHalf, kFloat, kOther}};
  for (const Family family : kOrder[family_of(instruction)]) {
    const Rows& rows = rows_of(family);
    const auto found = rows.find(instruction.opcode);
    if (found != rows.end()) return found->second;
  }
  return nullptr;
}

std::shared_ptr<const Program> decode(const Module& module, const std::string& entry,
                                      const std::map<std::string, uint64_t>& addresses) {
  ProgramLayout layout(module, entry, addresses);
  Program& program = layout.program();
  const FunctionLayout& last = layout.functions().back();
  program.ops.resize(static_cast<size_t>(last.op_of_instruction.back()) + 1);
  for (FunctionLayout& function : layout.functions()) {
    Decoder decoder(layout, function);
    const std::vector<Instruction>& instructions = function.function.instructions;
    for (size_t i = 0; i < instructions.size(); ++i) {
      Op* const op = &program.ops[static_cast<size_t>(function.op_of_instruction[i])];
      if (instructions[i].opcode == "call") {
        decode_call(layout, function, instructions[i], op);
      } else {
        decoder.decode(instructions[i], *op);
      }
    }
    // Who runs over the end leaves.
    Instruction end;
    end.opcode = function.function.is_entry ? "exit" : "ret";
    end.line = instructions.empty() ? function.function.line : instructions.back().line;
    decoder.decode(end, program.ops[static_cast<size_t>(function.op_of_instruction.back())]);
  }
  // Eight warps with more than this do not fit into a processor's second cache, and sharing pays.
  // With less it does not: an f16 GEMM of 72 KB took 1.1 to 1.6 times as long.
  constexpr size_t kManyRegisterBytes = 128 * 1024;
  if (program.register_bytes > kManyRegisterBytes) share_registers(layout);
  return layout.take_program();
}

}  // namespace ptx_simulator
