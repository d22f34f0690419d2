/**
 * How much memory a step of DIDR takes, without taking it: the networks, `createDidr` and `didrStep` run as they are on
 * the device of lib/native/shape-only.ts, whose tensors have shapes and no elements.
 */
import { checkBoolean, checkInteger, checkOneOf, checkOptions } from '../checks.js'
import type { DidrOptions } from '../didr/config.js'
import { createDidr, type Didr } from '../didr/didr.js'
import { flow } from '../didr/schedules.js'
import { didrStep } from '../didr/step.js'
import { fail } from '../errors.js'
import { AutoencoderKL, type AutoencoderKLConfig } from '../models/autoencoder-kl.js'
import type { Captions } from '../models/caption-encoder.js'
import { oneStep } from '../models/generator.js'
import { S3DiT } from '../models/s3dit.js'
import type { S3DiTConfig } from '../models/s3dit-config.js'
import { openShapeOnlyDevice } from '../native/shape-only.js'
import { Initializer } from '../nn/initializer.js'
import { type LoraOptions, lora } from '../nn/lora.js'
import { blackBox, fromFunction } from '../rewards/from-function.js'
import { zeros } from '../tensor/create.js'
import { Device } from '../tensor/device.js'
import type { FloatDType } from '../tensor/dtype.js'
import { keep, tidy } from '../tensor/scope.js'
import type { Tensor } from '../tensor/tensor.js'

type Float = Tensor<FloatDType>

/** Of the run's settings, those of `createDidr` that change what is kept in memory. */
export type PlannedStep = Pick<DidrOptions, (typeof stepFields)[number]>

const stepFields = [
  'objective',
  'guidance',
  'weighting',
  'drs',
  'assistantSteps',
  'ema',
  'rewardEvery',
] as const satisfies readonly (keyof DidrOptions)[]

/** What is planned. Every field may be left out; the defaults are the published Z-Image with a LoRA of rank 16. */
export interface PlanConfig {
  /** Fields of `transformer/config.json`. */
  transformer?: S3DiTConfig
  /** Fields of `vae/config.json`; null: the reward sees latents of an eighth of the size, and no images are decoded. */
  autoencoder?: AutoencoderKLConfig | null
  /** Of the transformer and its LoRA. Default bfloat16. */
  dtype?: FloatDType
  /** Tokens of each caption. Default 512, the most that Z-Image takes. */
  captionTokens?: number
  /** Of the assistant and of the generator. Default `{ rank: 16 }`. */
  lora?: LoraOptions
  /** As for `createDidr`. Whether its reward is a black box follows from the estimator. */
  didr?: PlannedStep
}

/** The step that {@link planMemory} plans for. */
export interface PlanOptions {
  /** Samples in a batch. */
  batchSize: number
  /** Edge of the images in pixels. Default 1024. */
  size?: number
  /** Recompute blocks in the backward pass; see `S3DiTOptions`. Default true. */
  checkpointing?: boolean
}

/** Bytes. All but the last two are held all the time. */
export interface MemoryPlan {
  /** The frozen base that teacher, assistant and generator share. */
  transformer: number
  autoencoder: number
  /** Of assistant and generator. */
  lora: number
  /** Moments, master copies and averages. */
  optimizer: number
  /** Captions, and the layouts and tables that the transformer keeps for the next batch. */
  inputs: number
  /** What comes on top at the fullest moment of a step: activations, gradients, scratch, and the copies to go back to. */
  activations: number
  peak: number
}

/** The published configs: all defaults for the transformer. */
const published = {
  transformer: {},
  autoencoder: {
    block_out_channels: [128, 256, 512, 512],
    layers_per_block: 2,
    latent_channels: 16,
    scaling_factor: 0.3611,
    shift_factor: 0.1159,
    use_quant_conv: false,
    use_post_quant_conv: false,
  },
} as const

/**
 * The memory of one step with a frozen base and two LoRAs on it, as DIDR aligns Z-Image: what `memory(device)` would say,
 * to the byte. A device needs more than that: its driver's context, and gaps between blocks. The reward's own networks are
 * not in it: its stand-in is the mean of the image.
 *
 * @throws {DidrError} (as a rejection) ERR_CONFIG, ERR_RANGE for what the networks cannot be
 * @example
 * const { peak } = await train.planMemory({ lora: { rank: 32 } }, { batchSize: 4, size: 1024 })
 */
export async function planMemory(config: PlanConfig, options: PlanOptions): Promise<MemoryPlan> {
  return measureStep(new Device('shape-only', openShapeOnlyDevice()), config, options)
}

/** Two steps on a device, and what they took of it. @internal */
export async function measureStep(
  device: Device,
  config: PlanConfig,
  options: PlanOptions,
): Promise<MemoryPlan> {
  checkOptions('config', config, [
    'transformer',
    'autoencoder',
    'dtype',
    'captionTokens',
    'lora',
    'didr',
  ])
  const { transformer = published.transformer, autoencoder = published.autoencoder } = config
  const { dtype = 'bfloat16', captionTokens = 512, lora: adapters = { rank: 16 } } = config
  checkOneOf('config.dtype', dtype, ['bfloat16', 'float32'])
  checkInteger('config.captionTokens', captionTokens, 1)
  const settings = config.didr ?? {}
  checkOptions('config.didr', settings, stepFields)
  checkOptions('options', options, ['batchSize', 'size', 'checkpointing'])
  const { batchSize, size = 1024, checkpointing = true } = options
  checkInteger('options.batchSize', batchSize, 1)
  checkInteger('options.size', size, 1)
  checkBoolean('options.checkpointing', checkpointing)

  const made: { dispose(): void }[] = []
  const own = <T extends { dispose(): void }>(thing: T): T => {
    made.push(thing)
    return thing
  }
  const start = device.memory().bytes
  let counted = start
  /** Bytes since the last call. */
  const added = () => {
    const before = counted
    counted = device.memory().bytes
    return counted - before
  }
  try {
    const init = { seed: 0, draw: false, device }
    const base = own(new S3DiT(new Initializer({ ...init, dtype }), transformer, { checkpointing }))
    const transformerBytes = added()
    const decoder =
      autoencoder === null ? undefined : own(new AutoencoderKL(new Initializer(init), autoencoder))
    const autoencoderBytes = added()
    base.setTrainable(false)
    decoder?.setTrainable(false)
    const assistant = own(lora(base, adapters))
    const adapted = own(lora(base, adapters))
    const loraBytes = added()

    const factor = decoder?.factor ?? 8
    const step = factor * (base.config.all_patch_size[0] as number)
    if (size % step !== 0)
      fail('ERR_RANGE', `options.size: expected a multiple of ${step}, got ${size}`)
    const { in_channels, cap_feat_dim } = base.config
    const sampleShape = [in_channels, size / factor, size / factor]
    const captions = (): Captions => ({
      features: own(keep(zeros([batchSize * captionTokens, cap_feat_dim], { dtype, device }))),
      lengths: new Array<number>(batchSize).fill(captionTokens),
    })
    const condition = captions()
    const unconditional = captions()
    const captionBytes = added()

    const schedule = flow()
    const didr = own(
      createDidr({
        ...settings,
        generator: oneStep(adapted, { schedule, sampleShape }),
        teacher: base,
        assistant,
        reward: standIn(settings),
        schedule,
        ...(decoder === undefined ? {} : { decode: decodedBy(decoder) }),
      }),
    )
    device.resetPeakBytes()
    // The first makes what later ones keep: layouts, master copies.
    for (let step = 0; step < 2; step++)
      await didrStep(didr, { batchSize, condition, unconditional })
    const held = added()
    const optimizer = optimizerBytes(didr)
    const { peakBytes } = device.memory()
    return {
      transformer: transformerBytes,
      autoencoder: autoencoderBytes,
      lora: loraBytes,
      optimizer,
      inputs: captionBytes + held - optimizer,
      activations: peakBytes - counted,
      peak: peakBytes - start,
    }
  } finally {
    for (const thing of made.reverse()) thing.dispose()
  }
}

/** A reward without memory of its own. */
function standIn(settings: PlannedStep) {
  const score = (images: Float) =>
    tidy(
      () =>
        images
          .reshape([images.shape[0] as number, -1])
          .mean(1)
          .cast('float32') as Tensor,
    )
  return settings.drs?.estimator === 'particles'
    ? blackBox('stand-in', score)
    : fromFunction('stand-in', score)
}

function decodedBy(autoencoder: AutoencoderKL): (samples: Float) => Float {
  return (samples) =>
    tidy(() => {
      const wide = samples.cast('float32') as Float
      const images = autoencoder.decode(autoencoder.toAutoencoder(wide))
      return images.mul(0.5).add(0.5).clip(0, 1) as Float
    })
}

function optimizerBytes({ generatorOptimizer, assistantOptimizer, ema }: Didr): number {
  return [generatorOptimizer, assistantOptimizer, ...(ema === undefined ? [] : [ema])]
    .flatMap((part) => Object.values(part.state().tensors))
    .reduce((sum, { bytes }) => sum + bytes, 0)
}
