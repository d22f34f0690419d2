/** Making tensors. */
import { checkFinite, checkInteger, checkNumber, checkOptions } from '../checks.js'
import { fail, show } from '../errors.js'
import { binding, type TensorId } from '../native/binding.js'
import { cpuDevice, Device } from './device.js'
import { checkDType, type DType, dtypeIndex, type FloatDType } from './dtype.js'
import { checkShape, elementCount, maxRank, type Shape, showShape } from './shape.js'
import { Tensor } from './tensor.js'

/** As what and where a tensor is made. */
export interface PlaceOptions<D extends DType> {
  /** Default float32. */
  dtype?: D
  /** Default: the CPU. */
  device?: Device
}

/** Settings of {@link tensor}. */
export interface TensorOptions<D extends DType, S extends Shape> extends PlaceOptions<D> {
  /** Default: the nesting of the arrays, or one axis for a typed array. */
  shape?: S
}

type Nested = number | readonly Nested[]

/** The dtype whose elements a typed array holds as they are. */
function naturalDType(values: NodeJS.TypedArray): DType | undefined {
  if (values instanceof Float32Array) return 'float32'
  if (values instanceof Int32Array) return 'int32'
  if (values instanceof Uint8Array || values instanceof Uint8ClampedArray) return 'uint8'
  return undefined
}

function place(device: Device | undefined): Device {
  if (device === undefined) return cpuDevice()
  if (!(device instanceof Device))
    fail('ERR_CONFIG', `device: expected what device() resolves to, got ${show(device)}`)
  return device
}

/**
 * A tensor of given values, which are copied.
 *
 * @param values a number, nested arrays, or a typed array: Float32Array, Float64Array (rounded to float32), Int32Array,
 *   Uint8Array, Uint8ClampedArray; or Uint16Array holding the bits of bfloat16 or float16, for which `dtype` is needed.
 * @param options `shape` must have as many elements as `values`; `dtype` defaults to that of a typed array, else to
 *   float32, and values are converted as by `cast`.
 * @throws {DidrError} ERR_SHAPE for ragged arrays, a shape of another size or a detached buffer; ERR_DTYPE for other
 *   typed arrays.
 * @example
 * const x = tensor([[1, 2, 3], [4, 5, 6]])                            // Tensor<'float32', number[]>
 * const y = tensor(new Float32Array(6), { shape: [2, 3] })            // Tensor<'float32', [2, 3]>
 */
export function tensor<D extends DType = 'float32', const S extends Shape = number[]>(
  values: Nested | NodeJS.TypedArray,
  options: TensorOptions<D, S> = {},
): Tensor<D, S> {
  checkOptions('options', options, ['shape', 'dtype', 'device'])
  const device = place(options.device)
  if (options.shape !== undefined) checkShape('options.shape', options.shape)
  if (options.dtype !== undefined) checkDType('options.dtype', options.dtype)

  let flat: NodeJS.TypedArray
  let shape: Shape
  if (ArrayBuffer.isView(values) && !(values instanceof DataView)) {
    checkInBounds(values)
    flat = values instanceof Float64Array ? Float32Array.from(values) : values
    shape = [flat.length]
  } else {
    const sizes = nesting(values as Nested)
    const numbers = new Float64Array(elementCount(sizes))
    flatten(values as Nested, sizes, 0, numbers, 0)
    // Through int32 where that is asked for: float32 holds integers only up to 2^24.
    flat = options.dtype === 'int32' ? toInt32(numbers) : Float32Array.from(numbers)
    shape = sizes
  }
  const wanted: Shape = frozen(options.shape ?? shape)
  if (elementCount(wanted) !== flat.length)
    fail(
      'ERR_SHAPE',
      `values: expected ${elementCount(wanted)} elements for shape ${showShape(wanted)}, got ${flat.length}`,
    )

  if (flat instanceof Uint16Array) {
    if (options.dtype !== 'bfloat16' && options.dtype !== 'float16')
      fail(
        'ERR_DTYPE',
        'options.dtype: a Uint16Array holds the bits of bfloat16 or float16; say which',
      )
    return upload(flat, wanted as S, options.dtype as D, device)
  }
  const natural = naturalDType(flat)
  if (natural === undefined)
    fail(
      'ERR_DTYPE',
      `values: expected an array of 32-bit or 64-bit floats, 32-bit integers or bytes, got ${show(values)}`,
    )
  const dtype = (options.dtype ?? natural) as D
  if (dtype === natural) return upload(flat, wanted as S, dtype, device)
  const id = binding.upload(device.id, dtypeIndex(natural), wanted, flat)
  try {
    return new Tensor(binding.cast(id, dtypeIndex(dtype)), wanted as S, dtype, device)
  } finally {
    binding.dispose(id)
  }
}

function upload<D extends DType, S extends Shape>(
  values: NodeJS.TypedArray,
  shape: S,
  dtype: D,
  device: Device,
): Tensor<D, S> {
  const id = binding.upload(device.id, dtypeIndex(dtype), shape, values)
  return new Tensor(id, shape, dtype, device)
}

/** Refuses an array whose elements are gone; such an array says that its length is 0. */
function checkInBounds(values: NodeJS.TypedArray): void {
  try {
    values.at(0)
  } catch (error) {
    fail(
      'ERR_SHAPE',
      'values: the array buffer is detached, or was resized to end before the array',
      { cause: error },
    )
  }
}

/** A copy, so that a caller who changes their array later does not change the tensor's shape. */
function frozen<S extends Shape>(shape: S): S {
  return [...shape] as unknown as S
}

function toInt32(numbers: Float64Array): Int32Array {
  return Int32Array.from(numbers, (value) => {
    if (Number.isNaN(value)) return 0
    return Math.max(-(2 ** 31), Math.min(2 ** 31 - 1, Math.trunc(value)))
  })
}

/** Sizes along the first elements of nested arrays. */
function nesting(values: Nested): number[] {
  const sizes: number[] = []
  for (let level = values; Array.isArray(level); level = level[0]) {
    if (sizes.length === maxRank)
      fail('ERR_SHAPE', `values: expected at most ${maxRank} axes, got more`)
    sizes.push(level.length)
    if (level.length === 0) break
  }
  checkShape('values', sizes)
  return sizes
}

function flatten(
  values: Nested,
  sizes: readonly number[],
  axis: number,
  into: Float64Array,
  at: number,
): number {
  if (axis === sizes.length) {
    if (typeof values !== 'number')
      fail('ERR_CONFIG', `values: expected numbers ${axis} arrays deep, got ${show(values)}`)
    into[at] = values
    return at + 1
  }
  if (!Array.isArray(values) || values.length !== sizes[axis])
    fail(
      'ERR_SHAPE',
      `values: expected arrays of ${sizes[axis]} at depth ${axis}, got ${show(values)}`,
    )
  let next = at
  for (const item of values) next = flatten(item, sizes, axis + 1, into, next)
  return next
}

function create<D extends DType, S extends Shape>(
  asked: S,
  options: PlaceOptions<D>,
  known: readonly string[],
  make: (device: Device, dtype: number, shape: S) => TensorId,
): Tensor<D, S> {
  checkShape('shape', asked)
  const shape = frozen(asked)
  checkOptions('options', options, ['dtype', 'device', ...known])
  const dtype = (options.dtype ?? 'float32') as D
  checkDType('options.dtype', dtype)
  const device = place(options.device)
  return new Tensor(make(device, dtypeIndex(dtype), shape), shape, dtype, device)
}

/** A tensor whose elements are all `value`, converted as by `cast`. */
export function full<const S extends Shape, D extends DType = 'float32'>(
  shape: S,
  value: number,
  options: PlaceOptions<D> = {},
): Tensor<D, S> {
  checkNumber('value', value)
  return create(shape, options, [], (device, dtype, sizes) =>
    binding.fill(device.id, dtype, sizes, value),
  )
}

/** A tensor of zeros. */
export function zeros<const S extends Shape, D extends DType = 'float32'>(
  shape: S,
  options: PlaceOptions<D> = {},
): Tensor<D, S> {
  return full(shape, 0, options)
}

/** A tensor of ones. */
export function ones<const S extends Shape, D extends DType = 'float32'>(
  shape: S,
  options: PlaceOptions<D> = {},
): Tensor<D, S> {
  return full(shape, 1, options)
}

/** Settings of {@link arange}. */
export interface ArangeOptions<D extends DType> extends PlaceOptions<D> {
  /** The first element. Default 0. */
  start?: number
  /** From one element to the next. Default 1. */
  step?: number
}

/** `count` evenly spaced numbers: start + i · step. */
export function arange<const N extends number, D extends DType = 'float32'>(
  count: N,
  options: ArangeOptions<D> = {},
): Tensor<D, [N]> {
  checkInteger('count', count, 0)
  return create<D, [N]>([count], options, ['start', 'step'], (device, dtype) => {
    const { start = 0, step = 1 } = options
    checkFinite('options.start', start)
    checkFinite('options.step', step)
    return binding.arange(device.id, dtype, count, start, step)
  })
}

/** Which random numbers: the draw is a pure function of these, on every device and thread count. */
export interface DrawOptions<D extends FloatDType> extends PlaceOptions<D> {
  /** An integer from 0 to 2^53 - 1. */
  seed: number
  /**
   * Which draw of the seed's stream, an integer from 0 to 2^53 - 1. Default 0. Draws of different offsets are
   * independent; a shorter draw of one offset is a prefix of a longer one.
   */
  offset?: number
}

/** Settings of {@link uniform}. */
export interface UniformOptions<D extends FloatDType> extends DrawOptions<D> {
  /** Default 0. */
  low?: number
  /** Default 1; never reached when low is 0 and high is 1. */
  high?: number
}

/** Settings of {@link normal}. */
export interface NormalOptions<D extends FloatDType> extends DrawOptions<D> {
  /** Default 0. */
  mean?: number
  /** The standard deviation, from 0 on. Default 1. */
  std?: number
}

/**
 * Independent uniform numbers in [low, high), by Philox4x32-10 (Salmon et al. 2011).
 * @example uniform([2, 3], { seed: 1 })
 */
export function uniform<const S extends Shape, D extends FloatDType = 'float32'>(
  shape: S,
  options: UniformOptions<D>,
): Tensor<D, S> {
  return create(shape, options, ['seed', 'offset', 'low', 'high'], (device, dtype, sizes) => {
    const { seed, offset = 0, low = 0, high = 1 } = options
    checkDraw(dtype, seed, offset)
    checkFinite('options.low', low)
    checkFinite('options.high', high)
    if (!(low <= high))
      fail('ERR_RANGE', `options.high: expected at least low = ${low}, got ${high}`)
    return binding.uniform(device.id, dtype, sizes, seed, offset, low, high)
  })
}

/**
 * Independent normal numbers, by Philox4x32-10 and Box-Muller.
 * @example normal([2, 3], { seed: 1 })
 */
export function normal<const S extends Shape, D extends FloatDType = 'float32'>(
  shape: S,
  options: NormalOptions<D>,
): Tensor<D, S> {
  return create(shape, options, ['seed', 'offset', 'mean', 'std'], (device, dtype, sizes) => {
    const { seed, offset = 0, mean = 0, std = 1 } = options
    checkDraw(dtype, seed, offset)
    checkFinite('options.mean', mean)
    checkFinite('options.std', std)
    if (std < 0) fail('ERR_RANGE', `options.std: expected a number from 0 on, got ${std}`)
    return binding.normal(device.id, dtype, sizes, seed, offset, mean, std)
  })
}

function checkDraw(dtype: number, seed: unknown, offset: unknown): void {
  if (dtype > dtypeIndex('bfloat16'))
    fail('ERR_DTYPE', 'options.dtype: expected float32 or bfloat16 for random numbers')
  checkInteger('options.seed', seed, 0)
  checkInteger('options.offset', offset, 0)
}
