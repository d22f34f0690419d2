/** Elementwise operations with broadcasting. The methods of Tensor document them. */
import {
  recordAddScaled,
  recordBinary,
  recordBinaryNumber,
  recordUnary,
  recordWhere,
} from '../autograd/rules/elementwise.js'
import { recording } from '../autograd/tape.js'
import { checkNumber, checkOneOf } from '../checks.js'
import { fail } from '../errors.js'
import { binding, type TensorId } from '../native/binding.js'
import { type DType, dtypeIndex } from './dtype.js'
import { type Broadcast, broadcastShapes, type Shape } from './shape.js'
import { checkSameDevice, checkSameDType, checkTensorShape, idOf, Tensor } from './tensor.js'

/** In the order of the addon's `Unary`. */
const unaryKinds = [
  'neg',
  'abs',
  'square',
  'sqrt',
  'rsqrt',
  'reciprocal',
  'exp',
  'log',
  'tanh',
  'sigmoid',
  'silu',
  'gelu',
  'geluTanh',
  'relu',
  'sign',
  'floor',
  'sin',
  'cos',
  'isFinite',
  'logicalNot',
  'clip',
] as const
export type UnaryKind = (typeof unaryKinds)[number]

/** In the order of the addon's `Binary`. */
const binaryKinds = [
  'add',
  'sub',
  'mul',
  'div',
  'pow',
  'maximum',
  'minimum',
  'equal',
  'notEqual',
  'less',
  'lessEqual',
  'greater',
  'greaterEqual',
  'logicalAnd',
  'logicalOr',
] as const
export type BinaryKind = (typeof binaryKinds)[number]

/** The addon's numbers for them. */
export const unaryIndex = Object.fromEntries(unaryKinds.map((kind, i) => [kind, i])) as Record<
  UnaryKind,
  number
>
const binaryIndex = Object.fromEntries(binaryKinds.map((kind, i) => [kind, i])) as Record<
  BinaryKind,
  number
>

const floats: readonly DType[] = ['float32', 'bfloat16']
const numbers: readonly DType[] = ['float32', 'bfloat16', 'int32']
const comparable: readonly DType[] = ['float32', 'bfloat16', 'int32', 'uint8']

const unaryDTypes: Partial<Record<UnaryKind, readonly DType[]>> = {
  neg: numbers,
  abs: numbers,
  square: numbers,
  sign: numbers,
  clip: numbers,
  logicalNot: comparable,
}
const binaryDTypes: Partial<Record<BinaryKind, readonly DType[]>> = {
  pow: floats,
  equal: comparable,
  notEqual: comparable,
  less: comparable,
  lessEqual: comparable,
  greater: comparable,
  greaterEqual: comparable,
  logicalAnd: ['uint8'],
  logicalOr: ['uint8'],
}
/** Operations that answer yes (1) or no (0). */
const answers: ReadonlySet<string> = new Set([
  'isFinite',
  'logicalNot',
  'equal',
  'notEqual',
  'less',
  'lessEqual',
  'greater',
  'greaterEqual',
  'logicalAnd',
  'logicalOr',
])

function checkSupported(kind: string, dtype: DType, supported: readonly DType[]): void {
  if (!supported.includes(dtype))
    fail('ERR_DTYPE', `${kind}: expected a tensor of ${supported.join(' or ')}, got ${dtype}`)
}

export function unary<S extends Shape, R extends DType>(
  kind: UnaryKind,
  x: Tensor<DType, S>,
  low = 0,
  high = 0,
): Tensor<R, S> {
  const id = idOf('tensor', x)
  checkSupported(kind, x.dtype, unaryDTypes[kind] ?? floats)
  const dtype = (answers.has(kind) ? 'uint8' : x.dtype) as R
  const y = new Tensor(binding.unary(unaryIndex[kind], id, low, high), x.shape, dtype, x.device)
  if (recording !== undefined) recordUnary(kind, x, y, low, high)
  return y
}

export function gelu<D extends DType, S extends Shape>(
  x: Tensor<D, S>,
  approximate: 'none' | 'tanh',
): Tensor<D, S> {
  checkOneOf('approximate', approximate, ['none', 'tanh'])
  return unary(approximate === 'tanh' ? 'geluTanh' : 'gelu', x)
}

export function clip<D extends DType, S extends Shape>(
  x: Tensor<D, S>,
  low: number,
  high: number,
): Tensor<D, S> {
  checkNumber('low', low)
  checkNumber('high', high)
  if (!(low <= high)) fail('ERR_RANGE', `low, high: expected low <= high, got ${low} and ${high}`)
  return unary('clip', x, low, high)
}

/** A scalar on the device and of the dtype of `model`. */
export function fillScalar(value: number, model: Tensor): TensorId {
  return binding.fill(model.device.id, dtypeIndex(model.dtype), [], value)
}

const integerRanges: Partial<Record<DType, readonly [name: string, least: number, most: number]>> =
  {
    int32: ['an int32', -(2 ** 31), 2 ** 31 - 1],
    uint8: ['a uint8', 0, 255],
  }

/** Refuses a number that would have to be rounded or saturated to stand beside an integer tensor. */
function checkHolds(dtype: DType, b: number): void {
  const range = integerRanges[dtype]
  if (range === undefined) return
  const [name, least, most] = range
  if (!Number.isInteger(b))
    fail('ERR_DTYPE', `b: expected an integer beside ${name} tensor, got ${b}`)
  if (b < least || b > most)
    fail(
      'ERR_RANGE',
      `b: expected an integer from ${least} to ${most} beside ${name} tensor, got ${b}`,
    )
}

export function binary<R extends DType, S extends Shape, T extends Shape>(
  kind: BinaryKind,
  a: Tensor<DType, S>,
  b: Tensor<DType, T> | number,
): Tensor<R, Broadcast<S, T>> {
  const idA = idOf('tensor', a)
  checkSupported(kind, a.dtype, binaryDTypes[kind] ?? numbers)
  const dtype = (answers.has(kind) ? 'uint8' : a.dtype) as R
  if (typeof b === 'number') {
    checkHolds(a.dtype, b)
    const scalar = fillScalar(b, a)
    let id: TensorId
    try {
      id = binding.binary(binaryIndex[kind], idA, scalar)
    } finally {
      binding.dispose(scalar)
    }
    const y = new Tensor(id, a.shape as Broadcast<S, T>, dtype, a.device)
    if (recording !== undefined) recordBinaryNumber(kind, a, b, y)
    return y
  }
  const idB = idOf('b', b)
  checkSameDevice('b', b, a)
  checkSameDType('b', b, a)
  const shape = broadcastShapes(a.shape, b.shape) as Broadcast<S, T>
  const y = new Tensor(binding.binary(binaryIndex[kind], idA, idB), shape, dtype, a.device)
  if (recording !== undefined) recordBinary(kind, a, b, y)
  return y
}

export function addScaled<D extends DType, S extends Shape>(
  a: Tensor<D, S>,
  b: Tensor<D>,
  scale: number,
): Tensor<D, S> {
  const idA = idOf('tensor', a)
  const idB = idOf('b', b)
  checkSupported('addScaled', a.dtype, floats)
  checkSameDevice('b', b, a)
  checkSameDType('b', b, a)
  checkTensorShape('b', b, a.shape)
  checkNumber('scale', scale)
  const y = new Tensor(binding.scaledAdd(idA, idB, scale), a.shape, a.dtype, a.device)
  if (recording !== undefined) recordAddScaled(a, b, scale, y)
  return y
}

/**
 * Elements of `a` where `condition` is not 0, of `b` elsewhere. The three broadcast together.
 * @param condition uint8, as comparisons give it
 */
export function where<D extends DType>(
  condition: Tensor<'uint8'>,
  a: Tensor<D>,
  b: Tensor<D>,
): Tensor<D, Shape> {
  const ids = [idOf('condition', condition), idOf('a', a), idOf('b', b)] as const
  if (condition.dtype !== 'uint8')
    fail('ERR_DTYPE', `condition: expected uint8, got ${condition.dtype as string}`)
  checkSameDevice('condition', condition, a)
  checkSameDevice('b', b, a)
  checkSameDType('b', b, a)
  const shape = broadcastShapes(condition.shape, broadcastShapes(a.shape, b.shape))
  const y = new Tensor(binding.where(...ids), shape, a.dtype, a.device)
  if (recording !== undefined) recordWhere(condition, a, b, y)
  return y
}
