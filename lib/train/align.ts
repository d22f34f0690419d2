/** The main loop: a one-step generator of the nano Z-Image is distilled from its teacher, or aligned with a reward. */
import { readFile } from 'node:fs/promises'
import path from 'node:path'
import { checkInteger, checkOptions } from '../checks.js'
import { writeImages } from '../data/images.js'
import type { Objective } from '../didr/config.js'
import { createDidr, type Didr } from '../didr/didr.js'
import type { DrsOptions } from '../didr/drs-config.js'
import type { Weighting } from '../didr/integral-kl.js'
import { type DidrMetrics, didrStep } from '../didr/step.js'
import type { TimeSampling } from '../didr/time-sampling.js'
import { DidrError, fail } from '../errors.js'
import { embeddedOr } from '../models/embedded.js'
import {
  everyLinear,
  loadNanoGenerator,
  type NanoGenerator,
  nanoGenerator,
} from '../models/nano-generator.js'
import { loadNanoZImage, type NanoZImage } from '../models/nano-z-image.js'
import { lora } from '../nn/lora.js'
import { type LoadedReward, type NamedPart, named } from '../rewards/named.js'
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

export interface AlignConfig {
  /** What `pretrain teacher` wrote, or `embedded`. */
  teacher: string
  /** What the generator starts from: what `train` or `distill` wrote, `embedded`, or `teacher` for the teacher itself. */
  generator: string
  /** A file of prompts, one a line, or `embedded`. */
  prompts: string
  /** Summed up; see {@link NamedPart}. */
  rewards: NamedPart[]
  /** The file of the reward `clip`, or `embedded`. */
  clip: string
  /** Of all draws. */
  seed: number
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

  /** Low-rank additions to the teacher's transformer: those of a new generator, and the assistant's. */
  lora: {
    generator: { rank: number; targets: string[] }
    assistant: { rank: number; targets: string[] }
  }
  checkpointEvery: number
  keepCheckpoints: number
  /** Pictures in `samples/` every this many steps; 0 for none. */
  previewEvery: number
  /** What they show. Empty: the first 16 prompts. */
  previewPrompts: string[]
}

/** What is resolved by the method's own rules, as it depends on a kind. */
type Free = 'rewards' | 'drs' | 'times'

const adamW: AdamWConfig = {
  lr: 5e-4,
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
  clip: 'embedded',
  seed: 1,
  steps: 300,
  batchSize: 24,
  objective: 'didr',
  beta: 0.02,
  guidance: 3,
  weighting: 'dmd',
  assistantSteps: 2,
  assistantWeighting: 'output',
  optimizer: {
    generator: { ...adamW, warmup: 30 },
    assistant: { ...adamW, lr: 1e-3 },
  },
  ema: 0.99,
  rewardEvery: 1,
  klWindow: 50,
  noOpAfter: 20,
  lora: {
    generator: { rank: 20, targets: everyLinear },
    assistant: { rank: 32, targets: everyLinear },
  },
  checkpointEvery: 50,
  keepCheckpoints: 2,
  previewEvery: 50,
  previewPrompts: [],
}

const freeDefaults: Pick<AlignConfig, Free> = {
  rewards: [{ reward: 'clip' }, { reward: 'colourfulness' }],
  drs: { estimator: 'tweedie' },
  times: { kind: 'uniform', range: [0.02, 0.98] },
}

/** What `npx didr distill` changes: the Integral KL to the guided teacher alone, from the teacher on. */
export const distillation: Partly<AlignConfig> = {
  objective: 'diff-instruct',
  generator: 'teacher',
  rewards: [],
  steps: 1000,
  optimizer: { generator: { ...adamW, warmup: 0 } },
}

export interface AlignOptions {
  /** The run's folder. */
  out: string
  /** Go on from the last checkpoint there, if there is one. Default false. */
  resume?: boolean
  /** Abort it to stop after the running step with a checkpoint. */
  signal?: AbortSignal
  onProgress?: (progress: Progress) => void
}

/** Everything a run works with. */
interface Parts {
  teacher: NanoZImage
  generator: NanoGenerator
  assistant: NanoGenerator['transformer']
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
  const { batchSize, previewPrompts } = config
  const seeds = seedsFrom(config.seed, ['lora', 'method', 'order', 'preview', 'assistant'])
  const prompts = await readPrompts(embeddedOr('prompts', config.prompts))

  const parts = await load(config, seeds)
  const { teacher, generator, didr } = parts
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
    const batches = new ShuffledBatches(prompts.length, batchSize, { seed: seeds.order })
    const shown = previewPrompts.length > 0 ? previewPrompts : prompts.slice(0, 16)

    const finished = await run.train(
      async (step) => {
        const condition = teacher.encodePrompts(batches.at(step).map((i) => prompts[i] as string))
        const unconditional = teacher.encodePrompts(new Array<string>(batchSize).fill(''))
        try {
          return logged(await didrStep(didr, { batchSize, condition, unconditional }))
        } finally {
          condition.features.dispose()
          unconditional.features.dispose()
        }
      },
      { preview: (file) => preview(didr, generator, shown, seeds.preview, file) },
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
  const teacher = await loadNanoZImage(embeddedOr('teacher', config.teacher))
  teacher.setTrainable(false)
  const made: Partial<Parts> = { teacher }
  try {
    made.generator =
      config.generator === 'teacher'
        ? nanoGenerator(teacher, { ...config.lora.generator, seed: seeds.lora })
        : await loadNanoGenerator(embeddedOr('generator', config.generator), teacher)
    made.assistant = lora(teacher.transformer, { ...config.lora.assistant, seed: seeds.assistant })
    made.reward = await named(config.rewards, { clip: config.clip })
    made.didr = createDidr({
      generator: made.generator,
      teacher: teacher.transformer,
      assistant: made.assistant,
      decode: (latents) => teacher.decode(latents),
      schedule: teacher.schedule,
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

async function release({ teacher, generator, assistant, reward, didr }: Partial<Parts>) {
  didr?.dispose()
  await reward?.release()
  for (const part of [assistant, generator, teacher]) part?.dispose()
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

/** One image of each prompt, always from the same noise, by the averaged weights. */
async function preview(
  { ema }: Didr,
  generator: NanoGenerator,
  prompts: readonly string[],
  seed: number,
  file: string,
): Promise<void> {
  ema?.swap()
  try {
    using images = generator.generate(prompts, { seed })
    await writeImages(file, images as Tensor<'float32'>, { columns: 8 })
  } finally {
    ema?.swap()
  }
}
