/** The teacher of the nano Z-Image: flow matching on the autoencoder's latents, conditioned on the prompts' words. */
import path from 'node:path'
import { valueAndGrad } from '../autograd/vjp.js'
import { checkFinite, checkInteger } from '../checks.js'
import type { CaptionedImages } from '../data/captioned-images.js'
import { writeImages } from '../data/images.js'
import { loadCaptionedImages } from '../data/load.js'
import { denoisingLoss } from '../didr/denoising-loss.js'
import { perturb } from '../didr/perturb.js'
import { hostUniform, RandomStream } from '../didr/philox.js'
import { drawTimes, resolveTimeSampling } from '../didr/time-sampling.js'
import { fail } from '../errors.js'
import { writeAtomically } from '../io/files.js'
import { loadAutoencoderKL } from '../models/autoencoder-kl.js'
import { vocabularyOf } from '../models/caption-encoder.js'
import { type NanoZImage, nanoZImage } from '../models/nano-z-image.js'
import type { S3DiT } from '../models/s3dit.js'
import { Ema } from '../optim/ema.js'
import { tensor } from '../tensor/create.js'
import { device } from '../tensor/device.js'
import type { FloatDType } from '../tensor/dtype.js'
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

/** The configuration of `npx didr pretrain teacher`; plain JSON. */
export interface PretrainTeacherConfig extends PretrainConfig {
  /** The file that `pretrain autoencoder` wrote. */
  autoencoder: string
  /**
   * Fields of diffusers' `ZImageTransformer2DModel`; `cap_feat_dim` is the width of the words' vectors, too. The default
   * has 3.7 million parameters.
   */
  model: {
    dim: number
    n_layers: number
    n_refiner_layers: number
    n_heads: number
    cap_feat_dim: number
    axes_dims: number[]
    axes_lens: number[]
    pad_multiple: number
  }
  /** The bias of the blocks' gates at the start; they are tanh of it. */
  gate: number
  /** How often a caption is left out. */
  captionDropout: number
  /** What each step keeps of the averages. */
  ema: number
  /** t = sigmoid(mean + std · n) with n standard normal. */
  time: { mean: number; std: number }
  /** Of the pictures in `samples/`. */
  guidance: number
}

const defaults: PretrainTeacherConfig = {
  ...pretrainDefaults,
  steps: 15_000,
  previewEvery: 1000,
  autoencoder: '',
  model: {
    dim: 160,
    n_layers: 6,
    n_refiner_layers: 1,
    n_heads: 5,
    cap_feat_dim: 160,
    axes_dims: [8, 12, 12],
    axes_lens: [64, 32, 32],
    pad_multiple: 16,
  },
  gate: 0.3,
  captionDropout: 0.1,
  ema: 0.999,
  time: { mean: 0, std: 1 },
  guidance: 3,
}

/**
 * Trains transformer and caption encoder and writes `teacher.safetensors`: a nano Z-Image, autoencoder and averaged
 * weights in one file. Beside it are `prompts.txt`, what it was trained on, and `held-out-prompts.txt`, combinations of
 * the same words that it was not: each prompt once, one a line.
 *
 * @param given what differs from the defaults; `data` and `autoencoder` are needed
 * @returns whether all steps are done
 * @throws {DidrError} (as a rejection) ERR_CONFIG naming a field; what loading the files and {@link TrainingRun} throw
 */
export async function pretrainTeacher(
  given: Partly<PretrainTeacherConfig>,
  { out, ...options }: PretrainOptions,
): Promise<boolean> {
  const config = resolveConfig(defaults, given)
  checkConfig(config)
  const { batchSize, captionDropout } = config
  const seeds = seedsFrom(config.seed, ['weights', 'order', 'dropout', 'time', 'noise'])
  const images = await loadCaptionedImages(config.data, { size: config.imageSize })
  const { kept } = images.split
  const prompts = kept.map((i) => images.prompts[i] as string)

  using model = await newModel(config, prompts, seeds.weights)
  openGates(model.transformer, config.gate)
  const { transformer, captions, schedule } = model
  const trained = model.parameters().filter(({ trainable }) => trainable)
  using optimizer = optimizerFor(trained, config)
  const rate = rateFor(config)
  const times = { kind: 'logit-normal', ...config.time, range: [0, 1] } as const
  const sampling = resolveTimeSampling('config.time', times, schedule)
  using ema = new Ema(trained, { decay: config.ema })
  await using run = await TrainingRun.open(out, {
    kind: 'pretrain teacher',
    config,
    parts: { model: moduleState(model), optimizer, ema },
    ...options,
  })
  const latents = await allLatents(model, images)
  const batches = new ShuffledBatches(kept.length, batchSize, { seed: seeds.order })

  const finished = await run.train(
    (step) => {
      const chosen = batches.at(step)
      const dropped = hostUniform(batchSize, seeds.dropout, step)
      const texts = chosen.map((i, row) =>
        (dropped[row] as number) < captionDropout ? '' : (prompts[i] as string),
      )
      const t = drawTimes(batchSize, sampling, schedule, new RandomStream(seeds.time, step))
      using x0 = latents.batch(chosen)

      // ‖v(x_t, t, c) - (ε - x0)‖²
      const noise = { t, schedule, seed: seeds.noise, offset: step }
      using xt = perturb(x0, noise).xt
      const { value } = valueAndGrad(() => {
        const output = transformer.forward(xt, t, captions.forward(texts))
        return denoisingLoss({ x0, prediction: transformer.prediction, output, ...noise }).loss
      })
      const gradNorm = optimizer.step({ lrScale: rate(step) })
      optimizer.zeroGrad()
      ema.update()
      return { loss: value, gradNorm }
    },
    { preview: (file) => preview(model, ema, images, config.guidance, file) },
  )
  if (finished) {
    ema.swap()
    await model.save(path.join(out, 'teacher.safetensors'))
    const { heldOut } = images.split
    await writeLines(path.join(out, 'prompts.txt'), prompts)
    const others = heldOut.map((i) => images.prompts[i] as string)
    await writeLines(path.join(out, 'held-out-prompts.txt'), others)
  }
  return finished
}

/** Each of them once. */
async function writeLines(file: string, lines: readonly string[]): Promise<void> {
  const text = [...new Set(lines)].map((line) => `${line}\n`).join('')
  await writeAtomically(file, (write) => write(Buffer.from(text)))
}

function checkConfig(config: PretrainTeacherConfig): void {
  checkPretrainConfig(config)
  if (config.autoencoder === '')
    fail('ERR_CONFIG', 'config.autoencoder: expected the path of a file of `pretrain autoencoder`')
  const { captionDropout, gate, guidance } = config
  if (!(captionDropout >= 0 && captionDropout <= 1))
    fail('ERR_RANGE', `config.captionDropout: expected a number from 0 to 1, got ${captionDropout}`)
  checkFinite('config.gate', gate)
  checkFinite('config.guidance', guidance)
  checkInteger('config.model.cap_feat_dim', config.model.cap_feat_dim, 1)
}

/** A new model with the trained autoencoder, which is not trained on. */
async function newModel(
  config: PretrainTeacherConfig,
  prompts: readonly string[],
  seed: number,
): Promise<NanoZImage> {
  const on = await device(config.device)
  using autoencoder = await loadAutoencoderKL(config.autoencoder, { device: on })
  const model = nanoZImage(
    {
      imageSize: config.imageSize,
      autoencoder: autoencoder.config,
      transformer: { ...config.model, in_channels: autoencoder.config.latent_channels },
      captions: { vocabulary: vocabularyOf(prompts), dim: config.model.cap_feat_dim },
    },
    { seed, device: on },
  )
  model.autoencoder.loadState(autoencoder.state())
  model.autoencoder.setTrainable(false)
  return model
}

/**
 * Sets the gates of all blocks with modulation to tanh(bias). At 0, where they start otherwise, a block passes its input
 * on, and a small network loses its first hundreds of steps.
 */
function openGates(transformer: S3DiT, bias: number): void {
  for (const { adaLN_modulation } of [...transformer.noise_refiner, ...transformer.layers]) {
    const parameter = adaLN_modulation?.[0].bias?.value
    if (parameter === undefined) continue
    // Two scales and two gates: s1, g1, s2, g2.
    const { dim } = transformer.config
    const values = Float32Array.from({ length: 4 * dim }, (_, i) =>
      Math.floor(i / dim) % 2 === 1 ? bias : 0,
    )
    using start = tensor(values, { dtype: parameter.dtype, device: parameter.device })
    parameter.copyFrom(start as Float)
  }
}

/** The normalised latents of all images for training, which never change. */
async function allLatents(
  model: NanoZImage,
  images: CaptionedImages,
): Promise<{ batch(indices: readonly number[]): Float }> {
  const { kept } = images.split
  const { device } = model
  const shape = model.latentShape(1).slice(1)
  const size = shape.reduce((product, length) => product * length, 1)
  const values = new Float32Array(kept.length * size)
  for (let first = 0; first < kept.length; first += 32) {
    using x = images.batch(kept.slice(first, first + 32), { device }) as Float
    using encoded = model.encode(x)
    values.set(await encoded.data(), first * size)
  }
  return {
    batch(indices) {
      const chosen = new Float32Array(indices.length * size)
      for (const [row, i] of indices.entries())
        chosen.set(values.subarray(i * size, (i + 1) * size), row * size)
      return tensor(chosen, { shape: [indices.length, ...shape], device }) as Float
    },
  }
}

/** Samples of the averaged weights: eight held-out combinations, or what there are, and known prompts after them. */
async function preview(
  model: NanoZImage,
  ema: Ema,
  images: CaptionedImages,
  guidance: number,
  file: string,
): Promise<void> {
  const { heldOut, kept } = images.split
  const known = kept.filter((_, i) => i % Math.max(1, Math.floor(kept.length / 16)) === 0)
  const shown = [...heldOut.slice(0, 8), ...known].slice(0, 16)
  ema.swap()
  try {
    using samples = await model.generate(
      shown.map((i) => images.prompts[i] as string),
      { steps: 25, guidance },
    )
    await writeImages(file, samples as Tensor<'float32'>, { columns: 8 })
  } finally {
    ema.swap()
  }
}
