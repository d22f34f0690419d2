/** One-step generators on a text-to-image model: its transformer with low-rank additions, asked once. */
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
import type { S3DiT } from './s3dit.js'
import type { Condition } from './score-model.js'
import { latentNoise, type NoiseOptions, type TextToImage } from './text-to-image.js'
import { loadWeights, saveWeights } from './weights.js'

type Float = Tensor<FloatDType>

/** What a {@link LoraGenerator} has beside its base. */
export interface LoraGeneratorConfig {
  /** Of the low-rank additions; see `nn.LoraOptions`. */
  rank: number
  targets: string[]
  /** The time at which the transformer is asked. */
  tInit: number
}

/** All linear layers of an S3-DiT's blocks, and those of image tokens before and after them. */
export const everyLinear = [
  '2-1',
  'to_q',
  'to_k',
  'to_v',
  'to_out.0',
  'w1',
  'w2',
  'w3',
  'adaLN_modulation.0',
  'adaLN_modulation.1',
  'linear',
]

const kind = 'lora-generator'

/** Text to image in one call of a network. Its base and autoencoder are those of another model, shared. */
export class LoraGenerator implements Generator {
  readonly base: TextToImage
  readonly transformer: Adapted<S3DiT>
  readonly config: LoraGeneratorConfig
  readonly #generator: Generator

  constructor(base: TextToImage, config: LoraGeneratorConfig, { seed = 0 } = {}) {
    checkOptions('config', config, ['rank', 'targets', 'tInit'])
    const { rank, targets, tInit } = config
    this.base = base
    this.config = { rank, targets: [...targets], tInit }
    this.transformer = lora(base.transformer, { rank, targets, seed })
    this.#generator = oneStep(this.transformer, {
      schedule: base.schedule,
      sampleShape: base.latentShape(1).slice(1),
      tInit,
    })
  }

  /** @param z `inputShape(B)` @returns normalised latents, like z */
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
   * One image for each caption, from the noise that {@link NoiseOptions} say.
   * @returns [captions, 3, H, W] from 0 to 1
   * @example using images = generator.generate(teacher.encodePrompts(['red heart']), { seed: 1 })
   */
  generate(captions: Captions, options: NoiseOptions = {}): Float {
    checkOptions('options', options, ['seed', 'first'])
    if (!Array.isArray(captions?.lengths) || captions.lengths.length === 0)
      fail('ERR_CONFIG', `captions: expected those of encodePrompts, got ${show(captions)}`)
    return noGrad(() =>
      tidy(() => {
        const z = latentNoise(this.base, captions.lengths.length, options)
        return this.base.decode(this.forward(z, captions))
      }),
    )
  }

  /**
   * Writes the low-rank additions and what they are, without the base.
   * @param options `dtype` in the file. Default bfloat16.
   */
  async save(file: string, options: { dtype?: FloatDType } = {}): Promise<void> {
    await saveWeights(file, kind, this.config, this.transformer.lora, options)
  }

  /** Releases the additions; the base stays. */
  dispose(): void {
    this.transformer.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

/**
 * A generator that starts as the model itself, asked for its denoiser at `tInit`.
 * @param options `rank` default 16, `targets` default {@link everyLinear}, `seed` of the additions default 0, `tInit`
 *   default 0.98: at 1 itself, which its training seldom draws, a teacher is not at its best
 * @example const generator = models.loraGenerator(await models.loadNanoZImage('teacher.safetensors'))
 */
export function loraGenerator(
  base: TextToImage,
  options: Partial<LoraGeneratorConfig> & { seed?: number } = {},
): LoraGenerator {
  checkOptions('options', options, ['rank', 'targets', 'tInit', 'seed'])
  const { rank = 16, targets = everyLinear, tInit = 0.98, seed = 0 } = options
  return new LoraGenerator(base, { rank, targets, tInit }, { seed })
}

/**
 * The generator in a file, on the model that it was made from.
 * @throws {DidrError} (as a rejection) ERR_FORMAT, ERR_IO; ERR_CONFIG, ERR_SHAPE for one of another model
 */
export async function loadLoraGenerator(file: string, base: TextToImage): Promise<LoraGenerator> {
  const weights = await loadWeights(file, kind, { device: base.device })
  let generator: LoraGenerator | undefined
  try {
    generator = new LoraGenerator(base, weights.config as LoraGeneratorConfig)
    generator.transformer.lora.loadState(weights.tensors)
    return generator
  } catch (error) {
    generator?.dispose()
    throw error
  } finally {
    for (const tensor of Object.values(weights.tensors)) tensor.dispose()
  }
}
