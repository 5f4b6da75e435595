// PTX text as a tree: what the parser makes and the decoder (machine/decoder.h) reads. It knows the
// grammar of PTX, and nothing of what any instruction does.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace ptx_simulator {

enum class Type : uint8_t {
  kPred,
  kB8,
  kB16,
  kB32,
  kB64,
  kB128,
  kU8,
  kU16,
  kU32,
  kU64,
  kS8,
  kS16,
  kS32,
  kS64,
  kF16,
  kF16x2,
  kBf16,
  kBf16x2,
  kTf32,
  kF32,
  kF64,
};

int bits_of(Type type);  // 1 for kPred
// The type that a modifier or directive such as "u32" names.
std::optional<Type> type_named(std::string_view name);
const char* name_of(Type type);

enum class StateSpace : uint8_t { kGeneric, kGlobal, kShared, kLocal, kConst, kParam };

// Text that is not PTX, or PTX that the simulator does not know. The message names the line.
class PtxError : public std::runtime_error {
 public:
  PtxError(int line, const std::string& what)
      : std::runtime_error("PTX line " + std::to_string(line) + ": " + what), line(line) {}
  const int line;
};

struct Operand {
  enum class Kind : uint8_t {
    kRegister,  // name; declared in Function::registers
    kSpecial,   // name: "%tid.x", "%laneid", ... (WARP_SZ is an integer)
    kInteger,   // integer
    kFloat,     // bits and is_double: 0f3F800000, 0d..., 1.5
    kSymbol,    // name of a variable, function or label, and integer: an offset added to it
    kAddress,   // [name + integer]; name is empty for [integer]; names_register says which
    kVector,    // {parts}
    kPair,      // parts[0] | parts[1], as in setp and shfl
    kDiscard,   // _
  };
  Kind kind = Kind::kDiscard;
  std::string name;
  int64_t integer = 0;
  uint64_t bits = 0;
  bool is_double = false;
  bool names_register = false;
  bool negated = false;  // !%p
  std::vector<Operand> parts;
};

struct Instruction {
  std::string opcode;                  // "add"
  std::vector<std::string> modifiers;  // {"rn", "ftz", "f32"}; "" in "shared::cta" as written
  std::string guard;                   // "%p1", or empty
  bool guard_negated = false;
  std::vector<Operand> operands;  // calls: see Call
  int line = 0;                   // in the PTX text, from 1
  int source_line = 0;            // of the last .loc before it, or 0
};
std::string to_string(const Instruction& instruction);

// A variable of a module or function, or a parameter.
struct Variable {
  std::string name;
  StateSpace space = StateSpace::kGlobal;
  Type type = Type::kB8;
  int alignment = 1;        // bytes
  uint64_t size_bytes = 0;  // 0 for an array without a length (extern .shared)
  bool is_extern = false;
  std::vector<uint8_t> initial;  // size_bytes of it, or empty for zeros
  // Addresses in the initial value: at byte `offset`, the address of `symbol` plus `addend`.
  struct Reference {
    uint64_t offset;
    std::string symbol;
    int64_t addend;
    bool generic;
  };
  std::vector<Reference> references;
  int line = 0;
};

struct Function {
  std::string name;
  bool is_entry = false;
  bool is_declaration = false;  // .func without a body
  std::vector<Variable> returns;
  std::vector<Variable> parameters;
  // Those that are used, by name. A register or variable of an inner { } scope that hides another
  // is renamed by the parser, so that names are unique within a function.
  std::map<std::string, Type> registers;
  std::vector<Variable> variables;  // .shared, .local, .param, .const of the body
  std::vector<Instruction> instructions;
  std::map<std::string, int> labels;  // index of the instruction behind the label
  std::map<std::string, std::vector<std::string>> branch_tables;  // .branchtargets
  int max_threads[3] = {0, 0, 0};                                 // .maxntid, 0 if absent
  int required_threads[3] = {0, 0, 0};                            // .reqntid
  int min_blocks = 0;                                             // .minnctapersm
  int line = 0;
};

struct Module {
  int version_major = 0;
  int version_minor = 0;
  int target = 0;  // 80 of sm_80
  std::vector<Variable> variables;
  std::vector<Function> functions;
  std::vector<std::string> files;  // by .file number - 1
};

// `call` has its operands in this order: returned parameters (kVector), the function (kSymbol, or
// kRegister for an indirect call), arguments (kVector), and for an indirect call the prototype.
//
// Throws PtxError.
Module parse(std::string_view text);

}  // namespace ptx_simulator
