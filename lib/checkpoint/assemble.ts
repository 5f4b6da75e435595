/** From a file's list of tensors to a model: every tensor in its place, with the right shape. */
import { show } from '../errors.js';
import type { TensorNames } from './names.js';
import { invalid, unsupported } from './refuse.js';
import { shapeText, TENSOR_TYPES } from './tensor-types.js';
import type { LayerTensors, LlamaConfig, ModelTensors, TensorSource } from './types.js';

/** Tensors by name, of all of a checkpoint's files. */
export type TensorMap = ReadonlyMap<string, TensorSource>;

/** The shape that each of a layer's tensors must have, outermost first. */
function layerShapes(config: LlamaConfig): Record<keyof LayerTensors, readonly number[]> {
  const { hiddenSize, intermediateSize, heads, kvHeads, headDim } = config;
  return {
    attentionNorm: [hiddenSize],
    q: [heads * headDim, hiddenSize],
    k: [kvHeads * headDim, hiddenSize],
    v: [kvHeads * headDim, hiddenSize],
    o: [hiddenSize, heads * headDim],
    feedForwardNorm: [hiddenSize],
    gate: [intermediateSize, hiddenSize],
    up: [intermediateSize, hiddenSize],
    down: [hiddenSize, intermediateSize],
  };
}

/**
 * Puts tensors into their places.
 *
 * @param path the checkpoint, for messages
 * @throws ALTIPLANO_CHECKPOINT_INVALID if a tensor is missing or has the wrong shape,
 *   ALTIPLANO_CHECKPOINT_UNSUPPORTED if there is one that a Llama model has no place for, or a
 *   quantized norm
 */
export function assembleTensors(
  path: string,
  config: LlamaConfig,
  tensors: TensorMap,
  names: TensorNames,
): ModelTensors {
  const used = new Set<string>();

  const take = (name: string, shape: readonly number[]): TensorSource => {
    const tensor = tensors.get(name);
    if (tensor === undefined) {
      throw invalid(path, `tensor ${show(name)} is missing`, { expected: shapeText(shape) });
    }
    const subject = `${tensor.file}: tensor ${show(name)}`;
    if (shapeText(tensor.shape) !== shapeText(shape)) {
      throw invalid(subject, 'the shape does not fit the configuration', {
        expected: shapeText(shape),
        found: shapeText(tensor.shape),
      });
    }
    if (shape.length === 1 && TENSOR_TYPES[tensor.type].blockElements !== 1) {
      throw unsupported(subject, `a norm of type ${tensor.type} is not supported`, {
        expected: 'F32, F16 or BF16',
      });
    }
    used.add(name);
    return tensor;
  };

  const { hiddenSize, vocabSize } = config;
  const embedding = take(names.embedding, [vocabSize, hiddenSize]);
  const shapes = Object.entries(layerShapes(config)) as [keyof LayerTensors, number[]][];
  const layers = Array.from({ length: config.layers }, (_, index) => {
    const layerNames = names.layer(index);
    return Object.fromEntries(
      shapes.map(([key, shape]) => [key, take(layerNames[key], shape)]),
    ) as unknown as LayerTensors;
  });
  const finalNorm = take(names.finalNorm, [hiddenSize]);
  // Files of tied models may hold the head once more: it is checked, but the embedding counts.
  const head =
    config.tiedEmbeddings && !tensors.has(names.head)
      ? undefined
      : take(names.head, [vocabSize, hiddenSize]);

  for (const name of tensors.keys()) {
    if (!used.has(name) && !names.isIgnored(name)) {
      throw unsupported(path, `tensor ${show(name)} is not part of a Llama model`, {
        expected: `the tensors of ${config.layers} layers without biases`,
      });
    }
  }
  const common = { embedding, layers, finalNorm };
  return config.tiedEmbeddings || head === undefined ? common : { ...common, head };
}
