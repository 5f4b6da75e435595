// Programs decoded from PTX: where registers, constants, variables and parameters lie, what
// operands become, jumps, and all that is refused. What instructions do is tested elsewhere.
#include "machine/decoder.h"

#include <cstdio>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "machine/program.h"
#include "ptx/module.h"
#include "tests/nvcc_output.h"

namespace {

using namespace ptx_simulator;

const std::string kRegisters =
    "{ .reg .pred %p<4>; .reg .b16 %h<4>; .reg .b32 %r<8>; .reg .b64 %rd<8>; .reg .f32 %f<4>; "
    ".reg .f64 %fd<4>; .reg .u32 %u<4>; .reg .f16 %hf<4>;\n";

// The body begins on line 6.
std::string kernel(const std::string& body, const std::string& before = "",
                   const std::string& parameters = ".param .u64 p") {
  return ".version 8.0\n.target sm_80\n.address_size 64 " + before + "\n.visible .entry k(" +
         parameters + ")\n" + kRegisters + body + "\n}\n";
}

std::shared_ptr<const Program> decode_text(const std::string& text,
                                           const std::map<std::string, uint64_t>& addresses = {},
                                           const std::string& entry = "k") {
  try {
    return decode(parse(text), entry, addresses);
  } catch (const PtxError& error) {
    CHECK(false, "%s\n%s", error.what(), text.c_str());
    return nullptr;
  }
}

uint64_t constant(const Program& program, Slot slot, int lane = 0) {
  uint64_t value = 0;
  const size_t width = slot.bytes == 8 ? 8 : 4;
  std::memcpy(&value, &program.constants.at(slot.offset + width * static_cast<size_t>(lane)),
              width);
  return value;
}

void test_registers() {
  const auto program = decode_text(
      kernel("add.u32 %r1, %r2, %r3; add.u64 %rd1, %rd2, %rd1; setp.eq.u32 %p1, %r1, %r2;"
             "@!%p1 add.u16 %h1, %h2, %h2; @%p1 ret;"));
  if (!program) return;
  const std::vector<Op>& ops = program->ops;
  CHECK(ops.size() == 6, "%zu ops: one each, and the end", ops.size());
  for (const Op& op : ops) {
    for (const auto* slots : {&op.d, &op.s}) {
      for (const Slot& slot : *slots) {
        const uint32_t width = slot.bytes == 0 ? 4 : slot.bytes * 32u;
        CHECK(!slot.constant && slot.offset + width <= program->register_bytes &&
                  slot.offset % (slot.bytes == 0 ? 4 : 64) == 0,
              "a slot at %u", slot.offset);
      }
    }
  }
  CHECK(ops[0].d.at(0).bytes == 4 && ops[0].s.size() == 2, "32 bits");
  CHECK(ops[1].d.at(0).bytes == 8 && ops[1].d[0].offset == ops[1].s.at(1).offset &&
            ops[1].d[0].offset != ops[1].s[0].offset,
        "64 bits");
  CHECK(ops[2].d.at(0).bytes == 0 && ops[2].s.at(0).offset == ops[0].d.at(0).offset, "predicates");
  CHECK(ops[3].guard.offset == ops[2].d[0].offset && ops[3].guard_negated, "a guard");
  CHECK(ops[4].guard.offset == ops[2].d[0].offset && !ops[4].guard_negated, "a guard");
  CHECK(ops[0].guard.none() && ops[5].guard.none(), "no guard");
  CHECK(ops[0].line == 6 && ops[0].d[0].bytes == 4 && ops[3].d.at(0).bytes == 4, "lines, 16 bits");
}

// Registers that are needed at the same time have places of their own; others share.
void test_shared_places() {
  // Kernels with few registers do not share: these make them many.
  std::string many = "\n.reg .b32 %z<1100>;";
  for (int i = 0; i < 1100; ++i) many += "mov.u32 %z" + std::to_string(i) + ", 1;";
  std::string chain = ".reg .b32 %c<100>; mov.u32 %c0, 1;";
  for (int i = 1; i < 100; ++i) {
    chain += "add.u32 %c" + std::to_string(i) + ", %c" + std::to_string(i - 1) + ", 1;";
  }
  auto program = decode_text(kernel(chain + many));
  if (!program) return;
  CHECK(program->register_bytes == 256, "a chain of 100 takes %zu bytes", program->register_bytes);
  for (size_t i = 1; i < 100; ++i) {
    const Op& op = program->ops.at(i);
    CHECK(op.d.at(0).offset != op.s.at(0).offset, "op %zu writes to what it reads", i);
  }

  // Each body: what op 0 writes is read by the last op but one (a use of %r1); no op between may
  // write to its place.
  const std::vector<std::pair<const char*, const char*>> lives = {
      {"over others", "mov.u32 %r1, 1; mov.u32 %r2, 2; mov.u32 %r3, 3; add.u32 %r4, %r2, %r3;"},
      {"around a loop",
       "mov.u32 %r1, 1; L: mov.u32 %r2, 2; setp.eq.u32 %p1, %r2, 3; @%p1 bra L; mov.u32 %r3, 4;"},
      {"into the next round of a loop",
       "mov.u32 %r1, 1; bra M; L: mov.u32 %r2, 2; mov.u32 %r3, %r2; M: setp.eq.u32 %p1, %r1, 3;"
       "@%p1 bra L;"},
      {"past an exit under a guard", "mov.u32 %r1, 1; @%p1 exit; mov.u32 %r2, 2;"},
      {"over a table of branches",
       "mov.u32 %r1, 1; T: .branchtargets A, B; brx.idx %r5, T; A: exit; B: mov.u32 %r2, 2;"},
      {"over a call", "mov.u32 %r1, 1; call (%r2), f, (%r3);"},
  };
  for (const auto& [name, body] : lives) {
    program = decode_text(kernel(std::string(body) + "mov.u32 %r7, %r1;" + many,
                                 ".func (.param .b32 r) f(.param .b32 a) { .reg .b32 x; "
                                 "mov.u32 x, 5; st.param.b32 [r], x; }"));
    if (!program) continue;
    const uint32_t place = program->ops.at(0).d.at(0).offset;
    size_t reader = 1;
    while (reader < program->ops.size() &&
           (program->ops[reader].d.size() != 1 || program->ops[reader].s.size() != 1 ||
            program->ops[reader].s[0].constant || program->ops[reader].s[0].offset != place)) {
      ++reader;
    }
    CHECK(reader < program->ops.size(), "%s: nobody reads it", name);
    for (size_t i = 1; i < reader; ++i) {
      for (const Slot& slot : program->ops[i].d) {
        CHECK(slot.offset != place || slot.bytes == 0, "%s: op %zu writes to its place", name, i);
      }
    }
  }
  // A write under a guard leaves the old value to some lanes.
  program =
      decode_text(kernel("mov.u32 %r1, 1; mov.u32 %r2, 2; @%p1 mov.u32 %r1, %r2;"
                         "mov.u32 %r3, 3; add.u32 %r4, %r1, %r3;" +
                         many));
  if (!program) return;
  CHECK(program->ops[0].d[0].offset == program->ops[2].d[0].offset &&
            program->ops[0].d[0].offset != program->ops[1].d[0].offset &&
            program->ops[0].d[0].offset != program->ops[3].d[0].offset,
        "under a guard");
}

void test_constants() {
  const auto program = decode_text(
      kernel("add.u32 %r1, %r2, -1; add.u64 %rd1, %rd2, -1; add.u16 %h1, %h2, 0x12345;"
             "add.f32 %f1, %f2, 0.1; add.f64 %fd1, %fd2, 0f3FC00000; mov.b32 %r1, 0f3F800000;"
             "add.u32 %r1, %r3, 4294967295; setp.eq.and.u32 %p1, %r1, WARP_SZ, -1;"));
  if (!program) return;
  const auto value = [&](size_t op, size_t source = 1) {
    const Slot slot = program->ops.at(op).s.at(source);
    CHECK(slot.constant &&
              constant(*program, slot) == constant(*program, slot, slot.bytes == 0 ? 0 : 31),
          "op %zu: no constant in all lanes", op);
    return constant(*program, slot);
  };
  CHECK(value(0) == 0xffffffff && value(1) == UINT64_MAX && value(2) == 0x2345, "integers");
  CHECK(value(3) == 0x3dcccccd, "0.1 is %llx", static_cast<unsigned long long>(value(3)));
  CHECK(value(4) == 0x3ff8000000000000 && value(5, 0) == 0x3f800000, "floats");
  CHECK(program->ops[0].s[1].offset == program->ops[6].s[1].offset, "equal constants are one");
  CHECK(value(7) == 32, "WARP_SZ");
}

void test_parameters() {
  const auto program = decode_text(kernel(
      "ld.param.u8 %h1, [a]; ld.param.u64 %rd1, [b]; ld.param.u32 %r1, [c+4]; mov.b64 %rd2, c;"
      "ld.param.u8 %h2, [%rd2+1]; ld.param.u16 %h3, [d];",
      "",
      ".param .u8 a, .param .u64 b, .param .align 4 .b8 c[9], .param .u16 d, .param .align 16 .b8 "
      "e[16]"));
  if (!program) return;
  const std::vector<std::pair<uint32_t, uint32_t>> wanted = {
      {0, 1}, {8, 8}, {16, 9}, {26, 2}, {32, 16}};
  CHECK(program->parameters.size() == wanted.size() && program->parameter_bytes == 48, "%u bytes",
        program->parameter_bytes);
  for (size_t i = 0; i < wanted.size() && i < program->parameters.size(); ++i) {
    const Program::Parameter& p = program->parameters[i];
    CHECK(p.offset == wanted[i].first && p.size_bytes == wanted[i].second, "parameter %zu at %u", i,
          p.offset);
  }
  const auto address = [&](size_t op) {
    const Op& load = program->ops.at(op);
    CHECK(load.space == StateSpace::kParam, "op %zu is not in the parameters", op);
    return constant(*program, load.s.at(0)) + static_cast<uint64_t>(load.immediate);
  };
  CHECK(address(0) == 0 && address(1) == 8 && address(2) == 20 && address(5) == 26, "places");
  CHECK(constant(*program, program->ops[3].s.at(0)) == 16, "the address of a parameter");
  CHECK(program->ops[4].space == StateSpace::kParam && program->ops[4].immediate == 1 &&
            !program->ops[4].s.at(0).constant,
        "through a register");
}

void test_variables() {
  const auto program = decode_text(
      kernel(".shared .align 8 .b8 mine[12]; .local .align 16 .b8 depot[20];"
             "mov.u32 %r1, tile; mov.u32 %r2, mine; mov.u32 %r3, dynamic+4; mov.u64 %rd1, depot;"
             "mov.u64 %rd2, counter; ld.shared.u32 %r1, [mine+8]; ld.global.u32 %r1, [counter+4];"
             "ld.const.u32 %r1, [table]; ld.u32 %r1, [mine]; st.local.u32 [depot+16], %r1;"
             "mov.u32 %r4, also;",
             ".shared .b8 unused[1000]; .shared .align 2 .b8 tile[6]; .global .u32 counter[2];"
             ".const .u32 table; .extern .shared .align 64 .b8 dynamic[];"
             ".extern .shared .b8 also[];"),
      {{"counter", 0x1000}, {"table", 0x2000}});
  if (!program) return;
  const auto value = [&](size_t op) { return constant(*program, program->ops.at(op).s.at(0)); };
  CHECK(value(0) == 0 && value(1) == 8, "static shared variables at %llu and %llu",
        static_cast<unsigned long long>(value(0)), static_cast<unsigned long long>(value(1)));
  // 6 bytes, 8 to 20, and the dynamic part behind at its own alignment.
  CHECK(program->static_shared_bytes == 64 && program->shared_alignment == 64 && value(2) == 68 &&
            value(10) == 64,
        "the dynamic part");
  CHECK(value(3) == 0 && program->local_bytes == 32, "%u bytes of local memory",
        program->local_bytes);
  CHECK(value(4) == 0x1000, "a global variable");
  CHECK(value(5) == 8 && program->ops[5].immediate == 8 && program->ops[5].s[0].bytes == 4,
        "a shared variable");
  CHECK(value(6) == 0x1000 && program->ops[6].immediate == 4 && program->ops[6].s[0].bytes == 8,
        "a global variable");
  CHECK(value(7) == 0x2000 && program->ops[7].space == StateSpace::kConst, "a constant variable");
  CHECK(value(8) == (uint64_t{1} << 56) + 8, "a shared variable by its generic address");
  CHECK(value(9) == 0 && program->ops[9].immediate == 16 &&
            program->ops[9].space == StateSpace::kLocal,
        "a local variable");
}

void test_jumps() {
  const auto program = decode_text(kernel(
      "T: .branchtargets A, B, END; A: bra B; { A: bra A; } B: brx.idx %r1, T; bra END; END:"));
  if (!program) return;
  CHECK(program->ops.at(0).target == 2 && program->ops.at(1).target == 1 &&
            program->ops.at(3).target == 4 && program->ops.size() == 5,
        "labels");
  CHECK(program->branch_tables.size() == 1 && program->ops.at(2).immediate == 0 &&
            program->branch_tables[0] == (std::vector<int32_t>{0, 2, 4}),
        "the table");
}

void test_nvcc_output() {
  const auto program =
      decode_text(test::kNvccOutput, {{"table", 64}, {"counter", 128}, {"packed", 256}}, "kernel");
  if (!program) return;
  // The call has two arguments and a result; the kernel and the function each have an end.
  const Module module = parse(test::kNvccOutput);
  size_t instructions = 0;
  for (const Function& f : module.functions) instructions += f.instructions.size();
  CHECK(program->ops.size() == instructions + 3 + 2, "%zu ops", program->ops.size());
  CHECK(program->parameter_bytes == 32 && program->static_shared_bytes == 1024 &&
            program->max_threads[0] == 256,
        "the kernel's attributes");
  // The depot (16), the caller's variables (4 + 24 + 4) and the function's (4 + 4 + 24), aligned.
  CHECK(program->local_bytes == 96, "%u bytes of local memory", program->local_bytes);
}

void check_error(const std::string& text, int line, const std::string& words,
                 const std::string& entry = "k") {
  try {
    decode(parse(text), entry, {});
    CHECK(false, "no error, wanted '%s' in %s", words.c_str(), text.c_str());
  } catch (const PtxError& error) {
    const std::string message = error.what();
    CHECK(error.line == line && message.find(words) != std::string::npos,
          "wanted '%s' in line %d, got '%s'", words.c_str(), line, message.c_str());
  }
}

void test_errors() {
  const std::vector<std::pair<const char*, const char*>> bodies = {
      // Each of these is an error of ptxas as well.
      {"frobnicate.u32 %r1, %r2;", "unknown instruction 'frobnicate': frobnicate.u32 %r1, %r2"},
      {"add.sometimes.u32 %r1, %r2, %r3;", "'.sometimes'"},
      {"add.u32.sometimes %r1, %r2, %r3;", "'.sometimes'"},
      {"bra;", "too few operands: bra"},
      {"L: bra L, 5;", "too many operands: bra L, 5"},
      {"add.u32 %r1, %r2, %rd1;", "'%rd1' is a .b64, not a .u32"},
      {"add.u32 %r1, %r2, %h1;", "'%h1' is a .b16, not a .u32"},
      {"add.u32 %r1, %r2, %p1;", "'%p1' is a .pred, not a .u32"},
      {"add.u32 %f1, %r2, %r3;", "'%f1' is a .f32, not a .u32"},
      {"add.f32 %f1, %u2, %f3;", "'%u2' is a .u32, not a .f32"},
      {"add.u32 5, %r2, %r3;", "a register is wanted"},
      {"add.u32 _, %r2, %r3;", "'_' where a result is needed"},
      {"add.u32 %r1, _, %r3;", "a register or constant is wanted"},
      {"add.u32 %r1, %tid.x, %r3;", "special registers are read with mov"},
      {"add.u32 %r1, !%p1, %r3;", "'!'"},
      {"add.u32 %r1, %r2, 1.5;", "constant where a .u32"},
      {"add.f32 %f1, %f2, 1;", "an integer constant where a .f32"},
      {"mov.b32 %r1, 1.5;", "double-precision constant where a .b32"},
      {"mov.b64 %rd1, 0f3F800000;", "single-precision constant where a .b64"},
      {"mov.u64 %rd1, nothing;", "'nothing' is no variable"},
      {"mov.u64 %rd1, k;", "addresses of functions are not modelled"},
      {"ld.global.u32 %r1, [%r2];", "'%r2' is a .b32, not an address"},
      {"ld.global.u32 %r1, [%fd2];", "'%fd2' is a .f64, not an address"},
      {"ld.global.u32 %r1, %rd2;", "an address in [ ] is wanted"},
      {"ld.global.u32 %f1, [%rd1];", "'%f1' is a .f32, not a .u32"},
      {"ld.global.f32 %fd1, [%rd1];", "'%fd1' is a .f64, not a .f32"},
      {"ld.global.u32 %h1, [%rd1];", "'%h1' is a .b16, not a .u32"},
      {".shared .u32 s; ld.global.u32 %r1, [s];", "'s' is in another state space"},
      {".shared .u32 s; mov.f32 %f1, s;", "an address where a .f32"},
      {"ld.u32 %r1, [p];", "'p' is in another state space"},
      {"@%r1 ret;", "the guard is no predicate"},
      {"selp.b32 %r1, %r2, %r3, %r4;", "'%r4' is no predicate"},
      {"setp.eq.u32 %r1, %r2, %r3;", "'%r1' is no predicate"},
      {"bra nowhere;", "no such label"},
      {"bra %r1;", "no such label"},
      {"brx.idx %r1, nowhere;", "no such .branchtargets"},
      {"L: bra.quickly L;", "'.quickly'"},
      {"call nowhere;", "'nowhere' is no function with a body"},
      {"call k, (%rd1);", "'k' is no function with a body"},
      {"P: .callprototype _ (); call %rd1, P;", "indirect calls are not modelled"},
      {"call f, (%r1);", "the function has 0 parameters"},
      {"call (%r1), f;", "the function has 0 results"},
      {"call g, (%rd1);", "'%rd1' is a .b64, not a .u32"},
      {".param .b64 q; call g, (q);", "'q' and parameter 'a' have different sizes"},
      {"call g, (p);", "'p' is no .param variable"},
      {"call h, (%rd1);", "parameter 'a' needs a .param variable"},
  };
  for (const auto& [body, words] : bodies) {
    check_error(kernel(body,
                       ".func f() { ret; } .func g(.param .u32 a) { ret; } "
                       ".func h(.param .b8 a[8]) { ret; }"),
                6, words);
  }
  check_error(kernel("call f;", ".func f;.func g { call f; } .func f { call g; }"), 3,
              "recursion is not modelled: 'f' calls itself through 'g'");
  check_error(kernel("call f;", ".func f { call f; }"), 3, "'f' calls itself");
  check_error(kernel("call vprintf;", ".extern .func vprintf;"), 6,
              "'vprintf' is no function with a body");
  check_error(kernel("T: .branchtargets nowhere;"), 4, "no label 'nowhere'");
  check_error(kernel("mov.u64 %rd1, x;", ".global .u32 x;"), 3, "'x' has no address");
  check_error(kernel("ret;"), 0, "no kernel 'l'", "l");
  check_error(kernel("ret;", ".func f { ret; }"), 0, "no kernel 'f'", "f");
  check_error(kernel(".local .b8 depot[600000]; mov.u64 %rd1, depot;"), 6, "more local memory");
  check_error(kernel(".shared .b8 s[2000000]; mov.u64 %rd1, s;"), 6, "more shared memory");
  check_error(kernel("ret;", "", ".param .b8 p[5000]"), 4, "more parameters");
}

// Instructions that parse but make no sense are errors or decode to something; they never crash.
void test_damaged_instructions() {
  const Module good = parse(test::kNvccOutput);
  const std::map<std::string, uint64_t> addresses = {
      {"table", 64}, {"counter", 128}, {"packed", 256}};
  std::vector<Operand> operands;
  std::vector<std::string> modifiers = {"v2",   "v4",   "b128",        "f16x2",
                                        "bf16", "pred", "shared::cta", ""};
  std::vector<std::string> opcodes = {"atom", "red",      "cp",       "ldmatrix", "mma",
                                      "vote", "match",    "redux",    "fence",    "prmt",
                                      "lop3", "dp4a",     "shf",      "cvta",     "tanh",
                                      "brx",  "isspacep", "prefetch", "barrier",  "copysign"};
  for (const Function& f : good.functions) {
    for (const Instruction& i : f.instructions) {
      if (i.opcode == "call") continue;
      operands.insert(operands.end(), i.operands.begin(), i.operands.end());
      modifiers.insert(modifiers.end(), i.modifiers.begin(), i.modifiers.end());
      opcodes.push_back(i.opcode);
    }
  }
  altiplano::test::Random random(11);
  const auto any = [&](const auto& list) {
    return list[static_cast<size_t>(random.integer(0, static_cast<int64_t>(list.size()) - 1))];
  };
  // An operand, or a few in a vector or pair.
  const auto any_operand = [&] {
    if (random.integer(0, 4) != 0) return any(operands);
    Operand group;
    group.kind = random.integer(0, 1) == 0 ? Operand::Kind::kVector : Operand::Kind::kPair;
    const int64_t parts = group.kind == Operand::Kind::kPair ? 2 : random.integer(1, 5);
    for (int64_t i = 0; i < parts; ++i) group.parts.push_back(any(operands));
    return group;
  };
  int decoded = 0, refused = 0;
  for (int round = 0; round < 20000; ++round) {
    // One damaged instruction in a kernel of its own: the names it may use are the kernel's.
    Module module = good;
    Function& f = module.functions.at(1);
    Instruction one = any(f.instructions);
    if (one.opcode == "call") continue;
    for (int64_t changes = random.integer(1, 3); changes > 0; --changes) {
      const int64_t what = random.integer(0, 5);
      if (what == 0) one.opcode = any(opcodes);
      if (what == 1) one.operands.push_back(any_operand());
      if (what == 2 && !one.operands.empty()) one.operands.pop_back();
      if (what == 3 && !one.operands.empty()) {
        one.operands[static_cast<size_t>(
            random.integer(0, static_cast<int64_t>(one.operands.size()) - 1))] = any_operand();
      }
      if (what == 4 && !one.modifiers.empty()) {
        one.modifiers[static_cast<size_t>(
            random.integer(0, static_cast<int64_t>(one.modifiers.size()) - 1))] = any(modifiers);
      }
      if (what == 5) one.modifiers.push_back(any(modifiers));
    }
    f.instructions = {one};
    for (auto& [name, index] : f.labels) index = 0;
    try {
      decode(module, "kernel", addresses);
      ++decoded;
    } catch (const PtxError&) {
      ++refused;
    }
  }
  CHECK(decoded > 100 && refused > 10000, "%d decoded, %d refused", decoded, refused);
}

}  // namespace

int main() {
  test_registers();
  test_shared_places();
  test_constants();
  test_parameters();
  test_variables();
  test_jumps();
  test_nvcc_output();
  test_errors();
  test_damaged_instructions();
  std::printf("decoder: %d failures\n", altiplano::test::failures);
  return altiplano::test::failures == 0 ? 0 : 1;
}
