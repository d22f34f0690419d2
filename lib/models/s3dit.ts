/**
 * S3-DiT, the single-stream diffusion transformer of Z-Image (arXiv 2511.22699), at any size. Images and captions are
 * one sequence of tokens. Fields have the names of diffusers' `ZImageTransformer2DModel`, so its weights load as they
 * are.
 */
import { checkpoint, Parameter } from '../autograd/index.js'
import { checkBoolean, checkOptions } from '../checks.js'
import { checkTimes } from '../didr/samples.js'
import { checkSchedule, flow, type Schedule } from '../didr/schedules.js'
import { fail, show } from '../errors.js'
import { embedding, layerNorm } from '../nn/functional.js'
import { Initializer } from '../nn/initializer.js'
import { Linear, RmsNorm } from '../nn/layers.js'
import { Module } from '../nn/module.js'
import type { PlaceOptions } from '../tensor/create.js'
import type { FloatDType } from '../tensor/dtype.js'
import { concat } from '../tensor/layout.js'
import { tidy } from '../tensor/scope.js'
import { showShape } from '../tensor/shape.js'
import { checkSameDevice, checkSameDType, idOf, Tensor } from '../tensor/tensor.js'
import type { Captions } from './caption-encoder.js'
import { modulationSize, S3DiTBlock } from './s3dit-block.js'
import { checkS3DiTConfig, type S3DiTConfig } from './s3dit-config.js'
import { type Grid, type Layout, layoutOf, type Sequences } from './s3dit-layout.js'
import type { Condition, ScoreModel } from './score-model.js'
import { TimestepEmbedding } from './timestep-embedding.js'

type Float = Tensor<FloatDType>
type Config = Required<S3DiTConfig>

/** How an {@link S3DiT} is asked and trained, and where its values live. */
export interface S3DiTOptions extends PlaceOptions<FloatDType> {
  /** Of the first values. Default 0. */
  seed?: number
  /**
   * Recompute each block in the backward pass instead of keeping its intermediates: less memory for about a third more
   * time. May be changed later. Default false.
   */
  checkpointing?: boolean
  /** The schedule whose times `forward` is given. Default `schedules.flow()`. */
  schedule?: Schedule
}

/** LayerNorm without parameters, scaled by the time's embedding, and a linear layer to the pixels of a patch. */
class FinalLayer extends Module {
  readonly linear: Linear
  readonly adaLN_modulation: [null, Linear]

  constructor(init: Initializer, config: Config, size: number) {
    super()
    this.linear = new Linear(init, config.dim, size, { zero: true })
    this.adaLN_modulation = [
      null,
      new Linear(init, modulationSize(config), config.dim, { zero: true }),
    ]
  }

  forward(x: Float, time: Float): Float {
    const scale = this.adaLN_modulation[1].forward(time.silu() as Float)
    return this.linear.forward(layerNorm(x, { eps: 1e-6, scale }))
  }
}

/** Layouts that are kept for the next batch of the same sizes. */
const keptLayouts = 16

/** The transformer of Z-Image: see {@link s3dit}. */
export class S3DiT extends Module implements ScoreModel {
  /**
   * The network's own output is x0 - ε, which `forward` negates: `flow` is ε - x0.
   */
  readonly prediction = 'flow' as const
  readonly config: Config
  /** See {@link S3DiTOptions}. */
  checkpointing: boolean

  readonly all_x_embedder: Record<string, Linear>
  readonly all_final_layer: Record<string, FinalLayer>
  readonly noise_refiner: S3DiTBlock[]
  readonly context_refiner: S3DiTBlock[]
  readonly t_embedder: TimestepEmbedding
  readonly cap_embedder: [RmsNorm, Linear]
  readonly x_pad_token: Parameter
  readonly cap_pad_token: Parameter
  readonly layers: S3DiTBlock[]

  private readonly schedule: Schedule
  private readonly layouts = new Map<string, Layout>()

  constructor(
    init: Initializer,
    config: S3DiTConfig,
    options: Pick<S3DiTOptions, 'checkpointing' | 'schedule'> = {},
  ) {
    super()
    const known = checkS3DiTConfig(config)
    const { checkpointing = false, schedule = flow() } = options
    checkBoolean('options.checkpointing', checkpointing)
    checkSchedule('options.schedule', schedule)
    this.config = known
    this.checkpointing = checkpointing
    this.schedule = schedule
    const { dim, cap_feat_dim, n_layers, n_refiner_layers, norm_eps } = known
    const patchSizes = known.all_patch_size.map(
      (patch, i) =>
        [`${patch}-${known.all_f_patch_size[i]}`, patch ** 2 * known.in_channels] as const,
    )
    this.all_x_embedder = Object.fromEntries(
      patchSizes.map(([key, size]) => [key, new Linear(init, size, dim)]),
    )
    this.all_final_layer = Object.fromEntries(
      patchSizes.map(([key, size]) => [key, new FinalLayer(init, known, size)]),
    )
    const blocks = (length: number, modulated: boolean) =>
      Array.from({ length }, () => new S3DiTBlock(init, known, { modulated }))
    this.noise_refiner = blocks(n_refiner_layers, true)
    this.context_refiner = blocks(n_refiner_layers, false)
    this.t_embedder = new TimestepEmbedding(init, modulationSize(known))
    this.cap_embedder = [
      new RmsNorm(init, cap_feat_dim, { eps: norm_eps }),
      new Linear(init, cap_feat_dim, dim),
    ]
    this.x_pad_token = new Parameter('x_pad_token', init.normal([1, dim], 0.02))
    this.cap_pad_token = new Parameter('cap_pad_token', init.normal([1, dim], 0.02))
    this.layers = blocks(n_layers, true)
  }

  /**
   * The velocity ε - x0 of images of one size.
   * @param xt [B, in_channels, H, W]
   * @param t the schedule's time of each sample
   * @param condition features of the captions: packed as a {@link CaptionEncoder} returns them, one [L, cap_feat_dim]
   *   for each sample, or [B, L, cap_feat_dim]
   * @returns like xt
   */
  forward(
    xt: Float,
    t: Float32Array,
    condition?: Condition | Captions | Float | readonly Float[],
  ): Float {
    if (condition === undefined)
      fail('ERR_CONFIG', "condition: expected captions; encode '' for an unconditional sample")
    idOf('xt', xt as Tensor)
    checkTimes(t, 'xt', xt.shape[0] ?? 0)
    const time = t.map((at) => {
      const [alpha, sigma] = [this.schedule.alpha(at), this.schedule.sigma(at)]
      return alpha / (alpha + sigma)
    })
    return tidy(() => this.transform(xt, time, packed(condition)).neg() as Float)
  }

  /**
   * The network itself: from images with noise to x0 - ε.
   * @param images [B, in_channels, H, W], or a list of [in_channels, H, W] of sizes that may differ
   * @param time 1 - τ of each sample: 0 for noise, 1 for a clean image
   * @returns like `images`
   * @throws {DidrError} ERR_SHAPE for other channels, sizes that patches do not divide, or batches that do not match;
   *   ERR_RANGE for more tokens along an axis than `axes_lens`.
   */
  transform(images: Float, time: ArrayLike<number>, captions: Captions): Float
  transform(images: readonly Float[], time: ArrayLike<number>, captions: Captions): Float[]
  transform(
    images: Float | readonly Float[],
    time: ArrayLike<number>,
    captions: Captions,
  ): Float | Float[] {
    const grids = this.checkImages(images)
    this.checkCaptions(captions, grids.length)
    if (time.length !== grids.length)
      fail(
        'ERR_SHAPE',
        `time: expected length ${grids.length} (batch of images), got ${time.length}`,
      )
    const layout = this.layoutFor(grids, captions.lengths)
    return tidy(() => {
      const tokens = this.tokensOut(images, time, captions, layout)
      if (!isList(images)) return this.unpatched(tokens, grids.length, grids[0] as Grid)
      return grids.map((grid, i) => {
        const own = tokens.slice([i, 0, 0], [1, grid[0] * grid[1], -1]) as Float
        return this.unpatched(own, 1, grid).reshape((images[i] as Float).shape) as Float
      })
    })
  }

  /** [B, image tokens of the largest image, pixels of a patch] */
  private tokensOut(
    images: Float | readonly Float[],
    time: ArrayLike<number>,
    captions: Captions,
    layout: Layout,
  ): Float {
    const { dim, t_scale } = this.config
    const batch = layout.grids.length
    const embedded = this.t_embedder.forward(
      Array.from(time, (at) => Math.fround(Math.fround(at) * t_scale)),
    )

    const patches = isList(images)
      ? (concat(images.map((image, i) => this.patched(image, 1, layout.grids[i] as Grid))) as Float)
      : this.patched(images, batch, layout.grids[0] as Grid)
    const x_embedder = this.all_x_embedder[this.patchKey] as Linear
    const image = this.run(
      this.noise_refiner,
      arranged(x_embedder.forward(patches), this.x_pad_token, layout.image, batch),
      layout.image,
      embedded,
    )

    let joint = image
    if (layout.caption.length > 0) {
      const [norm, linear] = this.cap_embedder
      const caption = this.run(
        this.context_refiner,
        arranged(
          linear.forward(norm.forward(captions.features)),
          this.cap_pad_token,
          layout.caption,
          batch,
        ),
        layout.caption,
      )
      const { rows } = layout.joint
      joint =
        rows === undefined
          ? (concat([image, caption], 1) as Float)
          : embedding(rows, concat([image.reshape([-1, dim]), caption.reshape([-1, dim])]) as Float)
    }
    joint = this.run(this.layers, joint, layout.joint, embedded)

    // Images come first, so the tokens behind the largest one are of no interest.
    const count = layout.imageTokens
    const shown =
      count === layout.joint.length ? joint : (joint.slice([0, 0, 0], [batch, count, dim]) as Float)
    return (this.all_final_layer[this.patchKey] as FinalLayer).forward(shown, embedded)
  }

  private run(
    blocks: readonly S3DiTBlock[],
    tokens: Float,
    sequences: Sequences,
    time?: Float,
  ): Float {
    let x = tokens
    for (const block of blocks) {
      const next = this.checkpointing
        ? checkpointed(block, x, sequences, time)
        : tidy(() => block.forward(x, sequences, time))
      x.dispose()
      x = next
    }
    return x
  }

  private get patch(): number {
    return this.config.all_patch_size[0] as number
  }

  private get patchKey(): string {
    return `${this.patch}-${this.config.all_f_patch_size[0]}`
  }

  /** [batch, C, rows p, columns p] -> [batch rows columns, p p C] */
  private patched(images: Float, batch: number, [rows, columns]: Grid): Float {
    const {
      patch: p,
      config: { in_channels: channels },
    } = this
    return images
      .reshape([batch, channels, rows, p, columns, p])
      .permute([0, 2, 4, 3, 5, 1])
      .reshape([batch * rows * columns, p * p * channels]) as Float
  }

  /** [batch, rows columns, p p C] -> [batch, C, rows p, columns p] */
  private unpatched(tokens: Float, batch: number, [rows, columns]: Grid): Float {
    const {
      patch: p,
      config: { in_channels: channels },
    } = this
    return tokens
      .reshape([batch, rows, columns, p, p, channels])
      .permute([0, 5, 1, 3, 2, 4])
      .reshape([batch, channels, rows * p, columns * p]) as Float
  }

  private layoutFor(grids: readonly Grid[], captionLengths: readonly number[]): Layout {
    const key = `${grids.join(' ')};${captionLengths.join(' ')}`
    const known = this.layouts.get(key)
    // Put back at the end: the first is the one that was last used the longest ago.
    this.layouts.delete(key)
    const layout =
      known ?? layoutOf(this.config, grids, captionLengths, this.x_pad_token.value.device)
    this.layouts.set(key, layout)
    if (this.layouts.size > keptLayouts) {
      const [oldest, gone] = this.layouts.entries().next().value as [string, Layout]
      this.layouts.delete(oldest)
      disposeLayout(gone)
    }
    return layout
  }

  private checkImages(images: unknown): Grid[] {
    if (isList(images)) {
      if (images.length === 0) fail('ERR_SHAPE', 'images: expected at least one')
      return images.map((image, i) => this.gridOf(`images[${i}]`, image as Float, 3))
    }
    const grid = this.gridOf('images', images as Float, 4)
    const batch = (images as Float).shape[0] as number
    if (batch === 0) fail('ERR_SHAPE', 'images: expected at least one')
    return new Array<Grid>(batch).fill(grid)
  }

  private gridOf(name: string, image: Float, rank: number): Grid {
    idOf(name, image as Tensor)
    checkSameDType(name, image as Tensor, this.x_pad_token.value as Tensor)
    checkSameDevice(name, image as Tensor, this.x_pad_token.value as Tensor)
    const {
      patch: p,
      config: { in_channels: channels },
    } = this
    const [c, height, width] = image.shape.slice(-3) as [number, number, number]
    if (
      image.rank !== rank ||
      c !== channels ||
      height === 0 ||
      width === 0 ||
      height % p !== 0 ||
      width % p !== 0
    )
      fail(
        'ERR_SHAPE',
        `${name}: expected [${rank === 4 ? 'batch, ' : ''}${channels}, height, width] with multiples of ${p}, got ${showShape(image.shape)}`,
      )
    return [height / p, width / p]
  }

  private checkCaptions(captions: Captions, batch: number): void {
    if (typeof captions !== 'object' || captions === null || !Array.isArray(captions.lengths))
      fail('ERR_CONFIG', `captions: expected { features, lengths }, got ${show(captions)}`)
    const { features, lengths } = captions
    idOf('captions.features', features as Tensor)
    checkSameDType('captions.features', features as Tensor, this.x_pad_token.value as Tensor)
    checkSameDevice('captions.features', features as Tensor, this.x_pad_token.value as Tensor)
    if (lengths.length !== batch)
      fail(
        'ERR_SHAPE',
        `captions.lengths: expected length ${batch} (batch of images), got ${lengths.length}`,
      )
    const total = lengths.reduce((sum: number, length: number) => sum + length, 0)
    const width = this.config.cap_feat_dim
    if (features.rank !== 2 || features.shape[0] !== total || features.shape[1] !== width)
      fail(
        'ERR_SHAPE',
        `captions.features: expected [${total}, ${width}], got ${showShape(features.shape)}`,
      )
  }

  override dispose(): void {
    super.dispose()
    for (const layout of this.layouts.values()) disposeLayout(layout)
    this.layouts.clear()
  }
}

function disposeLayout({ image, caption, joint }: Layout): void {
  for (const { mask, cos, sin, rows } of [image, caption, joint])
    for (const x of [mask, cos, sin, rows]) x?.dispose()
}

/** A block that is run again in the backward pass, for which the tape keeps all that it reads, tables included. */
function checkpointed(block: S3DiTBlock, x: Float, sequences: Sequences, time?: Float): Float {
  const { mask, cos, sin } = sequences
  const given = { x, mask, cos, sin, time } as Record<string, Tensor | undefined>
  const names = Object.keys(given).filter((name) => given[name] !== undefined)
  return checkpoint(
    (...again: Tensor[]) => {
      const { x, time, ...tables } = Object.fromEntries(again.map((value, i) => [names[i], value]))
      return block.forward(x as Float, { ...sequences, ...tables }, time as Float) as Tensor
    },
    names.map((name) => given[name] as Tensor),
  ) as Float
}

function isList(images: unknown): images is readonly Float[] {
  return Array.isArray(images)
}

/** Captions one after another. */
function packed(condition: Condition | Captions | Float | readonly Float[]): Captions {
  if (condition instanceof Tensor) {
    if (condition.rank !== 3)
      fail(
        'ERR_SHAPE',
        `condition: expected [batch, tokens, features], got ${showShape(condition.shape)}`,
      )
    const [batch, length, width] = condition.shape as readonly [number, number, number]
    return {
      features: condition.reshape([batch * length, width]) as Float,
      lengths: new Array<number>(batch).fill(length),
    }
  }
  if (isList(condition))
    return {
      features: concat(condition) as Float,
      lengths: condition.map((caption) => caption.shape[0] ?? 0),
    }
  return condition as Captions
}

/** Rows of tokens as sequences [batch, length, dim], `pad` where a sequence has been filled up. */
function arranged(
  tokens: Float,
  pad: Parameter,
  { length, rows }: Sequences,
  batch: number,
): Float {
  if (rows === undefined) return tokens.reshape([batch, length, tokens.shape[1] as number]) as Float
  return embedding(rows, concat([tokens, pad.value as Float]) as Float)
}

/**
 * An S3-DiT with new weights; `loadState` takes published ones.
 *
 * @param config diffusers' `config.json`, as it is
 * @example
 * const model = models.s3dit({ dim: 192, n_layers: 6, n_refiner_layers: 1, n_heads: 6, in_channels: 4,
 *                              cap_feat_dim: 192, axes_dims: [8, 12, 12], axes_lens: [64, 32, 32] }, { seed: 1 })
 * const velocity = model.forward(xt, t, encoder.forward(['red heart']))
 */
export function s3dit(config: S3DiTConfig, options: S3DiTOptions = {}): S3DiT {
  checkOptions('options', options, ['seed', 'dtype', 'device', 'checkpointing', 'schedule'])
  const { checkpointing, schedule, ...place } = options
  return new S3DiT(new Initializer({ seed: 0, ...place }), config, {
    ...(checkpointing === undefined ? {} : { checkpointing }),
    ...(schedule === undefined ? {} : { schedule }),
  })
}
