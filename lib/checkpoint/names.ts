/** What Llama's tensors are called in each format. Matrices are [out, in] in both. */
import type { LayerTensors } from './types.js';

export interface TensorNames {
  embedding: string;
  finalNorm: string;
  head: string;
  /** Names of a layer's tensors. */
  layer: (index: number) => Record<keyof LayerTensors, string>;
  /** Tensors that some files hold and nobody needs. */
  isIgnored: (name: string) => boolean;
}

export const HUGGING_FACE_NAMES: TensorNames = {
  embedding: 'model.embed_tokens.weight',
  finalNorm: 'model.norm.weight',
  head: 'lm_head.weight',
  layer: (index) => {
    const prefix = `model.layers.${index}`;
    return {
      attentionNorm: `${prefix}.input_layernorm.weight`,
      q: `${prefix}.self_attn.q_proj.weight`,
      k: `${prefix}.self_attn.k_proj.weight`,
      v: `${prefix}.self_attn.v_proj.weight`,
      o: `${prefix}.self_attn.o_proj.weight`,
      feedForwardNorm: `${prefix}.post_attention_layernorm.weight`,
      gate: `${prefix}.mlp.gate_proj.weight`,
      up: `${prefix}.mlp.up_proj.weight`,
      down: `${prefix}.mlp.down_proj.weight`,
    };
  },
  // Old conversions stored the rotary frequencies, which follow from the configuration.
  isIgnored: (name) => name.endsWith('.rotary_emb.inv_freq'),
};

export const GGUF_NAMES: TensorNames = {
  embedding: 'token_embd.weight',
  finalNorm: 'output_norm.weight',
  head: 'output.weight',
  layer: (index) => {
    const prefix = `blk.${index}`;
    return {
      attentionNorm: `${prefix}.attn_norm.weight`,
      q: `${prefix}.attn_q.weight`,
      k: `${prefix}.attn_k.weight`,
      v: `${prefix}.attn_v.weight`,
      o: `${prefix}.attn_output.weight`,
      feedForwardNorm: `${prefix}.ffn_norm.weight`,
      gate: `${prefix}.ffn_gate.weight`,
      up: `${prefix}.ffn_up.weight`,
      down: `${prefix}.ffn_down.weight`,
    };
  },
  isIgnored: (name) => name.endsWith('.attn_rot_embd'),
};
