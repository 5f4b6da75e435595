// Whole steps: decoding, prompts, and what a step consists of.
#include <algorithm>
#include <cstdio>

#include "tables.h"

namespace altiplano::a100 {
namespace {

constexpr int kBatches[] = {1, 8, 64, 256};
constexpr int kContexts[] = {1024, 4096};
constexpr KvType kKvTypes[] = {KvType::kF16, KvType::kInt8};

const char* name_of(KvType kv) { return kv == KvType::kF16 ? "f16" : "int8"; }

double memory_bytes(const Model& m, const Scheme& s, KvType kv, int batch, int context) {
  return weight_bytes(m, s) + embedding_bytes(m, s) + 1.0 * batch * context * kv_bytes(m, kv);
}

// fn(model, scheme, kv) prints the cells of a row.
template <class Fn>
void print_rows(const char* what, const Fn& cell) {
  std::printf("%s\n\n| model | weights | KV |", what);
  for (const int context : kContexts) {
    for (const int batch : kBatches) std::printf(" %d x %dk |", batch, context / 1024);
  }
  std::printf("\n|---|---|---|---|---|---|---|---|---|---|---|\n");
  for (const Model& m : kModels) {
    for (const Scheme& s : kSchemes) {
      for (const KvType kv : kKvTypes) {
        std::printf("| %s | %s | %s |", m.name, s.name, name_of(kv));
        for (const int context : kContexts) {
          for (const int batch : kBatches) {
            const double bytes = memory_bytes(m, s, kv, batch, context);
            if (bytes > kMemoryBytes) {
              std::printf(" (%.0f GB) |", bytes * 1e-9);
            } else {
              cell(m, s, kv, batch, context);
            }
          }
        }
        std::printf("\n");
      }
    }
  }
}

// The steps that read prompts of `context` tokens: of short ones several at a time, of long ones
// a part at a time. fn(step, how often)
template <class Fn>
void each_prompt_step(int batch, int context, const Fn& fn) {
  const int at_once = std::max(1, std::min(batch, kStepTokens / context));
  const int tokens = std::min(context, kStepTokens);
  for (int past = 0; past < context; past += tokens) {
    fn(Step{at_once, tokens, past}, batch / at_once);
  }
}

}  // namespace

void print_decode_table() {
  print_rows(
      "Decoding, batch x context: ms of a step, tok/s of all sequences, and the share of the "
      "physical bound. In brackets: does not fit into 80 GB.",
      [](const Model& m, const Scheme& s, KvType kv, int batch, int context) {
        const Step step{batch, 1, context - 1};
        const double seconds = time_of(launches_of(m, s, kv, step)).graph();
        std::printf(" %.2f, %.0f, %.0f %% |", seconds * 1e3, batch / seconds,
                    100 * bound(m, s, kv, step) / seconds);
      });
}

void print_prefill_table() {
  print_rows(
      "Prompts, sequences x tokens, in steps of up to 2048 tokens: ms of all, tok/s, and the share "
      "of the physical bound.",
      [](const Model& m, const Scheme& s, KvType kv, int batch, int context) {
        double seconds = 0, least = 0;
        each_prompt_step(batch, context, [&](const Step& step, int times) {
          seconds += times * time_of(launches_of(m, s, kv, step)).graph();
          least += times * bound(m, s, kv, step);
        });
        std::printf(" %.0f, %.0f, %.0f %% |", seconds * 1e3, batch * context / seconds,
                    100 * least / seconds);
      });
}

void print_parts() {
  std::printf(
      "| model | weights | batch x context | matrices | attention | other kernels | launches, each "
      "2 µs | by the fixed constants | waiting | step | where one samples |\n"
      "|---|---|---|---|---|---|---|---|---|---|---|\n");
  for (const Model& m : kModels) {
    for (const Scheme& s : kSchemes) {
      for (const Step& step : {Step{1, 1, 1023}, Step{64, 1, 1023}}) {
        if (memory_bytes(m, s, KvType::kF16, step.sequences, 1024) > kMemoryBytes) continue;
        const StepTime t = time_of(launches_of(m, s, KvType::kF16, step));
        std::printf(
            "| %s | %s | %d x 1k | %.2f | %.2f | %.2f | %d: %.2f | %.2f | %.2f | %.2f | %.2f |\n",
            m.name, s.name, step.sequences, t.matmul * 1e3, t.attention * 1e3,
            (t.small + t.copies) * 1e3, t.nodes, t.nodes * kNode * 1e3, t.fixed() * 1e3,
            t.waiting * 1e3, t.graph() * 1e3, t.sampled() * 1e3);
      }
    }
  }
}

void print_launches() {
  const auto list = launches_of(k7B, kInt4G128, KvType::kF16, Step{1, 1, 1023});
  constexpr size_t kBefore = 3, kOfLayer = 7, kAfter = 4;
  std::printf("| launch | work, µs | waiting, µs |\n|---|---|---|\n");
  for (size_t i = 0; i < list.size(); ++i) {
    if (i == kBefore + kOfLayer) std::printf("| ... 31 more layers | | |\n");
    if (i >= kBefore + kOfLayer && i + kAfter < list.size()) continue;
    std::printf("| %s | %.1f | %.1f |\n", list[i].name.c_str(), list[i].work * 1e6,
                list[i].waiting * 1e6);
  }
}

}  // namespace altiplano::a100
