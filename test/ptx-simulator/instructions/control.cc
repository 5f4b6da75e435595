// Control flow: bra, brx.idx, call, ret, exit, trap, nanosleep. What a jump of some lanes means for
// the others of their warp is in machine/warp.cc.
#include "machine/decoder.h"
#include "machine/warp.h"

namespace ptx_simulator {

namespace {

void execute_nothing(Warp&, const Op&, uint32_t) {}
void execute_jump(Warp& warp, const Op& op, uint32_t mask) { warp.jump(mask, op.target); }
void execute_call(Warp& warp, const Op& op, uint32_t mask) { warp.call(op, mask, op.target); }
void execute_ret(Warp& warp, const Op& op, uint32_t mask) { warp.ret(op, mask); }
void execute_exit(Warp& warp, const Op& op, uint32_t mask) { warp.exit(op, mask); }
void execute_yield(Warp& warp, const Op&, uint32_t) { warp.yield(); }

void execute_trap(Warp& warp, const Op& op, uint32_t mask) {
  warp.fail(FindingKind::kIllegalInstruction, op, std::countr_zero(mask), "the kernel trapped");
}

// op.immediate: the branch table; op.s[0]: the index.
void execute_jump_by_table(Warp& warp, const Op& op, uint32_t mask) {
  const std::vector<int32_t>& targets =
      warp.block.launch.program->branch_tables[static_cast<size_t>(op.immediate)];
  const uint32_t* index = warp.values<uint32_t>(op.s[0]);
  for (uint32_t rest = mask; rest != 0;) {
    const int first = std::countr_zero(rest);
    uint32_t same = 0;
    for_each_lane(rest, [&](int lane) {
      same |= static_cast<uint32_t>(index[lane] == index[first]) << lane;
    });
    rest &= ~same;
    if (index[first] < targets.size()) {
      warp.jump(same, targets[index[first]]);
    } else {
      warp.fail(FindingKind::kIllegalInstruction, op, first,
                "branch index " + std::to_string(index[first]) + " of a table of " +
                    std::to_string(targets.size()));
    }
  }
}

void set(Decoder& d, Execute execute) {
  d.op().execute = execute;
  d.op().kind = InstructionClass::kControl;
}

// .uni promises that all active lanes agree, which speeds up hardware only.
void decode_bra(Decoder& d) {
  set(d, execute_jump);
  d.take("uni");
  d.op().target = d.label(0);
}
void decode_brx(Decoder& d) {
  set(d, execute_jump_by_table);
  if (!d.take("idx")) d.fail("brx without .idx");
  d.take("uni");
  d.source(0, Type::kU32);
  d.op().immediate = d.branch_table(1);
}
void decode_call(Decoder& d) {
  set(d, execute_call);
  d.take("uni");
  d.op().target = d.callee();
}
void decode_ret(Decoder& d) {
  set(d, execute_ret);
  d.take("uni");
}
void decode_exit(Decoder& d) { set(d, execute_exit); }
void decode_trap(Decoder& d) { set(d, execute_trap); }
void decode_nanosleep(Decoder& d) {
  set(d, execute_yield);
  d.take_type({Type::kU32});
  d.source(0, Type::kU32);
}
void decode_pmevent(Decoder& d) {
  set(d, execute_nothing);
  d.take("mask");
  d.immediate(0);
}
// Programmatic dependent launch: launches of a stream follow each other completely here.
void decode_griddepcontrol(Decoder& d) {
  set(d, execute_nothing);
  if (d.take_one_of({"launch_dependents", "wait"}) < 0) d.fail("unknown action");
}

}  // namespace

const InstructionTable kControlInstructions = {
    {"bra", decode_bra},
    {"brx", decode_brx},
    {"call", decode_call},
    {"ret", decode_ret},
    {"exit", decode_exit},
    {"trap", decode_trap},
    {"brkpt", decode_trap},  // without a debugger it ends the kernel
    {"nanosleep", decode_nanosleep},
    {"pmevent", decode_pmevent},
    {"griddepcontrol", decode_griddepcontrol},
};

}  // namespace ptx_simulator
