import { checkInteger, checkOptions } from '../checks.js'
import { flow, type Schedule } from '../didr/schedules.js'
import { fail, show } from '../errors.js'
import { Initializer } from '../nn/initializer.js'
import { Module } from '../nn/module.js'
import type { PlaceOptions } from '../tensor/create.js'
import type { Device } from '../tensor/device.js'
import type { FloatDType } from '../tensor/dtype.js'
import { tidy } from '../tensor/scope.js'
import type { Tensor } from '../tensor/tensor.js'
import { AutoencoderKL, type AutoencoderKLConfig } from './autoencoder-kl.js'
import { CaptionEncoder, type CaptionEncoderConfig, type Captions } from './caption-encoder.js'
import { S3DiT } from './s3dit.js'
import type { S3DiTConfig } from './s3dit-config.js'
import { sample, samplingTimes } from './sample.js'
import { latentNoise, type NoiseOptions, type TextToImage } from './text-to-image.js'
import { loadWeights, moduleFrom, saveWeights } from './weights.js'

type Float = Tensor<FloatDType>

/** The parts of a {@link NanoZImage}; they have to fit together. */
export interface NanoZImageConfig {
  /** Edge of the images in pixels. */
  imageSize: number
  /** With the `shift_factor` and `scaling_factor` that normalise its latents. */
  autoencoder: AutoencoderKLConfig
  transformer: S3DiTConfig
  captions: CaptionEncoderConfig
}

/** Where a nano Z-Image's first values come from and where they live. */
export interface NanoZImageOptions extends PlaceOptions<FloatDType> {
  /** Of the first values. Default 0. */
  seed?: number
}

/** How {@link NanoZImage.generate} samples. */
export interface GenerateOptions {
  /** Network calls, two each with guidance. Default 50. */
  steps?: number
  /** Default 3. */
  guidance?: number
  /** Of the sampler's times; see {@link samplingTimes}. Default 3. */
  shift?: number
  /** Default 0. Image i starts from `normal(..., { seed, offset: i })`, so it does not depend on the others. */
  seed?: number
  onStep?: (step: number, steps: number) => void
}

const kind = 'nano-z-image'

/**
 * Text to image as Z-Image does it, at a small size: an autoencoder for images, an S3-DiT for its latents, and a caption
 * encoder on words.
 */
export class NanoZImage extends Module implements TextToImage {
  readonly config: NanoZImageConfig
  readonly autoencoder: AutoencoderKL
  readonly transformer: S3DiT
  readonly captions: CaptionEncoder
  /** The schedule whose times the transformer is given. */
  readonly schedule: Schedule = flow()

  constructor(init: Initializer, config: NanoZImageConfig) {
    super()
    checkOptions('config', config, ['imageSize', 'autoencoder', 'transformer', 'captions'])
    checkInteger('config.imageSize', config.imageSize, 1, 4096)
    this.autoencoder = new AutoencoderKL(init, config.autoencoder)
    this.transformer = new S3DiT(init, config.transformer, { schedule: this.schedule })
    this.captions = new CaptionEncoder(init, config.captions)
    const { autoencoder, transformer, captions } = this
    if (transformer.config.in_channels !== autoencoder.config.latent_channels)
      fail(
        'ERR_CONFIG',
        `config.transformer.in_channels: expected the autoencoder's latent_channels, ${autoencoder.config.latent_channels}, got ${transformer.config.in_channels}`,
      )
    if (transformer.config.cap_feat_dim !== captions.config.dim)
      fail(
        'ERR_CONFIG',
        `config.transformer.cap_feat_dim: expected the captions' dim, ${captions.config.dim}, got ${transformer.config.cap_feat_dim}`,
      )
    this.config = {
      imageSize: config.imageSize,
      autoencoder: autoencoder.config,
      transformer: transformer.config,
      captions: captions.config,
    }
  }

  get device(): Device {
    return this.captions.embedding.weight.value.device
  }

  /** Of the latents of a batch: [batch, channels, height, width]. */
  latentShape(batch: number): number[] {
    const edge = this.config.imageSize / this.autoencoder.factor
    return [batch, this.autoencoder.config.latent_channels, edge, edge]
  }

  /** Images [B, 3, H, W] from -1 to 1 as normalised latents, the means of their distributions. */
  encode(images: Float): Float {
    return tidy(() => this.autoencoder.toDenoiser(this.autoencoder.encode(images).mean))
  }

  /** Normalised latents as images [B, 3, H, W] from 0 to 1; differentiable where nothing is clipped. */
  decode(latents: Float): Float {
    return tidy(() => {
      const images = this.autoencoder.decode(this.autoencoder.toAutoencoder(latents))
      return images.mul(0.5).add(0.5).clip(0, 1) as Float
    })
  }

  /** Noise to start from, image i the same in every batch. */
  noise(batch: number, options: NoiseOptions = {}): Float {
    return latentNoise(this, batch, options)
  }

  /** Prompts as the transformer reads them. */
  encodePrompts(prompts: readonly string[]): Captions {
    return this.captions.forward(prompts)
  }

  /**
   * One image for each prompt.
   * @returns [prompts.length, 3, imageSize, imageSize] from 0 to 1
   */
  async generate(prompts: readonly string[], options: GenerateOptions = {}): Promise<Float> {
    checkOptions('options', options, ['steps', 'guidance', 'shift', 'seed', 'onStep'])
    const { steps = 50, guidance = 3, shift = 3, seed = 0, onStep } = options
    if (!Array.isArray(prompts) || prompts.length === 0)
      fail('ERR_CONFIG', `prompts: expected an array of at least one, got ${show(prompts)}`)
    const condition = this.encodePrompts(prompts)
    const unconditional = this.encodePrompts(prompts.map(() => ''))
    const noise = this.noise(prompts.length, { seed })
    try {
      using latents = await sample(this.transformer, noise, {
        schedule: this.schedule,
        condition,
        unconditional,
        guidance,
        times: samplingTimes(steps, { shift }),
        ...(onStep === undefined ? {} : { onStep }),
      })
      return this.decode(latents)
    } finally {
      for (const made of [condition.features, unconditional.features, noise]) made.dispose()
    }
  }

  /** Writes everything to one safetensors file. @param options `dtype` in the file. Default bfloat16. */
  async save(file: string, options: { dtype?: FloatDType } = {}): Promise<void> {
    await saveWeights(file, kind, this.config, this, options)
  }

  override dispose(): void {
    // The transformer holds more than parameters.
    for (const part of [this.autoencoder, this.transformer, this.captions]) part.dispose()
  }
}

/**
 * A nano Z-Image with new weights.
 * @example
 * const model = nanoZImage({
 *   imageSize: 64,
 *   autoencoder: { block_out_channels: [16, 32, 64], norm_num_groups: 8 },
 *   transformer: { dim: 192, n_layers: 6, n_refiner_layers: 1, n_heads: 6, in_channels: 4, cap_feat_dim: 192,
 *                  axes_dims: [8, 12, 12], axes_lens: [64, 32, 32] },
 *   captions: { vocabulary, dim: 192 },
 * }, { seed: 1 })
 * const images = await model.generate(['red heart'], { steps: 50, guidance: 3 })
 */
export function nanoZImage(config: NanoZImageConfig, options: NanoZImageOptions = {}): NanoZImage {
  checkOptions('options', options, ['seed', 'dtype', 'device'])
  return new NanoZImage(new Initializer({ seed: 0, ...options }), config)
}

/**
 * The nano Z-Image in a file.
 * @param options where to and as what. Default: float32 on the CPU.
 * @throws {DidrError} (as a rejection) ERR_FORMAT, ERR_IO, ERR_CONFIG naming what does not fit
 */
export async function loadNanoZImage(
  file: string,
  options: PlaceOptions<FloatDType> = {},
): Promise<NanoZImage> {
  checkOptions('options', options, ['dtype', 'device'])
  const weights = await loadWeights(file, kind, { device: options.device })
  return moduleFrom(weights, (config) => nanoZImage(config as NanoZImageConfig, options))
}
