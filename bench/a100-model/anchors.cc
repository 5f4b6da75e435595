// What is held against published figures, and against the goals.
#include <algorithm>
#include <cstdio>

#include "tables.h"

namespace altiplano::a100 {
namespace {

constexpr int kAnchorLayers = 32;

// Both run gpt-fast's model.py, compiled by torch.compile into a CUDA graph. Counted from that
// source by what Inductor fuses: element-wise work into the reduction behind it, nothing across a
// matrix. Of a layer: 2 residual additions with norm; matrices of q, k, v, of o, of w1, w3 and w2
// (5, gate and up apart); rotation of q; rotation of k into the cache; v into the cache; attention
// in its plain form: scores, mask with softmax, values (3); silu with the product (1).
constexpr int kLayerKernels = 2 + 5 + 3 + 3 + 1;
// Embedding, last norm, head; scaling, top-k, softmax and drawing of the token in about 8; copies
// of token and position.
constexpr int kStepKernels = 3 + 8 + 2;
// Its benchmark: 5 tokens of prompt, 200 made; the cache of 208 is read whole.
constexpr double kAnchorKv = 208 * 512.0 * 1024;

// Its matrices with one vector are sums of products in f32, which Inductor generates: each weight
// is loaded into a register, made a float, multiplied and added. The busiest unit takes one
// instruction of each weight: for f16 the multiply-add (f16 to f32 is as fast), for int8 the
// conversion from an integer, a quarter as fast. docs/a100-model.md names the sources.
constexpr double kAnchorWeights = 6.607e9;  // of the layers and the head

constexpr Anchor kAnchors[] = {{"7B f16, batch 1 (torchao)", 13.2e9, kAnchorKv, kLayerKernels,
                                kStepKernels, kAnchorWeights, kMultiplyAdds, 107},
                               {"7B int8, batch 1 (gpt-fast)", 6.74e9, kAnchorKv, kLayerKernels,
                                kStepKernels, kAnchorWeights, kConversions, 156}};

std::string rounded(double value) { return std::to_string(static_cast<int>(value)); }

StepTime decoding(const Model& model, const Scheme& scheme, KvType kv, int batch, int context) {
  return time_of(launches_of(model, scheme, kv, Step{batch, 1, context - 1}));
}

// A goal: what the fixed constants make of the kernels, and what remains with their waiting.
// `apart`: and if loading and computing did not overlap; 0 where that is not asked.
void print_goal(const std::string& goal, const char* format, double fixed, double waiting,
                double least, double apart = 0) {
  std::printf("| %s |", goal.c_str());
  for (const double found : {fixed, waiting}) {
    std::printf(" ");
    std::printf(format, found);
    std::printf(", %s |", found >= least ? "met" : "MISSED");
  }
  if (apart > 0) {
    std::printf(" ");
    std::printf(format, apart);
  }
  std::printf(" |\n");
}

double token_time(const Anchor& a, double matrices) {
  const int nodes = kAnchorLayers * a.layer_kernels + a.step_kernels;
  // Each token goes through Python before the next.
  return matrices + nodes * kNode + kJavaScript;
}
double loading(const Anchor& a) { return (a.bytes + a.kv) / kBandwidth; }
double computing(const Anchor& a) { return a.weights / a.lanes / kMultiprocessors / kClock; }

}  // namespace

double Anchor::predicted() const {
  return 1 / token_time(*this, loading(*this) + computing(*this));
}
double Anchor::overlapped() const {
  return 1 / token_time(*this, std::max(loading(*this), computing(*this)));
}

void print_anchors() {
  std::printf(
      "| anchor | published | bytes, ms | launches, ms | arithmetic, ms | one after the other: the "
      "check | arithmetic hidden |\n|---|---|---|---|---|---|---|\n");
  for (const Anchor& a : kAnchors) {
    const bool within = a.error() <= 0.15 && a.error() >= -0.15;
    std::printf("| %s | %.0f tok/s | %.2f | %.2f | %.2f | %.0f, %+.0f %%: %s | %.0f, %+.0f %% |\n",
                a.name, a.published, loading(a) * 1e3, token_time(a, 0) * 1e3, computing(a) * 1e3,
                a.predicted(), 100 * a.error(), within ? "within 15 %" : "NOT within 15 %",
                a.overlapped(), 100 * (a.overlapped() / a.published - 1));
  }
}

void print_published() {
  const auto speed = [&](const Scheme& scheme, int batch, int context) {
    return batch / decoding(k7B, scheme, KvType::kF16, batch, context).graph();
  };
  const auto matrices = [&](const Scheme& scheme, int tokens) {
    return layers_time(k7B, scheme, tokens);
  };
  const LayersTime w8a8 = matrices(kW8A8, 2048);
  const double prompt = time_of(launches_of(k7B, kF16, KvType::kF16, Step{1, 2048, 0})).graph();
  std::printf("| 7B | published | these kernels in the model |\n|---|---|---|\n");
  std::printf("| f16, batch 1 | 107 tok/s (torchao) | %.0f, context 128 |\n", speed(kF16, 1, 128));
  std::printf("| int8, batch 1 | 156 tok/s (gpt-fast) | %.0f, context 128 |\n",
              speed(kInt8, 1, 128));
  std::printf("| int4, batch 1 | 239 tok/s (LMDeploy) | %.0f, context 128, g128 |\n",
              speed(kInt4G128, 1, 128));
  std::printf("| int4, batch 64 | 4762 tok/s (LMDeploy) | %.0f, context 512, g128 |\n",
              speed(kInt4G128, 64, 512));
  std::printf("| f16, prompt of 2048 | 15.4k tok/s (TensorRT-LLM) | %.1fk |\n",
              2048 / prompt * 1e-3);
  std::printf("| int4 matrices over f16, batch 16 | 2.2x (Marlin) | %.1fx, g128 |\n",
              matrices(kF16, 16).seconds() / matrices(kInt4G128, 16).seconds());
  std::printf("| W8A8 matrices | 490 to 508 TOPS (SGLang, vLLM) | %.0f, 2048 tokens |\n",
              w8a8.rate());
}

void print_goals() {
  std::printf(
      "| goal | by the fixed constants | with the waiting | and if nothing overlapped "
      "|\n|---|---|---|---|\n");
  for (const Scheme* scheme : {&kInt4G32, &kInt4G128, &kF16}) {
    const double least = scheme == &kF16 ? 125 : 320;
    for (const int context : {128, 1024}) {
      const StepTime t = decoding(k7B, *scheme, KvType::kF16, 1, context);
      print_goal("7B " + std::string(scheme->name) + ", batch 1, context " +
                     std::to_string(context) + ": at least " + rounded(least) + " tok/s",
                 "%.0f", 1 / t.fixed(), 1 / t.graph(), least, 1 / t.apart());
    }
  }
  for (const Scheme* scheme : {&kInt4G32, &kInt4G128}) {
    for (const int tokens : {1, 8, 16}) {
      const LayersTime f16 = layers_time(k7B, kF16, tokens);
      const LayersTime int4 = layers_time(k7B, *scheme, tokens);
      print_goal("7B " + std::string(scheme->name) + " matrices, batch " + std::to_string(tokens) +
                     ": at least 3.3x f16",
                 "%.2fx", f16.fixed / int4.fixed, f16.seconds() / int4.seconds(), 3.3,
                 f16.apart() / int4.apart());
    }
  }
  for (const Scheme* scheme : {&kF16, &kInt8, &kInt4G32, &kInt4G128, &kW8A8}) {
    const double least = scheme == &kW8A8 ? 450 : 200;
    for (const int tokens : {128, 256, 2048}) {
      const LayersTime t = layers_time(k7B, *scheme, tokens);
      print_goal("7B " + std::string(scheme->name) + " matrices, batch " + std::to_string(tokens) +
                     ": at least " + rounded(least) + " TFLOP/s",
                 "%.0f", t.operations / t.fixed * 1e-12, t.rate(), least);
    }
  }
}

void print_attention() {
  constexpr int kBatches[] = {1, 8, 64}, kContexts[] = {1024, 4096};
  std::printf("| |");
  for (const int context : kContexts) {
    for (const int batch : kBatches) std::printf(" %d x %dk |", batch, context / 1024);
  }
  std::printf("\n|---|---|---|---|---|---|---|\n");
  for (const Model& model : kModels) {
    for (const KvType kv : {KvType::kF16, KvType::kInt8}) {
      std::printf("| %s, KV %s |", model.name, kv == KvType::kF16 ? "f16" : "int8");
      for (const int context : kContexts) {
        for (const int batch : kBatches) {
          const auto launches = launches_of(model, kF16, kv, Step{batch, 1, context - 1});
          const Launch& a = *std::find_if(launches.begin(), launches.end(), [](const Launch& l) {
            return l.kind == LaunchKind::kAttention;
          });
          const double fixed = a.work + kNode;
          std::printf(" %.0f / %.0f |", 100 * a.bytes / fixed / kPeakBandwidth,
                      100 * a.bytes / (fixed + a.waiting) / kPeakBandwidth);
        }
      }
      std::printf("\n");
    }
  }
}

}  // namespace altiplano::a100
