/** One-step generators on a nano Z-Image: its transformer with low-rank additions, asked once. */
import type { Parameter } from '../autograd/parameter.js'
import { noGrad } from '../autograd/vjp.js'
import { checkOptions } from '../checks.js'
import { fail, show } from '../errors.js'
import { type Adapted, lora } from '../nn/lora.js'
import type { FloatDType } from '../tensor/dtype.js'
import { tidy } from '../tensor/scope.js'
import type { Tensor } from '../tensor/tensor.js'
import type { Captions } from './caption-encoder.js'
import { type Generator, oneStep } from './generator.js'
import type { NanoZImage } from './nano-z-image.js'
import type { S3DiT } from './s3dit.js'
import type { Condition } from './score-model.js'
import { loadWeights, saveWeights } from './weights.js'

type Float = Tensor<FloatDType>

export interface NanoGeneratorConfig {
  /** Of the low-rank additions; see {@link LoraOptions}. */
  rank: number
  targets: string[]
  /** The time at which the transformer is asked. */
  tInit: number
}

/** All linear layers of an S3-DiT's blocks, and its last one. */
export const everyLinear = [
  'to_q',
  'to_k',
  'to_v',
  'to_out.0',
  'w1',
  'w2',
  'w3',
  'adaLN_modulation.0',
  'linear',
]

const kind = 'nano-generator'

/** Text to image in one call of a network. Its base, autoencoder and caption encoder are those of the teacher, shared. */
export class NanoGenerator implements Generator {
  readonly teacher: NanoZImage
  readonly transformer: Adapted<S3DiT>
  readonly config: NanoGeneratorConfig
  readonly #generator: Generator

  constructor(teacher: NanoZImage, config: NanoGeneratorConfig, { seed = 0 } = {}) {
    checkOptions('config', config, ['rank', 'targets', 'tInit'])
    const { rank, targets, tInit } = config
    this.teacher = teacher
    this.config = { rank, targets: [...targets], tInit }
    this.transformer = lora(teacher.transformer, { rank, targets, seed })
    this.#generator = oneStep(this.transformer, {
      schedule: teacher.schedule,
      sampleShape: teacher.latentShape(1).slice(1),
      tInit,
    })
  }

  /** @param z [B, ...teacher.latentShape(1).slice(1)] @returns normalised latents, like z */
  forward(z: Float, condition?: Condition): Float {
    return this.#generator.forward(z, condition)
  }

  /** The low-rank additions. */
  parameters(): Parameter[] {
    return this.transformer.lora.parameters()
  }

  inputShape(batch: number): number[] {
    return this.#generator.inputShape(batch)
  }

  /**
   * One image for each prompt.
   * @param options `seed`: image i starts from `normal(..., { seed, offset: i })`, as {@link NanoZImage.generate} has it.
   *   Default 0.
   * @returns [prompts.length, 3, imageSize, imageSize] from 0 to 1
   */
  generate(prompts: readonly string[], options: { seed?: number } = {}): Float {
    checkOptions('options', options, ['seed'])
    if (!Array.isArray(prompts) || prompts.length === 0)
      fail('ERR_CONFIG', `prompts: expected an array of at least one, got ${show(prompts)}`)
    const { teacher } = this
    return noGrad(() =>
      tidy(() => {
        const condition: Captions = teacher.encodePrompts(prompts)
        const z = teacher.noise(prompts.length, options)
        return teacher.decode(this.forward(z, condition))
      }),
    )
  }

  /**
   * Writes the low-rank additions and what they are, without the teacher.
   * @param options `dtype` in the file. Default bfloat16.
   */
  async save(file: string, options: { dtype?: FloatDType } = {}): Promise<void> {
    await saveWeights(file, kind, this.config, this.transformer.lora, options)
  }

  /** Releases the additions; the teacher stays. */
  dispose(): void {
    this.transformer.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

/**
 * A generator that starts as the teacher itself, asked for its denoiser at `tInit`.
 * @param options `rank` default 20, `targets` default {@link everyLinear}, `tInit` default 1, `seed` of the additions
 *   default 0
 * @example const generator = models.nanoGenerator(await models.loadNanoZImage('teacher.safetensors'))
 */
export function nanoGenerator(
  teacher: NanoZImage,
  options: Partial<NanoGeneratorConfig> & { seed?: number } = {},
): NanoGenerator {
  checkOptions('options', options, ['rank', 'targets', 'tInit', 'seed'])
  const { rank = 20, targets = everyLinear, tInit = 1, seed = 0 } = options
  return new NanoGenerator(teacher, { rank, targets, tInit }, { seed })
}

/**
 * The generator in a file, on the teacher that it was made from.
 * @throws {DidrError} (as a rejection) ERR_FORMAT, ERR_IO; ERR_CONFIG, ERR_SHAPE for one of another teacher
 */
export async function loadNanoGenerator(file: string, teacher: NanoZImage): Promise<NanoGenerator> {
  const weights = await loadWeights(file, kind, { device: teacher.device })
  let generator: NanoGenerator | undefined
  try {
    generator = new NanoGenerator(teacher, weights.config as NanoGeneratorConfig)
    generator.transformer.lora.loadState(weights.tensors)
    return generator
  } catch (error) {
    generator?.dispose()
    throw error
  } finally {
    for (const tensor of Object.values(weights.tensors)) tensor.dispose()
  }
}
