/**
 * Z-Image (arXiv 2511.22699) from the folder in which it is published, laid out as diffusers' `ZImagePipeline`:
 *
 *     model_index.json                  which classes; may be missing
 *     transformer/config.json           with diffusion_pytorch_model.safetensors, or .safetensors.index.json and shards
 *     vae/config.json                   the same
 *     scheduler/scheduler_config.json   the sampler's shift; may be missing
 *
 * Text encoder and tokenizer are not read: see `data.loadCaptionEmbeddings`.
 */
import { existsSync } from 'node:fs'
import path from 'node:path'
import { checkBoolean, checkInteger, checkOneOf, checkOptions } from '../checks.js'
import { flow, type Schedule } from '../didr/schedules.js'
import { DidrError, fail, show } from '../errors.js'
import { Initializer } from '../nn/initializer.js'
import type { Module } from '../nn/module.js'
import type { PlaceOptions } from '../tensor/create.js'
import type { Device } from '../tensor/device.js'
import type { FloatDType } from '../tensor/dtype.js'
import { tidy } from '../tensor/scope.js'
import type { Tensor } from '../tensor/tensor.js'
import { readConfig } from '../train/config.js'
import { AutoencoderKL, type AutoencoderKLConfig } from './autoencoder-kl.js'
import { inspectCheckpoint, loadCheckpoint } from './checkpoint.js'
import { S3DiT } from './s3dit.js'
import { checkS3DiTConfig, type S3DiTConfig } from './s3dit-config.js'
import type { TextToImage } from './text-to-image.js'

type Float = Tensor<FloatDType>
type Fields = Record<string, unknown>

/** How {@link loadZImage} loads the networks. */
export interface LoadZImageOptions extends PlaceOptions<FloatDType> {
  /** Of the transformer: bfloat16, the default, or float32. The autoencoder is float32. */
  dtype?: FloatDType
  /** Of the transformer: see {@link S3DiTOptions}. Default false. */
  checkpointing?: boolean
}

/** Z-Image's networks. Prompts come as features of its text encoder, which is not among them. */
export class ZImage {
  readonly transformer: S3DiT
  readonly autoencoder: AutoencoderKL
  /** Of the sampler's times: see {@link samplingTimes}. */
  readonly shift: number
  /** The schedule whose times the transformer is given. */
  readonly schedule: Schedule = flow()

  /** Takes the networks over. @internal */
  constructor(transformer: S3DiT, autoencoder: AutoencoderKL, shift: number) {
    this.transformer = transformer
    this.autoencoder = autoencoder
    this.shift = shift
  }

  get device(): Device {
    return this.transformer.x_pad_token.value.device
  }

  /**
   * Of the latents of a batch: [batch, channels, height / factor, width / factor].
   * @param size of the images in pixels, multiples of 16 for the published networks
   * @throws {DidrError} ERR_RANGE for a size that the autoencoder's levels and the transformer's patches do not divide
   */
  latentShape(batch: number, size: { height: number; width: number }): number[] {
    checkInteger('batch', batch, 1)
    checkOptions('size', size, ['height', 'width'])
    const { factor, config } = this.autoencoder
    const step = factor * (this.transformer.config.all_patch_size[0] as number)
    for (const edge of ['height', 'width'] as const) {
      checkInteger(`size.${edge}`, size[edge], step)
      if (size[edge] % step !== 0)
        fail('ERR_RANGE', `size.${edge}: expected a multiple of ${step}, got ${size[edge]}`)
    }
    return [batch, config.latent_channels, size.height / factor, size.width / factor]
  }

  /** Normalised latents as float32 images [B, 3, H, W] from 0 to 1; differentiable where nothing is clipped. */
  decode(latents: Float): Float {
    return tidy(() => {
      const { autoencoder } = this
      // The convolutions are float32 alone.
      const given = latents.dtype === 'float32' ? latents : (latents.cast('float32') as Float)
      const images = autoencoder.decode(autoencoder.toAutoencoder(given))
      return images.mul(0.5).add(0.5).clip(0, 1) as Float
    })
  }

  /** The networks at a size of images: what {@link loraGenerator} takes. */
  sized(size: { height: number; width: number }): TextToImage {
    this.latentShape(1, size)
    return {
      transformer: this.transformer,
      schedule: this.schedule,
      device: this.device,
      latentShape: (batch) => this.latentShape(batch, size),
      decode: (latents) => this.decode(latents),
    }
  }

  /** Releases both networks. */
  dispose(): void {
    this.transformer.dispose()
    this.autoencoder.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

/**
 * Loads Z-Image from a folder. All headers are read before memory is taken; then tensors go from the files to the
 * parameters in parts, so that the most that is held is the networks and 256 MiB (or the largest tensor) of a file.
 *
 * @param folder as `huggingface-cli download Tongyi-MAI/Z-Image-Turbo --local-dir <folder>` writes it
 * @throws {DidrError} (as a rejection) ERR_IO for files that are missing; ERR_FORMAT for configs with fields or values
 *   that these networks do not have, and for missing, unknown or ill-shaped tensors, naming them. Nothing is left behind.
 * @example
 * using zImage = await models.loadZImage('Z-Image-Turbo', { device: await device('cuda') })
 * using captions = await data.loadCaptionEmbeddings('captions.safetensors', { device: zImage.device })
 */
export async function loadZImage(folder: string, options: LoadZImageOptions = {}): Promise<ZImage> {
  if (typeof folder !== 'string' || folder === '')
    fail('ERR_CONFIG', `folder: expected a path, got ${show(folder)}`)
  checkOptions('options', options, ['dtype', 'device', 'checkpointing'])
  const { dtype = 'bfloat16', device, checkpointing = false } = options
  checkOneOf('options.dtype', dtype, ['bfloat16', 'float32'])
  checkBoolean('options.checkpointing', checkpointing)

  const at = (...parts: string[]) => path.join(folder, ...parts)
  await checkModelIndex(at('model_index.json'))
  const shift = await shiftOf(at('scheduler', 'scheduler_config.json'))
  const files = { transformer: at('transformer', 'config.json'), vae: at('vae', 'config.json') }
  const configs = {
    transformer: await transformerConfig(files.transformer),
    vae: await configOf(files.vae, classes.vae),
  }
  const stored = {
    transformer: await inspectCheckpoint(at('transformer')),
    vae: await inspectCheckpoint(at('vae')),
  }

  const place = { seed: 0, draw: false, ...(device === undefined ? {} : { device }) }
  const made: Module[] = []
  try {
    // The smaller one first: a folder whose parts do not fit is refused before the larger one takes its memory.
    const autoencoder = built(
      files.vae,
      () =>
        new AutoencoderKL(new Initializer(place), configs.vae as unknown as AutoencoderKLConfig),
    )
    made.push(autoencoder)
    const { latent_channels } = autoencoder.config
    if (latent_channels !== configs.transformer.in_channels)
      fail(
        'ERR_FORMAT',
        `${files.transformer}: in_channels: expected the latent_channels of the vae, ${latent_channels}, got ${configs.transformer.in_channels}`,
      )
    await loadCheckpoint(autoencoder, stored.vae)
    const transformer = new S3DiT(new Initializer({ ...place, dtype }), configs.transformer, {
      checkpointing,
    })
    made.push(transformer)
    await loadCheckpoint(transformer, stored.transformer)
    return new ZImage(transformer, autoencoder, shift)
  } catch (error) {
    for (const module of made) module.dispose()
    throw error
  }
}

/** Of the parts in model_index.json and in the parts' own configs. */
const classes = {
  transformer: 'ZImageTransformer2DModel',
  vae: 'AutoencoderKL',
  scheduler: 'FlowMatchEulerDiscreteScheduler',
} as const

async function checkModelIndex(file: string): Promise<void> {
  if (!existsSync(file)) return
  const index = (await readConfig(file)) as Fields
  for (const part of ['transformer', 'vae'] as const) {
    const named = index[part]
    const name = Array.isArray(named) ? named[1] : named
    if (name !== classes[part])
      fail('ERR_FORMAT', `${file}: ${part}: expected ${classes[part]}, got ${show(name)}`)
  }
}

/** A part's config, whose class is checked where it says one. */
async function configOf(file: string, wanted: string): Promise<Fields> {
  const config = (await readConfig(file)) as Fields
  const name = config._class_name ?? wanted
  if (name !== wanted)
    fail('ERR_FORMAT', `${file}: _class_name: expected ${wanted}, got ${show(name)}`)
  return config
}

async function transformerConfig(file: string): Promise<Required<S3DiTConfig>> {
  // Width of the image features that Z-Image's editing variant reads with further layers: null in the others.
  const { siglip_feat_dim, ...config } = await configOf(file, classes.transformer)
  if ((siglip_feat_dim ?? null) !== null)
    fail('ERR_FORMAT', `${file}: siglip_feat_dim: expected null, got ${show(siglip_feat_dim)}`)
  return built(file, () => checkS3DiTConfig(config as S3DiTConfig))
}

/** What the scheduler's config must say if it says anything: other values are other samplers. */
const samplerFields: Fields = {
  num_train_timesteps: 1000,
  use_dynamic_shifting: false,
  invert_sigmas: false,
  shift_terminal: null,
  stochastic_sampling: false,
  use_beta_sigmas: false,
  use_exponential_sigmas: false,
  use_karras_sigmas: false,
}
/** Read by diffusers where shifting is dynamic alone. */
const dynamicFields = [
  'base_image_seq_len',
  'base_shift',
  'max_image_seq_len',
  'max_shift',
  'time_shift_type',
]

async function shiftOf(file: string): Promise<number> {
  if (!existsSync(file)) return 3
  const config = await configOf(file, classes.scheduler)
  for (const [field, value] of Object.entries(config)) {
    if (field === 'shift' || field.startsWith('_') || dynamicFields.includes(field)) continue
    if (!Object.hasOwn(samplerFields, field)) fail('ERR_FORMAT', `${file}: ${field}: unknown field`)
    if (value !== samplerFields[field])
      fail('ERR_FORMAT', `${file}: ${field}: expected ${samplerFields[field]}, got ${show(value)}`)
  }
  // The scheduler's own default.
  const { shift = 1 } = config
  if (typeof shift !== 'number' || !(shift > 0))
    return fail('ERR_FORMAT', `${file}: shift: expected a number above 0, got ${show(shift)}`)
  return shift
}

/** What a config in a file makes; refusals name the file. */
function built<T>(file: string, make: () => T): T {
  try {
    return make()
  } catch (error) {
    if (!(error instanceof DidrError) || !['ERR_CONFIG', 'ERR_RANGE'].includes(error.code))
      throw error
    return fail('ERR_FORMAT', `${file}: ${error.message}`, { cause: error })
  }
}
