/** Inverse frequencies of the rotary embedding. */
import type { LlamaConfig, RopeScaling } from './checkpoint/types.js';

/**
 * Angle per position of each rotary pair, [headDim / 2]: theta^(-2i / headDim), scaled.
 * Sources: RoFormer (arXiv:2104.09864); linear scaling: position interpolation (arXiv:2306.15595);
 * llama3: `apply_scaling` in Meta's llama-models.
 */
export function inverseFrequencies(
  config: Pick<LlamaConfig, 'headDim' | 'ropeTheta' | 'ropeScaling'>,
): Float64Array {
  const { headDim, ropeTheta, ropeScaling } = config;
  return Float64Array.from({ length: headDim / 2 }, (_, i) =>
    scale(ropeTheta ** ((-2 * i) / headDim), ropeScaling),
  );
}

function scale(frequency: number, scaling: RopeScaling): number {
  switch (scaling.kind) {
    case 'none':
      return frequency;
    case 'linear':
      return frequency / scaling.factor;
    case 'llama3': {
      // Turns over the original context: many turns are kept, few are stretched, between is a ramp.
      const { factor, lowFreqFactor, highFreqFactor, originalContextTokens } = scaling;
      const turns = (originalContextTokens * frequency) / (2 * Math.PI);
      if (turns > highFreqFactor) return frequency;
      if (turns < lowFreqFactor) return frequency / factor;
      const ramp = (turns - lowFreqFactor) / (highFreqFactor - lowFreqFactor);
      return (1 - ramp) * (frequency / factor) + ramp * frequency;
    }
  }
}
