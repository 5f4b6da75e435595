// A function ready to run: PTX decoded into operations on the register file of a warp.
//
// The register file holds slots. In kernels with many registers, those that are never needed at the
// same time share one (liveness.h). Immediates and addresses of variables are slots of constants. A
// slot has 32 lanes: of 8 bytes for 64-bit registers (256 bytes), of 4 bytes for all smaller ones
// (128 bytes; 8- and 16-bit values are kept zero-extended, whoever writes one takes care of that);
// 128-bit registers are two 64-bit slots, low half first. A predicate is one uint32_t with a bit
// per lane (a slot of 4 bytes). So one instruction of a warp is a loop over 32 consecutive values,
// which compilers make vector instructions of.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "machine/report.h"
#include "ptx/module.h"

namespace ptx_simulator {

class Warp;
struct Op;

// Runs one instruction for the lanes in `mask` (never empty; lanes whose guard fails are left out).
// The lanes' program counters already point behind it; jumps and waits change that (warp.h).
using Execute = void (*)(Warp& warp, const Op& op, uint32_t mask);

// Where the lanes of an operand lie: an offset in bytes into the registers of the warp, or into the
// constants of the function.
struct Slot {
  uint32_t offset = kNone;
  bool constant = false;
  uint8_t bytes = 4;  // per lane: 4 or 8; 0 for a predicate

  static constexpr uint32_t kNone = UINT32_MAX;  // `_`: nothing is written or read
  bool none() const { return offset == kNone; }
};

struct Op {
  Execute execute = nullptr;
  Slot guard;  // a predicate
  bool guard_negated = false;
  InstructionClass kind = InstructionClass::kInteger;
  Type type = Type::kB32;   // the instruction's (last) type
  Type type2 = Type::kB32;  // cvt and others: the type of the source
  StateSpace space = StateSpace::kGeneric;
  uint8_t vector = 1;     // 1, 2 or 4 elements of ld and st
  uint8_t bytes = 0;      // of one lane's memory access
  uint32_t flags = 0;     // meaning is the instruction's own
  int64_t immediate = 0;  // address offset, lookup table, barrier number, ...
  int32_t target = 0;     // jump: index into Program::ops
  std::vector<Slot> d;    // destinations
  std::vector<Slot> s;    // sources
  int line = 0;
  int source_line = 0;
};

// A kernel with every function it may call.
struct Program {
  std::string name;
  std::vector<Op> ops;  // ends with an exit or return, whatever the PTX ends with
  size_t register_bytes = 0;
  std::vector<std::byte> constants;  // slots of 32 equal lanes
  struct Parameter {
    uint32_t offset;
    uint32_t size_bytes;
  };
  std::vector<Parameter> parameters;  // of the kernel: places in its parameter buffer
  uint32_t parameter_bytes = 0;
  uint32_t static_shared_bytes = 0;
  uint32_t shared_alignment = 16;
  uint32_t local_bytes = 0;  // per thread: .local variables and .param spaces of calls
  int max_threads[3] = {0, 0, 0};
  int required_threads[3] = {0, 0, 0};
  std::vector<std::vector<int32_t>> branch_tables;
};

// Decodes an entry function. `addresses` are those of the module's .global and .const variables.
// Throws PtxError for what the simulator does not know: unknown instructions, modifiers, types.
std::shared_ptr<const Program> decode(const Module& module, const std::string& entry,
                                      const std::map<std::string, uint64_t>& addresses);

}  // namespace ptx_simulator
