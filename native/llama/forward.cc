// The forward pass, top to bottom, for every device. Equations are those of Meta's reference
// (meta-llama/llama, model.py), which computes for each layer
//   h   = x + attention(attention_norm(x))
//   out = h + feed_forward(ffn_norm(h))
// with attention(x) = Wo softmax(rope(Wq x) rope(Wk x)^T / sqrt(d)) Wv x and
// feed_forward(x) = W2 (silu(W1 x) * W3 x). The residual additions stand with the matrix in front
// of them (matmul_add): devices add where they have the product at hand.
#include "llama/forward.h"

#include "util/error.h"

namespace altiplano {

namespace {

// Calls fn(buffer, columns, kind) for each buffer of a workspace.
template <class Fn>
void each_buffer(const Config& c, const Fn& fn) {
  using enum BufferKind;
  const int64_t kv_heads = c.kv_heads, head_dim = c.head_dim;
  fn(&Workspace::x, c.hidden_size, kResidual);
  fn(&Workspace::h, c.hidden_size, kMatmulInput);
  fn(&Workspace::qkv, (c.heads + 2 * kv_heads) * head_dim, kMatmulOutput);
  fn(&Workspace::heads, c.heads * head_dim, kMatmulInput);
  fn(&Workspace::f, c.intermediate_size, kMatmulInput);
}

}  // namespace

Workspace::Workspace(Backend& backend, const Config& c) {
  each_buffer(c, [&](auto buffer, int64_t cols, BufferKind kind) {
    this->*buffer = backend.allocate(c.max_step_tokens, cols, kind);
  });
}

uint64_t Workspace::bytes(const Config& c, const BackendSizes& sizes) {
  uint64_t sum = 0;
  each_buffer(c, [&](auto, int64_t cols, BufferKind kind) {
    sum += sizes.buffer(c.max_step_tokens, cols, kind);
  });
  return sum;
}

void forward(const Config& c, const Weights& w, Backend& b, Workspace& ws,
             const std::atomic<bool>& cancelled) {
  const auto poll = [&] {
    if (cancelled.load(std::memory_order_relaxed)) {
      throw Error("ALTIPLANO_ABORTED", "the step was cancelled");
    }
  };
  const Shard shard;  // all of the model
  const float eps = c.rms_norm_eps;

  b.embed(*w.embedding, *ws.x);  // x = E[tokens]
  for (int l = 0; l < c.layers; ++l) {
    const LayerWeights& layer = w.layers[l];
    poll();
    b.rmsnorm(*ws.x, *layer.attention_norm, eps, *layer.qkv, *ws.h);  // h = norm(x)
    b.matmul_qkv(*layer.qkv, *ws.h, *ws.qkv, l);  // q, k, v = W h, rotated; cache k, v
    b.attention(*ws.qkv, l, *ws.heads);
    poll();
    b.matmul_add(*layer.o, *ws.heads, *ws.x);  // x += Wo heads
    b.all_reduce(*ws.x, shard);

    poll();
    b.rmsnorm(*ws.x, *layer.feed_forward_norm, eps, *layer.gate_up, *ws.h);
    b.matmul_silu(*layer.gate_up, *ws.h, *ws.f);  // f = silu(W1 h) * W3 h
    poll();
    b.matmul_add(*layer.down, *ws.f, *ws.x);  // x += W2 f
    b.all_reduce(*ws.x, shard);
  }

  poll();
  b.rmsnorm(*ws.x, *w.final_norm, eps, w.head_or_embedding(), *ws.h);
  b.logits(w.head_or_embedding(), *ws.h);
}

}  // namespace altiplano
