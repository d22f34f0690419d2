/** The main loop: a one-step text-to-image generator is distilled from its teacher, or aligned with a reward. */
import { readFile, stat } from 'node:fs/promises'
import path from 'node:path'
import { checkInteger, checkOptions } from '../checks.js'
import { loadCaptionEmbeddings } from '../data/caption-embeddings.js'
import { writeImages } from '../data/images.js'
import { spread } from '../data/spread.js'
import type { Objective } from '../didr/config.js'
import { createDidr, type Didr } from '../didr/didr.js'
import type { DrsOptions } from '../didr/drs-config.js'
import type { Weighting } from '../didr/integral-kl.js'
import { type DidrMetrics, didrStep } from '../didr/step.js'
import type { TimeSampling } from '../didr/time-sampling.js'
import { DidrError, fail } from '../errors.js'
import type { Captions } from '../models/caption-encoder.js'
import { embeddedOr } from '../models/embedded.js'
import {
  everyLinear,
  type LoraGenerator,
  loadLoraGenerator,
  loraGenerator,
} from '../models/lora-generator.js'
import { loadNanoZImage } from '../models/nano-z-image.js'
import { type S3DiT, s3dit } from '../models/s3dit.js'
import type { TextToImage } from '../models/text-to-image.js'
import { loadZImage } from '../models/z-image.js'
import { lora } from '../nn/lora.js'
import { type LoadedReward, type NamedPart, named } from '../rewards/named.js'
import { checkDeviceName, type Device, type DeviceName, device } from '../tensor/device.js'
import { concat } from '../tensor/layout.js'
import type { Tensor } from '../tensor/tensor.js'
import { ShuffledBatches } from './batches.js'
import { type Partly, resolveConfig } from './config.js'
import type { Metrics } from './metrics.js'
import { type Progress, TrainingRun } from './run.js'
import { seedsFrom } from './seeds.js'

interface AdamWConfig {
  lr: number
  betas: number[]
  eps: number
  weightDecay: number
  /** The norm that gradients are scaled down to. */
  maxNorm: number
  /** Steps over which the learning rate grows from 0. */
  warmup: number
}

interface LoraConfig {
  rank: number
  targets: string[]
}

/** The configuration of `npx didr train` and `npx didr distill`; plain JSON. */
export interface AlignConfig {
  /** What `pretrain teacher` wrote, a folder of Z-Image's (see `models.loadZImage`), or `embedded`. */
  teacher: string
  /** What the generator starts from: what `train` or `distill` wrote, `embedded`, or `teacher` for the teacher itself. */
  generator: string
  /** A file of prompts, one a line, or `embedded`. Z-Image's come with their embeddings instead. */
  prompts: string
  /** Where the teacher is Z-Image. */
  zImage: {
    /** The file of its prompts and their embeddings; see `data.loadCaptionEmbeddings`. */
    embeddings: string
    /**
     * The folder of the networks that the generator adds to, such as those of a Z-Image for few steps: the generator
     * `teacher` then starts as these. Empty: the teacher's.
     */
    base: string
    /** Edge of the images in pixels. */
    size: number
    /** Recompute blocks in the backward pass, for less memory. */
    checkpointing: boolean
  }
  /** Summed up; see {@link NamedPart}. */
  rewards: NamedPart[]
  /** The file of the reward `clip`, or `embedded`. */
  clip: string
  /** Of all draws. */
  seed: number
  /** Where it runs. On the CPU, the default, a seed gives the same bits on every machine. */
  device: DeviceName
  steps: number
  batchSize: number

  // The method; see `DidrOptions`.
  objective: Objective
  beta: number
  guidance: number
  weighting: Exclude<Weighting, (t: number) => number>
  drs: DrsOptions
  assistantSteps: number
  assistantWeighting: 'output' | 'x0' | 'epsilon'
  times: TimeSampling
  optimizer: { generator: AdamWConfig; assistant: AdamWConfig }
  ema: number
  rewardEvery: number
  klWindow: number
  noOpAfter: number

  /**
   * Low-rank additions to the teacher's transformer: those of a new generator, and the assistant's. An assistant of rank 0
   * is a copy of the transformer, trained whole: it follows the generator more closely, for more memory.
   */
  lora: {
    generator: LoraConfig & {
      /** The time at which the transformer is asked: see `models.oneStep`. */
      tInit: number
    }
    assistant: LoraConfig
  }
  checkpointEvery: number
  keepCheckpoints: number
  /** Pictures in `samples/` every this many steps; 0 for none. */
  previewEvery: number
  /** How many of the prompts they show, evenly spread. */
  previewCount: number
}

/** What is resolved by the method's own rules, as it depends on a kind. */
type Free = 'rewards' | 'drs' | 'times'

const adamW: AdamWConfig = {
  lr: 1e-3,
  betas: [0, 0.99],
  eps: 1e-8,
  weightDecay: 0,
  maxNorm: 1,
  warmup: 0,
}

const defaults: Omit<AlignConfig, Free> = {
  teacher: 'embedded',
  generator: 'embedded',
  prompts: 'embedded',
  zImage: { embeddings: '', base: '', size: 1024, checkpointing: true },
  clip: 'embedded',
  seed: 1,
  device: 'cpu',
  steps: 150,
  batchSize: 24,
  objective: 'didr',
  beta: 0.02,
  guidance: 3,
  weighting: 'dmd',
  assistantSteps: 2,
  assistantWeighting: 'output',
  optimizer: {
    generator: { ...adamW, warmup: 30 },
    assistant: { ...adamW, lr: 2e-4 },
  },
  ema: 0.99,
  rewardEvery: 1,
  klWindow: 50,
  noOpAfter: 20,
  lora: {
    generator: { rank: 16, targets: everyLinear, tInit: 0.98 },
    assistant: { rank: 0, targets: everyLinear },
  },
  checkpointEvery: 50,
  keepCheckpoints: 2,
  previewEvery: 50,
  previewCount: 16,
}

const freeDefaults: Pick<AlignConfig, Free> = {
  rewards: [{ reward: 'clip', weight: 0.5 }, { reward: 'colourfulness' }],
  drs: { estimator: 'tweedie' },
  times: { kind: 'uniform', range: [0.02, 0.98] },
}

/** What `npx didr distill` changes: the Integral KL to the guided teacher alone, from the teacher on. */
export const distillation: Partly<AlignConfig> = {
  objective: 'diff-instruct',
  generator: 'teacher',
  rewards: [],
  steps: 900,
  optimizer: { generator: { ...adamW, warmup: 0 } },
}

/** Where a run of {@link align} lives, and how it is watched and stopped. */
export interface AlignOptions {
  /** The run's folder. */
  out: string
  /** Go on from the last checkpoint there, if there is one. Default false. */
  resume?: boolean
  /** Abort it to stop after the running step with a checkpoint. */
  signal?: AbortSignal
  onProgress?: (progress: Progress) => void
}

/** The networks of a teacher, and its prompts. */
interface Source {
  model: TextToImage
  prompts: readonly string[]
  /** The caller disposes the features. */
  condition(indices: readonly number[]): Captions
  unconditional(count: number): Captions
  dispose(): void
}

/** Everything a run works with. */
interface Parts {
  source: Source
  /** What the generator is made of where that is not the teacher. */
  base: Source['model'] & { dispose(): void }
  generator: LoraGenerator
  assistant: S3DiT
  reward: LoadedReward | undefined
  didr: Didr
}

/** Fills in the defaults. @throws {DidrError} ERR_CONFIG naming the path of a field */
export function resolveAlignConfig(given: Partly<AlignConfig> = {}): AlignConfig {
  checkOptions('config', given, [...Object.keys(defaults), ...Object.keys(freeDefaults)])
  const { rewards, drs, times, ...rest } = given
  const free = structuredClone(freeDefaults)
  const config: AlignConfig = {
    ...resolveConfig(defaults, rest),
    rewards: (rewards as NamedPart[] | undefined) ?? free.rewards,
    drs: (drs as DrsOptions | undefined) ?? free.drs,
    times: (times as TimeSampling | undefined) ?? free.times,
  }
  checkInteger('config.seed', config.seed, 0, 2 ** 40)
  checkDeviceName('config.device', config.device)
  checkInteger('config.steps', config.steps, 1)
  checkInteger('config.batchSize', config.batchSize, 1, 2 ** 20)
  return config
}

/**
 * Aligns a one-step generator and writes `generator.safetensors`, its averages.
 *
 * @param given what differs from the defaults
 * @returns whether all steps are done
 * @throws {DidrError} (as a rejection) ERR_CONFIG naming a field; what loading the files, {@link didrStep} and
 *   {@link TrainingRun} throw
 */
export async function align(
  given: Partly<AlignConfig>,
  { out, ...options }: AlignOptions,
): Promise<boolean> {
  const config = resolveAlignConfig(given)
  const { batchSize } = config
  const seeds = seedsFrom(config.seed, ['lora', 'method', 'order', 'preview', 'assistant'])
  const parts = await load(config, seeds)
  const { source, generator, didr } = parts
  try {
    // Without an Integral KL there is no estimate of it.
    const best =
      config.objective === 'reward'
        ? ({ metric: 'reward', mode: 'max' } as const)
        : ({ metric: 'klToTarget', mode: 'min' } as const)
    await using run = await TrainingRun.open(out, {
      kind: 'train',
      config,
      parts: {
        didr: { state: () => didr.state(), load: (state) => didr.loadState(state) },
      },
      best,
      ...options,
    })
    const batches = new ShuffledBatches(source.prompts.length, batchSize, { seed: seeds.order })

    const finished = await run.train(
      async (step) => {
        const condition = source.condition(batches.at(step))
        const unconditional = source.unconditional(batchSize)
        try {
          return logged(await didrStep(didr, { batchSize, condition, unconditional }))
        } finally {
          condition.features.dispose()
          unconditional.features.dispose()
        }
      },
      { preview: (file) => preview(parts, config, seeds.preview, file) },
    )
    if (finished) {
      didr.ema?.swap()
      await generator.save(path.join(out, 'generator.safetensors'))
    }
    return finished
  } finally {
    await release(parts)
  }
}

/** What the log keeps of a step's metrics. */
function logged(metrics: DidrMetrics): Metrics {
  const { step, rewardParts, klLogSnrRange, clipped, noOps, ...numbers } = metrics
  return { ...numbers, rewardPart: rewardParts, drsClipped: clipped.drs, noOps }
}

async function load(
  config: AlignConfig,
  seeds: Record<'lora' | 'method' | 'assistant', number>,
): Promise<Parts> {
  const { objective, beta, guidance, weighting, drs, times, optimizer, ema } = config
  const { assistantSteps, assistantWeighting, rewardEvery, klWindow, noOpAfter } = config
  const made: Partial<Parts> = {}
  try {
    const on = await device(config.device)
    made.source = await loadSource(config, on)
    const { model } = made.source
    if (config.zImage.base !== '') made.base = await loadZImageAt(config.zImage.base, config, on)
    const base = made.base ?? model
    made.generator =
      config.generator === 'teacher'
        ? loraGenerator(base, { ...config.lora.generator, seed: seeds.lora })
        : await loadLoraGenerator(embeddedOr('generator', config.generator), base)
    made.assistant =
      config.lora.assistant.rank === 0
        ? copyOf(model)
        : lora(model.transformer, { ...config.lora.assistant, seed: seeds.assistant })
    made.reward = await named(config.rewards, { clip: config.clip, device: on })
    made.didr = createDidr({
      generator: made.generator,
      teacher: model.transformer,
      assistant: made.assistant,
      decode: (latents) => base.decode(latents),
      schedule: model.schedule,
      seed: seeds.method,
      ...{ objective, beta, guidance, weighting, times, ema },
      ...{ assistantSteps, assistantWeighting, rewardEvery, klWindow, noOpAfter },
      ...{ drs, optimizer: optimizer as never },
      ...(made.reward === undefined ? {} : { reward: made.reward.reward }),
    })
    return made as Parts
  } catch (error) {
    await release(made)
    // The method calls them options; here they are fields of the configuration.
    if (error instanceof DidrError && error.message.startsWith('options.'))
      fail(error.code, error.message.replace(/^options/, 'config'), { cause: error })
    throw error
  }
}

/** A transformer of its own with the same weights. */
function copyOf({ transformer, schedule, device }: TextToImage): S3DiT {
  const { config, checkpointing } = transformer
  const { dtype } = transformer.x_pad_token.value
  const copy = s3dit(config, { schedule, device, dtype, checkpointing })
  copy.loadState(transformer.state())
  return copy
}

async function release({ source, base, generator, assistant, reward, didr }: Partial<Parts>) {
  didr?.dispose()
  await reward?.release()
  for (const part of [assistant, generator, base, source]) part?.dispose()
}

async function isFolder(file: string): Promise<boolean> {
  return stat(file).then(
    (found) => found.isDirectory(),
    () => false,
  )
}

/** The teacher, frozen, with its prompts. */
async function loadSource(config: AlignConfig, on: Device): Promise<Source> {
  if (!(await isFolder(config.teacher))) {
    const prompts = await readPrompts(embeddedOr('prompts', config.prompts))
    const model = await loadNanoZImage(embeddedOr('teacher', config.teacher), { device: on })
    model.setTrainable(false)
    return {
      model,
      prompts,
      condition: (indices) => model.encodePrompts(indices.map((i) => prompts[i] as string)),
      unconditional: (count) => model.encodePrompts(new Array<string>(count).fill('')),
      dispose: () => model.dispose(),
    }
  }
  if (config.zImage.embeddings === '')
    fail(
      'ERR_CONFIG',
      'config.zImage.embeddings: needed where the teacher is a folder: see docs/z-image.md',
    )
  const captions = await loadCaptionEmbeddings(config.zImage.embeddings, { device: on })
  try {
    const model = await loadZImageAt(config.teacher, config, on)
    return {
      model,
      prompts: captions.prompts,
      condition: (indices) => captions.condition(indices),
      unconditional: (count) => captions.unconditional(count),
      dispose() {
        captions.dispose()
        model.dispose()
      },
    }
  } catch (error) {
    captions.dispose()
    throw error
  }
}

/** Z-Image's networks, frozen, at the configuration's size. */
async function loadZImageAt(
  folder: string,
  { zImage: { size, checkpointing } }: AlignConfig,
  on: Device,
): Promise<TextToImage & { dispose(): void }> {
  const zImage = await loadZImage(folder, { checkpointing, device: on })
  for (const network of [zImage.transformer, zImage.autoencoder]) network.setTrainable(false)
  try {
    return { ...zImage.sized({ height: size, width: size }), dispose: () => zImage.dispose() }
  } catch (error) {
    zImage.dispose()
    throw error
  }
}

/** Prompts, one a line; empty lines are passed over. @throws {DidrError} (as a rejection) ERR_IO, ERR_FORMAT if there are none */
export async function readPrompts(file: string): Promise<string[]> {
  let text: string
  try {
    text = await readFile(file, 'utf8')
  } catch (error) {
    return fail('ERR_IO', `${file}: could not be read: ${(error as Error).message}`, {
      cause: error,
    })
  }
  const prompts = text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '')
  if (prompts.length === 0) fail('ERR_FORMAT', `${file}: expected prompts, one a line; got none`)
  return prompts
}

/** Images of some of the prompts, always from the same noise, by the averaged weights. */
async function preview(
  { source, generator, didr: { ema } }: Parts,
  { previewCount, batchSize }: AlignConfig,
  seed: number,
  file: string,
): Promise<void> {
  const all = source.prompts.map((_, i) => i)
  const shown = spread(all, Math.min(previewCount, all.length))
  ema?.swap()
  const parts: Tensor<'float32'>[] = []
  try {
    for (let first = 0; first < shown.length; first += batchSize) {
      const captions = source.condition(shown.slice(first, first + batchSize))
      parts.push(generator.generate(captions, { seed, first }) as Tensor<'float32'>)
      captions.features.dispose()
    }
    using images = concat(parts)
    await writeImages(file, images as Tensor<'float32'>, { columns: 8 })
  } finally {
    for (const part of parts) part.dispose()
    ema?.swap()
  }
}
