/** Derivatives of lib/tensor/layout.ts: the elements move back where they came from. */
import { binding } from '../../native/binding.js'
import { dtypeIndex } from '../../tensor/dtype.js'
import { concat } from '../../tensor/layout.js'
import type { Shape } from '../../tensor/shape.js'
import { Tensor } from '../../tensor/tensor.js'
import { record } from '../tape.js'
import { sumToShape } from './broadcast.js'

export function recordReshape(x: Tensor, y: Tensor): void {
  const { shape } = x
  record([y], [x], () => (dy) => [dy.reshape(shape)])
}

export function recordPermute(x: Tensor, axes: readonly number[], y: Tensor): void {
  record([y], [x], () => (dy) => [dy.permute(axes.map((_, axis) => axes.indexOf(axis)))])
}

export function recordBroadcastTo(x: Tensor, y: Tensor): void {
  const { shape } = x
  record([y], [x], () => (dy) => [sumToShape(dy, shape)])
}

export function recordCast(x: Tensor, y: Tensor): void {
  if (!isFloat(x) || !isFloat(y)) return
  const { dtype } = x
  record([y], [x], () => (dy) => [dtype === dy.dtype ? dy : dy.cast(dtype)])
}

function isFloat({ dtype }: Tensor): boolean {
  return dtype === 'float32' || dtype === 'bfloat16' || dtype === 'float16'
}

/** The cotangent of the whole is that of the part, with zeros around it. */
export function recordSlice(x: Tensor, begin: readonly number[], y: Tensor): void {
  const { shape } = x
  const from = [...begin]
  record([y], [x], () => (dy) => {
    let whole = dy
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      const before = from[axis] as number
      const after = (shape[axis] as number) - before - (dy.shape[axis] as number)
      if (before === 0 && after === 0) continue
      const parts = [
        before > 0 && zerosLike(whole, whole.shape.with(axis, before)),
        whole,
        after > 0 && zerosLike(whole, whole.shape.with(axis, after)),
      ]
      whole = concat(
        parts.filter((part) => part instanceof Tensor),
        axis,
      )
    }
    return [whole]
  })
}

function zerosLike({ device, dtype }: Tensor, shape: Shape): Tensor {
  return new Tensor(binding.fill(device.id, dtypeIndex(dtype), shape, 0), shape, dtype, device)
}

export function recordConcat(tensors: readonly Tensor[], axis: number, y: Tensor): void {
  const lengths = tensors.map((x) => x.shape[axis] as number)
  record([y], tensors, ({ needs }) => (dy) => {
    let start = 0
    return lengths.map((length, i) => {
      const begin = dy.shape.map((_, a) => (a === axis ? start : 0))
      start += length
      return needs[i] ? dy.slice(begin, dy.shape.with(axis, length)) : undefined
    })
  })
}

export function recordStack(tensors: readonly Tensor[], axis: number, y: Tensor): void {
  const shape = (tensors[0] as Tensor).shape
  record(
    [y],
    tensors,
    ({ needs }) =>
      (dy) =>
        tensors.map((_, i) => {
          if (!needs[i]) return undefined
          const begin = dy.shape.map((_size, a) => (a === axis ? i : 0))
          return dy.slice(begin, dy.shape.with(axis, 1)).reshape(shape)
        }),
  )
}
