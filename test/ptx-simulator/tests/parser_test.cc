// The grammar of PTX: what nvcc writes, what people write in asm statements.
#include <algorithm>
#include <bit>
#include <cstdio>
#include <string>
#include <vector>

#include "check.h"
#include "ptx/module.h"
#include "tests/nvcc_output.h"

namespace {

using namespace ptx_simulator;

// A kernel with registers of all kinds around `body`, which begins on line 6.
std::string kernel(const std::string& body, const std::string& before = "") {
  return ".version 8.0\n.target sm_80\n.address_size 64 " + before +
         "\n.visible .entry k(.param .u64 p)\n{ .reg .pred %p<4>; .reg .b16 %h<4>; .reg .b32 "
         "%r<8>; "
         ".reg .b64 %rd<8>; .reg .f32 %f<4>; .reg .f64 %fd<4>;\n" +
         body + "\n}\n";
}

Function parse_body(const std::string& body) {
  try {
    return parse(kernel(body)).functions.at(0);
  } catch (const PtxError& error) {
    CHECK(false, "'%s': %s", body.c_str(), error.what());
    return {};
  }
}

// Each pair: an instruction, and how it reads when it is written out again.
void test_instructions() {
  const std::vector<std::pair<const char*, const char*>> table = {
      {"ret;", "ret"},
      {"@%p1 bra.uni L; L:", "@%p1 bra.uni L"},
      {"@!%p1 exit;", "@!%p1 exit"},
      {"add .u32 %r1,%r2 , /* c */ %r3 ; // end", "add.u32 %r1, %r2, %r3"},
      {"ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%r1,%r2,_,%r4}, [%rd1+-16];",
       "ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%r1, %r2, _, %r4}, [%rd1-16]"},
      {"st.shared::cta.u32 [%r1+4+2*3], 0x10;", "st.shared::cta.u32 [%r1+10], 16"},
      {"ld.param.u64 %rd1, [p];", "ld.param.u64 %rd1, [p]"},
      {"ld.param.u32 %r1, [p+4];", "ld.param.u32 %r1, [p+4]"},
      {"ld.local.u32 %r1, [0x20];", "ld.local.u32 %r1, [32]"},
      {"ld.global.u32 %r1, [array-8];", "ld.global.u32 %r1, [array-8]"},
      {"setp.lt.and.f32 %p1|%p2, %f1, 0f3F800000, !%p3;",
       "setp.lt.and.f32 %p1|%p2, %f1, 0f3F800000, !%p3"},
      {"shfl.sync.bfly.b32 %r1|%p1, %r2, 1, 0x1f, -1;",
       "shfl.sync.bfly.b32 %r1|%p1, %r2, 1, 31, -1"},
      {"match.all.sync.b32 _|%p1, %r1, -1;", "match.all.sync.b32 _|%p1, %r1, -1"},
      {"mov.u32 %r1, %tid.x;", "mov.u32 %r1, %tid.x"},
      {"mov.u32 %r1, %laneid;", "mov.u32 %r1, %laneid"},
      {"mov.u32 %r1, %envreg3;", "mov.u32 %r1, %envreg3"},
      {"mov.u64 %rd1, array+12;", "mov.u64 %rd1, array+12"},
      {"mov.b64 {%r1, %r2}, %rd1;", "mov.b64 {%r1, %r2}, %rd1"},
      {"mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%f1,%f1,%f1,%f1}, {%r1,%r2}, {%r3}, "
       "{%f1,%f1,%f1,%f1};",
       "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%f1, %f1, %f1, %f1}, {%r1, %r2}, {%r3}, "
       "{%f1, %f1, %f1, %f1}"},
      {"cp.async.cg.shared.global.L2::128B [%r1], [%rd1], 16, %r2;",
       "cp.async.cg.shared.global.L2::128B [%r1], [%rd1], 16, %r2"},
      {"cp.async.commit_group;", "cp.async.commit_group"},
      {"call f;", "call {}, f, {}"},
      {"call.uni f, (%r1, 5);", "call.uni {}, f, {%r1, 5}"},
      {"call (%r1), f, (%r2);", "call {%r1}, f, {%r2}"},
      {"call (_), f;", "call {_}, f, {}"},
      {"P: .callprototype (.param .b32 _) _ (.param .b64 _); call (%r1), %rd1, (%rd2), P;",
       "call {%r1}, %rd1, {%rd2}, P"},
      {"T: .calltargets f, g; call %rd1, T;", "call {}, %rd1, {}, T"},
  };
  for (const auto& [text, wanted] : table) {
    const Function function = parse_body(text);
    const std::string found =
        function.instructions.empty() ? "nothing" : to_string(function.instructions[0]);
    CHECK(function.instructions.size() == 1 && found == wanted, "'%s' reads as '%s'", text,
          found.c_str());
  }
}

void test_integer_constants() {
  const std::vector<std::pair<const char*, int64_t>> table = {
      {"0", 0},
      {"-1", -1},
      {"4294967295", 4294967295},
      {"0xFFFFFFFFFFFFFFFF", -1},
      {"017", 15},
      {"0b101", 5},
      {"0B11", 3},
      {"0X1f", 31},
      {"12U", 12},
      {"0x10U", 16},
      {"(1+2)*3", 9},
      {"1+2*3", 7},
      {"-(-5)", 5},
      {"~0", -1},
      {"!3", 0},
      {"7/2", 3},
      {"-7/2", -3},
      {"-7 % 3", -1},
      {"1<<33", int64_t{1} << 33},
      {"-8>>1", -4},
      {"1<<64", 0},
      {"-1>>64", -1},
      {"0x8000000000000000>>63", 1},
      {"(.s64)0x8000000000000000>>63", -1},
      {"(.u64)-1>>63", 1},
      {"-1<0", 1},
      {"-1<0U", 0},
      {"3>=3 && 2!=2", 0},
      {"6&3|8^1", 11},
      {"1?2:3", 2},
      {"0?2:1?4:5", 4},
      {"-9223372036854775807-1", INT64_MIN},
      {"(-9223372036854775807-1)/-1", INT64_MIN},
      {"WARP_SZ-1", 31},
      {"10-4-3", 3}};
  for (const auto& [text, wanted] : table) {
    const Function function = parse_body("mov.u64 %rd1, " + std::string(text) + ";");
    if (function.instructions.empty()) continue;
    const Operand& value = function.instructions[0].operands.at(1);
    CHECK(value.kind == Operand::Kind::kInteger && value.integer == wanted, "%s is %lld", text,
          static_cast<long long>(value.integer));
  }
}

void test_float_constants() {
  const std::vector<std::pair<const char*, double>> doubles = {{"1.5", 1.5},
                                                               {"-1.5", -1.5},
                                                               {"1.", 1},
                                                               {".5", .5},
                                                               {"1e5", 1e5},
                                                               {"1.5e-3", 1.5e-3},
                                                               {"2E+2", 200},
                                                               {"0d3FF8000000000000", 1.5},
                                                               {"0D8000000000000000", -0.0},
                                                               {"1.5+2.0*3.0", 7.5},
                                                               {"0.1", 0.1}};
  const auto check = [](const char* text, uint64_t bits, bool is_double) {
    const Function function = parse_body("mov.b64 %rd1, " + std::string(text) + ";");
    if (function.instructions.empty()) return;
    const Operand& value = function.instructions[0].operands.at(1);
    CHECK(value.kind == Operand::Kind::kFloat && value.bits == bits && value.is_double == is_double,
          "%s is %llx", text, static_cast<unsigned long long>(value.bits));
  };
  for (const auto& [text, wanted] : doubles) check(text, std::bit_cast<uint64_t>(wanted), true);
  check("0f3F800000", 0x3f800000, false);
  check("0F7fc00001", 0x7fc00001, false);
}

void test_scopes() {
  const Function f = parse_body(
      "{ .reg .b64 %r<3>, t; mov.u64 %r1, 1; mov.u64 t, 2; L: bra L; }\n"
      "mov.u32 %r1, 3;\n"
      "{ .reg .b16 t; .reg .f32 %r1; mov.b16 t, 4; bra L; L: { L: bra L; } mov.f32 %r1, %f1; }\n"
      "{ .reg .b32 %r1<2>; mov.u32 %r10, %r11; mov.u32 %r2, %r1; }\n"
      "L: bra L; @%p1 bra M; M: ret;");
  const std::vector<std::string> wanted = {"mov.u64 %r1, 1",
                                           "mov.u64 t, 2",
                                           "bra L",
                                           "mov.u32 %r1$1, 3",
                                           "mov.b16 t$1, 4",
                                           "bra L$1",
                                           "bra L$2",
                                           "mov.f32 %r1$2, %f1",
                                           "mov.u32 %r10, %r11",
                                           "mov.u32 %r2, %r1$1",
                                           "bra L$3",
                                           "@%p1 bra M",
                                           "ret"};
  for (size_t i = 0; i < wanted.size() && i < f.instructions.size(); ++i) {
    CHECK(to_string(f.instructions[i]) == wanted[i], "%s, not %s",
          to_string(f.instructions[i]).c_str(), wanted[i].c_str());
  }
  CHECK(f.instructions.size() == wanted.size(), "%zu instructions", f.instructions.size());
  const auto type = [&](const char* name) {
    const auto found = f.registers.find(name);
    return found == f.registers.end() ? "none" : name_of(found->second);
  };
  CHECK(std::string(type("%r1")) == "b64" && std::string(type("%r1$1")) == "b32" &&
            std::string(type("%r1$2")) == "f32" && std::string(type("t")) == "b64" &&
            std::string(type("t$1")) == "b16" && std::string(type("%r10")) == "b32",
        "the registers' types");
  const std::map<std::string, int> labels = {
      {"L", 2}, {"L$1", 6}, {"L$2", 6}, {"L$3", 10}, {"M", 12}};
  CHECK(f.labels == labels, "the labels");

  // Names of the module may be hidden; its variables keep theirs.
  const Module m = parse(kernel(
      "mov.u64 %rd1, x; { .reg .b32 x; mov.u32 x, 1; } { .param .b32 x; st.param.b32 [x], 1; } "
      "{ .shared .b32 x; mov.u32 %r1, x; } mov.u64 %rd1, x;",
      ".global .u32 x;"));
  const std::vector<std::string> hidden = {"mov.u64 %rd1, x", "mov.u32 x$1, 1",
                                           "st.param.b32 [x$2], 1", "mov.u32 %r1, x$3",
                                           "mov.u64 %rd1, x"};
  for (size_t i = 0; i < hidden.size(); ++i) {
    const std::string found = to_string(m.functions[0].instructions.at(i));
    CHECK(found == hidden[i], "%s, not %s", found.c_str(), hidden[i].c_str());
  }
}

void test_branch_tables() {
  const Function f = parse_body(
      "T: .branchtargets A, B,\n A; brx.idx %r1, T; A: ret; B: exit;"
      "{ T: .branchtargets A, B; A: brx.idx.uni %r1, T; B: ret; }");
  CHECK(f.branch_tables.at("T") == (std::vector<std::string>{"A", "B", "A"}), "the first table");
  CHECK(f.branch_tables.at("T$1") == (std::vector<std::string>{"A$1", "B$1"}), "the second table");
  CHECK(f.instructions.at(0).operands.at(1).name == "T", "its user");
  CHECK(f.instructions.at(3).operands.at(1).name == "T$1", "its user");
}

std::vector<uint8_t> words(std::initializer_list<uint32_t> list) {
  std::vector<uint8_t> bytes(list.size() * 4);
  std::copy(list.begin(), list.end(), reinterpret_cast<uint32_t*>(bytes.data()));
  return bytes;
}

void test_variables() {
  const Module m = parse(
      kernel(".shared .align 16 .b8 tile[64]; .shared .f32 sum; .local .align 8 .b8 depot[40];"
             ".global .u32 counter = 5; mov.u64 %rd1, counter; .extern .shared .b8 dynamic[];",
             R"(.extern .global .u32 a; .visible .global .u32 a = -2;
         .global .align 8 .u16 b[3] = {1, 2}; .const .f32 c[] = {0f3F800000, 1.5};
         .global .u32 d[2][3] = {{1, 2}, {3}}; .weak .global .v4 .f32 e = {1.0, 2.0, 3.0, 4.0};
         .global .f64 f = 1.5, g, h[2];
         .global .align 1 .u8 packed[9] = {3, 0XFF(generic(a)+4), 0xFF00(generic(a)+4),
           0xFF0000(generic(a)+4), 0xFF000000(generic(a)+4), 0xFF00000000(generic(a)+4),
           0xFF0000000000(generic(a)+4), 0xFF000000000000(generic(a)+4),
           0xFF00000000000000(generic(a)+4)};
         .global .align 8 .u64 pointers[4] = {0, generic(a)+4, b-2, 7};
         .extern .shared .align 128 .b8 dynamic[]; .global .attribute(.managed) .s8 i = -1;)"));
  const auto find = [&](const std::vector<Variable>& list, const std::string& name) {
    for (const Variable& v : list) {
      if (v.name == name) return v;
    }
    CHECK(false, "no variable %s", name.c_str());
    return Variable{};
  };
  const auto is = [&](const std::string& name, uint64_t size, int alignment,
                      const std::vector<uint8_t>& initial) {
    const Variable v = find(m.variables, name);
    CHECK(v.size_bytes == size && v.alignment == alignment && v.initial == initial,
          "%s: %llu bytes, alignment %d", name.c_str(),
          static_cast<unsigned long long>(v.size_bytes), v.alignment);
    return v;
  };
  CHECK(!is("a", 4, 4, words({0xfffffffe})).is_extern, "a is defined");
  is("b", 6, 8, {1, 0, 2, 0, 0, 0});
  CHECK(is("c", 8, 4, words({0x3f800000, 0x3fc00000})).space == StateSpace::kConst, "c");
  is("d", 24, 4, words({1, 2, 0, 3, 0, 0}));
  is("e", 16, 16, words({0x3f800000, 0x40000000, 0x40400000, 0x40800000}));
  is("f", 8, 8, words({0, 0x3ff80000}));
  is("g", 8, 8, {});
  is("h", 16, 8, {});
  is("i", 1, 1, {0xff});
  const Variable packed = is("packed", 9, 1, {3, 0, 0, 0, 0, 0, 0, 0, 0});
  CHECK(packed.references.size() == 1 && packed.references[0].offset == 1 &&
            packed.references[0].symbol == "a" && packed.references[0].addend == 4 &&
            packed.references[0].generic,
        "an address in bytes");
  const Variable pointers = is("pointers", 32, 8, words({0, 0, 0, 0, 0, 0, 7, 0}));
  CHECK(pointers.references.size() == 2 && pointers.references[0].offset == 8 &&
            pointers.references[0].generic && pointers.references[1].symbol == "b" &&
            pointers.references[1].addend == -2 && !pointers.references[1].generic,
        "addresses");
  CHECK(is("dynamic", 0, 128, {}).is_extern, "dynamic shared memory");

  const Function& k = m.functions[0];
  CHECK(find(k.variables, "tile").size_bytes == 64 && find(k.variables, "tile").alignment == 16,
        "tile");
  CHECK(find(k.variables, "sum").space == StateSpace::kShared, "sum");
  CHECK(find(k.variables, "depot").space == StateSpace::kLocal, "depot");
  // A global of a body belongs to the module.
  const std::string counter = k.instructions.at(0).operands.at(1).name;
  CHECK(find(m.variables, counter).initial == words({5}) && counter != "counter", "counter");
}

void test_functions() {
  const Module m = parse(R"(.version 8.10
.target sm_80, debug
.address_size 64
.file 2 "b.cu", 123, 45
.extern .func (.param .b32 r) vprintf(.param .b64 a, .param .b64 b);
.weak .func f(.param .u32 a);
.weak .func (.param .align 16 .b8 r[16]) f(.param .u32 a, .param .b8 b[3]) .noreturn { ret; }
.func bare { ret; }
.alias other, bare;
.visible .entry k(.param .u64 .ptr .global .align 16 a, .param .align 8 .b8 b[24], .param .f32 c)
.reqntid 128 .minnctapersm 3 .maxnreg 64 .pragma "nounroll";
{ ret; }
.entry l() .maxntid 16, 8, 2 { .pragma "nounroll"; }
.entry m {}
.section .debug_info { .b32 5 .b8 1, 2 L: .b64 L+4 { } }
.file 1 "a.cu"
)");
  CHECK(m.version_major == 8 && m.version_minor == 10 && m.target == 80, "the version");
  CHECK(m.files == (std::vector<std::string>{"a.cu", "b.cu"}), "the files");
  CHECK(m.functions.size() == 8, "%zu functions", m.functions.size());
  CHECK(m.functions[0].is_declaration && m.functions[1].is_declaration, "declarations");
  const Function& f = m.functions[2];
  CHECK(!f.is_declaration && !f.is_entry && f.returns.size() == 1 &&
            f.returns[0].size_bytes == 16 && f.returns[0].alignment == 16 &&
            f.parameters.size() == 2 && f.parameters[1].size_bytes == 3,
        "f");
  CHECK(m.functions[4].name == "other" && m.functions[4].instructions.size() == 1, "the alias");
  const Function& k = m.functions[5];
  CHECK(k.is_entry && k.parameters.size() == 3 && k.parameters[0].alignment == 8 &&
            k.parameters[1].size_bytes == 24 && k.required_threads[0] == 128 &&
            k.required_threads[2] == 1 && k.min_blocks == 3 && k.max_threads[0] == 0,
        "k");
  CHECK(m.functions[6].max_threads[0] == 16 && m.functions[6].max_threads[1] == 8 &&
            m.functions[6].max_threads[2] == 2,
        "l");
}

void test_nvcc_output() {
  const std::string text = test::kNvccOutput;
  const Module m = parse(text);
  CHECK(m.version_major == 9 && m.target == 80 && m.functions.size() == 2 &&
            m.variables.size() == 4 && m.files.at(0) == "kernel.cu",
        "the module");
  const Function& k = m.functions.at(1);
  CHECK(k.name == "kernel" && k.max_threads[0] == 256 && k.min_blocks == 2 &&
            k.labels.count("DONE") == 1 && k.labels.count("DONE$1") == 1,
        "the kernel");
  // Lines, of the text and of the source.
  const auto barrier = std::find_if(k.instructions.begin(), k.instructions.end(),
                                    [](const Instruction& i) { return i.opcode == "bar"; });
  const auto line =
      1 + std::count(text.begin(), text.begin() + static_cast<long>(text.find("bar.sync")), '\n');
  CHECK(barrier->line == line && barrier->source_line == 13, "lines %d and %d", barrier->line,
        barrier->source_line);
  const auto call = std::find_if(k.instructions.begin(), k.instructions.end(),
                                 [](const Instruction& i) { return i.opcode == "call"; });
  CHECK(to_string(*call) == "call.uni {retval0}, _Z6helperf4Args, {param0, param1}", "the call");
}

void test_inlined_locations() {
  const Function f = parse_body(
      ".loc 1 7 3\nret;\n.loc 1 20 5, function_name $L__info_string0, inlined_at 1 8 3\nret;\n"
      ".loc 2 21 5, function_name $L__info_string0+12, inlined_at 1 9 3 ret;");
  CHECK(f.instructions.at(0).source_line == 7 && f.instructions.at(1).source_line == 20 &&
            f.instructions.at(2).source_line == 21 && f.instructions.at(1).line == 9,
        "lines");
}

}  // namespace

int main() {
  test_instructions();
  test_integer_constants();
  test_float_constants();
  test_scopes();
  test_branch_tables();
  test_variables();
  test_functions();
  test_nvcc_output();
  test_inlined_locations();
  std::printf("parser: %d failures\n", altiplano::test::failures);
  return altiplano::test::failures == 0 ? 0 : 1;
}
