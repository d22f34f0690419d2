/**
 * The addon's surface, in one place: what native/addon exports, with types.
 *
 * Tensors cross as ids. The addon checks ids, dtypes and element counts again, so a wrong call throws; messages for
 * people are worded by the callers in lib/, which check first.
 */
import type { DidrError } from '../errors.js'
import { loadAddon } from './load.js'

declare const brand: unique symbol
/** A living tensor's number in the addon. Never reused, so a stale one is recognised. */
export type TensorId = number & { readonly [brand]: 'tensor' }
/** A device's number in the addon, per JavaScript thread. */
export type DeviceId = number & { readonly [brand]: 'device' }

export interface Binding {
  init(errorClass: typeof DidrError): void

  openDevice(kind: 'cpu' | 'cuda', index: number): DeviceId
  deviceInfo(device: DeviceId): Record<string, string>
  counters(device: DeviceId): [tensors: number, live: number, pooled: number, peak: number]
  resetPeak(device: DeviceId): void
  trim(device: DeviceId): number
  synchronize(device: DeviceId): Promise<undefined>

  upload(
    device: DeviceId,
    dtype: number,
    shape: readonly number[],
    values: NodeJS.TypedArray,
  ): TensorId
  view(x: TensorId, shape: readonly number[]): TensorId
  read(x: TensorId, target: ArrayBuffer): Promise<ArrayBuffer>
  readSync(x: TensorId, target: ArrayBuffer): void
  dispose(x: TensorId): boolean

  fill(device: DeviceId, dtype: number, shape: readonly number[], value: number): TensorId
  arange(device: DeviceId, dtype: number, count: number, start: number, step: number): TensorId
  uniform(
    device: DeviceId,
    dtype: number,
    shape: readonly number[],
    seed: number,
    offset: number,
    low: number,
    high: number,
  ): TensorId
  normal(
    device: DeviceId,
    dtype: number,
    shape: readonly number[],
    seed: number,
    offset: number,
    mean: number,
    std: number,
  ): TensorId
  cast(x: TensorId, dtype: number): TensorId
  unary(kind: number, x: TensorId, lo: number, hi: number): TensorId
  binary(kind: number, a: TensorId, b: TensorId): TensorId
  where(condition: TensorId, a: TensorId, b: TensorId): TensorId
  permute(x: TensorId, axes: readonly number[]): TensorId
  slice(x: TensorId, begin: readonly number[], size: readonly number[]): TensorId
  concat(tensors: readonly TensorId[], axis: number): TensorId
  broadcastTo(x: TensorId, shape: readonly number[]): TensorId
  copyInto(target: TensorId, source: TensorId): void
  reduce(kind: number, x: TensorId, first: number, last: number): TensorId
  softmax(x: TensorId, axis: number): TensorId
  matmul(
    a: TensorId,
    b: TensorId,
    bias: TensorId | null,
    transA: boolean,
    transB: boolean,
    activation: number,
  ): TensorId

  perturb(
    x0: TensorId,
    levels: TensorId,
    seed: number,
    offset: number,
    returnNoise: boolean,
  ): [xt: TensorId, noise: TensorId | null]
  denoisingLoss(
    x0: TensorId,
    output: TensorId,
    levels: TensorId,
    weights: TensorId | null,
    prediction: number,
    seed: number,
    offset: number,
  ): [perSample: TensorId, gradient: TensorId]
  integralKL(
    xt: TensorId,
    x0: TensorId | null,
    assistant: TensorId,
    teacher: TensorId,
    teacherUncond: TensorId | null,
    drs: TensorId | null,
    levels: TensorId,
    weights: TensorId | null,
    bins: TensorId | null,
    accumulator: TensorId | null,
    guidance: number,
    gradientScale: number,
    assistantPrediction: number,
    teacherPrediction: number,
    weighting: number,
  ): [gradient: TensorId, target: TensorId, reference: TensorId]
  softmaxWeights(
    rewards: TensorId,
    inverseBeta: number,
  ): [weights: TensorId, effectiveSampleSize: TensorId]
  diffusedRewardScore(
    particles: TensorId,
    rewards: TensorId,
    levels: TensorId,
    inverseBeta: number,
  ): [score: TensorId, weights: TensorId, effectiveSampleSize: TensorId]
  weightedRewardGradient(
    gradients: TensorId,
    rewards: TensorId,
    factor: TensorId,
    inverseBeta: number,
    maxNorm: number,
  ): [score: TensorId, weights: TensorId, effectiveSampleSize: TensorId, norm: TensorId]
}

const { addon, report } = loadAddon()
export const binding: Binding = addon
/** Which file the addon was loaded from, and what else was tried. */
export const loadReport = report
