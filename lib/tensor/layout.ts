/** Moving elements without computing on them. The methods of Tensor document these. */
import {
  recordBroadcastTo,
  recordCast,
  recordConcat,
  recordPermute,
  recordReshape,
  recordSlice,
  recordStack,
} from '../autograd/rules/layout.js'
import { isTracked, recording } from '../autograd/tape.js'
import { fail, show } from '../errors.js'
import { binding } from '../native/binding.js'
import { Device } from './device.js'
import { type DType, dtypeIndex } from './dtype.js'
import {
  broadcastShapes,
  checkAxis,
  checkShape,
  elementCount,
  type Reshaped,
  type Shape,
  sameShape,
  showShape,
} from './shape.js'
import { checkSameDevice, checkSameDType, checkTensorShape, idOf, Tensor } from './tensor.js'

export function reshape<D extends DType, T extends Shape>(
  x: Tensor<D>,
  wanted: T,
): Tensor<D, Reshaped<T>> {
  const id = idOf('tensor', x)
  if (!Array.isArray(wanted))
    fail('ERR_SHAPE', `shape: expected an array of sizes, got ${show(wanted)}`)
  const shape: number[] = [...wanted]
  const open = shape.indexOf(-1)
  if (open >= 0) shape[open] = 1
  checkShape('shape', shape)
  if (open >= 0) {
    const rest = elementCount(shape)
    if (rest === 0 || x.size % rest !== 0)
      fail(
        'ERR_SHAPE',
        `shape: ${showShape(wanted)} cannot hold the ${x.size} elements of ${showShape(x.shape)}`,
      )
    shape[open] = x.size / rest
  }
  if (elementCount(shape) !== x.size)
    fail(
      'ERR_SHAPE',
      `shape: expected ${x.size} elements as in ${showShape(x.shape)}, got ${showShape(wanted)}`,
    )
  const y = new Tensor(binding.view(id, shape), shape as unknown as Reshaped<T>, x.dtype, x.device)
  if (recording !== undefined) recordReshape(x, y)
  return y
}

export function permute<D extends DType>(
  x: Tensor<D>,
  axes: readonly number[],
): Tensor<D, number[]> {
  const id = idOf('tensor', x)
  if (!Array.isArray(axes) || axes.length !== x.rank)
    fail('ERR_SHAPE', `axes: expected ${x.rank} axes, got ${show(axes)}`)
  const order = axes.map((axis) => checkAxis('axes', axis, x.rank))
  if (new Set(order).size !== order.length)
    fail('ERR_RANGE', `axes: expected each axis once, got ${show(axes)}`)
  const shape = order.map((axis) => x.shape[axis] as number)
  const y = new Tensor(binding.permute(id, order), shape, x.dtype, x.device)
  if (recording !== undefined) recordPermute(x, order, y)
  return y
}

export function transpose<D extends DType, R extends Shape>(x: Tensor<D>): Tensor<D, R> {
  if (x.rank < 2)
    fail('ERR_SHAPE', `transpose: expected at least two axes, got shape ${showShape(x.shape)}`)
  const axes = x.shape.map((_, axis) => axis)
  axes.push(...axes.splice(-2).reverse())
  return permute(x, axes) as Tensor<D, Shape> as Tensor<D, R>
}

export function slice<D extends DType>(
  x: Tensor<D>,
  starts: readonly number[],
  size?: readonly number[],
): Tensor<D, number[]> {
  const id = idOf('tensor', x)
  checkPerAxis('begin', starts, x)
  if (size !== undefined) checkPerAxis('size', size, x)
  const begin = [...starts]
  const shape = x.shape.map((length, axis) => {
    const from = begin[axis] as number
    const span = size?.[axis] ?? -1
    if (!Number.isInteger(from) || from < 0 || from > length)
      fail(
        'ERR_RANGE',
        `begin[${axis}]: expected an integer from 0 to ${length}, got ${show(from)}`,
      )
    if (span === -1) return length - from
    if (!Number.isInteger(span) || span < 0 || from + span > length)
      fail(
        'ERR_RANGE',
        `size[${axis}]: expected -1 or an integer from 0 to ${length - from}, got ${show(span)}`,
      )
    return span
  })
  const y = new Tensor(binding.slice(id, begin, shape), shape, x.dtype, x.device)
  if (recording !== undefined) recordSlice(x, begin, y)
  return y
}

function checkPerAxis(name: string, list: unknown, x: Tensor): void {
  if (!Array.isArray(list) || list.length !== x.rank)
    fail('ERR_SHAPE', `${name}: expected ${x.rank} entries, one per axis, got ${show(list)}`)
}

export function broadcastTo<D extends DType, T extends Shape>(
  x: Tensor<D>,
  wanted: T,
): Tensor<D, T> {
  const id = idOf('tensor', x)
  checkShape('shape', wanted)
  const shape = [...wanted] as readonly number[] as T
  if (!sameShape(broadcastShapes(x.shape, shape), shape))
    fail('ERR_SHAPE', `shape: ${showShape(x.shape)} does not broadcast to ${showShape(shape)}`)
  const y = new Tensor(binding.broadcastTo(id, shape), shape, x.dtype, x.device)
  if (recording !== undefined) recordBroadcastTo(x, y)
  return y
}

export function cast<D extends DType, S extends Shape>(
  x: Tensor<DType, S>,
  dtype: D,
): Tensor<D, S> {
  const id = binding.cast(idOf('tensor', x), dtypeIndex(dtype))
  const y = new Tensor(id, x.shape, dtype, x.device)
  if (recording !== undefined) recordCast(x, y)
  return y
}

export function copyInto(target: Tensor, source: Tensor): void {
  const to = idOf('tensor', target)
  const from = idOf('source', source)
  checkSameDevice('source', source, target)
  checkSameDType('source', source, target)
  checkTensorShape('source', source, target.shape)
  if (recording !== undefined) {
    if (isTracked(target))
      fail('ERR_CONFIG', 'tensor: the running vjp tracks it, so it must not be overwritten')
    if (isTracked(source))
      fail(
        'ERR_CONFIG',
        'source: the running vjp tracks it, and a copy would lose its gradient (stopGradient allows that)',
      )
  }
  binding.copyInto(to, from)
}

export async function toDevice<D extends DType, S extends Shape>(
  x: Tensor<D, S>,
  device: Device,
): Promise<Tensor<D, S>> {
  const id = idOf('tensor', x)
  if (!(device instanceof Device))
    fail('ERR_CONFIG', `device: expected a device, got ${show(device)}`)
  if (device.id === x.device.id) return x
  const bytes = new Uint8Array(await binding.read(id, new ArrayBuffer(x.bytes)))
  return new Tensor(
    binding.upload(device.id, dtypeIndex(x.dtype), x.shape, bytes),
    x.shape,
    x.dtype,
    device,
  )
}

/**
 * Joins tensors end to end along an axis. Their other axes, dtypes and devices are the same.
 * @param axis counted from the back if negative
 */
export function concat<D extends DType>(
  tensors: readonly Tensor<D>[],
  axis = 0,
): Tensor<D, number[]> {
  const [first, ids] = checkList(tensors)
  const along = checkAxis('axis', axis, first.rank)
  let length = 0
  for (const [i, x] of tensors.entries()) {
    const rest = x.shape.map((size, a) => (a === along ? first.shape[along] : size)) as number[]
    if (!sameShape(rest, first.shape))
      fail(
        'ERR_SHAPE',
        `tensors[${i}]: ${showShape(x.shape)} does not continue ${showShape(first.shape)} along axis ${along}`,
      )
    length += x.shape[along] as number
  }
  const shape = first.shape.map((size, a) => (a === along ? length : size))
  const y = new Tensor(binding.concat(ids, along), shape, first.dtype, first.device)
  if (recording !== undefined) recordConcat(tensors, along, y)
  return y
}

/**
 * Joins tensors of one shape along a new axis.
 * @param axis where the new axis goes in the result; counted from the back if negative
 */
export function stack<D extends DType>(
  tensors: readonly Tensor<D>[],
  axis = 0,
): Tensor<D, number[]> {
  const [first] = checkList(tensors)
  const at = checkAxis('axis', axis, first.rank + 1)
  const widened = first.shape.toSpliced(at, 0, 1)
  for (const [i, x] of tensors.entries()) checkTensorShape(`tensors[${i}]`, x, first.shape)
  checkShape('tensors', widened)
  const parts = tensors.map((x) => binding.view(idOf('tensors', x), widened))
  try {
    const shape = widened.with(at, tensors.length)
    const y = new Tensor(binding.concat(parts, at), shape, first.dtype, first.device)
    if (recording !== undefined) recordStack(tensors, at, y)
    return y
  } finally {
    for (const part of parts) binding.dispose(part)
  }
}

function checkList<D extends DType>(tensors: readonly Tensor<D>[]) {
  if (!Array.isArray(tensors) || tensors.length === 0)
    fail('ERR_CONFIG', `tensors: expected an array of at least one tensor, got ${show(tensors)}`)
  const ids = tensors.map((x, i) => idOf(`tensors[${i}]`, x))
  const first = tensors[0] as Tensor<D>
  for (const [i, x] of tensors.entries()) {
    checkSameDevice(`tensors[${i}]`, x, first)
    checkSameDType(`tensors[${i}]`, x, first)
  }
  return [first, ids] as const
}
