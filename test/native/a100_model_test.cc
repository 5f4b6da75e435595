// The performance model of the A100 (bench/a100-model), held against numbers worked out by hand.
#include "check.h"
#include "tables.h"

namespace altiplano::test {
namespace {

using namespace a100;
using cuda::AttentionItem;
using cuda::MatmulKind;

// `expected` is given to four or five digits.
void check_near(const char* what, double found, double expected) {
  CHECK(std::abs(found - expected) <= 2e-4 * expected, "%s: %g, by hand %g", what, found, expected);
}

AttentionShape shape(int heads, int kv_heads, KvType kv) {
  AttentionShape s;
  s.heads = heads;
  s.kv_heads = kv_heads;
  s.head_dim = 128;
  s.kv_type = kv;
  return s;
}

void test_matmul() {
  // Weights 12288 x 4096 x 2, x 4096 x 2, y 12288 x 2: 100,696,064 bytes at 1835.1 GB/s.
  const MatmulTimes one =
      matmul_times({MatmulKind::kF16, 0, false, 12288, 1, cuda::Epilogue::kStore16}, 4096);
  check_near("bytes of one token", one.memory, 54.872e-6);
  CHECK(std::strcmp(one.limit(), "memory") == 0, "the limit is %s", one.limit());
  // Its tiles are shared. With q, k and v, a position and a rotation are waited for as well.
  check_near("meeting", one.waiting(), 1e-6);
  const MatmulTimes heads =
      matmul_times({MatmulKind::kF16, 0, false, 12288, 1, cuda::Epilogue::kHeads}, 4096);
  check_near("and rotations", heads.waiting(), 1e-6 + 2 * 270 / 1.41e9);
  // 48 x 16 tiles of 64 stages, over 108 blocks: 456 stages for the busiest. A stage is 256 x 128 x
  // 64 multiply-adds, 870.4 a cycle: 2409.4 cycles.
  const MatmulTimes many =
      matmul_times({MatmulKind::kF16, 0, false, 12288, 2048, cuda::Epilogue::kStore16}, 4096);
  check_near("products of many tokens", many.tensor, 456 * 2409.41 / 1.41e9);
  CHECK(std::strcmp(many.limit(), "tensor") == 0, "the limit is %s", many.limit());
}

void test_decode_attention() {
  const AttentionItem item = {0, 1, 0, 1024};
  // 1024 keys x 32 heads x 512 bytes, q and the result 8192 bytes each: 16,793,600. Split in four
  // (216 places / 32 heads: at most six; whole fours of pages): 128 blocks, one wave. Parts: 4 x
  // 130 floats, 2080 bytes at 64 a cycle. Loads in turn: item, page, q; the count, maxima, values.
  const Times one = decode_times(shape(32, 32, KvType::kF16), {item}, 32);
  check_near("one sequence of 7B", one.work, 9.1513e-6 + 0.02305e-6);
  check_near("its waiting", one.waiting, 6 * 270 / 1.41e9);
  // int8: 264 bytes of a key and its value, with two scales.
  check_near("bytes of int8", decode_bytes(shape(32, 32, KvType::kInt8), {item}),
             1024 * 32 * 264 + 16384);
  // 28 sequences x 8 heads: 224 blocks, eight of them in a second wave. Each reads 512 KiB, with 64
  // KiB in flight: 8 us, where eight of 224 shares of the bandwidth take 2.303 us.
  const std::vector<AttentionItem> items(28, item);
  const Times waves = decode_times(shape(64, 8, KvType::kF16), items, 32);
  check_near("a second wave", waves.work, 64.496e-6 - 2.3034e-6 + 8e-6);
}

void test_prefill_attention() {
  const AttentionItem item = {0, 128, 0, 1024};
  // 128 x 1024 scores: 256 multiply-adds of each at 870.4 a cycle, an exponential at 16 a cycle,
  // six instructions at 128 lanes a cycle.
  const double cycles = 38550.6 + 8192 + 6144;
  const AttentionShape s = shape(32, 32, KvType::kF16);
  check_near("a block", prefill_block_cycles(s, item), cycles);
  check_near("one wave, two on a multiprocessor", prefill_work(s, {item}), 2 * cycles / 1.41e9);
  // 7 x 32 = 224 blocks: eight wait for a place.
  check_near("two waves", prefill_work(s, std::vector<AttentionItem>(7, item)),
             4 * cycles / 1.41e9);
  // int8: four warps unpack 2 x 1024 x 128 codes, four at a time, five instructions, 128 lanes.
  check_near("int8", prefill_block_cycles(shape(32, 32, KvType::kInt8), item), cycles + 10240);
}

void test_small_kernels() {
  const Times alone = small_times(1, 864, 32, 0);
  check_near("32 loads in turn", alone.work + alone.waiting, 32 * 270 / 1.41e9);
  const Times rounds = small_times(865, 864, 2, 0);
  check_near("two rounds", rounds.waiting, 4 * 270 / 1.41e9);
  const Times wide = small_times(2048, 864, 1, 1.8351e9);
  CHECK(wide.waiting == 0, "hidden behind bytes, but waits %g", wide.waiting);
  check_near("bytes", wide.work, 1e-3);
}

// forward.cc with the launches of the CUDA backend.
void test_launches() {
  const auto list = launches_of(k7B, kF16, KvType::kF16, {1, 1, 1023});
  const std::vector<std::string> begin = {"inputs to the device",
                                          "embed",
                                          "rmsnorm",
                                          "matmul 12288 x 4096",
                                          "attention_decode",
                                          "matmul 4096 x 4096",
                                          "rmsnorm",
                                          "matmul 22016 x 4096",
                                          "matmul 4096 x 11008",
                                          "rmsnorm",
                                          "matmul 12288 x 4096"};
  const std::vector<std::string> end = {"rmsnorm", "matmul 32000 x 4096", "row_results",
                                        "results to the host"};
  CHECK(list.size() == 2 + 32 * 7 + 4, "%zu launches", list.size());
  for (size_t i = 0; i < begin.size(); ++i) {
    CHECK(list[i].name == begin[i], "%zu: %s", i, list[i].name.c_str());
  }
  for (size_t i = 0; i < end.size(); ++i) {
    const std::string& name = list[list.size() - end.size() + i].name;
    CHECK(name == end[i], "%s, not %s", name.c_str(), end[i].c_str());
  }
  const StepTime time = time_of(list);
  CHECK(time.nodes == 230, "%d nodes", time.nodes);
  // int8 activations: a quantization in front of o and down.
  CHECK(launches_of(k7B, kW8A8, KvType::kF16, {1, 1, 1023}).size() == 230 + 64, "of W8A8");
  // Logits come for 128 rows at a time.
  CHECK(launches_of(k7B, kF16, KvType::kF16, {256, 1, 1023}).size() == 230 + 2, "of 256 rows");
  // Decodes are padded to the next size of a graph, prompts are not.
  const auto operations = [](const Step& step) {
    return launches_of(k7B, kF16, KvType::kF16, step)[3].operations;
  };
  CHECK(operations({5, 1, 1023}) == operations({8, 1, 1023}), "5 tokens are not padded to 8");
  CHECK(operations({1, 65, 0}) < operations({1, 66, 0}), "a prompt is padded");
  // A prompt goes to the other kernel of attention, and the row of its last token is gathered.
  const auto prompt = launches_of(k7B, kF16, KvType::kF16, {1, 64, 0});
  CHECK(prompt[4].name == "attention_prefill", "prompt");
  CHECK(prompt[prompt.size() - 4].name == "gather_rows" && prompt.size() == 231, "prompt: rows");
}

void test_steps() {
  // 32 x 202,375,168 weights of layers, 131,072,000 of the head (int8 where layers are int4).
  check_near("f16 weights", weight_bytes(k7B, kF16), 13214154752);
  check_near("int4 weights", weight_bytes(k7B, kInt4G128), 3339190272 + 133120000);
  CHECK(kv_bytes(k7B, KvType::kF16) == 512 * 1024, "7B: 512 KiB of a token");
  CHECK(kv_bytes(k13B, KvType::kF16) == 800 * 1024, "13B: 800 KiB");
  CHECK(kv_bytes(k70B, KvType::kInt8) == 160 * 1024, "70B, int8: 160 KiB");
  // (13,214,154,752 + 1024 x 524,288) / 2039e9.
  check_near("bound of decoding", bound(k7B, kF16, KvType::kF16, {1, 1, 1023}), 6.7440e-3);
  // A prompt: 2 x 6,476,005,376 x 2048 and 2 x 131,072,000 for the last token; attention 4 x 32 x
  // 4096 x 2048 x 1024.5.
  check_near("bound of a prompt", bound(k7B, kF16, KvType::kF16, {1, 2048, 0}),
             (26.52572e12 + 0.000262e12 + 1.10004e12) / 312e12);
  StepTime time;
  time.matmul = 2e-3, time.attention = 0.5e-3, time.waiting = 0.25e-3, time.nodes = 100;
  check_near("fixed", time.fixed(), 2.7e-3);
  check_near("graph", time.graph(), 2.95e-3);
  check_near("JavaScript", time.sampled(), 2.96e-3);
  // 1 ms of bytes, 50 nodes, 10 us; 2.436 weights a picosecond (16 x 108 x 1.41 GHz): 0.5 ms.
  const Anchor anchor = {"", 1.8351e9, 0, 1, 18, 1.21824e9, 16, 1000};
  check_near("an anchor", anchor.predicted(), 1 / 1.61e-3);
  check_near("its arithmetic hidden", anchor.overlapped(), 1 / 1.11e-3);
  check_near("its error", -anchor.error(), 1 - 1 / 1.61);
}

}  // namespace
}  // namespace altiplano::test

int main() {
  using namespace altiplano::test;
  test_matmul();
  test_decode_attention();
  test_prefill_attention();
  test_small_kernels();
  test_launches();
  test_steps();
  std::printf("%s: %d failures\n", failures == 0 ? "ok" : "FAILED", failures);
  return failures == 0 ? 0 : 1;
}
