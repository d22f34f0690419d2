/**
 * AutoencoderKL, the variational autoencoder of latent diffusion (arXiv 2112.10752), at any size. Fields have the names
 * of diffusers' `AutoencoderKL`, so its weights load as they are.
 */
import { checkBoolean, checkFinite, checkInteger, checkOneOf, checkOptions } from '../checks.js'
import { fail, show } from '../errors.js'
import { attention, upsampleNearest2x } from '../nn/functional.js'
import { Initializer } from '../nn/initializer.js'
import { Conv2d, GroupNorm, Linear } from '../nn/layers.js'
import { Module } from '../nn/module.js'
import { normal, type PlaceOptions } from '../tensor/create.js'
import type { FloatDType } from '../tensor/dtype.js'
import { tidy } from '../tensor/scope.js'
import { showShape } from '../tensor/shape.js'
import { checkSameDevice, checkSameDType, idOf, type Tensor } from '../tensor/tensor.js'
import { loadWeights, moduleFrom, saveWeights } from './weights.js'

type Float = Tensor<FloatDType>

/** The fields of diffusers' `config.json` for `AutoencoderKL` that change the network, and some that may only say so. */
export interface AutoencoderKLConfig {
  /** Channels of an image. Default 3. */
  in_channels?: number
  /** Channels of a reconstruction. Default 3. */
  out_channels?: number
  /** Width of each level; each level but the last halves the resolution. */
  block_out_channels: readonly number[]
  /** Residual blocks of a level; the decoder has one more. Default 1. */
  layers_per_block?: number
  /** Channels of the latent. Default 4. */
  latent_channels?: number
  /** Groups of every GroupNorm. Default 32. */
  norm_num_groups?: number
  /** What a centred latent is multiplied by for the denoiser. Default 0.18215. */
  scaling_factor?: number
  /** The latent's centre. Default 0. */
  shift_factor?: number | null
  /** A 1x1 convolution behind the encoder. Default true. */
  use_quant_conv?: boolean
  /** A 1x1 convolution in front of the decoder. Default true. */
  use_post_quant_conv?: boolean
  /** Attention between the two blocks of the lowest resolution. Default true. */
  mid_block_add_attention?: boolean
  act_fn?: 'silu'
  down_block_types?: readonly string[]
  up_block_types?: readonly string[]
  /** The size of images in training: not read. */
  sample_size?: unknown
  /** For float16: not read. */
  force_upcast?: unknown
  /** Statistics by channel, which this network does not have. */
  latents_mean?: null
  latents_std?: null
}

type Known =
  | 'down_block_types'
  | 'up_block_types'
  | 'sample_size'
  | 'force_upcast'
  | 'latents_mean'
  | 'latents_std'
type Config = Required<Omit<AutoencoderKLConfig, Known>>

const eps = 1e-6

function checkConfig(config: AutoencoderKLConfig): Config {
  const defaults: Omit<Config, 'block_out_channels'> = {
    in_channels: 3,
    out_channels: 3,
    layers_per_block: 1,
    latent_channels: 4,
    norm_num_groups: 32,
    scaling_factor: 0.18215,
    shift_factor: 0,
    use_quant_conv: true,
    use_post_quant_conv: true,
    mid_block_add_attention: true,
    act_fn: 'silu',
  }
  const fields = [...Object.keys(defaults), 'block_out_channels']
  const others = [
    'down_block_types',
    'up_block_types',
    'sample_size',
    'force_upcast',
    'latents_mean',
    'latents_std',
  ]
  const remarks = Object.keys(config ?? {}).filter((field) => field.startsWith('_'))
  checkOptions('config', config, [...fields, ...others, ...remarks])
  const known = Object.fromEntries(
    Object.entries({ ...defaults, ...config }).filter(([field]) => fields.includes(field)),
  ) as unknown as Config
  known.shift_factor ??= 0

  for (const field of [
    'in_channels',
    'out_channels',
    'layers_per_block',
    'latent_channels',
    'norm_num_groups',
  ] as const)
    checkInteger(`config.${field}`, known[field], 1, 2 ** 20)
  for (const field of ['scaling_factor', 'shift_factor'] as const)
    checkFinite(`config.${field}`, known[field])
  if (known.scaling_factor === 0)
    fail('ERR_RANGE', 'config.scaling_factor: expected a number other than 0')
  for (const field of ['use_quant_conv', 'use_post_quant_conv', 'mid_block_add_attention'] as const)
    checkBoolean(`config.${field}`, known[field])
  checkOneOf('config.act_fn', known.act_fn, ['silu'])
  const widths = known.block_out_channels
  if (!Array.isArray(widths) || widths.length === 0)
    fail(
      'ERR_CONFIG',
      `config.block_out_channels: expected an array of widths, got ${show(widths)}`,
    )
  for (const [i, width] of widths.entries()) {
    checkInteger(`config.block_out_channels[${i}]`, width, 1, 2 ** 20)
    if (width % known.norm_num_groups !== 0)
      fail(
        'ERR_CONFIG',
        `config.block_out_channels[${i}]: expected a multiple of norm_num_groups, ${known.norm_num_groups}, got ${width}`,
      )
  }
  for (const [field, kind] of [
    ['down_block_types', 'DownEncoderBlock2D'],
    ['up_block_types', 'UpDecoderBlock2D'],
  ] as const) {
    const types: unknown = config[field]
    if (
      types !== undefined &&
      (!Array.isArray(types) ||
        types.length !== widths.length ||
        types.some((type) => type !== kind))
    )
      fail('ERR_CONFIG', `config.${field}: expected ${kind} for each level, got ${show(types)}`)
  }
  for (const field of ['latents_mean', 'latents_std'] as const)
    if ((config[field] ?? null) !== null)
      fail('ERR_CONFIG', `config.${field}: expected null, got ${show(config[field])}`)
  return known
}

/** x + conv(silu(norm(conv(silu(norm(x)))))), with a 1x1 convolution on x where the width changes. */
class ResnetBlock extends Module {
  readonly norm1: GroupNorm
  readonly conv1: Conv2d
  readonly norm2: GroupNorm
  readonly conv2: Conv2d
  readonly conv_shortcut: Conv2d | null

  constructor(init: Initializer, channels: number, out: number, groups: number) {
    super()
    this.norm1 = new GroupNorm(init, groups, channels, { eps })
    this.conv1 = new Conv2d(init, channels, out, 3, { padding: 1 })
    this.norm2 = new GroupNorm(init, groups, out, { eps })
    this.conv2 = new Conv2d(init, out, out, 3, { padding: 1 })
    this.conv_shortcut = channels === out ? null : new Conv2d(init, channels, out, 1)
  }

  forward(x: Float): Float {
    return tidy(() => {
      const h = this.conv1.forward(this.norm1.forward(x, 'silu'))
      const out = this.conv2.forward(this.norm2.forward(h, 'silu'))
      return out.add(this.conv_shortcut?.forward(x) ?? x) as Float
    })
  }
}

/** Attention with one head over the pixels, and a residual. */
class SpatialAttention extends Module {
  readonly group_norm: GroupNorm
  readonly to_q: Linear
  readonly to_k: Linear
  readonly to_v: Linear
  readonly to_out: [Linear]

  constructor(init: Initializer, channels: number, groups: number) {
    super()
    this.group_norm = new GroupNorm(init, groups, channels, { eps })
    this.to_q = new Linear(init, channels, channels)
    this.to_k = new Linear(init, channels, channels)
    this.to_v = new Linear(init, channels, channels)
    this.to_out = [new Linear(init, channels, channels)]
  }

  forward(x: Float): Float {
    return tidy(() => {
      const [batch, channels, height, width] = x.shape as [number, number, number, number]
      const pixels = height * width
      const h = this.group_norm
        .forward(x)
        .reshape([batch, channels, pixels])
        .permute([0, 2, 1]) as Float
      const head = [batch, pixels, 1, channels]
      const projected = (projection: Linear) => projection.forward(h).reshape(head) as Float
      const [q, k, v] = [projected(this.to_q), projected(this.to_k), projected(this.to_v)]
      const attended = attention(q, k, v).reshape([batch, pixels, channels]) as Float
      return x.add(this.to_out[0].forward(attended).permute([0, 2, 1]).reshape(x.shape)) as Float
    })
  }
}

/** Halves the resolution: stride 2 with a row and a column of zeros behind. */
class Downsampler extends Module {
  readonly conv: Conv2d

  constructor(init: Initializer, channels: number) {
    super()
    this.conv = new Conv2d(init, channels, channels, 3, { stride: 2, padding: [0, 1, 0, 1] })
  }

  forward(x: Float): Float {
    return this.conv.forward(x)
  }
}

/** Doubles the resolution. */
class Upsampler extends Module {
  readonly conv: Conv2d

  constructor(init: Initializer, channels: number) {
    super()
    this.conv = new Conv2d(init, channels, channels, 3, { padding: 1 })
  }

  forward(x: Float): Float {
    return tidy(() => this.conv.forward(upsampleNearest2x(x)))
  }
}

function resnets(
  init: Initializer,
  from: number,
  to: number,
  groups: number,
  depth: number,
): ResnetBlock[] {
  return Array.from(
    { length: depth },
    (_, i) => new ResnetBlock(init, i === 0 ? from : to, to, groups),
  )
}

class DownBlock extends Module {
  readonly resnets: ResnetBlock[]
  readonly downsamplers: [Downsampler] | null

  constructor(init: Initializer, config: Config, level: number) {
    super()
    const { block_out_channels: widths, norm_num_groups, layers_per_block } = config
    const width = widths[level] as number
    this.resnets = resnets(
      init,
      widths[level - 1] ?? width,
      width,
      norm_num_groups,
      layers_per_block,
    )
    this.downsamplers = level + 1 < widths.length ? [new Downsampler(init, width)] : null
  }

  forward(x: Float): Float {
    return chained(x, [...this.resnets, ...(this.downsamplers ?? [])])
  }
}

class UpBlock extends Module {
  readonly resnets: ResnetBlock[]
  readonly upsamplers: [Upsampler] | null

  constructor(init: Initializer, config: Config, level: number) {
    super()
    const { norm_num_groups, layers_per_block } = config
    const widths = config.block_out_channels.toReversed()
    const width = widths[level] as number
    this.resnets = resnets(
      init,
      widths[level - 1] ?? width,
      width,
      norm_num_groups,
      layers_per_block + 1,
    )
    this.upsamplers = level + 1 < widths.length ? [new Upsampler(init, width)] : null
  }

  forward(x: Float): Float {
    return chained(x, [...this.resnets, ...(this.upsamplers ?? [])])
  }
}

class MidBlock extends Module {
  readonly resnets: [ResnetBlock, ResnetBlock]
  readonly attentions: [SpatialAttention] | null

  constructor(
    init: Initializer,
    width: number,
    { norm_num_groups, mid_block_add_attention }: Config,
  ) {
    super()
    this.resnets = [
      new ResnetBlock(init, width, width, norm_num_groups),
      new ResnetBlock(init, width, width, norm_num_groups),
    ]
    this.attentions = mid_block_add_attention
      ? [new SpatialAttention(init, width, norm_num_groups)]
      : null
  }

  forward(x: Float): Float {
    return chained(x, [this.resnets[0], ...(this.attentions ?? []), this.resnets[1]])
  }
}

/** Modules one after another; what is between them is released. */
function chained(x: Float, modules: readonly { forward(x: Float): Float }[]): Float {
  return tidy(() => {
    let h = x
    for (const module of modules) {
      const next = module.forward(h)
      if (h !== x) h.dispose()
      h = next
    }
    return h
  })
}

/** The end of either half; takes h over. */
function last(h: Float, norm: GroupNorm, conv: Conv2d): Float {
  const y = tidy(() => conv.forward(norm.forward(h, 'silu')))
  h.dispose()
  return y
}

class Encoder extends Module {
  readonly conv_in: Conv2d
  readonly down_blocks: DownBlock[]
  readonly mid_block: MidBlock
  readonly conv_norm_out: GroupNorm
  readonly conv_out: Conv2d

  constructor(init: Initializer, config: Config) {
    super()
    const { in_channels, block_out_channels: widths, latent_channels, norm_num_groups } = config
    const [top, bottom] = [widths[0] as number, widths.at(-1) as number]
    this.conv_in = new Conv2d(init, in_channels, top, 3, { padding: 1 })
    this.down_blocks = widths.map((_, level) => new DownBlock(init, config, level))
    this.mid_block = new MidBlock(init, bottom, config)
    this.conv_norm_out = new GroupNorm(init, norm_num_groups, bottom, { eps })
    this.conv_out = new Conv2d(init, bottom, 2 * latent_channels, 3, { padding: 1 })
  }

  forward(x: Float): Float {
    const { conv_in, down_blocks, mid_block, conv_norm_out, conv_out } = this
    const h = chained(x, [conv_in, ...down_blocks, mid_block])
    return last(h, conv_norm_out, conv_out)
  }
}

class Decoder extends Module {
  readonly conv_in: Conv2d
  readonly mid_block: MidBlock
  readonly up_blocks: UpBlock[]
  readonly conv_norm_out: GroupNorm
  readonly conv_out: Conv2d

  constructor(init: Initializer, config: Config) {
    super()
    const { out_channels, block_out_channels: widths, latent_channels, norm_num_groups } = config
    const [top, bottom] = [widths[0] as number, widths.at(-1) as number]
    this.conv_in = new Conv2d(init, latent_channels, bottom, 3, { padding: 1 })
    this.mid_block = new MidBlock(init, bottom, config)
    this.up_blocks = widths.map((_, level) => new UpBlock(init, config, level))
    this.conv_norm_out = new GroupNorm(init, norm_num_groups, top, { eps })
    this.conv_out = new Conv2d(init, top, out_channels, 3, { padding: 1 })
  }

  forward(x: Float): Float {
    const { conv_in, mid_block, up_blocks, conv_norm_out, conv_out } = this
    const h = chained(x, [conv_in, mid_block, ...up_blocks])
    return last(h, conv_norm_out, conv_out)
  }
}

/** A normal distribution over latents, [B, latent_channels, h, w] each. */
export interface LatentDistribution {
  mean: Float
  /** Between -30 and 20. */
  logVariance: Float
}

/** Images to latents and back: see {@link autoencoderKL}. */
export class AutoencoderKL extends Module {
  readonly config: Config
  readonly encoder: Encoder
  readonly decoder: Decoder
  readonly quant_conv: Conv2d | null
  readonly post_quant_conv: Conv2d | null

  constructor(init: Initializer, config: AutoencoderKLConfig) {
    super()
    const known = checkConfig(config)
    const { latent_channels: latent } = known
    this.config = known
    this.encoder = new Encoder(init, known)
    this.decoder = new Decoder(init, known)
    this.quant_conv = known.use_quant_conv ? new Conv2d(init, 2 * latent, 2 * latent, 1) : null
    this.post_quant_conv = known.use_post_quant_conv ? new Conv2d(init, latent, latent, 1) : null
  }

  /** Pixels along an edge for each pixel of the latent. */
  get factor(): number {
    return 2 ** (this.config.block_out_channels.length - 1)
  }

  /**
   * @param images [B, in_channels, H, W], as a rule between -1 and 1; `factor` divides H and W
   * @throws {DidrError} ERR_SHAPE for other shapes
   */
  encode(images: Float): LatentDistribution {
    this.checkInput('images', images, this.config.in_channels, this.factor)
    return tidy(() => {
      const encoded = this.encoder.forward(images)
      const moments = this.quant_conv?.forward(encoded) ?? encoded
      const [batch, , height, width] = moments.shape as [number, number, number, number]
      const channels = this.config.latent_channels
      const part = (from: number) =>
        moments.slice([0, from, 0, 0], [batch, channels, height, width]) as Float
      return { mean: part(0), logVariance: part(channels).clip(-30, 20) }
    })
  }

  /** A latent from the distribution: mean + exp(logVariance / 2) · ε, with ε drawn by seed and offset. */
  sample(
    { mean, logVariance }: LatentDistribution,
    draw: { seed: number; offset?: number },
  ): Float {
    checkOptions('draw', draw, ['seed', 'offset'])
    return tidy(() => {
      const noise = normal(mean.shape, { ...draw, dtype: mean.dtype, device: mean.device })
      return mean.add(logVariance.mul(0.5).exp().mul(noise)) as Float
    })
  }

  /**
   * @param latent [B, latent_channels, h, w], in the autoencoder's own scale: see {@link toAutoencoder}
   * @returns [B, out_channels, factor · h, factor · w]
   */
  decode(latent: Float): Float {
    this.checkInput('latent', latent, this.config.latent_channels, 1)
    return tidy(() => this.decoder.forward(this.post_quant_conv?.forward(latent) ?? latent))
  }

  /** A latent as the denoiser has it: (latent - shift_factor) · scaling_factor. */
  toDenoiser(latent: Float): Float {
    const { shift_factor, scaling_factor } = this.config
    return tidy(() => latent.sub(shift_factor ?? 0).mul(scaling_factor) as Float)
  }

  /** The inverse of {@link toDenoiser}. */
  toAutoencoder(latent: Float): Float {
    const { shift_factor, scaling_factor } = this.config
    return tidy(() => latent.div(scaling_factor).add(shift_factor ?? 0) as Float)
  }

  private checkInput(name: string, x: Float, channels: number, factor: number): void {
    const { value } = this.encoder.conv_in.weight
    idOf(name, x as Tensor)
    checkSameDType(name, x as Tensor, value as Tensor)
    checkSameDevice(name, x as Tensor, value as Tensor)
    const [, c, height, width] = x.shape as [number, number, number, number]
    if (
      x.rank !== 4 ||
      c !== channels ||
      height === 0 ||
      width === 0 ||
      height % factor !== 0 ||
      width % factor !== 0
    )
      fail(
        'ERR_SHAPE',
        `${name}: expected [batch, ${channels}, height, width] with multiples of ${factor}, got ${showShape(x.shape)}`,
      )
  }
}

/** Where an autoencoder's first values come from and where they live. */
export interface AutoencoderKLOptions extends PlaceOptions<FloatDType> {
  /** Of the first values. Default 0. */
  seed?: number
}

/**
 * An autoencoder with new weights; `loadState` takes published ones.
 *
 * @param config diffusers' `config.json`, as it is
 * @example
 * const autoencoder = models.autoencoderKL({ block_out_channels: [16, 32, 64], norm_num_groups: 8 }, { seed: 1 })
 * const latent = autoencoder.sample(autoencoder.encode(images), { seed: 2 })
 * const images = autoencoder.decode(latent)
 */
export function autoencoderKL(
  config: AutoencoderKLConfig,
  options: AutoencoderKLOptions = {},
): AutoencoderKL {
  checkOptions('options', options, ['seed', 'dtype', 'device'])
  return new AutoencoderKL(new Initializer({ seed: 0, ...options }), config)
}

const kind = 'autoencoder-kl'

/**
 * Writes an autoencoder to a safetensors file, its config in the metadata.
 * @param latents how its latents are normalised. Default: as its config says.
 * @param options `dtype` in the file. Default bfloat16.
 */
export async function saveAutoencoderKL(
  file: string,
  model: AutoencoderKL,
  latents: Pick<AutoencoderKLConfig, 'shift_factor' | 'scaling_factor'> = {},
  options: { dtype?: FloatDType } = {},
): Promise<void> {
  await saveWeights(file, kind, { ...model.config, ...latents }, model, options)
}

/** The autoencoder in a file. @throws {DidrError} (as a rejection) ERR_FORMAT, ERR_IO, ERR_CONFIG */
export async function loadAutoencoderKL(
  file: string,
  options: PlaceOptions<FloatDType> = {},
): Promise<AutoencoderKL> {
  checkOptions('options', options, ['dtype', 'device'])
  const weights = await loadWeights(file, kind, { device: options.device })
  return moduleFrom(weights, (config) => autoencoderKL(config as AutoencoderKLConfig, options))
}
