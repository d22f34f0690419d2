/** The autoencoder of the nano Z-Image: L1 and L2 of the pixels, and a light pull of the latents to N(0, I). */
import path from 'node:path'
import { valueAndGrad } from '../autograd/vjp.js'
import type { CaptionedImages } from '../data/captioned-images.js'
import { writeImages } from '../data/images.js'
import { loadCaptionedImages } from '../data/load.js'
import { hostUniform } from '../didr/philox.js'
import {
  type AutoencoderKL,
  type AutoencoderKLConfig,
  autoencoderKL,
  saveAutoencoderKL,
} from '../models/autoencoder-kl.js'
import { mse } from '../nn/functional.js'
import { type Device, device } from '../tensor/device.js'
import type { FloatDType } from '../tensor/dtype.js'
import { concat } from '../tensor/layout.js'
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

/** The configuration of `npx didr pretrain autoencoder`; plain JSON. */
export interface PretrainAutoencoderConfig extends PretrainConfig {
  /** Fields of diffusers' `AutoencoderKL`. */
  model: {
    block_out_channels: number[]
    layers_per_block: number
    latent_channels: number
    norm_num_groups: number
    mid_block_add_attention: boolean
  }
  /** What the parts of the loss are multiplied by. */
  loss: { l1: number; l2: number; kl: number }
  /** Images are moved by up to this many pixels in each direction. */
  shift: number
}

const defaults: PretrainAutoencoderConfig = {
  ...pretrainDefaults,
  batchSize: 16,
  optimizer: { ...pretrainDefaults.optimizer, lr: 2e-3, betas: [0.9, 0.999] },
  model: {
    block_out_channels: [16, 32, 64],
    layers_per_block: 1,
    latent_channels: 4,
    norm_num_groups: 8,
    mid_block_add_attention: true,
  },
  loss: { l1: 1, l2: 1, kl: 1e-3 },
  shift: 3,
}

/**
 * Trains an autoencoder and writes `autoencoder.safetensors`, with the mean and scale of its latents in the config.
 *
 * @param given what differs from the defaults; `data` is needed
 * @returns whether all steps are done
 * @throws {DidrError} (as a rejection) ERR_CONFIG naming a field; what loading the images and {@link TrainingRun} throw
 */
export async function pretrainAutoencoder(
  given: Partly<PretrainAutoencoderConfig>,
  { out, ...options }: PretrainOptions,
): Promise<boolean> {
  const config = resolveConfig(defaults, given)
  checkPretrainConfig(config)
  const { loss: weight, shift } = config
  const seeds = seedsFrom(config.seed, ['weights', 'order', 'shift', 'noise'])
  const images = await loadCaptionedImages(config.data, { size: config.imageSize })
  const { kept } = images.split

  const on = await device(config.device)
  using model = autoencoderKL(modelConfig(config), { seed: seeds.weights, device: on })
  using optimizer = optimizerFor(model.parameters(), config)
  const rate = rateFor(config)
  await using run = await TrainingRun.open(out, {
    kind: 'pretrain autoencoder',
    config,
    parts: { model: moduleState(model), optimizer },
    ...options,
  })
  const batches = new ShuffledBatches(kept.length, config.batchSize, { seed: seeds.order })

  const finished = await run.train(
    (step) => {
      // Images, each moved a little.
      const chances = hostUniform(2 * config.batchSize, seeds.shift, step)
      const moved = (i: number) => Math.floor((chances[i] as number) * (2 * shift + 1)) - shift
      const chosen = batches.at(step)
      using x = images.batch(
        chosen.map((i) => kept[i] as number),
        {
          placements: chosen.map((_, i) => ({ dx: moved(2 * i), dy: moved(2 * i + 1) })),
          device: on,
        },
      ) as Tensor<FloatDType>

      // |x̂ - x| + (x̂ - x)² and KL(q(z|x) ‖ N(0, I)), as means over elements.
      const { value } = valueAndGrad(() => {
        const { mean, logVariance } = model.encode(x)
        const latent = model.sample({ mean, logVariance }, { seed: seeds.noise, offset: step })
        const reconstruction = model.decode(latent)
        const l1 = reconstruction.sub(x).abs().mean()
        const l2 = mse(reconstruction, x)
        const kl = mean.square().add(logVariance.exp()).sub(logVariance).sub(1).mean().mul(0.5)
        return l1.mul(weight.l1).add(l2.mul(weight.l2)).add(kl.mul(weight.kl)) as Tensor
      })
      const gradNorm = optimizer.step({ lrScale: rate(step) })
      optimizer.zeroGrad()
      return { loss: value, gradNorm }
    },
    { preview: (file) => preview(model, images, on, file) },
  )
  if (finished) await saveNormalized(model, images, on, path.join(out, 'autoencoder.safetensors'))
  return finished
}

function modelConfig({ model }: PretrainAutoencoderConfig): AutoencoderKLConfig {
  return { ...model, use_quant_conv: false, use_post_quant_conv: false }
}

/** Saves the model with the mean and the inverse standard deviation of the latents of all images for training. */
async function saveNormalized(
  model: AutoencoderKL,
  images: CaptionedImages,
  on: Device,
  file: string,
): Promise<void> {
  let [count, sum, squares] = [0, 0, 0]
  const { kept } = images.split
  for (let first = 0; first < kept.length; first += 32) {
    using mean = tidy(() => {
      const x = images.batch(kept.slice(first, first + 32), { device: on })
      return model.encode(x as Tensor<FloatDType>).mean
    })
    for (const value of await mean.data()) {
      count++
      sum += value
      squares += value * value
    }
  }
  const centre = sum / count
  const variance = Math.max(squares / count - centre * centre, 1e-12)
  await saveAutoencoderKL(file, model, {
    shift_factor: centre,
    scaling_factor: 1 / Math.sqrt(variance),
  })
}

/** Sixteen images and, below them, their reconstructions. */
async function preview(
  model: AutoencoderKL,
  images: CaptionedImages,
  on: Device,
  file: string,
): Promise<void> {
  const { heldOut, kept } = images.split
  const shown = [...heldOut, ...kept].slice(0, 16)
  using grid = tidy(() => {
    const x = images.batch(shown, { device: on }) as Tensor<FloatDType>
    const both = concat([x, model.decode(model.encode(x).mean)])
    return both.mul(0.5).add(0.5) as Tensor<'float32'>
  })
  await writeImages(file, grid, { columns: shown.length })
}
