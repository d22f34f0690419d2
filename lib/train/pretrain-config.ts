/** What the configurations of all pretraining runs share. */

import type { Parameter } from '../autograd/parameter.js'
import { checkFinite, checkInteger } from '../checks.js'
import { fail } from '../errors.js'
import { AdamW } from '../optim/adamw.js'
import { cosine, type LearningRateSchedule } from '../optim/schedules.js'
import { checkDeviceName, type DeviceName } from '../tensor/device.js'
import type { Progress } from './run.js'

/** AdamW in the configuration of a pretraining run. */
export interface OptimizerConfig {
  /** At its highest. */
  lr: number
  betas: number[]
  weightDecay: number
  /** Gradients are scaled down to this norm. */
  maxNorm: number
  /** Steps in which the learning rate rises; it falls as a cosine after that. */
  warmup: number
}

/** What the configurations of all pretraining runs have; plain JSON. */
export interface PretrainConfig {
  /** A folder of images and prompts: see `loadCaptionedImages`. */
  data: string
  /** Edge of the images in pixels. */
  imageSize: number
  /** Of all draws. */
  seed: number
  /** Where it runs. On the CPU, the default, a seed gives the same bits on every machine. */
  device: DeviceName
  steps: number
  batchSize: number
  optimizer: OptimizerConfig
  checkpointEvery: number
  keepCheckpoints: number
  /** Pictures in `samples/` every this many steps; 0 for none. */
  previewEvery: number
}

/** Where a pretraining run lives, and how it is watched and stopped. */
export interface PretrainOptions {
  /** The run's folder. */
  out: string
  /** Go on from the last checkpoint there, if there is one. Default false. */
  resume?: boolean
  /** Abort it to stop after the running step with a checkpoint. */
  signal?: AbortSignal
  onProgress?: (progress: Progress) => void
}

export const pretrainDefaults: PretrainConfig = {
  data: '',
  imageSize: 64,
  seed: 1,
  device: 'cpu',
  steps: 3000,
  batchSize: 32,
  optimizer: { lr: 1e-3, betas: [0.9, 0.99], weightDecay: 0.01, maxNorm: 1, warmup: 100 },
  checkpointEvery: 200,
  keepCheckpoints: 2,
  previewEvery: 500,
}

export function checkPretrainConfig(config: PretrainConfig): void {
  if (config.data === '') fail('ERR_CONFIG', 'config.data: expected the path of a folder')
  checkInteger('config.imageSize', config.imageSize, 1, 4096)
  checkInteger('config.seed', config.seed, 0, 2 ** 40)
  checkDeviceName('config.device', config.device)
  checkInteger('config.steps', config.steps, 1)
  checkInteger('config.batchSize', config.batchSize, 1, 2 ** 20)
  checkInteger('config.optimizer.warmup', config.optimizer.warmup, 0)
  checkFinite('config.optimizer.maxNorm', config.optimizer.maxNorm)
}

/** AdamW on the parameters that are trainable. */
export function optimizerFor(
  parameters: readonly Parameter[],
  { optimizer: { warmup, betas, ...settings } }: PretrainConfig,
): AdamW {
  return new AdamW(parameters, { ...settings, betas: betas as [number, number] })
}

/** The schedule of the learning rate. */
export function rateFor({ steps, optimizer: { warmup } }: PretrainConfig): LearningRateSchedule {
  return cosine({ steps, warmup: Math.min(warmup, steps) })
}
