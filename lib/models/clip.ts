import { Parameter } from '../autograd/parameter.js'
import { checkInteger, checkOptions } from '../checks.js'
import { fail, show } from '../errors.js'
import { crossEntropy } from '../nn/functional.js'
import { Initializer } from '../nn/initializer.js'
import { Conv2d, GroupNorm, Linear } from '../nn/layers.js'
import { Module } from '../nn/module.js'
import type { Reward } from '../rewards/reward.js'
import { arange, type PlaceOptions, tensor } from '../tensor/create.js'
import type { FloatDType } from '../tensor/dtype.js'
import { tidy } from '../tensor/scope.js'
import { showShape } from '../tensor/shape.js'
import { checkSameDevice, checkSameDType, idOf, Tensor } from '../tensor/tensor.js'
import { CaptionEncoder, type CaptionEncoderConfig } from './caption-encoder.js'
import type { Condition } from './score-model.js'
import { loadWeights, moduleFrom, saveWeights } from './weights.js'

type Float = Tensor<FloatDType>

/** The sizes of a {@link Clip}. */
export interface ClipConfig {
  /** Widths of the image encoder's levels, each at half the resolution of the one before. Default [32, 64, 128]. */
  widths?: readonly number[]
  /** Groups of every GroupNorm. Default 8. */
  groups?: number
  /** Size of the space that images and captions share. Default 64. */
  dim?: number
  /** The words. `dim` is the width of a word's vector. */
  captions: CaptionEncoderConfig
}

const kind = 'clip'
/** Of the logits, as published. */
const maxLogScale = Math.log(100)

/** silu(norm(conv(x))) at half the resolution, and a residual block. */
class Level extends Module {
  readonly conv: Conv2d
  readonly norm: GroupNorm
  readonly residual: [Conv2d, GroupNorm]

  constructor(init: Initializer, inputs: number, outputs: number, groups: number) {
    super()
    this.conv = new Conv2d(init, inputs, outputs, 3, { stride: 2, padding: 1 })
    this.norm = new GroupNorm(init, groups, outputs)
    this.residual = [
      new Conv2d(init, outputs, outputs, 3, { padding: 1 }),
      new GroupNorm(init, groups, outputs),
    ]
  }

  forward(x: Float): Float {
    return tidy(() => {
      const h = this.norm.forward(this.conv.forward(x), 'silu')
      const [conv, norm] = this.residual
      return h.add(norm.forward(conv.forward(h), 'silu')) as Float
    })
  }
}

/** Images as vectors of length 1: convolutions, the mean over the pixels, a linear layer. */
class ImageEncoder extends Module {
  readonly levels: Level[]
  readonly projection: Linear

  constructor(init: Initializer, widths: readonly number[], groups: number, dim: number) {
    super()
    this.levels = widths.map((width, i) => new Level(init, widths[i - 1] ?? 3, width, groups))
    this.projection = new Linear(init, widths.at(-1) as number, dim)
  }

  /** @param images [B, 3, H, W] from -1 to 1 */
  forward(images: Float): Float {
    return normalized(this.projection.forward(this.pooled(images)))
  }

  /** What is projected, [B, widths.at(-1)]. */
  pooled(images: Float): Float {
    let h = images
    for (const level of this.levels) h = level.forward(h)
    return h.mean([2, 3]) as Float
  }
}

/** Captions as vectors of length 1: the mean of the words' vectors and two linear layers. */
class TextEncoder extends Module {
  readonly words: CaptionEncoder
  readonly hidden: Linear
  readonly projection: Linear

  constructor(init: Initializer, config: CaptionEncoderConfig, dim: number) {
    super()
    this.words = new CaptionEncoder(init, config)
    this.hidden = new Linear(init, config.dim, 2 * dim)
    this.projection = new Linear(init, 2 * dim, dim)
  }

  forward(captions: readonly string[]): Float {
    const { features, lengths } = this.words.forward(captions)
    const [total] = features.shape as [number]
    const { dtype, device } = features
    const shares = new Float32Array(lengths.length * total)
    let first = 0
    for (const [row, length] of lengths.entries()) {
      shares.fill(1 / length, row * total + first, row * total + first + length)
      first += length
    }
    const mean = tensor(shares, { shape: [lengths.length, total], dtype, device }).matmul(features)
    return normalized(this.projection.forward(this.hidden.forward(mean as Float, 'silu')))
  }
}

/** A small CLIP (arXiv 2103.00020): how well images and captions match. */
export class Clip extends Module {
  readonly config: Required<ClipConfig>
  readonly image: ImageEncoder
  readonly text: TextEncoder
  /** The logarithm of what similarities are multiplied by in the contrastive loss, [1]. */
  readonly logit_scale: Parameter

  constructor(init: Initializer, config: ClipConfig) {
    super()
    checkOptions('config', config, ['widths', 'groups', 'dim', 'captions'])
    const { widths = [32, 64, 128], groups = 8, dim = 64, captions } = config
    if (!Array.isArray(widths) || widths.length === 0)
      fail('ERR_CONFIG', `config.widths: expected an array of widths, got ${show(widths)}`)
    checkInteger('config.groups', groups, 1)
    checkInteger('config.dim', dim, 1)
    for (const [i, width] of widths.entries()) {
      checkInteger(`config.widths[${i}]`, width, 1)
      if (width % groups !== 0)
        fail(
          'ERR_CONFIG',
          `config.widths[${i}]: expected a multiple of groups, ${groups}, got ${width}`,
        )
    }
    this.image = new ImageEncoder(init, widths, groups, dim)
    this.text = new TextEncoder(init, captions, dim)
    this.config = { widths: [...widths], groups, dim, captions: this.text.words.config }
    this.logit_scale = new Parameter(
      'logit_scale',
      tidy(() => init.ones([1]).mul(Math.log(1 / 0.07)) as Float),
    )
  }

  /** @param images [B, 3, H, W] from -1 to 1 @returns [B, dim], each of length 1 */
  encodeImages(images: Float): Float {
    this.#checkImages(images)
    return tidy(() => this.image.forward(images))
  }

  /** @returns [captions.length, dim], each of length 1 */
  encodeCaptions(captions: readonly string[]): Float {
    return tidy(() => this.text.forward(captions))
  }

  /**
   * The cosine of the angle between each image and its caption.
   * @param images [B, 3, H, W] from 0 to 1
   * @param condition captions with `texts`, as a {@link CaptionEncoder} makes them
   * @returns [B], from -1 to 1
   */
  score(images: Float, condition?: Condition): Tensor<'float32', [number]> {
    const texts = condition instanceof Tensor ? undefined : condition?.texts
    if (texts === undefined)
      return fail('ERR_CONFIG', 'condition: expected captions with their texts, got none')
    this.#checkImages(images)
    if (texts.length !== images.shape[0])
      fail(
        'ERR_SHAPE',
        `condition.texts: expected ${images.shape[0]}, one per image, got ${texts.length}`,
      )
    return tidy(() => {
      const seen = this.image.forward(images.mul(2).sub(1) as Float)
      const cosines = seen.mul(this.text.forward(texts)).sum(1) as Float
      return cosines.cast('float32') as Tensor<'float32', [number]>
    })
  }

  /**
   * What the image encoder sees before it is projected to where captions are, as a measure of distributions of images.
   * Let it be that of a CLIP trained with another seed than the reward's: what a generator was aligned with is no judge.
   * @param images [B, 3, H, W] from 0 to 1
   * @returns [B, widths.at(-1)], not normalised; differentiable by the image
   */
  features(images: Float): Float {
    this.#checkImages(images)
    return tidy(() => this.image.pooled(images.mul(2).sub(1) as Float))
  }

  /** {@link score} as a reward, differentiable by the image. */
  reward(): Reward {
    return {
      name: 'clip',
      differentiable: true,
      score: (images, condition) => this.score(images, condition),
    }
  }

  /**
   * The contrastive loss: each image is to be closest to its own caption among those of the batch, and the other way
   * round. The mean of the two cross entropies.
   */
  contrastiveLoss(images: Float, captions: readonly string[]): Tensor<'float32', []> {
    return tidy(() => {
      const seen = this.encodeImages(images)
      const read = this.encodeCaptions(captions)
      const scale = this.logit_scale.value.clip(-maxLogScale, maxLogScale).exp()
      const logits = seen.matmul(read, { transB: true }).mul(scale) as Float
      const own = arange(captions.length, { dtype: 'int32', device: images.device })
      const targets = own as Tensor<'int32'>
      return crossEntropy(logits, targets)
        .add(crossEntropy(logits.transpose() as Float, targets))
        .mul(0.5) as Tensor<'float32', []>
    })
  }

  /** Writes a safetensors file. @param options `dtype` in the file. Default bfloat16. */
  async save(file: string, options: { dtype?: FloatDType } = {}): Promise<void> {
    await saveWeights(file, kind, this.config, this, options)
  }

  #checkImages(images: Float): void {
    idOf('images', images as Tensor)
    const { value } = this.image.projection.weight
    checkSameDType('images', images as Tensor, value as Tensor)
    checkSameDevice('images', images as Tensor, value as Tensor)
    if (images.rank !== 4 || images.shape[1] !== 3 || images.size === 0)
      fail(
        'ERR_SHAPE',
        `images: expected [batch, 3, height, width], got ${showShape(images.shape)}`,
      )
  }
}

function normalized(x: Float): Float {
  return x.mul(x.square().sum(1, { keepDims: true }).add(1e-12).rsqrt()) as Float
}

/** Where a CLIP's first values come from and where they live. */
export interface ClipOptions extends PlaceOptions<FloatDType> {
  /** Of the first values. Default 0. */
  seed?: number
}

/**
 * A small CLIP with new weights.
 * @example
 * const model = clip({ captions: { vocabulary, dim: 64 } }, { seed: 1 })
 * const reward = rewards.weighted([{ reward: model.reward() }, { reward: rewards.colourfulness() }])
 */
export function clip(config: ClipConfig, options: ClipOptions = {}): Clip {
  checkOptions('options', options, ['seed', 'dtype', 'device'])
  return new Clip(new Initializer({ seed: 0, ...options }), config)
}

/** The CLIP in a file. @throws {DidrError} (as a rejection) ERR_FORMAT, ERR_IO, ERR_CONFIG */
export async function loadClip(
  file: string,
  options: PlaceOptions<FloatDType> = {},
): Promise<Clip> {
  checkOptions('options', options, ['dtype', 'device'])
  const weights = await loadWeights(file, kind, { device: options.device })
  return moduleFrom(weights, (config) => clip(config as ClipConfig, options))
}
