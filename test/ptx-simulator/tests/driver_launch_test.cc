// The simulated driver: modules, functions, launches and their limits, kernels that fail.
#include <elf.h>

#include <cstddef>

#include "driver_api.h"

namespace driver_test {
namespace {

void test_modules() {
  Context context;
  CUmodule module;
  OK(cuModuleLoadData(&module, kPtx));
  unsigned count = 0;
  OK(cuModuleGetFunctionCount(&count, module));
  CHECK(count == 10, "%u kernels", count);
  std::vector<CUfunction> functions(count);
  OK(cuModuleEnumerateFunctions(functions.data(), count, module));
  const char* name = nullptr;
  OK(cuFuncGetName(&name, functions[0]));
  CHECK(std::string(name) == "add", "%s", name);
  CUfunction add;
  OK(cuModuleGetFunction(&add, module, "add"));
  CHECK(add == functions[0], "one kernel, two handles");
  CUmodule owner;
  OK(cuFuncGetModule(&owner, add));
  CHECK(owner == module, "another module");
  EXPECT(CUDA_ERROR_NOT_FOUND, cuModuleGetFunction(&add, module, "subtract"));

  CUdeviceptr counter;
  size_t bytes;
  OK(cuModuleGetGlobal(&counter, &bytes, module, "counter"));
  CHECK(bytes == 4, "%zu bytes", bytes);
  uint32_t value = 0;
  OK(cuMemcpyDtoH(&value, counter, 4));
  CHECK(value == 7, "first value %u", value);
  OK(cuMemsetD32(counter, 100, 1));
  Buffer out(4);
  CUfunction variables;
  OK(cuModuleGetFunction(&variables, module, "variables"));
  OK_LAUNCH(variables, {.threads = 1}, CUdeviceptr{out});
  CHECK(out.read() == 230, "100 + 30 + 100 is %u", out.read());
  EXPECT(CUDA_ERROR_NOT_FOUND, cuModuleGetGlobal(&counter, &bytes, module, "nothing"));
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemsetD32(counter, 1, 2));  // beyond the variable

  OK(cuModuleUnload(module));
  EXPECT(CUDA_ERROR_INVALID_HANDLE, cuModuleUnload(module));
  EXPECT(CUDA_ERROR_INVALID_HANDLE, cuModuleGetFunction(&add, module, "add"));
  EXPECT_LAUNCH(CUDA_ERROR_INVALID_HANDLE, variables, {.threads = 1}, CUdeviceptr{out});
  CHECK(live().modules == 0, "a module lives");
}

void test_images_that_are_wrong() {
  Context context;
  CUmodule module;
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuModuleLoadData(&module, nullptr));
  EXPECT(CUDA_ERROR_INVALID_IMAGE, cuModuleLoadData(&module, "\1\2\3\4\5\6\7\10"));
  const std::string head = ".version 8.0\n.target sm_80\n.address_size 64\n";
  char errors[200] = "", info[200] = "";
  const auto load = [&](const std::string& text, size_t room) {
    CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
                              CU_JIT_INFO_LOG_BUFFER, CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES};
    void* values[] = {errors, reinterpret_cast<void*>(room), info, reinterpret_cast<void*>(room)};
    return cuda().cuModuleLoadDataEx(&module, text.c_str(), 4, options, values);
  };
  // Not PTX; an instruction that there is not; memory that there is not.
  CUresult code = load(head + ".entry f( { ret; }\n", 200);
  CHECK(code == CUDA_ERROR_INVALID_PTX, "%s", name_of(code).c_str());
  CHECK(std::strstr(errors, "line 4") != nullptr, "log: %s", errors);
  code = load(head + ".visible .entry f() {\n frobnicate.b32 %r1;\n ret;\n}\n", 200);
  CHECK(code == CUDA_ERROR_INVALID_PTX, "%s", name_of(code).c_str());
  CHECK(std::strstr(errors, "line 5") != nullptr, "log: %s", errors);
  code = load(head + ".visible .entry f() {\n frobnicate.b32 %r1;\n ret;\n}\n", 6);
  CHECK(std::strlen(errors) == 5, "a log of 6 bytes: %s", errors);
  code = load(".version 8.0\n.target sm_90\n.address_size 64\n.visible .entry f() { ret; }\n", 200);
  CHECK(code == CUDA_ERROR_NO_BINARY_FOR_GPU, "%s", name_of(code).c_str());
  code = load(head + ".visible .entry f() { ret; }\n", 200);
  CHECK(code == CUDA_SUCCESS && errors[0] == 0 && info[0] != 0, "%s, log: %s",
        name_of(code).c_str(), errors);
  OK(cuModuleUnload(module));
  CHECK(live().modules == 0, "a module lives");
}

template <class T>
void append(std::string& bytes, const T& value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
}

// An ELF file with a section for a kernel, as far as the driver reads one.
std::string cubin(const std::string& kernel, int registers) {
  const std::string names = std::string(1, '\0') + ".text." + kernel + '\0';
  Elf64_Ehdr header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_shoff = sizeof header;
  header.e_shentsize = sizeof(Elf64_Shdr);
  header.e_shnum = 2;
  header.e_shstrndx = 1;
  Elf64_Shdr text{}, strings{};
  text.sh_name = 1;
  text.sh_info = static_cast<uint32_t>(registers) << 24 | 0x12;
  strings.sh_offset = sizeof header + 2 * sizeof text;
  strings.sh_size = names.size();
  std::string bytes;
  append(bytes, header);
  append(bytes, text);
  append(bytes, strings);
  return bytes + names;
}

// A fat binary with machine code for sm_80 and PTX for compute_80 (driver/fatbin.cc).
std::string fat_binary(const std::string& elf, const std::string& ptx) {
  std::string content;
  const auto add = [&](uint16_t kind, std::string body) {
    body.resize((body.size() + 8) / 8 * 8);
    struct {
      uint16_t kind, version = 0x101;
      uint32_t header_bytes = 64;
      uint64_t content_bytes;
      uint32_t unused[3] = {};
      uint32_t target = 80;
      uint64_t more[4] = {};
    } header{.kind = kind, .content_bytes = body.size()};
    static_assert(sizeof header == 64 && offsetof(decltype(header), target) == 28);
    append(content, header);
    content += body;
  };
  add(2, elf);
  add(1, ptx);
  std::string bytes;
  append(bytes, uint32_t{0xba55ed50});
  append(bytes, uint32_t{16u << 16 | 1});
  append(bytes, uint64_t{content.size()});
  return bytes + content;
}

// Machine code tells how many registers a kernel has, and so how large its blocks can be.
void test_fat_binaries() {
  Context context;
  const std::string image = fat_binary(cubin("add", 200), kPtx);
  CUmodule module;
  OK(cuModuleLoadData(&module, image.data()));
  CUfunction add, poke;
  OK(cuModuleGetFunction(&add, module, "add"));
  OK(cuModuleGetFunction(&poke, module, "poke"));
  int value = 0;
  OK(cuFuncGetAttribute(&value, CU_FUNC_ATTRIBUTE_NUM_REGS, add));
  CHECK(value == 200, "%d registers", value);
  OK(cuFuncGetAttribute(&value, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, add));
  CHECK(value == 320, "%d threads", value);  // 65536 / (200 * 32) = 10 warps
  Buffer x(4096);
  OK_LAUNCH(add, {.threads = 320}, CUdeviceptr{x}, CUdeviceptr{x}, 1u, 1u);
  EXPECT_LAUNCH(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, add, {.threads = 321}, CUdeviceptr{x},
                CUdeviceptr{x}, 1u, 1u);
  OK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&value, add, 128, 0));
  CHECK(value == 2, "%d blocks", value);
  OK(cuFuncGetAttribute(&value, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, poke));
  CHECK(value == 1024, "%d threads of a kernel without machine code", value);
  OK(cuModuleUnload(module));
  // An instruction that is unknown only fails the kernel that has it.
  const std::string partly = fat_binary("",
                                        ".version 8.0\n.target sm_80\n.address_size 64\n"
                                        ".visible .entry good() { ret; }\n"
                                        ".visible .entry bad() { frobnicate.b32 1; ret; }\n");
  OK(cuModuleLoadData(&module, partly.data()));
  OK(cuModuleGetFunction(&add, module, "good"));
  EXPECT(CUDA_ERROR_INVALID_PTX, cuModuleGetFunction(&add, module, "bad"));
  OK(cuModuleUnload(module));
  std::string other = image;
  other[4] = 9;  // a version that nobody knows
  EXPECT(CUDA_ERROR_INVALID_IMAGE, cuModuleLoadData(&module, other.data()));
  const std::string alone = cubin("add", 20);
  EXPECT(CUDA_ERROR_NO_BINARY_FOR_GPU, cuModuleLoadData(&module, alone.data()));
}

void test_parameters() {
  Context context;
  Kernels kernels;
  const CUfunction mixed = kernels["mixed"];
  Buffer out(8);
  OK_LAUNCH(mixed, {.threads = 1}, uint8_t{200}, CUdeviceptr{out}, uint16_t{60000}, 7u,
            uint64_t{1} << 40);
  uint64_t sum = 0;
  OK(cuMemcpyDtoH(&sum, out, 8));
  CHECK(sum == (uint64_t{1} << 40) + 60207, "%llu", static_cast<unsigned long long>(sum));
  size_t offset, bytes;
  constexpr size_t kPlaces[][2] = {{0, 1}, {8, 8}, {16, 2}, {20, 4}, {24, 8}};
  for (size_t i = 0; i < 5; ++i) {
    OK(cuFuncGetParamInfo(mixed, i, &offset, &bytes));
    CHECK(offset == kPlaces[i][0] && bytes == kPlaces[i][1], "parameter %zu at %zu, %zu bytes", i,
          offset, bytes);
  }
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuFuncGetParamInfo(mixed, 5, &offset, &bytes));
  // The same through a buffer.
  struct {
    uint8_t a = 1;
    alignas(8) CUdeviceptr out;
    uint16_t b = 2;
    alignas(4) uint32_t c = 3;
    alignas(8) uint64_t d = 4;
  } packed;
  packed.out = out;
  size_t packed_bytes = sizeof packed;
  void* extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, &packed, CU_LAUNCH_PARAM_BUFFER_SIZE,
                   &packed_bytes, CU_LAUNCH_PARAM_END};
  OK(cuLaunchKernel(mixed, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, extra));
  OK(cuMemcpyDtoH(&sum, out, 8));
  CHECK(sum == 10, "%llu", static_cast<unsigned long long>(sum));
  packed_bytes = 20;
  EXPECT(CUDA_ERROR_INVALID_VALUE,
         cuLaunchKernel(mixed, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, extra));
  EXPECT(CUDA_ERROR_INVALID_VALUE,
         cuLaunchKernel(mixed, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr));
  // Arguments are read when the call is made.
  uint32_t turns = 100000, value = 1;
  CUdeviceptr target = out;
  void* arguments[] = {&target, &value, &turns};
  OK(cuLaunchKernel(kernels["slow"], 1, 1, 1, 32, 1, 1, 0, nullptr, arguments, nullptr));
  value = 2;
  CHECK(out.read() == 1, "%u", out.read());
}

void test_limits_of_launches() {
  Context context;
  Kernels kernels;
  const CUfunction bounded = kernels["bounded"], stop = kernels["stop"];
  struct Row {
    CUresult code;
    CUfunction function;
    unsigned grid[3], block[3], dynamic;
  };
  const Row rows[] = {
      {CUDA_SUCCESS, bounded, {1, 1, 1}, {128, 1, 1}, 0},
      {CUDA_SUCCESS, bounded, {3, 2, 2}, {4, 4, 8}, 48 * 1024},
      {CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, bounded, {1, 1, 1}, {129, 1, 1}, 0},
      {CUDA_ERROR_INVALID_VALUE, bounded, {0, 1, 1}, {32, 1, 1}, 0},
      {CUDA_ERROR_INVALID_VALUE, bounded, {1, 1, 1}, {32, 0, 1}, 0},
      {CUDA_ERROR_INVALID_VALUE, bounded, {1, 65536, 1}, {32, 1, 1}, 0},
      {CUDA_ERROR_INVALID_VALUE, bounded, {1, 1, 65536}, {32, 1, 1}, 0},
      {CUDA_ERROR_INVALID_VALUE, bounded, {0x80000000u, 1, 1}, {32, 1, 1}, 0},
      {CUDA_ERROR_INVALID_VALUE, stop, {1, 1, 1}, {1025, 1, 1}, 0},
      {CUDA_ERROR_INVALID_VALUE, stop, {1, 1, 1}, {32, 33, 1}, 0},
      {CUDA_ERROR_INVALID_VALUE, stop, {1, 1, 1}, {1, 1, 65}, 0},
      {CUDA_ERROR_INVALID_VALUE, bounded, {1, 1, 1}, {32, 1, 1}, 48 * 1024 + 1},
      {CUDA_ERROR_INVALID_HANDLE, reinterpret_cast<CUfunction>(&kernels), {1, 1, 1}, {1, 1, 1}, 0},
      {CUDA_ERROR_INVALID_HANDLE, nullptr, {1, 1, 1}, {1, 1, 1}, 0},
  };
  for (const Row& row : rows) {
    const CUresult code =
        cuda().cuLaunchKernel(row.function, row.grid[0], row.grid[1], row.grid[2], row.block[0],
                              row.block[1], row.block[2], row.dynamic, nullptr, nullptr, nullptr);
    CHECK(code == row.code, "row %td: %s", &row - rows, name_of(code).c_str());
  }
  OK(cuCtxSynchronize());
  // Streams of another context.
  CUcontext other;
  OK(cuCtxCreate(&other, nullptr, 0, 0));
  EXPECT_LAUNCH(CUDA_ERROR_INVALID_HANDLE, bounded, {});
  OK(cuCtxDestroy(other));
}

void test_shared_memory() {
  Context context;
  Kernels kernels;
  const CUfunction reverse = kernels["reverse"], racy = kernels["racy"];
  Buffer out(4096);
  OK_LAUNCH(reverse, {.threads = 100, .dynamic_shared_bytes = 400}, CUdeviceptr{out}, 100u);
  CHECK(out.read(0) == 99 && out.read(99) == 0, "%u %u", out.read(0), out.read(99));
  // More than 48 KB only for a function that says so.
  int value = 0;
  OK(cuFuncGetAttribute(&value, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, reverse));
  CHECK(value == 49152, "%d", value);
  EXPECT_LAUNCH(CUDA_ERROR_INVALID_VALUE, reverse, {.dynamic_shared_bytes = 65536},
                CUdeviceptr{out}, 32u);
  OK(cuFuncSetAttribute(reverse, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 163 * 1024));
  OK_LAUNCH(reverse, {.dynamic_shared_bytes = 163 * 1024}, CUdeviceptr{out}, 32u);
  OK(cuCtxSynchronize());
  EXPECT(
      CUDA_ERROR_INVALID_VALUE,
      cuFuncSetAttribute(reverse, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 163 * 1024 + 1));
  EXPECT(CUDA_ERROR_INVALID_VALUE,
         cuFuncSetAttribute(racy, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 163 * 1024));
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuFuncSetAttribute(racy, CU_FUNC_ATTRIBUTE_NUM_REGS, 10));
  OK(cuFuncGetAttribute(&value, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, racy));
  CHECK(value == 4, "static shared memory %d", value);
  CHECK(cuda().ptx_simulator_finding_count() == 0, "%s", cuda().ptx_simulator_finding(0, 0));
}

void test_attributes_and_occupancy() {
  Context context;
  Kernels kernels;
  const CUfunction add = kernels["add"], bounded = kernels["bounded"], reverse = kernels["reverse"];
  int value = 0;
  OK(cuFuncGetAttribute(&value, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, add));
  CHECK(value == 1024, "%d threads", value);
  OK(cuFuncGetAttribute(&value, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, bounded));
  CHECK(value == 128, "%d threads", value);
  OK(cuFuncGetAttribute(&value, CU_FUNC_ATTRIBUTE_NUM_REGS, add));
  CHECK(value >= 8 && value <= 32, "%d registers", value);  // ptxas: 10
  OK(cuFuncGetAttribute(&value, CU_FUNC_ATTRIBUTE_CONST_SIZE_BYTES, add));
  CHECK(value == 16, "%d bytes of constants", value);
  OK(cuFuncGetAttribute(&value, CU_FUNC_ATTRIBUTE_BINARY_VERSION, add));
  CHECK(value == 80, "for %d", value);
  EXPECT(CUDA_ERROR_INVALID_VALUE, cuFuncGetAttribute(&value, CU_FUNC_ATTRIBUTE_MAX, add));

  int blocks = 0;
  OK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, add, 256, 0));
  CHECK(blocks == 8, "%d blocks of 256 threads", blocks);  // 2048 threads
  OK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, add, 32, 0));
  CHECK(blocks == 32, "%d blocks of 32 threads", blocks);
  OK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, reverse, 32, 40 * 1024));
  CHECK(blocks == 4, "%d blocks of 40 KB", blocks);  // 41 KB each with what is reserved, of 164
  OK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, reverse, 32, 64 * 1024));
  CHECK(blocks == 0, "%d blocks of more than the function allows", blocks);
  OK(cuFuncSetAttribute(reverse, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 163 * 1024));
  OK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, reverse, 32, 163 * 1024));
  CHECK(blocks == 1, "%d blocks of 163 KB", blocks);
  size_t bytes = 0;
  OK(cuOccupancyAvailableDynamicSMemPerBlock(&bytes, reverse, 2, 128));
  CHECK(bytes == 81 * 1024, "%zu bytes for two blocks", bytes);
  int grid = 0, block = 0;
  OK(cuOccupancyMaxPotentialBlockSize(&grid, &block, add, nullptr, 0, 0));
  CHECK(block == 1024 && grid == 216, "%d blocks of %d", grid, block);
  OK(cuOccupancyMaxPotentialBlockSize(&grid, &block, add, nullptr, 0, 100));
  CHECK(block <= 100 && grid * block >= 108 * 1536, "%d blocks of %d", grid, block);

  OK(cuLaunchCooperativeKernel(bounded, 108 * 16, 1, 1, 128, 1, 1, 0, nullptr, nullptr));
  EXPECT(CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE,
         cuLaunchCooperativeKernel(bounded, 108 * 16 + 1, 1, 1, 128, 1, 1, 0, nullptr, nullptr));
  CUlaunchAttribute attribute{};
  attribute.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
  attribute.value.clusterDim = {2, 1, 1};
  CUlaunchConfig config{2, 1, 1, 32, 1, 1, 0, nullptr, &attribute, 1};
  EXPECT(CUDA_ERROR_INVALID_CLUSTER_SIZE, cuLaunchKernelEx(&config, bounded, nullptr, nullptr));
  attribute.value.clusterDim = {1, 1, 1};
  OK(cuLaunchKernelEx(&config, bounded, nullptr, nullptr));
  OK(cuCtxSynchronize());
}

// A kernel that fails leaves its context with the error, and only its context.
void test_failures_stay() {
  struct Row {
    const char* kernel;
    uint64_t address;  // 0: of a buffer, + offset
    uint64_t offset;
    CUresult code;
  };
  const Row rows[] = {{"poke", 16, 0, CUDA_ERROR_ILLEGAL_ADDRESS},
                      {"poke", 0, 64, CUDA_ERROR_ILLEGAL_ADDRESS},
                      {"poke", 0, 2, CUDA_ERROR_MISALIGNED_ADDRESS},
                      {"stop", 0, 0, CUDA_ERROR_ILLEGAL_INSTRUCTION}};
  for (const Row& row : rows) {
    Context context;
    Kernels kernels;
    CUdeviceptr buffer, more;
    CUevent event;
    CUstream stream;
    OK(cuMemAlloc(&buffer, 64));
    OK(cuEventCreate(&event, 0));
    OK(cuStreamCreate(&stream, 0));
    const uint64_t address = row.address != 0 ? row.address : buffer + row.offset;
    if (std::string(row.kernel) == "poke")
      OK_LAUNCH(kernels["poke"], {.threads = 1, .stream = stream}, address);
    else
      OK_LAUNCH(kernels["stop"], {.threads = 1, .stream = stream});
    EXPECT(row.code, cuStreamSynchronize(stream));
    EXPECT(row.code, cuCtxSynchronize());
    EXPECT(row.code, cuMemAlloc(&more, 64));
    EXPECT(row.code, cuEventRecord(event, stream));
    EXPECT_LAUNCH(row.code, reinterpret_cast<CUfunction>(1), {});
    uint32_t word;
    EXPECT(row.code, cuMemcpyDtoH(&word, buffer, 4));
    // What is freed is freed, though it says the error.
    EXPECT(row.code, cuMemFree(buffer));
    EXPECT(row.code, cuEventDestroy(event));
    EXPECT(row.code, cuStreamDestroy(stream));
    CHECK(live().allocations == 0 && live().events == 0 && live().streams == 0, "not freed");
    ptx_simulator_report report;
    CHECK(cuda().ptx_simulator_get_report(0, &report) == 0 && report.stopped == 1 &&
              report.findings == 1,
          "no report");
    // Another context works.
    CUcontext other;
    OK(cuCtxCreate(&other, nullptr, 0, 0));
    OK(cuMemAlloc(&more, 64));
    OK(cuMemFree(more));
    OK(cuCtxDestroy(other));
    // The context's kernels are only unloaded.
    EXPECT(row.code, cuModuleUnload(kernels.module()));
  }
}

void test_endless_kernels() {
  cuda().ptx_simulator_set("MOST_INSTRUCTIONS", "100000");
  {
    Context context;
    Kernels kernels;
    Buffer out(4);
    OK_LAUNCH(kernels["slow"], {}, CUdeviceptr{out}, 1u, 0u);  // 2^32 turns
    EXPECT(CUDA_ERROR_LAUNCH_TIMEOUT, cuCtxSynchronize());
  }
  cuda().ptx_simulator_set("MOST_INSTRUCTIONS", "20000000000");
}

// Findings that a kernel survives are no errors.
void test_findings() {
  Context context;
  Kernels kernels;
  Buffer out(4);
  OK_LAUNCH(kernels["racy"], {.threads = 64}, CUdeviceptr{out});
  OK(cuCtxSynchronize());
  ptx_simulator_report report;
  CHECK(cuda().ptx_simulator_report_count() == 1, "%zu reports",
        cuda().ptx_simulator_report_count());
  CHECK(cuda().ptx_simulator_get_report(0, &report) == 0, "no report");
  CHECK(cuda().ptx_simulator_get_report(1, &report) == -1, "a report too many");
  CHECK(std::string(report.kernel) == "racy" && report.block[0] == 64 && report.stopped == 0,
        "%s, %u threads, stopped %d", report.kernel, report.block[0], report.stopped);
  CHECK(report.findings >= 1 && cuda().ptx_simulator_finding_count() == report.findings,
        "%zu findings", static_cast<size_t>(report.findings));
  // 2 warps: ld.param, mov, st.shared, ld.shared, st.global, ret
  CHECK(report.warp_instructions == 12 && report.thread_instructions == 384, "%zu instructions",
        static_cast<size_t>(report.warp_instructions));
  CHECK(report.global_write_sectors == 2, "%zu sectors",
        static_cast<size_t>(report.global_write_sectors));
  const char* text = cuda().ptx_simulator_finding(0, 0);
  const std::string finding = text == nullptr ? "" : text;
  CHECK(finding.find("shared race in kernel racy") == 0, "%s", finding.c_str());
  CHECK(cuda().ptx_simulator_finding(0, 100) == nullptr, "a finding too many");
  const std::string json = cuda().ptx_simulator_report_json(0);
  for (const char* part : {"{\"kernel\":\"racy\",\"grid\":[1,1,1],\"block\":[64,1,1]",
                           "\"warpInstructions\":12,", "\"kind\":\"shared race\"", "\"line\":"})
    CHECK(json.find(part) != std::string::npos, "no %s in %s", part, json.c_str());
  CHECK(json.find('\n') == std::string::npos, "more than a line");
}

}  // namespace
}  // namespace driver_test

int main() {
  using namespace driver_test;  // NOLINT
  return run_all({TEST(test_modules), TEST(test_images_that_are_wrong), TEST(test_fat_binaries),
                  TEST(test_parameters), TEST(test_limits_of_launches), TEST(test_shared_memory),
                  TEST(test_attributes_and_occupancy), TEST(test_failures_stay),
                  TEST(test_endless_kernels), TEST(test_findings)});
}
