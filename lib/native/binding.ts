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
  scaledAdd(a: TensorId, b: TensorId, scale: number): TensorId
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

  /** target += source, in place. */
  accumulate(target: TensorId, source: TensorId): void
  /** Whether another tensor is on the same memory. */
  isShared(x: TensorId): boolean

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

  /** `clip`: what `adamw` scales gradients by, NaN where the norm is not finite. */
  gradientNorm(
    device: DeviceId,
    gradients: readonly TensorId[],
    maxNorm: number,
  ): [norm: TensorId, clip: TensorId]
  /** In place. `settings`: learning rate, beta1, beta2, eps and weight decay of each parameter. */
  adamw(
    parameters: readonly TensorId[],
    gradients: readonly TensorId[],
    firstMoments: readonly TensorId[],
    secondMoments: readonly TensorId[],
    masters: readonly (TensorId | null)[],
    steps: readonly TensorId[],
    clip: TensorId,
    settings: Float64Array,
  ): void
  /** Moves `averages` towards `values`, in place. */
  ema(
    device: DeviceId,
    averages: readonly TensorId[],
    values: readonly TensorId[],
    decay: number,
  ): void
  // Fused network ops. `dweight` and other gradients of parameters and modulations are float32 whatever the dtype of
  // the activations; results that belong to an absent (null) operand are null.

  /** dy * activation'(x), with `activations` of lib/tensor/matmul.ts. */
  activationBackward(activation: number, x: TensorId, dy: TensorId): TensorId
  /** Rows of table [vocabulary, size] at int32 ids: [...ids, size]. An id out of range fails the op. */
  embedding(table: TensorId, ids: TensorId): TensorId
  /** dTable [vocabulary, size], float32. */
  embeddingBackward(dy: TensorId, ids: TensorId, vocabulary: number): TensorId
  /** x [..., size], weight [size]; scale [samples, size], where samples divides the rows of x in order. */
  rmsNorm(
    x: TensorId,
    weight: TensorId | null,
    scale: TensorId | null,
    epsilon: number,
  ): [y: TensorId, rstd: TensorId]
  rmsNormBackward(
    x: TensorId,
    dy: TensorId,
    weight: TensorId | null,
    scale: TensorId | null,
    rstd: TensorId,
  ): [dx: TensorId, dweight: TensorId | null, dscale: TensorId | null]
  /** y = (xhat weight + bias)(1 + scale) + shift; scale and shift as the scale of `rmsNorm`. */
  layerNorm(
    x: TensorId,
    weight: TensorId | null,
    bias: TensorId | null,
    scale: TensorId | null,
    shift: TensorId | null,
    epsilon: number,
  ): [y: TensorId, mean: TensorId, rstd: TensorId]
  layerNormBackward(
    x: TensorId,
    dy: TensorId,
    weight: TensorId | null,
    bias: TensorId | null,
    scale: TensorId | null,
    shift: TensorId | null,
    mean: TensorId,
    rstd: TensorId,
  ): [
    dx: TensorId,
    dweight: TensorId | null,
    dbias: TensorId | null,
    dscale: TensorId | null,
    dshift: TensorId | null,
  ]
  /** x [batch, channels, ...]; weight and bias [channels]; SiLU on the result where `silu`. */
  groupNorm(
    x: TensorId,
    weight: TensorId | null,
    bias: TensorId | null,
    groups: number,
    epsilon: number,
    silu: boolean,
  ): [y: TensorId, mean: TensorId, rstd: TensorId]
  groupNormBackward(
    x: TensorId,
    dy: TensorId,
    weight: TensorId | null,
    bias: TensorId | null,
    mean: TensorId,
    rstd: TensorId,
    silu: boolean,
  ): [dx: TensorId, dweight: TensorId | null, dbias: TensorId | null]
  /** silu(a) b */
  swiGlu(a: TensorId, b: TensorId): TensorId
  swiGluBackward(a: TensorId, b: TensorId, dy: TensorId): [da: TensorId, db: TensorId]
  /** x + tanh(gate) h, or x + gate h; gate [samples, size] as the scale of `rmsNorm`. */
  gatedResidual(x: TensorId, h: TensorId, gate: TensorId, tanh: boolean): TensorId
  /** The cotangent of x is dy itself. */
  gatedResidualBackward(
    h: TensorId,
    gate: TensorId,
    dy: TensorId,
    tanh: boolean,
  ): [dh: TensorId, dgate: TensorId]
  /** x [..., heads, size]; cos and sin [tokens or rows, size / 2], float32. `inverse` is the backward pass. */
  rope(x: TensorId, cos: TensorId, sin: TensorId, inverse: boolean): TensorId
  /** q [batch, queries, heads, size], k and v [batch, keys, heads, size], mask uint8 [batch, keys]. */
  attention(
    q: TensorId,
    k: TensorId,
    v: TensorId,
    mask: TensorId | null,
    scale: number,
  ): [y: TensorId, logSumExp: TensorId]
  attentionBackward(
    q: TensorId,
    k: TensorId,
    v: TensorId,
    mask: TensorId | null,
    y: TensorId,
    dy: TensorId,
    logSumExp: TensorId,
    scale: number,
  ): [dq: TensorId, dk: TensorId, dv: TensorId]
  /** NCHW, float32; weight [outputs, inputs, rows, columns]; padding: top, bottom, left, right; stride 1 or 2. */
  conv2d(
    x: TensorId,
    weight: TensorId,
    bias: TensorId | null,
    stride: number,
    padding: readonly number[],
  ): TensorId
  conv2dBackwardData(
    dy: TensorId,
    weight: TensorId,
    xShape: readonly number[],
    stride: number,
    padding: readonly number[],
  ): TensorId
  conv2dBackwardWeight(
    x: TensorId,
    dy: TensorId,
    weightShape: readonly number[],
    stride: number,
    padding: readonly number[],
    hasBias: boolean,
  ): [dweight: TensorId, dbias: TensorId | null]
  /** [..., height, width] to [..., 2 height, 2 width]. */
  upsampleNearest2x(x: TensorId): TensorId
  upsampleNearest2xBackward(dy: TensorId): TensorId
  /** x [..., classes], int32 targets [...]; loss is the mean over rows, gradient that of the loss. */
  crossEntropy(x: TensorId, targets: TensorId): [loss: TensorId, gradient: TensorId]
  /** Mean square difference and its gradient with respect to x. */
  mse(x: TensorId, y: TensorId): [loss: TensorId, gradient: TensorId]
}

const { addon, report } = loadAddon()
// A copy, in front of whose functions shape-only.ts may put others.
export const binding: Binding = { ...addon }
/** Which file the addon was loaded from, and what else was tried. */
export const loadReport = report
