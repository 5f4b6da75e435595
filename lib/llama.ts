// The published types name Symbol.asyncDispose, which ES2022 does not have.
/// <reference lib="esnext.disposable" preserve="true" />
/** The public object: a loaded model that chats and generates. */
import { join, resolve } from 'node:path';
import { onAbort } from './abort.js';
import { type ChatFormat, llama2Format } from './chat/llama2.js';
import type { ChatMessage } from './chat/messages.js';
import { type Checkpoint, type LlamaConfig, openCheckpoint } from './checkpoint/index.js';
import { cpuInfo } from './cpu-info.js';
import { availableGpuBytes, chooseGpu } from './devices.js';
import { AltiplanoError, aborted, invalidArgument, outOfRange, show } from './errors.js';
import { formatBytes } from './format-bytes.js';
import { GenerateTask } from './generation/generate-task.js';
import type { Generation } from './generation/output.js';
import { Scheduler, type SchedulerStats } from './generation/scheduler.js';
import {
  checkMemory,
  type LoadPlan,
  type ModelMemory,
  neededBytes,
  planLoad,
} from './load-plan.js';
import {
  type Activations,
  fromNative,
  type KvType,
  type NativeEngine,
  native,
  packageRoot,
} from './native.js';
import {
  type ChatOptions,
  type GenerateOptions,
  type LoadOptions,
  type ResolvedLoadOptions,
  resolveGenerateOptions,
  resolveLoadOptions,
} from './options.js';
import { type Perplexity, type PerplexityOptions, perplexityOf } from './perplexity.js';
import { type StreamingDecoder, Tokenizer } from './tokenizer/index.js';

/** What was loaded, and how. */
export interface LlamaInfo {
  /** The folder or file. */
  path: string;
  name: string;
  format: 'safetensors' | 'gguf';
  config: LlamaConfig;
  /** How the layers' weights are kept, for instance "bf16" or "int4 (group 32)". */
  weights: string;
  /** "cpu", or a GPU such as "cuda:0". */
  device: 'cpu' | `cuda:${number}`;
  /** The GPU's name; undefined on the CPU. */
  deviceName: string | undefined;
  /** What activations are multiplied as: on the CPU with int8 and int4 weights, else with all. */
  activations: Activations;
  /** Element type of the KV cache. */
  kv: KvType;
  /** The longest sequence, in tokens. */
  contextTokens: number;
  /** Tokens that the KV cache holds for all sequences together. */
  kvCacheTokens: number;
  threads: number;
  /** The kernel table: "portable", "avx2", "avxvnni" or "avx512"; of a GPU for instance "sm_80". */
  isa: string;
  chatFormat: 'llama2' | 'template' | 'none';
  memory: ModelMemory;
  loadMs: number;
}

/** What loading would take, all in bytes. */
export interface MemoryEstimate extends ModelMemory {
  totalBytes: number;
  /** Memory that can be had without swapping; of a GPU, what is free. */
  availableBytes: number;
  /** Where the model would run. */
  device: 'cpu' | `cuda:${number}`;
  contextTokens: number;
  kvCacheTokens: number;
  weights: string;
  kv: KvType;
}

/** More than any context; a longer array is a mistake, and its copy might not fit the heap. */
const MOST_PROMPT_TOKENS = 2 ** 26;

/** Milliseconds between reports of progress. */
const PROGRESS_INTERVAL_MS = 50;

/** The small model that comes with the package. */
export const DEMO_MODEL_PATH = join(packageRoot, 'models', 'demo');

function checkSource(source: unknown): string {
  if (source === undefined) return DEMO_MODEL_PATH;
  if (typeof source === 'string' && source !== '') return resolve(source);
  throw invalidArgument('must be a path', {
    subject: 'source',
    expected: 'a Hugging Face folder or a GGUF file',
    found: show(source),
  });
}

/**
 * What a checkpoint would take in memory; nothing is loaded.
 * @param source a Hugging Face folder or a GGUF file; default: the demo model
 * @throws as {@link Llama.load}, but for memory
 */
export async function estimateMemory(
  source?: string,
  options?: LoadOptions,
): Promise<MemoryEstimate> {
  const resolved = resolveLoadOptions(options);
  const checkpoint = await openCheckpoint(checkSource(source));
  const plan = await planOnDevice(checkpoint, resolved);
  const { memory, place, contextTokens, kvCacheTokens, weights, spec } = plan;
  return {
    ...memory,
    totalBytes: neededBytes(plan),
    availableBytes: place.availableBytes,
    device: place.gpu === null ? 'cpu' : `cuda:${place.gpu.index}`,
    contextTokens,
    kvCacheTokens,
    weights,
    kv: spec.kv,
  };
}

/** The plan on the device that the options choose; `auto` takes the CPU if no GPU has the room. */
async function planOnDevice(
  checkpoint: Checkpoint,
  options: ResolvedLoadOptions,
): Promise<LoadPlan> {
  const gpu = await chooseGpu(options);
  if (gpu === null) return planLoad(checkpoint, options);
  const availableBytes = await availableGpuBytes(gpu);
  const plan = planLoad(checkpoint, options, { gpu, availableBytes });
  if (options.device !== 'auto' || neededBytes(plan) <= availableBytes) return plan;
  const onCpu = planLoad(checkpoint, options);
  const warning =
    `${checkpoint.name} runs on the CPU: it takes ${formatBytes(neededBytes(plan))}, and of ` +
    `cuda:${gpu.index} (${gpu.name}) ${formatBytes(availableBytes)} are available.`;
  return { ...onCpu, warnings: [...onCpu.warnings, warning] };
}

/**
 * A loaded Llama model. Calls of `chat` and `generate` may overlap: they share the model's steps, and
 * each gets exactly what it would get alone.
 */
export class Llama {
  readonly info: LlamaInfo;
  readonly #engine: NativeEngine;
  readonly #scheduler: Scheduler;
  readonly #checkpoint: Checkpoint;
  readonly #tokenizer: Tokenizer | undefined;
  readonly #chatFormat: ChatFormat | undefined;
  readonly #endIds: ReadonlySet<number>;
  #disposed: Promise<void> | undefined;

  private constructor(
    engine: NativeEngine,
    checkpoint: Checkpoint,
    plan: LoadPlan,
    tokenizer: Tokenizer | undefined,
    chatFormat: ChatFormat | undefined,
    loadMs: number,
  ) {
    const { spec } = plan;
    const { gpu } = plan.place;
    this.#engine = engine;
    this.#checkpoint = checkpoint;
    this.#tokenizer = tokenizer;
    this.#chatFormat = chatFormat;
    this.#endIds = new Set(tokenizer?.eosId === undefined ? [] : [tokenizer.eosId]);
    this.#scheduler = new Scheduler(engine, {
      pages: spec.kvPages,
      pageTokens: native().kvPageTokens,
      vocabSize: spec.vocabSize,
      maxStepTokens: spec.maxStepTokens,
      stepsInFlight: 2,
    });
    this.info = {
      path: checkpoint.path,
      name: checkpoint.name,
      format: checkpoint.format,
      config: checkpoint.config,
      weights: plan.weights,
      device: gpu === null ? 'cpu' : `cuda:${gpu.index}`,
      deviceName: gpu?.name,
      activations: spec.activations,
      kv: spec.kv,
      contextTokens: plan.contextTokens,
      kvCacheTokens: plan.kvCacheTokens,
      threads: spec.threads,
      isa: gpu === null ? cpuInfo().selected : `sm_${gpu.computeCapability.replace('.', '')}`,
      chatFormat: chatFormat?.kind ?? 'none',
      memory: plan.memory,
      loadMs,
    };
  }

  /**
   * Loads a model.
   * @param source a Hugging Face folder (safetensors) or a GGUF file; default: the demo model
   * @throws TypeError, RangeError for options; ALTIPLANO_FILE_NOT_FOUND, ALTIPLANO_FILE_READ,
   *   ALTIPLANO_CHECKPOINT_INVALID, ALTIPLANO_CHECKPOINT_UNSUPPORTED, ALTIPLANO_TOKENIZER_INVALID,
   *   ALTIPLANO_TOKENIZER_UNSUPPORTED, ALTIPLANO_CHAT_TEMPLATE for files; ALTIPLANO_OUT_OF_MEMORY
   *   (with the numbers) before anything is allocated (without `contextTokens`, a context that is too
   *   long for the memory is shortened instead, with a warning); ALTIPLANO_ABORTED (an `AbortError`)
   *   by `signal`; ALTIPLANO_DEVICE_UNAVAILABLE, ALTIPLANO_CUDA_FAILED,
   *   ALTIPLANO_NATIVE_MISSING
   */
  static async load(source?: string, options?: LoadOptions): Promise<Llama> {
    const start = performance.now();
    const resolved = resolveLoadOptions(options);
    const { signal } = resolved;
    const path = checkSource(source);
    const checkAborted = () => {
      if (signal?.aborted) throw aborted(`loading ${path}`, signal.reason);
    };
    checkAborted();
    const checkpoint = await openCheckpoint(path, signal ? { signal } : {});
    checkAborted();
    const makeTokenizer = checkpoint.tokenizer && (await Tokenizer.read(checkpoint.tokenizer));
    checkAborted();
    const plan = await planOnDevice(checkpoint, resolved);
    checkAborted();
    resolved.onProgress?.(progress('plan', 0, plan));
    checkAborted();
    checkMemory(plan, path);
    const { engine, text } = await loadEngine(plan, resolved, path, async () => {
      const tokenizer = makeTokenizer?.();
      const chatFormat = tokenizer && (await makeChatFormat(tokenizer, checkpoint.chatTemplate));
      return { tokenizer, chatFormat };
    });
    for (const warning of [...checkpoint.warnings, ...plan.warnings]) {
      process.emitWarning(warning, 'AltiplanoWarning');
    }
    try {
      checkAborted(); // it may have come with the last bytes
      resolved.onProgress?.(progress('ready', plan.fileBytes, plan));
    } catch (error) {
      await engine.dispose();
      throw error;
    }
    const loadMs = performance.now() - start;
    return new Llama(engine, checkpoint, plan, text.tokenizer, text.chatFormat, loadMs);
  }

  /** @throws ALTIPLANO_TOKENIZER_UNSUPPORTED if the checkpoint brings no tokenizer */
  get tokenizer(): Tokenizer {
    if (this.#tokenizer === undefined) {
      throw new AltiplanoError('ALTIPLANO_TOKENIZER_UNSUPPORTED', 'brings no tokenizer', {
        subject: this.info.path,
        hint: 'Pass token ids instead of text',
      });
    }
    return this.#tokenizer;
  }

  /** What the scheduler is doing. */
  get stats(): SchedulerStats {
    return this.#scheduler.stats;
  }

  /**
   * The token ids that a conversation becomes, BOS included, ready for an answer.
   * @throws ALTIPLANO_CHAT_INVALID, ALTIPLANO_CHAT_INJECTION, ALTIPLANO_CHAT_TEMPLATE
   */
  chatTokens(messages: readonly ChatMessage[]): number[] {
    const format = this.#chatFormat ?? llama2Format(this.tokenizer);
    return format.encode(messages);
  }

  /**
   * Answers a conversation. The text is the answer as Meta's reference decodes it: without the space
   * before its first word.
   * @throws at once what {@link chatTokens} and {@link generate} throw
   */
  chat(messages: readonly ChatMessage[], options?: ChatOptions): Generation {
    this.#checkUsable();
    return this.#submit(this.chatTokens(messages), options, false);
  }

  /**
   * Continues a prompt. The text is what follows the prompt: prompt and text together are what all
   * tokens decode to.
   * @param prompt text, which BOS is put before, or token ids, which are used as they are
   * @throws at once TypeError, RangeError for arguments; ALTIPLANO_CONTEXT_OVERFLOW if the prompt
   *   leaves no room in the context; ALTIPLANO_KV_CACHE_TOO_SMALL if the request could never fit;
   *   ALTIPLANO_DISPOSED
   */
  generate(prompt: string | readonly number[], options?: GenerateOptions): Generation {
    this.#checkUsable();
    return this.#submit(this.#promptTokens(prompt), options, true);
  }

  /**
   * The perplexity of a text: exp of the mean negative log-likelihood of its tokens after the first.
   * @param text text, which BOS is put before, or token ids
   * @throws TypeError, RangeError for arguments; ALTIPLANO_ABORTED; ALTIPLANO_DISPOSED
   */
  async perplexity(
    text: string | readonly number[],
    options?: PerplexityOptions,
  ): Promise<Perplexity> {
    this.#checkUsable();
    const windowTokens = Math.min(this.info.contextTokens, this.#scheduler.capacityTokens);
    const tokens = this.#promptTokens(text, 'text');
    this.#checkTokens(tokens, 'text');
    return perplexityOf(this.#scheduler, tokens, windowTokens, options);
  }

  /** Frees everything; requests that run fail with ALTIPLANO_DISPOSED. Idempotent. */
  dispose(): Promise<void> {
    this.#disposed ??= (async () => {
      await this.#scheduler.close(this.#disposedError());
      await this.#engine.dispose();
    })();
    return this.#disposed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose();
  }

  #disposedError(): AltiplanoError {
    return new AltiplanoError('ALTIPLANO_DISPOSED', 'the model was disposed', {
      subject: this.info.path,
    });
  }

  #checkUsable(): void {
    if (this.#disposed !== undefined) throw this.#disposedError();
  }

  #promptTokens(prompt: string | readonly number[], subject = 'prompt'): number[] {
    if (typeof prompt === 'string') {
      const { bosId } = this.tokenizer;
      return [...(bosId === undefined ? [] : [bosId]), ...this.tokenizer.encode(prompt)];
    }
    if (Array.isArray(prompt) || ArrayBuffer.isView(prompt)) {
      if (prompt.length > MOST_PROMPT_TOKENS) {
        throw outOfRange('is too long', {
          subject,
          expected: `at most ${MOST_PROMPT_TOKENS} tokens`,
          found: `${prompt.length} tokens`,
        });
      }
      return Array.from(prompt);
    }
    throw invalidArgument('must be text or token ids', {
      subject,
      expected: 'a string or an array of numbers',
      found: show(prompt),
    });
  }

  #submit(
    prompt: readonly number[],
    options: GenerateOptions | undefined,
    continuesText: boolean,
  ): Generation {
    const { vocabSize } = this.info.config;
    const resolved = resolveGenerateOptions(options, this.#checkpoint.generation, vocabSize);
    this.#checkTokens(prompt, 'prompt');
    const task = new GenerateTask({
      prompt,
      options: resolved,
      vocabSize,
      mostNewTokens: this.#mostNewTokens(prompt.length, resolved.maxTokens),
      endIds: new Set([...(resolved.ignoreEos ? [] : this.#endIds), ...resolved.stopTokens]),
      decoder: this.#tokenizer && decoderFor(this.#tokenizer, continuesText ? prompt : []),
      remove: (self) => this.#scheduler.remove(self),
    });
    if (resolved.signal?.aborted) task.abort();
    else this.#scheduler.add(task);
    return task.output;
  }

  #checkTokens(tokens: readonly number[], subject: string): void {
    const { vocabSize } = this.info.config;
    if (tokens.length === 0) {
      throw outOfRange('is empty', { subject, expected: 'at least one token' });
    }
    const wrong = tokens.findIndex((id) => !(Number.isInteger(id) && id >= 0 && id < vocabSize));
    if (wrong !== -1) {
      throw outOfRange('is not a token of this model', {
        subject: `${subject}[${wrong}]`,
        expected: `an integer from 0 to ${vocabSize - 1}`,
        found: show(tokens[wrong]),
      });
    }
  }

  /** How many tokens may follow a prompt. */
  #mostNewTokens(promptTokens: number, maxTokens: number): number {
    const { contextTokens, kvCacheTokens } = this.info;
    if (promptTokens >= contextTokens) {
      throw new AltiplanoError('ALTIPLANO_CONTEXT_OVERFLOW', 'is too long for the context', {
        subject: 'prompt',
        expected: `at most ${contextTokens - 1} tokens`,
        found: `${promptTokens} tokens`,
        hint: 'Shorten it, or load the model with larger contextTokens',
      });
    }
    const mostNewTokens = Math.min(maxTokens, contextTokens - promptTokens);
    // The last token's keys and values are never needed.
    const neededTokens = promptTokens + (maxTokens === Infinity ? 1 : mostNewTokens) - 1;
    if (neededTokens > kvCacheTokens) {
      throw new AltiplanoError('ALTIPLANO_KV_CACHE_TOO_SMALL', 'can never fit the KV cache', {
        subject: 'the request',
        expected: `at most ${kvCacheTokens} tokens`,
        found: `${neededTokens} tokens`,
        hint: 'Shorten the prompt or maxTokens, or load the model with larger kvCacheTokens',
      });
    }
    return Math.min(mostNewTokens, kvCacheTokens - promptTokens + 1);
  }
}

/**
 * A decoder for the model's ids. Models may have more ids than their tokenizer (embeddings are
 * padded to round sizes): those have no text.
 */
function decoderFor(tokenizer: Tokenizer, context: readonly number[]): StreamingDecoder {
  const hasText = (id: number) => id < tokenizer.vocabSize;
  const decoder = tokenizer.decoder(context.filter(hasText));
  return {
    push: (id) => (hasText(id) ? decoder.push(id) : ''),
    end: () => decoder.end(),
  };
}

function progress(phase: 'plan' | 'weights' | 'ready', doneBytes: number, plan: LoadPlan) {
  return { phase, doneBytes, totalBytes: plan.fileBytes, memory: plan.memory };
}

/** The chat format of a checkpoint. What reads templates is imported for those that bring one. */
async function makeChatFormat(tokenizer: Tokenizer, template?: string): Promise<ChatFormat> {
  if (template === undefined) return llama2Format(tokenizer);
  const { createChatFormat } = await import('./chat/format.js');
  return createChatFormat({ tokenizer, template });
}

/**
 * Loads the weights, with progress; on failure nothing stays allocated.
 * @param prepareText what else is to be made ready, here, while native threads load
 */
async function loadEngine<Text>(
  plan: LoadPlan,
  { onProgress, signal }: ResolvedLoadOptions,
  path: string,
  prepareText: () => Promise<Text>,
): Promise<{ engine: NativeEngine; text: Text }> {
  const engine = new (native().Engine)();
  const stopListening = onAbort(signal, () => engine.cancel());
  let failure: { error: unknown } | undefined;
  const fail = (error: unknown) => {
    failure ??= { error };
    clearInterval(timer);
    engine.cancel();
  };
  const timer = setInterval(() => {
    try {
      onProgress?.(progress('weights', engine.progress().doneBytes, plan));
    } catch (error) {
      fail(error); // the caller's own error ends the load
    }
  }, PROGRESS_INTERVAL_MS);
  try {
    const weights = engine.load(plan.spec);
    const prepared = prepareText().catch(fail);
    await weights;
    const text = await prepared;
    if (failure !== undefined) throw failure.error; // it may have come with the last bytes
    return { engine, text: text as Text };
  } catch (thrown) {
    await engine.dispose();
    if (failure !== undefined) throw failure.error;
    if (signal?.aborted) throw aborted(`loading ${path}`, signal.reason);
    throw fromNative(thrown);
  } finally {
    clearInterval(timer);
    stopListening();
  }
}
