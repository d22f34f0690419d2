/** The nano CLIP, the prompt-match reward: image and caption encoder trained contrastively on augmented images. */
import path from 'node:path'
import { valueAndGrad } from '../autograd/vjp.js'
import { checkFinite } from '../checks.js'
import type { CaptionedImages, Placement } from '../data/captioned-images.js'
import { loadCaptionedImages } from '../data/load.js'
import { hostUniform } from '../didr/philox.js'
import { vocabularyOf } from '../models/caption-encoder.js'
import { type Clip, clip } from '../models/clip.js'
import { Ema } from '../optim/ema.js'
import { normal } from '../tensor/create.js'
import { type Device, device } from '../tensor/device.js'
import type { FloatDType } from '../tensor/dtype.js'
import { tidy } from '../tensor/scope.js'
import type { Tensor } from '../tensor/tensor.js'
import { ShuffledBatches } from './batches.js'
import { type Partly, resolveConfig } from './config.js'
import {
  checkPretrainConfig,
  optimizerFor,
  type PretrainConfig,
  type PretrainOptions,
  pretrainDefaults,
  rateFor,
} from './pretrain-config.js'
import { moduleState, TrainingRun } from './run.js'
import { seedsFrom } from './seeds.js'

type Float = Tensor<FloatDType>

/** The configuration of `npx didr pretrain clip`; plain JSON. */
export interface PretrainClipConfig extends PretrainConfig {
  /** Fields of `models.ClipConfig`; `wordDim` is the width of a word's vector. */
  model: { widths: number[]; groups: number; dim: number; wordDim: number }
  /** What each step keeps of the averages. */
  ema: number
  /**
   * How far images are moved (pixels), scaled (0.2: by 0.8 to 1.2) and turned (radians) in each direction, and the
   * largest standard deviation of the noise that is added to them (pixels go from -1 to 1).
   */
  augment: { shift: number; zoom: number; angle: number; noise: number }
}

const defaults: PretrainClipConfig = {
  ...pretrainDefaults,
  steps: 2000,
  batchSize: 128,
  previewEvery: 0,
  optimizer: { ...pretrainDefaults.optimizer, betas: [0.9, 0.98], weightDecay: 0.1 },
  model: { widths: [32, 64, 128], groups: 8, dim: 64, wordDim: 64 },
  ema: 0.99,
  augment: { shift: 6, zoom: 0.2, angle: 0.15, noise: 0.2 },
}

/**
 * Trains a CLIP and writes `clip.safetensors`, the averaged weights.
 *
 * @param given what differs from the defaults; `data` is needed
 * @returns how often the nearest caption is an image's own, among those of all images for training and among those of the
 *   held-out combinations; undefined if the signal stopped it
 * @throws {DidrError} (as a rejection) ERR_CONFIG naming a field; what loading the images and {@link TrainingRun} throw
 */
export async function pretrainClip(
  given: Partly<PretrainClipConfig>,
  { out, ...options }: PretrainOptions,
): Promise<{ kept: number; heldOut: number } | undefined> {
  const config = resolveConfig(defaults, given)
  checkPretrainConfig(config)
  for (const [field, value] of Object.entries(config.augment))
    checkFinite(`config.augment.${field}`, value)
  const { batchSize, augment } = config
  const seeds = seedsFrom(config.seed, ['weights', 'order', 'placement', 'level', 'noise'])
  const images = await loadCaptionedImages(config.data, { size: config.imageSize })
  const { kept, heldOut } = images.split
  const prompts = kept.map((i) => images.prompts[i] as string)

  const { wordDim, ...shape } = config.model
  const captions = { vocabulary: vocabularyOf(prompts), dim: wordDim }
  const on = await device(config.device)
  using model = clip({ ...shape, captions }, { seed: seeds.weights, device: on })
  const parameters = model.parameters()
  using optimizer = optimizerFor(parameters, config)
  const rate = rateFor(config)
  using ema = new Ema(parameters, { decay: config.ema })
  await using run = await TrainingRun.open(out, {
    kind: 'pretrain clip',
    config,
    parts: { model: moduleState(model), optimizer, ema },
    ...options,
  })
  const batches = new ShuffledBatches(kept.length, Math.min(batchSize, kept.length), {
    seed: seeds.order,
  })

  const finished = await run.train((step) => {
    const chosen = batches.at(step)
    const chances = hostUniform(4 * chosen.length, seeds.placement, step)
    const placements = chosen.map((_, row) => placementOf(chances.subarray(4 * row), augment))
    const [chance] = hostUniform(1, seeds.level, step) as Iterable<number>
    using x = tidy(() => {
      const clean = images.batch(
        chosen.map((i) => kept[i] as number),
        { placements, device: on },
      )
      const noise = normal(clean.shape, { seed: seeds.noise, offset: step, device: on })
      return clean.addScaled(noise, (chance as number) * augment.noise) as Float
    })
    const { value } = valueAndGrad(() =>
      model.contrastiveLoss(
        x,
        chosen.map((i) => prompts[i] as string),
      ),
    )
    const gradNorm = optimizer.step({ lrScale: rate(step) })
    optimizer.zeroGrad()
    ema.update()
    return { loss: value, gradNorm }
  })
  if (!finished) return undefined
  ema.swap()
  await model.save(path.join(out, 'clip.safetensors'))
  return {
    kept: await retrievalAccuracy(model, images, on, kept),
    heldOut: await retrievalAccuracy(model, images, on, heldOut),
  }
}

/** @param chances four numbers in [0, 1) */
function placementOf(
  chances: Float32Array,
  { shift, zoom, angle }: PretrainClipConfig['augment'],
): Placement {
  const [dx, dy, scale, turn] = Array.from(chances.subarray(0, 4), (u) => 2 * u - 1) as [
    ...[number, number, number, number],
  ]
  return { dx: shift * dx, dy: shift * dy, zoom: 1 + zoom * scale, angle: angle * turn }
}

/** The share of images whose nearest caption among those of `indices` is their own; NaN if there are none. */
async function retrievalAccuracy(
  model: Clip,
  images: CaptionedImages,
  on: Device,
  indices: readonly number[],
): Promise<number> {
  const captions = indices.map((i) => images.prompts[i] as string)
  if (captions.length === 0) return Number.NaN
  using read = model.encodeCaptions(captions)
  let right = 0
  for (let first = 0; first < indices.length; first += 64) {
    using nearest = tidy(() => {
      const x = images.batch(indices.slice(first, first + 64), { device: on })
      const seen = model.encodeImages(x as Float)
      return seen.matmul(read, { transB: true }).argMax(1)
    })
    for (const [row, found] of (await nearest.data()).entries())
      if (captions[found] === captions[first + row]) right++
  }
  return right / indices.length
}
