// What types are called, how wide they are, and instructions as text again (for messages).
#include <utility>

#include "ptx/module.h"

namespace ptx_simulator {
namespace {

struct TypeRow {
  const char* name;
  int bits;
};
constexpr TypeRow kTypes[] = {
    // In the order of the enumeration.
    {"pred", 1},  {"b8", 8},   {"b16", 16}, {"b32", 32},   {"b64", 64},  {"b128", 128},
    {"u8", 8},    {"u16", 16}, {"u32", 32}, {"u64", 64},   {"s8", 8},    {"s16", 16},
    {"s32", 32},  {"s64", 64}, {"f16", 16}, {"f16x2", 32}, {"bf16", 16}, {"bf16x2", 32},
    {"tf32", 32}, {"f32", 32}, {"f64", 64},
};
static_assert(std::size(kTypes) == static_cast<size_t>(Type::kF64) + 1);

std::string to_string(const Operand& operand) {
  const auto list = [&](const char* separator) {
    std::string text;
    for (const Operand& part : operand.parts) {
      text += (text.empty() ? "" : separator) + to_string(part);
    }
    return text;
  };
  const auto offset = [&] {
    return operand.integer == 0
               ? ""
               : (operand.integer > 0 ? "+" : "") + std::to_string(operand.integer);
  };
  switch (operand.kind) {
    case Operand::Kind::kRegister:
      return (operand.negated ? "!" : "") + operand.name;
    case Operand::Kind::kSpecial:
      return operand.name;
    case Operand::Kind::kInteger:
      return std::to_string(operand.integer);
    case Operand::Kind::kFloat: {
      static constexpr char kDigits[] = "0123456789ABCDEF";
      std::string text = operand.is_double ? "0d" : "0f";
      for (int shift = operand.is_double ? 60 : 28; shift >= 0; shift -= 4) {
        text += kDigits[operand.bits >> shift & 15];
      }
      return text;
    }
    case Operand::Kind::kSymbol:
      return operand.name + offset();
    case Operand::Kind::kAddress:
      return "[" +
             (operand.name.empty() ? std::to_string(operand.integer) : operand.name + offset()) +
             "]";
    case Operand::Kind::kVector:
      return "{" + list(", ") + "}";
    case Operand::Kind::kPair:
      return list("|");
    case Operand::Kind::kDiscard:
      return "_";
  }
  return "?";
}

}  // namespace

int bits_of(Type type) { return kTypes[static_cast<size_t>(type)].bits; }

const char* name_of(Type type) { return kTypes[static_cast<size_t>(type)].name; }

std::optional<Type> type_named(std::string_view name) {
  for (size_t i = 0; i < std::size(kTypes); ++i) {
    if (name == kTypes[i].name) return static_cast<Type>(i);
  }
  return std::nullopt;
}

std::string to_string(const Instruction& instruction) {
  std::string text;
  if (!instruction.guard.empty()) {
    text = std::string("@") + (instruction.guard_negated ? "!" : "") + instruction.guard + " ";
  }
  text += instruction.opcode;
  for (const std::string& modifier : instruction.modifiers) text += "." + modifier;
  const char* separator = " ";
  for (const Operand& operand : instruction.operands) {
    text += separator + to_string(operand);
    separator = ", ";
  }
  return text;
}

}  // namespace ptx_simulator
