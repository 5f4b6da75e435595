// What the decoding functions of the instructions work with. To add an instruction: write a
// function `void decode_xyz(Decoder& d)` beside its execution and a row in its file's table. A
// decoding function takes all modifiers and operands that it knows; whatever is left over is an
// error, so that nothing is ignored by mistake.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

#include "machine/layout.h"
#include "machine/program.h"

namespace ptx_simulator {

class Decoder {
 public:
  Decoder(ProgramLayout& program, FunctionLayout& function)
      : program_(program), function_(function) {}

  const Instruction& instruction() const { return *instruction_; }
  Op& op() { return *op_; }

  // --- modifiers, in the order they are written ---
  // Takes the next modifier if it is this one.
  bool take(std::string_view modifier);
  // Takes the next one if it is among these; its index, or -1.
  int take_one_of(std::initializer_list<std::string_view> modifiers);
  // Takes the next one, which must be a type (among `allowed`, if any are given).
  Type take_type(std::initializer_list<Type> allowed = {});
  std::string_view peek() const;  // the next modifier, or ""
  // Takes cache and L2 hints (.ca .cg .cs .cv .lu .L1::..., .L2::...), wherever they come next.
  void take_cache_hints();
  // Takes .weak .relaxed .acquire .release .acq_rel .volatile .mmio and the scope (.cta .cluster
  // .gpu .sys), if they come next.
  void take_memory_order();
  // Takes the state space; generic if there is none. "shared::cta" is shared, "param::entry" and
  // "param::func" are param.
  StateSpace take_space();

  // --- operands ---
  size_t operands() const;
  // Fails where there are not so many. An operand that was asked for counts as known.
  const Operand& operand(size_t index);
  // A value of `type`: register, immediate, symbol (its address), WARP_SZ. Registers may be wider
  // than the type where PTX allows it (ld, st, cvt and the like); what lies above the type is then
  // the instruction's to ignore or to fill. Appended to op().s; a kB128 appends two slots, low half
  // first, and returns the low one.
  Slot source(size_t index, Type type);
  Slot source(const Operand& operand, Type type);
  // Appended to op().d likewise. `_` gives Slot::none().
  Slot destination(size_t index, Type type);
  Slot destination(const Operand& operand, Type type);
  // Appended to op().s: a predicate, or an integer (all lanes false for 0, else true).
  Slot predicate_source(const Operand& operand, bool& negated);
  // Appended to op().d; `_` is none.
  Slot predicate_destination(const Operand& operand);
  // All elements of {a, b, ...}, or one operand alone.
  std::vector<Slot> sources(size_t index, Type type);
  std::vector<Slot> destinations(size_t index, Type type);
  // [register + immediate], [symbol + immediate]: appends the base to op().s (64 bits for generic,
  // global and constant, else 32 or 64 as written: look at Slot::bytes), sets op().immediate and
  // op().space. That is `space`, with one exception: parameters of the kernel are offsets in its
  // parameter buffer (kParam), but .param variables of calls and parameters of .func functions lie
  // in the thread's local memory, so op().space becomes kLocal for them. Addresses in shared and
  // local memory count from the beginning of the block's and of the thread's memory.
  Slot address(size_t index, StateSpace space);
  // How wide a register was declared: cvt and ld extend narrower results to that. For the other
  // kinds of operands, 64.
  int register_bits(const Operand& operand) const;
  // An operand that must be an immediate.
  int64_t immediate(size_t index);

  // --- jumps (instructions/control.cc) ---
  // The op that a label names: an index into Program::ops.
  int32_t label(size_t index);
  // The index in Program::branch_tables of the .branchtargets that an operand names.
  int32_t branch_table(size_t index);
  // The first op of the function that a `call` names. Its arguments and results are no operands of
  // the call's op: ops before and behind it copy them (machine/call_parameters.cc).
  int32_t callee();

  // Throws PtxError, naming the instruction.
  [[noreturn]] void fail(const std::string& what) const;

  // Decodes one instruction into `op`.
  void decode(const Instruction& instruction, Op& op);
  // The first part of that: an op with a line and a guard.
  void begin(const Instruction& instruction, Op& op);

 private:
  const FunctionLayout::Register& find_register(const std::string& name) const;
  const FunctionLayout::Register& checked_register(const Operand& operand, Type type) const;
  void check_discard(const Operand& operand) const;
  const Place& find_variable(const std::string& name) const;
  Slot constant(uint64_t bits, Type type);
  Slot symbol_address(const Operand& operand, Type type);
  Slot symbol_base(const Operand& operand, StateSpace space);

  ProgramLayout& program_;
  FunctionLayout& function_;
  const Instruction* instruction_ = nullptr;
  Op* op_ = nullptr;
  size_t next_modifier_ = 0;
  uint64_t known_operands_ = 0;  // a bit each
  bool kernel_parameters_ = false;
};

using Decode = void (*)(Decoder& decoder);
struct InstructionRow {
  const char* opcode;
  Decode decode;
};
// The instruction set, one table per file of instructions/. Where several tables have a row for an
// opcode ("add"), the last type among the modifiers decides: f16, bf16 and packed ones take Half's
// row or, if it has none, Float's; f32, f64 and tf32 take Float's; all others any other table's.
using InstructionTable = std::initializer_list<InstructionRow>;
extern const InstructionTable kIntegerInstructions;
extern const InstructionTable kFloatInstructions;  // f32 and f64
extern const InstructionTable
    kHalfInstructions;  // f16, bf16, packed: reached through kFloat's rows
extern const InstructionTable kConvertInstructions;  // cvt
extern const InstructionTable kMoveInstructions;     // mov, selp, prmt, cvta, special registers
extern const InstructionTable kControlInstructions;  // bra, call, ret, exit, trap
extern const InstructionTable kSyncInstructions;     // bar, shfl, vote, match, redux, fences
extern const InstructionTable kMemoryInstructions;   // ld, st, prefetch, isspacep
extern const InstructionTable kAtomicInstructions;   // atom, red
extern const InstructionTable kAsyncInstructions;    // cp.async, ldmatrix
extern const InstructionTable kMmaInstructions;

// Its row's function, or null.
Decode find_instruction(const Instruction& instruction);

}  // namespace ptx_simulator
