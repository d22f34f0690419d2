import { fail, show } from '../errors.js'
import { binding, type TensorId } from '../native/binding.js'
import type { Device } from './device.js'
import { bytesPerElement, checkDType, type DataOf, type DType, type FloatDType } from './dtype.js'
import * as elementwise from './elementwise.js'
import * as layout from './layout.js'
import { type MatmulOptions, matmul } from './matmul.js'
import * as reduce from './reduce.js'
import { enterScope } from './scope.js'
import {
  type Broadcast,
  elementCount,
  type Multiplied,
  type Reshaped,
  type Shape,
  sameShape,
  showShape,
} from './shape.js'

// The net under tensors that nobody disposed. A disposed one is taken out: what is registered outlives the young
// generation's collections, and programs that dispose should not grow by that.
const collected = new FinalizationRegistry<TensorId>((id) => binding.dispose(id))

/** The addon's id of a living tensor. @internal */
export let idOf: (name: string, tensor: Tensor) => TensorId

/**
 * A typed array of numbers on a device. `D` is its dtype and `S` its shape, literal where they are known.
 *
 * Operations enqueue their work and return at once; `data()` waits. Tensors are contiguous and row-major. They hold
 * memory outside the JavaScript heap: release it with `dispose()`, `using`, or {@link tidy}. A tensor that is garbage
 * collected releases its memory too, but later.
 *
 * Every operation checks its arguments before anything is enqueued and throws a {@link DidrError}: ERR_SHAPE,
 * ERR_DTYPE, ERR_DEVICE, ERR_RANGE, ERR_CONFIG, ERR_DISPOSED for a tensor that is disposed, ERR_OUT_OF_MEMORY.
 */
export class Tensor<D extends DType = DType, S extends Shape = Shape> {
  readonly shape: S
  readonly dtype: D
  readonly device: Device
  #id: TensorId
  #disposed = false

  static {
    idOf = (name, tensor) => {
      if (!(tensor instanceof Tensor))
        fail('ERR_CONFIG', `${name}: expected a tensor, got ${show(tensor)}`)
      if (tensor.#disposed)
        fail('ERR_DISPOSED', `${name}: the tensor ${showShape(tensor.shape)} is disposed`)
      return tensor.#id
    }
  }

  /** Wraps a result of the addon. Make tensors with {@link tensor}, {@link zeros} and their like. @internal */
  constructor(id: TensorId, shape: S, dtype: D, device: Device) {
    this.#id = id
    this.shape = shape
    this.dtype = dtype
    this.device = device
    collected.register(this, id, this)
    enterScope(this)
  }

  /** The number of elements. */
  get size(): number {
    return elementCount(this.shape)
  }

  /** The number of axes. */
  get rank(): number {
    return this.shape.length
  }

  /** Bytes of the elements. */
  get bytes(): number {
    return this.size * bytesPerElement(this.dtype)
  }

  // --- Reading -----------------------------------------------------------------------------------------------------

  /**
   * The elements in row-major order, when everything enqueued before has run. bfloat16 and float16 are widened.
   * @throws {DidrError} (as a rejection) the first failure of an op since the last wait.
   */
  async data(): Promise<DataOf<D>> {
    const id = idOf('tensor', this)
    if (!isSixteenBit(this.dtype))
      return view(this.dtype, await binding.read(id, new ArrayBuffer(this.bytes)))
    const wide = binding.cast(id, 0)
    try {
      return view(this.dtype, await binding.read(wide, new ArrayBuffer(this.size * 4)))
    } finally {
      binding.dispose(wide)
    }
  }

  /** Like {@link data}, but blocks the thread, event loop and all, until the queue has run. For scripts and tests. */
  dataSync(): DataOf<D> {
    const id = idOf('tensor', this)
    const wide = isSixteenBit(this.dtype) ? binding.cast(id, 0) : id
    try {
      const target = new ArrayBuffer(wide === id ? this.bytes : this.size * 4)
      binding.readSync(wide, target)
      return view(this.dtype, target)
    } finally {
      if (wide !== id) binding.dispose(wide)
    }
  }

  /** The elements as they are stored, 16-bit floats as their bits. */
  async rawData(): Promise<Uint8Array<ArrayBuffer>> {
    return new Uint8Array(await binding.read(idOf('tensor', this), new ArrayBuffer(this.bytes)))
  }

  /** The only element. @throws {DidrError} (as a rejection) ERR_SHAPE if there are more or none. */
  async item(): Promise<number> {
    if (this.size !== 1)
      fail(
        'ERR_SHAPE',
        `item(): expected a tensor of one element, got shape ${showShape(this.shape)}`,
      )
    return (await this.data())[0] as number
  }

  // --- Lifetime ----------------------------------------------------------------------------------------------------

  /** Whether the tensor has been disposed. */
  get disposed(): boolean {
    return this.#disposed
  }

  /** Releases the tensor. Work already enqueued still sees its elements; a second call does nothing. */
  dispose(): void {
    if (this.#disposed) return
    this.#disposed = true
    collected.unregister(this)
    binding.dispose(this.#id)
  }

  [Symbol.dispose](): void {
    this.dispose()
  }

  toString(): string {
    return `Tensor<${this.dtype}, ${showShape(this.shape)}>(${this.#disposed ? 'disposed' : this.device.name})`
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return this.toString()
  }

  // --- Layout ------------------------------------------------------------------------------------------------------

  /**
   * The same elements in another shape; one size may be -1 and is worked out. Shares this tensor's memory, so a later
   * {@link copyFrom} into one shows in the other. Disposing one leaves the other alive.
   */
  reshape<const T extends Shape>(shape: T): Tensor<D, Reshaped<T>> {
    return layout.reshape(this, shape)
  }
  /** Axes in another order: axis `i` of the result is axis `axes[i]` of this. */
  permute(axes: readonly number[]): Tensor<D, number[]> {
    return layout.permute(this, axes)
  }
  /** The last two axes exchanged. */
  transpose(): Tensor<D, S extends readonly [infer A, infer B] ? [B, A] : number[]> {
    return layout.transpose(this)
  }
  /** The part that starts at `begin` and spans `size` (-1: to the end), one entry per axis. A copy. */
  slice(begin: readonly number[], size?: readonly number[]): Tensor<D, number[]> {
    return layout.slice(this, begin, size)
  }
  /** Repeated along new axes in front and along axes of size 1. A copy. */
  broadcastTo<const T extends Shape>(shape: T): Tensor<D, T> {
    return layout.broadcastTo(this, shape)
  }
  /** The elements as another dtype. To integers: towards zero, saturating, NaN becomes 0. */
  cast<E extends DType>(dtype: E): Tensor<E, S> {
    checkDType('dtype', dtype)
    return layout.cast(this, dtype)
  }
  /** A copy of its own memory. */
  clone(): Tensor<D, S> {
    return layout.cast(this, this.dtype)
  }
  /** The tensor on another device; this one if it is there already. */
  to(device: Device): Promise<Tensor<D, S>> {
    return layout.toDevice(this, device)
  }
  /** Overwrites the elements, in queue order, with those of a tensor of the same shape, dtype and device. */
  copyFrom(source: Tensor<D>): this {
    layout.copyInto(this, source)
    return this
  }

  // --- Elementwise ---------------------------------------------------------------------------------------------------
  // float32 and bfloat16 (computed in float32); neg, abs, sign, square and clip also take int32. NaN propagates.

  neg(): Tensor<D, S> {
    return elementwise.unary('neg', this)
  }
  abs(): Tensor<D, S> {
    return elementwise.unary('abs', this)
  }
  sign(): Tensor<D, S> {
    return elementwise.unary('sign', this)
  }
  square(): Tensor<D, S> {
    return elementwise.unary('square', this)
  }
  sqrt(): Tensor<D, S> {
    return elementwise.unary('sqrt', this)
  }
  /** 1 / sqrt(x) */
  rsqrt(): Tensor<D, S> {
    return elementwise.unary('rsqrt', this)
  }
  /** 1 / x */
  reciprocal(): Tensor<D, S> {
    return elementwise.unary('reciprocal', this)
  }
  exp(): Tensor<D, S> {
    return elementwise.unary('exp', this)
  }
  /** The natural logarithm. */
  log(): Tensor<D, S> {
    return elementwise.unary('log', this)
  }
  sin(): Tensor<D, S> {
    return elementwise.unary('sin', this)
  }
  cos(): Tensor<D, S> {
    return elementwise.unary('cos', this)
  }
  tanh(): Tensor<D, S> {
    return elementwise.unary('tanh', this)
  }
  /** 1 / (1 + exp(-x)) */
  sigmoid(): Tensor<D, S> {
    return elementwise.unary('sigmoid', this)
  }
  /** x · sigmoid(x) */
  silu(): Tensor<D, S> {
    return elementwise.unary('silu', this)
  }
  /** x · Φ(x) with the exact error function, or its tanh approximation (arXiv 1606.08415). */
  gelu(approximate: 'none' | 'tanh' = 'none'): Tensor<D, S> {
    return elementwise.gelu(this, approximate)
  }
  relu(): Tensor<D, S> {
    return elementwise.unary('relu', this)
  }
  floor(): Tensor<D, S> {
    return elementwise.unary('floor', this)
  }
  /** Values below `low` become `low`, values above `high` become `high`. */
  clip(low: number, high: number): Tensor<D, S> {
    return elementwise.clip(this, low, high)
  }
  /** 1 where the element is neither NaN nor infinite, else 0. */
  isFinite(): Tensor<'uint8', S> {
    return elementwise.unary('isFinite', this)
  }
  /** 1 where the element is 0, else 0. */
  logicalNot(): Tensor<'uint8', S> {
    return elementwise.unary('logicalNot', this)
  }

  // The other operand is a tensor of the same dtype and device whose shape broadcasts with this one's, or a number.

  add<T extends Shape = readonly []>(b: Tensor<D, T> | number): Tensor<D, Broadcast<S, T>> {
    return elementwise.binary('add', this, b)
  }
  sub<T extends Shape = readonly []>(b: Tensor<D, T> | number): Tensor<D, Broadcast<S, T>> {
    return elementwise.binary('sub', this, b)
  }
  mul<T extends Shape = readonly []>(b: Tensor<D, T> | number): Tensor<D, Broadcast<S, T>> {
    return elementwise.binary('mul', this, b)
  }
  /** For int32: towards zero; x / 0 is 0. */
  div<T extends Shape = readonly []>(b: Tensor<D, T> | number): Tensor<D, Broadcast<S, T>> {
    return elementwise.binary('div', this, b)
  }
  pow<T extends Shape = readonly []>(b: Tensor<D, T> | number): Tensor<D, Broadcast<S, T>> {
    return elementwise.binary('pow', this, b)
  }
  maximum<T extends Shape = readonly []>(b: Tensor<D, T> | number): Tensor<D, Broadcast<S, T>> {
    return elementwise.binary('maximum', this, b)
  }
  minimum<T extends Shape = readonly []>(b: Tensor<D, T> | number): Tensor<D, Broadcast<S, T>> {
    return elementwise.binary('minimum', this, b)
  }
  equal<T extends Shape = readonly []>(b: Tensor<D, T> | number): Tensor<'uint8', Broadcast<S, T>> {
    return elementwise.binary('equal', this, b)
  }
  notEqual<T extends Shape = readonly []>(
    b: Tensor<D, T> | number,
  ): Tensor<'uint8', Broadcast<S, T>> {
    return elementwise.binary('notEqual', this, b)
  }
  less<T extends Shape = readonly []>(b: Tensor<D, T> | number): Tensor<'uint8', Broadcast<S, T>> {
    return elementwise.binary('less', this, b)
  }
  lessEqual<T extends Shape = readonly []>(
    b: Tensor<D, T> | number,
  ): Tensor<'uint8', Broadcast<S, T>> {
    return elementwise.binary('lessEqual', this, b)
  }
  greater<T extends Shape = readonly []>(
    b: Tensor<D, T> | number,
  ): Tensor<'uint8', Broadcast<S, T>> {
    return elementwise.binary('greater', this, b)
  }
  greaterEqual<T extends Shape = readonly []>(
    b: Tensor<D, T> | number,
  ): Tensor<'uint8', Broadcast<S, T>> {
    return elementwise.binary('greaterEqual', this, b)
  }
  logicalAnd<T extends Shape = readonly []>(b: Tensor<D, T>): Tensor<'uint8', Broadcast<S, T>> {
    return elementwise.binary('logicalAnd', this, b)
  }
  logicalOr<T extends Shape = readonly []>(b: Tensor<D, T>): Tensor<'uint8', Broadcast<S, T>> {
    return elementwise.binary('logicalOr', this, b)
  }

  /** this + scale · b in one pass, rounded once; b has the same shape, dtype and device. float32 and bfloat16. */
  addScaled(b: Tensor<D>, scale: number): Tensor<D, S> {
    return elementwise.addScaled(this, b, scale)
  }

  // --- Reductions ----------------------------------------------------------------------------------------------------
  // Over the axes given, or over all. The order of summation is fixed by the shape alone.

  sum(axes?: undefined): Tensor<D, []>
  sum(axes: number | readonly number[], options?: reduce.ReduceOptions): Tensor<D, number[]>
  sum(axes?: reduce.Axes, options?: reduce.ReduceOptions): Tensor<D, Shape> {
    return reduce.reduce('sum', this, axes, options)
  }
  /** NaN over no elements. */
  mean(axes?: undefined): Tensor<D, []>
  mean(axes: number | readonly number[], options?: reduce.ReduceOptions): Tensor<D, number[]>
  mean(axes?: reduce.Axes, options?: reduce.ReduceOptions): Tensor<D, Shape> {
    return reduce.reduce('mean', this, axes, options)
  }
  /** -infinity over no elements. */
  max(axes?: undefined): Tensor<D, []>
  max(axes: number | readonly number[], options?: reduce.ReduceOptions): Tensor<D, number[]>
  max(axes?: reduce.Axes, options?: reduce.ReduceOptions): Tensor<D, Shape> {
    return reduce.reduce('max', this, axes, options)
  }
  /** +infinity over no elements. */
  min(axes?: undefined): Tensor<D, []>
  min(axes: number | readonly number[], options?: reduce.ReduceOptions): Tensor<D, number[]>
  min(axes?: reduce.Axes, options?: reduce.ReduceOptions): Tensor<D, Shape> {
    return reduce.reduce('min', this, axes, options)
  }
  /** log Σ exp(x), stable. */
  logSumExp(axes?: undefined): Tensor<D, []>
  logSumExp(axes: number | readonly number[], options?: reduce.ReduceOptions): Tensor<D, number[]>
  logSumExp(axes?: reduce.Axes, options?: reduce.ReduceOptions): Tensor<D, Shape> {
    return reduce.reduce('logSumExp', this, axes, options)
  }
  /** The index of the largest element along one axis, the first of equals. */
  argMax(axis: number): Tensor<'int32', number[]> {
    return reduce.argMax(this, axis)
  }
  /** exp(x) / Σ exp(x) along one axis, stable. */
  softmax(axis = -1): Tensor<D, S> {
    return reduce.softmax(this, axis)
  }

  // --- Matrix product --------------------------------------------------------------------------------------------------

  /**
   * The matrix product over the last two axes. Axes before them are batches: the same in both, or absent in one.
   * @param options transA, transB: read the operand transposed; bias [n] and activation are applied to the product
   *   in the same pass.
   */
  matmul<T extends Shape, O extends MatmulOptions<D> | undefined = undefined>(
    b: Tensor<D, T>,
    options?: O,
  ): Tensor<D, O extends undefined ? Multiplied<S, T> : number[]> {
    return matmul(this, b, options)
  }
}

function isSixteenBit(dtype: DType): boolean {
  return dtype === 'bfloat16' || dtype === 'float16'
}

function view<D extends DType>(dtype: D, buffer: ArrayBuffer): DataOf<D> {
  const array =
    dtype === 'int32'
      ? new Int32Array(buffer)
      : dtype === 'uint8'
        ? new Uint8Array(buffer)
        : new Float32Array(buffer)
  return array as DataOf<D>
}

export function checkSameDevice(name: string, x: Tensor, model: Tensor): void {
  if (x.device.id !== model.device.id)
    fail(
      'ERR_DEVICE',
      `${name}: expected a tensor on ${model.device.name}, got one on ${x.device.name}`,
    )
}

export function checkSameDType(name: string, x: Tensor, model: Tensor): void {
  if (x.dtype !== model.dtype)
    fail('ERR_DTYPE', `${name}: expected ${model.dtype}, got ${x.dtype} (cast() converts)`)
}

export function checkFloat(name: string, x: Tensor): asserts x is Tensor<FloatDType> {
  if (x.dtype !== 'float32' && x.dtype !== 'bfloat16')
    fail('ERR_DTYPE', `${name}: expected float32 or bfloat16, got ${x.dtype}`)
}

export function checkTensorShape(name: string, x: Tensor, shape: Shape): void {
  if (!sameShape(x.shape, shape))
    fail('ERR_SHAPE', `${name}: expected shape ${showShape(shape)}, got ${showShape(x.shape)}`)
}
