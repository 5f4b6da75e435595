// How calls pass parameters. Each .func has its parameters and results in local memory, at a fixed
// place; ops in front of a call copy the arguments there, from .param variables of the caller
// (local memory as well), registers or constants, and ops behind it copy the results back. No stack
// is needed, as no function is active twice.
#pragma once

#include <vector>

#include "machine/layout.h"
#include "machine/program.h"

namespace ptx_simulator {

class Decoder;

// The ops of a `call`: copies, the call itself, copies.
size_t ops_of_call(const Instruction& instruction);
// Writes them to `ops`, which has room.
void decode_call(ProgramLayout& program, FunctionLayout& caller, const Instruction& instruction,
                 Op* ops);

}  // namespace ptx_simulator
