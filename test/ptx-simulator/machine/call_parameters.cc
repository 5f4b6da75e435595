#include "machine/call_parameters.h"

#include <cstring>

#include "machine/decoder.h"
#include "machine/warp.h"

namespace ptx_simulator {
namespace {

std::byte* local_memory(Warp& warp, int lane) {
  return warp.block.local.data() +
         static_cast<size_t>(warp.thread(lane)) * warp.block.launch.program->local_bytes;
}

// op.immediate and op.target are places in local memory, op.flags is a number of bytes.
void execute_copy(Warp& warp, const Op& op, uint32_t mask) {
  for_each_lane(mask, [&](int lane) {
    std::byte* const local = local_memory(warp, lane);
    std::memcpy(local + op.target, local + op.immediate, op.flags);
  });
}

void execute_store(Warp& warp, const Op& op, uint32_t mask) {
  for_each_lane(mask, [&](int lane) {
    const uint64_t value = warp.value(op.s[0], lane);
    std::memcpy(local_memory(warp, lane) + op.target, &value, op.flags);
  });
}

void execute_load(Warp& warp, const Op& op, uint32_t mask) {
  for_each_lane(mask, [&](int lane) {
    uint64_t value = 0;
    std::memcpy(&value, local_memory(warp, lane) + op.immediate, op.flags);
    if (op.d[0].bytes == 8) {
      warp.lanes<uint64_t>(op.d[0])[lane] = value;
    } else {
      warp.lanes<uint32_t>(op.d[0])[lane] = static_cast<uint32_t>(value);
    }
  });
}

void execute_nothing(Warp&, const Op&, uint32_t) {}

// One argument (into the callee) or result (out of it).
void decode_copy(Decoder& decoder, const ProgramLayout& program, const FunctionLayout& caller,
                 const Operand& actual, const FunctionLayout& callee, const Variable& formal,
                 bool into) {
  Op& op = decoder.op();
  op.kind = InstructionClass::kMove;
  op.flags = static_cast<uint32_t>(formal.size_bytes);
  const uint64_t formal_address = callee.variables.at(formal.name).address;
  if (actual.kind == Operand::Kind::kSymbol) {
    const Place* const place = program.find_variable(caller, actual.name);
    if (place == nullptr || !place->is_parameter || place->space != StateSpace::kLocal ||
        actual.integer != 0) {
      decoder.fail("'" + actual.name + "' is no .param variable");
    }
    const auto size_of = [&](const std::vector<Variable>& variables) {
      for (const Variable& variable : variables) {
        if (variable.name == actual.name) return variable.size_bytes;
      }
      return uint64_t{0};
    };
    const Function& own = caller.function;
    if (size_of(own.variables) + size_of(own.parameters) + size_of(own.returns) !=
        formal.size_bytes) {
      decoder.fail("'" + actual.name + "' and parameter '" + formal.name +
                   "' have different sizes");
    }
    op.execute = execute_copy;
    op.immediate = static_cast<int64_t>(into ? place->address : formal_address);
    op.target = static_cast<int32_t>(into ? formal_address : place->address);
    return;
  }
  if (formal.size_bytes != static_cast<uint64_t>(bits_of(formal.type)) / 8 ||
      formal.size_bytes > 8) {
    decoder.fail("parameter '" + formal.name + "' needs a .param variable");
  }
  if (actual.kind == Operand::Kind::kDiscard && !into) {
    op.execute = execute_nothing;
  } else if (into) {
    decoder.source(actual, formal.type);
    op.execute = execute_store;
    op.target = static_cast<int32_t>(formal_address);
  } else {
    decoder.destination(actual, formal.type);
    op.execute = execute_load;
    op.immediate = static_cast<int64_t>(formal_address);
  }
}

}  // namespace

size_t ops_of_call(const Instruction& instruction) {
  return instruction.operands[0].parts.size() + 1 + instruction.operands[2].parts.size();
}

void decode_call(ProgramLayout& program, FunctionLayout& caller, const Instruction& instruction,
                 Op* ops) {
  const FunctionLayout& callee = *program.find_function(instruction.operands[1].name);
  const std::vector<Operand>& results = instruction.operands[0].parts;
  const std::vector<Operand>& arguments = instruction.operands[2].parts;
  Decoder decoder(program, caller);
  const auto copy = [&](const Operand& actual, const Variable& formal, bool into) {
    decoder.begin(instruction, *ops++);
    decode_copy(decoder, program, caller, actual, callee, formal, into);
  };
  decoder.begin(instruction, *ops);
  if (results.size() != callee.function.returns.size()) {
    decoder.fail("the function has " + std::to_string(callee.function.returns.size()) + " results");
  }
  if (arguments.size() != callee.function.parameters.size()) {
    decoder.fail("the function has " + std::to_string(callee.function.parameters.size()) +
                 " parameters");
  }
  for (size_t i = 0; i < arguments.size(); ++i) {
    copy(arguments[i], callee.function.parameters[i], true);
  }
  decoder.decode(instruction, *ops++);
  for (size_t i = 0; i < results.size(); ++i) copy(results[i], callee.function.returns[i], false);
}

}  // namespace ptx_simulator
