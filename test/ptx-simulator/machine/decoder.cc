#include "machine/decoder.h"

#include <algorithm>

#include "machine/global_memory.h"
#include "ptx/constant.h"

namespace ptx_simulator {
namespace {

constexpr size_t kMostOperands = 64;  // known_operands_ has a bit for each

bool is_one_of(std::string_view text, std::initializer_list<std::string_view> list) {
  return std::find(list.begin(), list.end(), text) != list.end();
}

bool is_float(Type type) {
  return type == Type::kF16 || type == Type::kF16x2 || type == Type::kBf16 ||
         type == Type::kBf16x2 || type == Type::kTf32 || type == Type::kF32 || type == Type::kF64;
}
bool is_integer(Type type) { return type >= Type::kU8 && type <= Type::kS64; }

// A parsed operand as a constant, for bits_as.
uint64_t bits_of_constant(const Operand& operand, Type type, int line) {
  Constant value;
  value.is_float = operand.kind == Operand::Kind::kFloat;
  value.is_double = operand.is_double;
  value.bits = value.is_float ? operand.bits : static_cast<uint64_t>(operand.integer);
  return bits_as(value, type, line);
}

}  // namespace

void Decoder::fail(const std::string& what) const {
  throw PtxError(instruction_->line, what + ": " + to_string(*instruction_));
}

void Decoder::begin(const Instruction& instruction, Op& op) {
  instruction_ = &instruction;
  op_ = &op;
  next_modifier_ = 0;
  known_operands_ = 0;
  kernel_parameters_ = function_.function.is_entry;
  op = Op{};
  op.line = instruction.line;
  op.source_line = instruction.source_line;
  if (!instruction.guard.empty()) {
    const FunctionLayout::Register& guard = find_register(instruction.guard);
    if (guard.type != Type::kPred) fail("the guard is no predicate");
    op.guard = guard.slot;
    op.guard_negated = instruction.guard_negated;
  }
}

void Decoder::decode(const Instruction& instruction, Op& op) {
  begin(instruction, op);
  if (instruction.operands.size() > kMostOperands) fail("too many operands");
  const Decode decode = find_instruction(instruction);
  if (decode == nullptr) fail("unknown instruction '" + instruction.opcode + "'");
  decode(*this);
  if (next_modifier_ < instruction.modifiers.size()) {
    fail("unknown modifier '." + instruction.modifiers[next_modifier_] + "'");
  }
  for (size_t i = 0; i < instruction.operands.size(); ++i) {
    if ((known_operands_ >> i & 1) == 0) fail("too many operands");
  }
  if (op.execute == nullptr) fail("it has no execution");
}

// --- modifiers ---

std::string_view Decoder::peek() const {
  return next_modifier_ < instruction_->modifiers.size()
             ? std::string_view(instruction_->modifiers[next_modifier_])
             : std::string_view();
}

bool Decoder::take(std::string_view modifier) {
  if (next_modifier_ >= instruction_->modifiers.size() || peek() != modifier) return false;
  ++next_modifier_;
  return true;
}

int Decoder::take_one_of(std::initializer_list<std::string_view> modifiers) {
  int index = 0;
  for (std::string_view modifier : modifiers) {
    if (take(modifier)) return index;
    ++index;
  }
  return -1;
}

Type Decoder::take_type(std::initializer_list<Type> allowed) {
  const std::optional<Type> type = type_named(peek());
  if (!type) {
    fail(peek().empty() ? "a type is missing"
                        : "'." + std::string(peek()) + "' where a type is wanted");
  }
  if (allowed.size() != 0 && std::find(allowed.begin(), allowed.end(), *type) == allowed.end()) {
    fail("type '." + std::string(peek()) + "' is not known here");
  }
  ++next_modifier_;
  return *type;
}

void Decoder::take_cache_hints() {
  while (is_one_of(peek(), {"ca", "cg", "cs", "cv", "lu", "wb", "wt"}) ||
         peek().substr(0, 4) == "L1::" || peek().substr(0, 4) == "L2::") {
    ++next_modifier_;
  }
}

void Decoder::take_memory_order() {
  while (is_one_of(peek(), {"weak", "relaxed", "acquire", "release", "acq_rel", "volatile", "mmio",
                            "cta", "cluster", "gpu", "sys"})) {
    ++next_modifier_;
  }
}

StateSpace Decoder::take_space() {
  static constexpr struct {
    const char* name;
    StateSpace space;
  } kSpaces[] = {{"global", StateSpace::kGlobal},      {"shared", StateSpace::kShared},
                 {"shared::cta", StateSpace::kShared}, {"local", StateSpace::kLocal},
                 {"const", StateSpace::kConst},        {"param", StateSpace::kParam},
                 {"param::entry", StateSpace::kParam}, {"param::func", StateSpace::kParam}};
  for (const auto& row : kSpaces) {
    const std::string_view name = row.name;
    if (!take(name)) continue;
    if (name == "param::entry") kernel_parameters_ = true;
    if (name == "param::func") kernel_parameters_ = false;
    return row.space;
  }
  return StateSpace::kGeneric;
}

// --- operands ---

size_t Decoder::operands() const { return instruction_->operands.size(); }

const Operand& Decoder::operand(size_t index) {
  if (index >= operands()) fail("too few operands");
  known_operands_ |= uint64_t{1} << index;
  return instruction_->operands[index];
}

const FunctionLayout::Register& Decoder::find_register(const std::string& name) const {
  const auto found = function_.registers.find(name);
  if (found == function_.registers.end()) fail("register '" + name + "' is not declared");
  return found->second;
}

// A register must be as wide as the type and not contradict its kind (.b types go with all); only
// those of ld, st and cvt may be wider, if they are not of floats. ptxas draws the same lines.
const FunctionLayout::Register& Decoder::checked_register(const Operand& operand, Type type) const {
  const FunctionLayout::Register& found = find_register(operand.name);
  if (operand.negated) fail("'!' before a value");
  const bool may_be_wider =
      !is_float(found.type) && is_one_of(instruction_->opcode, {"ld", "ldu", "st", "cvt"});
  const int bits = bits_of(found.type);
  const bool fits = may_be_wider ? bits >= bits_of(type) : bits == bits_of(type);
  const bool contradicts =
      (is_float(type) && is_integer(found.type)) || (is_integer(type) && is_float(found.type));
  if (found.type == Type::kPred || !fits || contradicts) {
    fail("register '" + operand.name + "' is a ." + name_of(found.type) + ", not a ." +
         name_of(type));
  }
  return found;
}

// `_` may stand only where the execution knows of it (and ptxas allows it).
void Decoder::check_discard(const Operand& operand) const {
  const bool is_part = std::none_of(instruction_->operands.begin(), instruction_->operands.end(),
                                    [&](const Operand& whole) { return &whole == &operand; });
  const std::string& opcode = instruction_->opcode;
  if (is_part
          ? !is_one_of(opcode, {"call", "ld", "ldmatrix", "lop3", "match", "mov", "setp", "shfl"})
          : !is_one_of(opcode, {"atom", "setp", "shfl"})) {
    fail("'_' where a result is needed");
  }
}

const Place& Decoder::find_variable(const std::string& name) const {
  const Place* const place = program_.find_variable(function_, name);
  if (place != nullptr) return *place;
  fail("'" + name + "' is no variable" +
       (program_.is_function(name) ? " (addresses of functions are not modelled)" : ""));
}

Slot Decoder::constant(uint64_t bits, Type type) {
  return program_.constant(bits, bits_of(type) >= 64 ? 8 : 4);
}

Slot Decoder::symbol_address(const Operand& operand, Type type) {
  const Place& place = find_variable(operand.name);
  if (is_float(type) || bits_of(type) < 32 || bits_of(type) > 64) {
    fail(std::string("an address where a .") + name_of(type) + " is wanted");
  }
  const uint64_t address = place.address + static_cast<uint64_t>(operand.integer);
  return constant(bits_of(type) == 32 ? address & UINT32_MAX : address, type);
}

Slot Decoder::source(size_t index, Type type) { return source(operand(index), type); }

Slot Decoder::source(const Operand& operand, Type type) {
  if (type == Type::kPred) {
    bool negated = false;
    const Slot slot = predicate_source(operand, negated);
    if (negated) fail("'!' where it has no meaning");
    return slot;
  }
  const int line = instruction_->line;
  const bool is_wide = bits_of(type) == 128;
  Slot low, high;
  switch (operand.kind) {
    case Operand::Kind::kRegister: {
      const FunctionLayout::Register& found = checked_register(operand, type);
      low = found.slot;
      high = found.high;
      break;
    }
    case Operand::Kind::kInteger:
      low = constant(bits_of_constant(operand, is_wide ? Type::kB64 : type, line), type);
      if (is_wide) high = constant(operand.integer < 0 ? UINT64_MAX : 0, type);
      break;
    case Operand::Kind::kFloat:
      low = constant(bits_of_constant(operand, type, line), type);
      break;
    case Operand::Kind::kSymbol:
      low = symbol_address(operand, type);
      break;
    case Operand::Kind::kSpecial:
      fail("special registers are read with mov");
    default:
      fail("a register or constant is wanted");
  }
  op_->s.push_back(low);
  if (is_wide) op_->s.push_back(high);
  return low;
}

Slot Decoder::destination(size_t index, Type type) { return destination(operand(index), type); }

Slot Decoder::destination(const Operand& operand, Type type) {
  if (type == Type::kPred) return predicate_destination(operand);
  const bool is_wide = bits_of(type) == 128;
  Slot low, high;
  if (operand.kind == Operand::Kind::kRegister) {
    const FunctionLayout::Register& found = checked_register(operand, type);
    low = found.slot;
    high = found.high;
  } else if (operand.kind == Operand::Kind::kDiscard) {
    check_discard(operand);
  } else {
    fail("a register is wanted as destination");
  }
  op_->d.push_back(low);
  if (is_wide) op_->d.push_back(high);
  return low;
}

Slot Decoder::predicate_source(const Operand& operand, bool& negated) {
  Slot slot;
  negated = operand.negated;
  if (operand.kind == Operand::Kind::kInteger) {
    slot = program_.constant(operand.integer != 0 ? UINT32_MAX : 0, 0);
  } else if (operand.kind == Operand::Kind::kRegister) {
    const FunctionLayout::Register& found = find_register(operand.name);
    if (found.type != Type::kPred) fail("register '" + operand.name + "' is no predicate");
    slot = found.slot;
  } else {
    fail("a predicate is wanted");
  }
  op_->s.push_back(slot);
  return slot;
}

Slot Decoder::predicate_destination(const Operand& operand) {
  Slot slot;
  slot.bytes = 0;
  if (operand.kind == Operand::Kind::kRegister) {
    const FunctionLayout::Register& found = find_register(operand.name);
    if (found.type != Type::kPred) fail("register '" + operand.name + "' is no predicate");
    if (operand.negated) fail("'!' before a destination");
    slot = found.slot;
  } else if (operand.kind == Operand::Kind::kDiscard) {
    check_discard(operand);
  } else {
    fail("a predicate is wanted as destination");
  }
  op_->d.push_back(slot);
  return slot;
}

std::vector<Slot> Decoder::sources(size_t index, Type type) {
  const Operand& all = operand(index);
  if (all.kind != Operand::Kind::kVector) return {source(all, type)};
  std::vector<Slot> slots;
  for (const Operand& part : all.parts) slots.push_back(source(part, type));
  return slots;
}

std::vector<Slot> Decoder::destinations(size_t index, Type type) {
  const Operand& all = operand(index);
  if (all.kind != Operand::Kind::kVector) return {destination(all, type)};
  std::vector<Slot> slots;
  for (const Operand& part : all.parts) slots.push_back(destination(part, type));
  return slots;
}

// The address of a variable that an instruction names in [ ], which must lie in the space that the
// instruction accesses.
Slot Decoder::symbol_base(const Operand& operand, StateSpace space) {
  const Place& place = find_variable(operand.name);
  bool fits = place.space == space;
  if (space == StateSpace::kGeneric && !place.is_parameter) {
    if (place.space == StateSpace::kGlobal) return program_.constant(place.address, 8);
    if (place.space == StateSpace::kShared) {
      return program_.constant(kSharedWindow + place.address, 8);
    }
    if (place.space == StateSpace::kLocal)
      return program_.constant(kLocalWindow + place.address, 8);
  }
  if (space == StateSpace::kParam) fits = place.is_parameter;
  if (!fits) fail("'" + operand.name + "' is in another state space");
  if (space == StateSpace::kParam) op_->space = place.space;
  const bool is_short = place.space == StateSpace::kShared || place.space == StateSpace::kLocal ||
                        place.space == StateSpace::kParam;
  return program_.constant(place.address, is_short ? 4 : 8);
}

Slot Decoder::address(size_t index, StateSpace space) {
  const Operand& where = operand(index);
  if (where.kind != Operand::Kind::kAddress) fail("an address in [ ] is wanted");
  op_->space = space;
  op_->immediate = where.integer;
  const bool is_long =
      space == StateSpace::kGeneric || space == StateSpace::kGlobal || space == StateSpace::kConst;
  Slot base;
  if (where.names_register) {
    const FunctionLayout::Register& found = find_register(where.name);
    const int bits = bits_of(found.type);
    if (is_float(found.type) || (bits != 64 && (bits != 32 || is_long))) {
      fail("register '" + where.name + "' is a ." + name_of(found.type) + ", not an address");
    }
    base = found.slot;
    if (space == StateSpace::kParam && !kernel_parameters_) op_->space = StateSpace::kLocal;
  } else if (!where.name.empty()) {
    base = symbol_base(where, space);
  } else {
    base = program_.constant(0, is_long ? 8 : 4);
  }
  op_->s.push_back(base);
  return base;
}

int Decoder::register_bits(const Operand& operand) const {
  return operand.kind == Operand::Kind::kRegister ? bits_of(find_register(operand.name).type) : 64;
}

int64_t Decoder::immediate(size_t index) {
  const Operand& value = operand(index);
  if (value.kind != Operand::Kind::kInteger) fail("an integer constant is wanted");
  return value.integer;
}

// --- jumps ---

int32_t Decoder::label(size_t index) {
  const Operand& target = operand(index);
  const int32_t op = target.kind == Operand::Kind::kSymbol && target.integer == 0
                         ? function_.op_of_label(target.name)
                         : -1;
  if (op < 0) fail("there is no such label");
  return op;
}

int32_t Decoder::branch_table(size_t index) {
  const Operand& table = operand(index);
  const auto found = function_.branch_tables.find(table.name);
  if (table.kind != Operand::Kind::kSymbol || found == function_.branch_tables.end()) {
    fail("there is no such .branchtargets");
  }
  return found->second;
}

int32_t Decoder::callee() {
  // Results, function, arguments; a list of targets behind them adds nothing to a direct call.
  for (size_t i = 0; i < operands(); ++i) operand(i);
  const FunctionLayout* const found = program_.find_function(operand(1).name);
  if (found == nullptr) fail("there is no such function");
  return found->first_op();
}

}  // namespace ptx_simulator
