/**
 * A device without memory: its tensors have dtypes and shapes and no elements, and its operations compute nothing. What
 * the networks and the training step would take on a real device is counted by running them, as they are, on this one.
 *
 * An operation's results and the scratch that it takes beside them are those of native/addon, byte for byte;
 * test/native-addon/shape-only.test.ts runs both on the same arguments. Reads give zeros.
 */
import { fail } from '../errors.js'
import { bytesPerElement, type DType, dtypeIndex, dtypes } from '../tensor/dtype.js'
import { unaryIndex } from '../tensor/elementwise.js'
import { broadcastShapes, elementCount, type Shape } from '../tensor/shape.js'
import { type Binding, binding, type DeviceId, type TensorId } from './binding.js'

const float32 = dtypeIndex('float32')
const int32 = dtypeIndex('int32')
const uint8 = dtypeIndex('uint8')

/** The counters of one device. */
interface Ledger {
  tensors: number
  live: number
  peak: number
}

/** Memory that a tensor and its reshapes share. */
interface Storage {
  readonly device: Ledger
  readonly bytes: number
  claims: number
}

interface Entry {
  readonly storage: Storage
  readonly dtype: number
  readonly shape: Shape
}

function bytesOf(dtype: number, shape: Shape): number {
  return elementCount(shape) * bytesPerElement(dtypes[dtype] as DType)
}

const product = (shape: Shape, begin: number, end: number) => elementCount(shape.slice(begin, end))
const last = (shape: Shape) => shape.at(-1) ?? 1
const rowsOf = (shape: Shape) => product(shape, 0, shape.length - 1)
const inBlocks = (count: number, size: number) => Math.ceil(count / size)

// --- Scratch, in bytes: as in the headers of native/ops -------------------------------------------------------------

/** rows.h */
function rowBlocks(rows: number, samples: number): number {
  return rows === 0 ? 0 : samples * inBlocks(rows / samples, 64)
}

/** reduce.h */
function reduceScratch(outer: number, axis: number, inner: number): number {
  const [wantedBlocks, width, vector, section] = [1024, 128, 8, 8192]
  const slices = outer * inBlocks(inner, width)
  if (slices === 0 || slices >= wantedBlocks || axis === 0) return 0
  const most = Math.floor((axis * Math.min(inner, width)) / section)
  const wanted = Math.min(Math.floor(wantedBlocks / slices), most)
  if (wanted <= 1) return 0
  const length = inBlocks(inBlocks(axis, wanted), vector) * vector
  const sections = inBlocks(axis, length)
  return sections > 1 ? outer * sections * inner * 16 : 0
}

/** Of native/ops/optim: bytes of a row of each table, and elements of a block. */
const rowBytes = { gradientNorm: 32, adamw: 112, ema: 40 }
const listBlock = 8192

/** Of native/ops/didr: what counts elements that are not finite, for each sample. */
const faultBytes = 4

/** Places among the kinds of lib/tensor: of what answers with uint8, and of argMax. */
const answersOfUnary: ReadonlySet<number> = new Set([unaryIndex.isFinite, unaryIndex.logicalNot])
const firstAnswerOfBinary = 7
const argMaxOfReduce = 6

// --- The operations -------------------------------------------------------------------------------------------------

class ShapeOnly implements Omit<Binding, 'init' | 'openDevice'> {
  readonly #devices: Ledger[] = []
  readonly #tensors = new Map<TensorId, Entry>()
  #made = 0

  /** Ids are negative, and so never those of a device or tensor of the addon. */
  open(): DeviceId {
    this.#devices.push({ tensors: 0, live: 0, peak: 0 })
    return -this.#devices.length as DeviceId
  }

  deviceInfo(): Record<string, string> {
    return { kind: 'shape-only' }
  }
  counters(device: DeviceId): [tensors: number, live: number, pooled: number, peak: number] {
    const { tensors, live, peak } = this.#device(device)
    return [tensors, live, 0, peak]
  }
  resetPeak(device: DeviceId): void {
    const ledger = this.#device(device)
    ledger.peak = ledger.live
  }
  trim(): number {
    return 0
  }
  async synchronize(): Promise<undefined> {}

  upload(device: DeviceId, dtype: number, shape: Shape): TensorId {
    return this.#make(this.#device(device), dtype, shape)
  }
  view(x: TensorId, shape: Shape): TensorId {
    const { storage, dtype } = this.#entry(x)
    storage.claims++
    return this.#add({ storage, dtype, shape: [...shape] })
  }
  async read(_x: TensorId, target: ArrayBuffer): Promise<ArrayBuffer> {
    return target
  }
  readSync(): void {}
  dispose(x: TensorId): boolean {
    const entry = this.#tensors.get(x)
    if (entry === undefined) return false
    this.#tensors.delete(x)
    const { storage } = entry
    storage.device.tensors--
    if (--storage.claims === 0) storage.device.live -= storage.bytes
    return true
  }

  fill(device: DeviceId, dtype: number, shape: Shape): TensorId {
    return this.#make(this.#device(device), dtype, shape)
  }
  arange(device: DeviceId, dtype: number, count: number): TensorId {
    return this.#make(this.#device(device), dtype, [count])
  }
  uniform(device: DeviceId, dtype: number, shape: Shape): TensorId {
    return this.#make(this.#device(device), dtype, shape)
  }
  normal(device: DeviceId, dtype: number, shape: Shape): TensorId {
    return this.#make(this.#device(device), dtype, shape)
  }
  cast(x: TensorId, dtype: number): TensorId {
    return this.#like(x, { dtype })
  }
  unary(kind: number, x: TensorId): TensorId {
    return this.#like(x, answersOfUnary.has(kind) ? { dtype: uint8 } : {})
  }
  binary(kind: number, a: TensorId, b: TensorId): TensorId {
    const shape = broadcastShapes(this.#entry(a).shape, this.#entry(b).shape)
    return this.#like(a, { shape, ...(kind >= firstAnswerOfBinary ? { dtype: uint8 } : {}) })
  }
  scaledAdd(a: TensorId): TensorId {
    return this.#like(a)
  }
  where(condition: TensorId, a: TensorId, b: TensorId): TensorId {
    const [c, x, y] = [this.#entry(condition), this.#entry(a), this.#entry(b)]
    return this.#like(a, { shape: broadcastShapes(c.shape, broadcastShapes(x.shape, y.shape)) })
  }
  permute(x: TensorId, axes: readonly number[]): TensorId {
    const { shape } = this.#entry(x)
    return this.#like(x, { shape: axes.map((axis) => shape[axis] as number) })
  }
  slice(x: TensorId, _begin: readonly number[], size: Shape): TensorId {
    return this.#like(x, { shape: size })
  }
  concat(tensors: readonly TensorId[], axis: number): TensorId {
    const [first] = tensors as [TensorId]
    const length = tensors.reduce((sum, x) => sum + (this.#entry(x).shape[axis] as number), 0)
    return this.#like(first, { shape: this.#entry(first).shape.with(axis, length) })
  }
  broadcastTo(x: TensorId, shape: Shape): TensorId {
    return this.#like(x, { shape })
  }
  copyInto(): void {}
  reduce(kind: number, x: TensorId, first: number, last: number): TensorId {
    const { shape, storage } = this.#entry(x)
    const y = this.#like(x, {
      shape: shape.toSpliced(first, last + 1 - first),
      ...(kind === argMaxOfReduce ? { dtype: int32 } : {}),
    })
    const [outer, axis] = [product(shape, 0, first), product(shape, first, last + 1)]
    scratch(storage.device, reduceScratch(outer, axis, product(shape, last + 1, shape.length)))
    return y
  }
  softmax(x: TensorId): TensorId {
    return this.#like(x)
  }
  matmul(
    a: TensorId,
    b: TensorId,
    _bias: TensorId | null,
    transA: boolean,
    transB: boolean,
  ): TensorId {
    const [left, right] = [this.#entry(a).shape, this.#entry(b).shape]
    const batch = (left.length >= right.length ? left : right).slice(0, -2)
    const rows = left.at(transA ? -1 : -2) as number
    const columns = right.at(transB ? -2 : -1) as number
    return this.#like(a, { shape: [...batch, rows, columns] })
  }
  accumulate(): void {}
  isShared(x: TensorId): boolean {
    return this.#entry(x).storage.claims > 1
  }

  perturb(
    x0: TensorId,
    _levels: TensorId,
    _seed: number,
    _offset: number,
    returnNoise: boolean,
  ): [xt: TensorId, noise: TensorId | null] {
    const result: [TensorId, TensorId | null] = [
      this.#like(x0),
      returnNoise ? this.#like(x0) : null,
    ]
    this.#sampleScratch(x0, 0)
    return result
  }
  denoisingLoss(x0: TensorId): [perSample: TensorId, gradient: TensorId] {
    const { shape } = this.#entry(x0)
    const batch = shape[0] as number
    const result: [TensorId, TensorId] = [this.#numbers(x0, [batch]), this.#like(x0)]
    this.#sampleScratch(x0, 8 * (batch + inBlocks(elementCount(shape), 8192)))
    return result
  }
  integralKL(xt: TensorId): [gradient: TensorId, target: TensorId, reference: TensorId] {
    const { shape } = this.#entry(xt)
    const batch = shape[0] as number
    const result: [TensorId, TensorId, TensorId] = [
      this.#like(xt),
      this.#numbers(xt, [batch]),
      this.#numbers(xt, [batch]),
    ]
    this.#sampleScratch(xt, 8 * 3 * batch * inBlocks(product(shape, 1, shape.length), 8192))
    return result
  }
  softmaxWeights(rewards: TensorId): [weights: TensorId, effectiveSampleSize: TensorId] {
    const { shape, storage } = this.#entry(rewards)
    const batch = shape[1] as number
    const result: [TensorId, TensorId] = [this.#like(rewards), this.#numbers(rewards, [batch])]
    scratch(storage.device, batch * faultBytes)
    return result
  }
  diffusedRewardScore(
    particles: TensorId,
  ): [score: TensorId, weights: TensorId, effectiveSampleSize: TensorId] {
    const { shape, storage } = this.#entry(particles)
    const [count, batch] = shape as readonly [number, number, ...number[]]
    const result: [TensorId, TensorId, TensorId] = [
      this.#like(particles, { shape: shape.slice(1) }),
      this.#numbers(particles, [count, batch]),
      this.#numbers(particles, [batch]),
    ]
    scratch(storage.device, batch * faultBytes)
    return result
  }
  weightedRewardGradient(
    gradients: TensorId,
  ): [score: TensorId, weights: TensorId, effectiveSampleSize: TensorId, norm: TensorId] {
    const { shape, storage } = this.#entry(gradients)
    const [count, batch] = shape as readonly [number, number, ...number[]]
    const result: [TensorId, TensorId, TensorId, TensorId] = [
      this.#like(gradients, { shape: shape.slice(1) }),
      this.#numbers(gradients, [count, batch]),
      this.#numbers(gradients, [batch]),
      this.#numbers(gradients, [batch]),
    ]
    const runs = inBlocks(product(shape, 2, shape.length), 1024)
    scratch(storage.device, batch * faultBytes + 8 * batch * runs)
    return result
  }

  gradientNorm(device: DeviceId, gradients: readonly TensorId[]): [norm: TensorId, clip: TensorId] {
    const ledger = this.#device(device)
    const blocks = this.#listBlocks(gradients)
    const result: [TensorId, TensorId] = [
      this.#make(ledger, float32, []),
      this.#make(ledger, float32, []),
    ]
    // The table, a partial sum for each block, and what says which gradient is not finite.
    scratch(ledger, rowBytes.gradientNorm * gradients.length + 8 * blocks + 24)
    return result
  }
  adamw(
    parameters: readonly TensorId[],
    _gradients: readonly TensorId[],
    _firstMoments: readonly TensorId[],
    _secondMoments: readonly TensorId[],
    _masters: readonly (TensorId | null)[],
    _steps: readonly TensorId[],
    clip: TensorId,
  ): void {
    scratch(this.#entry(clip).storage.device, rowBytes.adamw * parameters.length)
  }
  ema(device: DeviceId, averages: readonly TensorId[]): void {
    scratch(this.#device(device), rowBytes.ema * averages.length)
  }

  activationBackward(_activation: number, x: TensorId): TensorId {
    return this.#like(x)
  }
  embedding(table: TensorId, ids: TensorId): TensorId {
    const { shape, storage } = this.#entry(table)
    const y = this.#like(table, { shape: [...this.#entry(ids).shape, shape[1] as number] })
    scratch(storage.device, 4)
    return y
  }
  embeddingBackward(dy: TensorId, _ids: TensorId, vocabulary: number): TensorId {
    return this.#numbers(dy, [vocabulary, last(this.#entry(dy).shape)])
  }
  rmsNorm(x: TensorId): [y: TensorId, rstd: TensorId] {
    return [this.#like(x), this.#numbers(x, [rowsOf(this.#entry(x).shape)])]
  }
  rmsNormBackward(
    x: TensorId,
    _dy: TensorId,
    weight: TensorId | null,
    scale: TensorId | null,
  ): [dx: TensorId, dweight: TensorId | null, dscale: TensorId | null] {
    const result: [TensorId, TensorId | null, TensorId | null] = [
      this.#like(x),
      this.#gradientOf(weight),
      this.#gradientOf(scale),
    ]
    this.#normScratch(x, scale)
    return result
  }
  layerNorm(x: TensorId): [y: TensorId, mean: TensorId, rstd: TensorId] {
    const rows = [rowsOf(this.#entry(x).shape)]
    return [this.#like(x), this.#numbers(x, rows), this.#numbers(x, rows)]
  }
  layerNormBackward(
    x: TensorId,
    _dy: TensorId,
    weight: TensorId | null,
    bias: TensorId | null,
    scale: TensorId | null,
    shift: TensorId | null,
  ): [
    dx: TensorId,
    dweight: TensorId | null,
    dbias: TensorId | null,
    dscale: TensorId | null,
    dshift: TensorId | null,
  ] {
    const [dweight, dbias] = [this.#gradientOf(weight), this.#gradientOf(bias)]
    const [dscale, dshift] = [this.#gradientOf(scale), this.#gradientOf(shift)]
    const dx = this.#like(x)
    this.#normScratch(x, scale ?? shift)
    return [dx, dweight, dbias, dscale, dshift]
  }
  groupNorm(
    x: TensorId,
    _weight: TensorId | null,
    _bias: TensorId | null,
    groups: number,
  ): [y: TensorId, mean: TensorId, rstd: TensorId] {
    const statistics = [this.#entry(x).shape[0] as number, groups]
    return [this.#like(x), this.#numbers(x, statistics), this.#numbers(x, statistics)]
  }
  groupNormBackward(
    x: TensorId,
    _dy: TensorId,
    weight: TensorId | null,
    bias: TensorId | null,
  ): [dx: TensorId, dweight: TensorId | null, dbias: TensorId | null] {
    const { shape, storage } = this.#entry(x)
    const result: [TensorId, TensorId | null, TensorId | null] = [
      this.#like(x),
      this.#gradientOf(weight),
      this.#gradientOf(bias),
    ]
    scratch(storage.device, 4 * 2 * product(shape, 0, 2))
    return result
  }
  swiGlu(a: TensorId): TensorId {
    return this.#like(a)
  }
  swiGluBackward(a: TensorId): [da: TensorId, db: TensorId] {
    return [this.#like(a), this.#like(a)]
  }
  gatedResidual(x: TensorId): TensorId {
    return this.#like(x)
  }
  gatedResidualBackward(h: TensorId, gate: TensorId): [dh: TensorId, dgate: TensorId] {
    const { shape, storage } = this.#entry(h)
    const result: [TensorId, TensorId] = [
      this.#like(h),
      this.#numbers(gate, this.#entry(gate).shape),
    ]
    const samples = elementCount(this.#entry(gate).shape) / last(shape)
    scratch(storage.device, 4 * rowBlocks(rowsOf(shape), samples) * last(shape))
    return result
  }
  rope(x: TensorId): TensorId {
    return this.#like(x)
  }
  attention(q: TensorId): [y: TensorId, logSumExp: TensorId] {
    const [batch, queries, heads] = this.#entry(q).shape as readonly [number, number, number]
    return [this.#like(q), this.#numbers(q, [batch, heads, queries])]
  }
  attentionBackward(
    q: TensorId,
    k: TensorId,
    v: TensorId,
  ): [dq: TensorId, dk: TensorId, dv: TensorId] {
    return [this.#like(q), this.#like(k), this.#like(v)]
  }
  conv2d(
    x: TensorId,
    weight: TensorId,
    _bias: TensorId | null,
    stride: number,
    padding: readonly number[],
  ): TensorId {
    const [batch, , height, width] = this.#entry(x).shape as readonly [
      number,
      number,
      number,
      number,
    ]
    const [outputs, , rows, columns] = this.#entry(weight).shape as readonly [
      number,
      number,
      number,
      number,
    ]
    const [top, bottom, left, right] = padding as readonly [number, number, number, number]
    const steps = (size: number) => Math.floor(size / stride) + 1
    const shape = [
      batch,
      outputs,
      steps(height + top + bottom - rows),
      steps(width + left + right - columns),
    ]
    return this.#like(x, { shape })
  }
  conv2dBackwardData(dy: TensorId, _weight: TensorId, xShape: Shape): TensorId {
    return this.#like(dy, { shape: xShape })
  }
  conv2dBackwardWeight(
    x: TensorId,
    _dy: TensorId,
    weightShape: Shape,
    _stride: number,
    _padding: readonly number[],
    hasBias: boolean,
  ): [dweight: TensorId, dbias: TensorId | null] {
    return [
      this.#like(x, { shape: weightShape }),
      hasBias ? this.#like(x, { shape: weightShape.slice(0, 1) }) : null,
    ]
  }
  upsampleNearest2x(x: TensorId): TensorId {
    return this.#resized(x, 2)
  }
  upsampleNearest2xBackward(dy: TensorId): TensorId {
    return this.#resized(dy, 1 / 2)
  }
  crossEntropy(x: TensorId): [loss: TensorId, gradient: TensorId] {
    const { shape, storage } = this.#entry(x)
    const result: [TensorId, TensorId] = [this.#numbers(x, []), this.#like(x)]
    scratch(storage.device, 4 * rowsOf(shape) + 4)
    return result
  }
  mse(x: TensorId): [loss: TensorId, gradient: TensorId] {
    const { shape, storage } = this.#entry(x)
    const result: [TensorId, TensorId] = [this.#numbers(x, []), this.#like(x)]
    scratch(storage.device, 4 * inBlocks(elementCount(shape), 8192))
    return result
  }

  #device(device: DeviceId): Ledger {
    return this.#devices[-device - 1] ?? fail('ERR_DEVICE', `device: there is no ${device}`)
  }
  #entry(x: TensorId): Entry {
    return this.#tensors.get(x) ?? fail('ERR_DISPOSED', `tensor: there is no ${x}`)
  }
  #add(entry: Entry): TensorId {
    const id = -++this.#made as TensorId
    this.#tensors.set(id, entry)
    entry.storage.device.tensors++
    return id
  }
  #make(device: Ledger, dtype: number, shape: Shape): TensorId {
    const bytes = bytesOf(dtype, shape)
    device.live += bytes
    device.peak = Math.max(device.peak, device.live)
    return this.#add({ storage: { device, bytes, claims: 1 }, dtype, shape: [...shape] })
  }
  /** A new tensor on the device of `x`, and of its dtype and shape where no others are given. */
  #like(x: TensorId, { dtype, shape }: { dtype?: number; shape?: Shape } = {}): TensorId {
    const model = this.#entry(x)
    return this.#make(model.storage.device, dtype ?? model.dtype, shape ?? model.shape)
  }
  /** A new float32 tensor on the device of `x`. */
  #numbers(x: TensorId, shape: Shape): TensorId {
    return this.#like(x, { dtype: float32, shape })
  }
  /** The float32 gradient of an operand that may be absent. */
  #gradientOf(x: TensorId | null): TensorId | null {
    return x === null ? null : this.#numbers(x, this.#entry(x).shape)
  }
  #resized(x: TensorId, factor: number): TensorId {
    const { shape } = this.#entry(x)
    const edges = shape.slice(-2).map((size) => size * factor)
    return this.#like(x, { shape: [...shape.slice(0, -2), ...edges] })
  }
  #listBlocks(tensors: readonly TensorId[]): number {
    return tensors.reduce(
      (sum, x) => sum + inBlocks(elementCount(this.#entry(x).shape), listBlock),
      0,
    )
  }
  #normScratch(x: TensorId, modulation: TensorId | null): void {
    const { shape, storage } = this.#entry(x)
    const size = last(shape)
    const samples = modulation === null ? 1 : elementCount(this.#entry(modulation).shape) / size
    scratch(storage.device, 4 * rowBlocks(rowsOf(shape), samples) * 2 * size)
  }
  #sampleScratch(x: TensorId, bytes: number): void {
    const { shape, storage } = this.#entry(x)
    scratch(storage.device, (shape[0] as number) * faultBytes + bytes)
  }
}

/** Memory that an operation takes beside its results, and has given back when the call returns. */
function scratch(device: Ledger, bytes: number): void {
  device.peak = Math.max(device.peak, device.live + bytes)
}

// --- The device -----------------------------------------------------------------------------------------------------

type Operation = (...given: unknown[]) => unknown

let shapeOnly: ShapeOnly | undefined

/**
 * A new device without memory, with counters of its own.
 *
 * The first call puts a switch in front of every function of the binding; programs that make no plan never run it.
 */
export function openShapeOnlyDevice(): DeviceId {
  shapeOnly ??= switched(new ShapeOnly())
  return shapeOnly.open()
}

/** Which argument of an operation is its device or a tensor on it, or a list of such. Of all others the first. */
const places: Partial<Record<keyof Binding, number>> = {
  unary: 1,
  binary: 1,
  reduce: 1,
  activationBackward: 1,
  // Lists may be empty.
  adamw: 6,
}

function switched(shapes: ShapeOnly): ShapeOnly {
  const functions = binding as unknown as Record<string, Operation>
  const stand = shapes as unknown as Record<string, Operation>
  for (const name of Object.keys(functions)) {
    const own = functions[name] as Operation
    const place = places[name as keyof Binding] ?? 0
    if (stand[name] === undefined) continue
    functions[name] = (...given) => {
      const at = given[place]
      const id = Array.isArray(at) ? at[0] : at
      return (id as number) < 0 ? stand[name]?.(...given) : own(...given)
    }
  }
  return shapes
}
