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

void append(std::string& text, const Operand& operand) {
  const auto append_list = [&](const char* separator) {
    const char* before = "";
    for (const Operand& part : operand.parts) {
      text += before;
      append(text, part);
      before = separator;
    }
  };
  const auto append_name = [&] {
    text += operand.name;
    if (operand.integer > 0) text += '+';
    if (operand.integer != 0) text += std::to_string(operand.integer);
  };
  switch (operand.kind) {
    case Operand::Kind::kRegister:
      if (operand.negated) text += '!';
      text += operand.name;
      break;
    case Operand::Kind::kSpecial:
      text += operand.name;
      break;
    case Operand::Kind::kInteger:
      text += std::to_string(operand.integer);
      break;
    case Operand::Kind::kFloat:
      text += operand.is_double ? "0d" : "0f";
      for (int shift = operand.is_double ? 60 : 28; shift >= 0; shift -= 4) {
        text += "0123456789ABCDEF"[operand.bits >> shift & 15];
      }
      break;
    case Operand::Kind::kSymbol:
      append_name();
      break;
    case Operand::Kind::kAddress:
      text += '[';
      if (operand.name.empty()) {
        text += std::to_string(operand.integer);
      } else {
        append_name();
      }
      text += ']';
      break;
    case Operand::Kind::kVector:
      text += '{';
      append_list(", ");
      text += '}';
      break;
    case Operand::Kind::kPair:
      append_list("|");
      break;
    case Operand::Kind::kDiscard:
      text += '_';
      break;
  }
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
    text += instruction.guard_negated ? "@!" : "@";
    text += instruction.guard;
    text += ' ';
  }
  text += instruction.opcode;
  for (const std::string& modifier : instruction.modifiers) {
    text += '.';
    text += modifier;
  }
  const char* separator = " ";
  for (const Operand& operand : instruction.operands) {
    text += separator;
    append(text, operand);
    separator = ", ";
  }
  return text;
}

}  // namespace ptx_simulator
