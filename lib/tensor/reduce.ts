/** Reductions along axes. The methods of Tensor document them. */
import { recordReduce, recordSoftmax } from '../autograd/rules/reduce.js'
import { recording } from '../autograd/tape.js'
import { checkBoolean, checkOptions } from '../checks.js'
import { fail } from '../errors.js'
import { binding, type TensorId } from '../native/binding.js'
import type { DType } from './dtype.js'
import { checkAxes, checkAxis, type Shape } from './shape.js'
import { checkFloat, idOf, Tensor } from './tensor.js'

/** One axis, several, or (undefined) all; negative ones count from the back. */
export type Axes = number | readonly number[] | undefined

/** Settings of reductions. */
export interface ReduceOptions {
  /** Keeps the reduced axes with size 1. Default false. */
  keepDims?: boolean
}

/** In the order of the addon's `Reduce`. */
const kinds = ['sum', 'mean', 'max', 'min', 'logSumExp', 'sumSquares', 'argMax'] as const
type Kind = (typeof kinds)[number]

const dtypesOf: Record<Kind, readonly DType[]> = {
  sum: ['float32', 'bfloat16', 'int32'],
  mean: ['float32', 'bfloat16'],
  max: ['float32', 'bfloat16', 'int32'],
  min: ['float32', 'bfloat16', 'int32'],
  logSumExp: ['float32', 'bfloat16'],
  sumSquares: ['float32', 'bfloat16'],
  argMax: ['float32', 'bfloat16', 'int32'],
}

function checkSupported(kind: Kind, dtype: DType): void {
  if (!dtypesOf[kind].includes(dtype))
    fail('ERR_DTYPE', `${kind}: expected a tensor of ${dtypesOf[kind].join(' or ')}, got ${dtype}`)
}

export function reduce<D extends DType>(
  kind: Exclude<Kind, 'argMax'>,
  x: Tensor<D>,
  axes: Axes,
  options: ReduceOptions = {},
): Tensor<D> {
  const id = idOf('tensor', x)
  checkSupported(kind, x.dtype)
  const reduced = checkAxes('axes', axes, x.rank)
  checkOptions('options', options, ['keepDims'])
  const { keepDims = false } = options
  checkBoolean('options.keepDims', keepDims)
  const kept = x.shape.filter((_, axis) => !reduced.includes(axis))
  const shape = keepDims ? x.shape.map((size, axis) => (reduced.includes(axis) ? 1 : size)) : kept
  const y = new Tensor(reduceAxes(kind, x, id, reduced, shape), shape, x.dtype, x.device)
  if (recording !== undefined) recordReduce(kind, x, reduced, y)
  return y
}

/**
 * The kernel takes one run of adjacent axes, so axes that are apart are brought together first. The intermediates
 * never become tensors of their own.
 */
function reduceAxes(
  kind: Kind,
  x: Tensor,
  id: TensorId,
  reduced: readonly number[],
  shape: Shape,
): TensorId {
  const made: TensorId[] = []
  const make = (next: TensorId) => {
    made.push(next)
    return next
  }
  try {
    let from = id
    let first = reduced[0] ?? 0
    let last = reduced.at(-1) ?? -1
    if (last - first + 1 !== reduced.length) {
      const kept = x.shape.map((_, axis) => axis).filter((axis) => !reduced.includes(axis))
      from = make(binding.permute(id, [...kept, ...reduced]))
      first = kept.length
      last = x.rank - 1
    } else if (reduced.length === 0) {
      // Over no axes (a scalar, or an empty list) every element is its own result: give it an axis of one.
      from = make(binding.view(id, [x.size, 1]))
      first = last = 1
    }
    const result = make(binding.reduce(kinds.indexOf(kind), from, first, last))
    return binding.view(result, shape)
  } finally {
    for (const tensor of made) binding.dispose(tensor)
  }
}

export function argMax(x: Tensor, axis: number): Tensor<'int32', number[]> {
  const id = idOf('tensor', x)
  checkSupported('argMax', x.dtype)
  const along = checkAxis('axis', axis, x.rank)
  if (x.shape[along] === 0) fail('ERR_SHAPE', `axis: the largest of no elements is not defined`)
  const shape = x.shape.toSpliced(along, 1)
  return new Tensor(
    binding.reduce(kinds.indexOf('argMax'), id, along, along),
    shape,
    'int32',
    x.device,
  )
}

export function softmax<D extends DType, S extends Shape>(
  x: Tensor<D, S>,
  axis: number,
): Tensor<D, S> {
  const id = idOf('tensor', x)
  checkFloat('softmax', x as Tensor)
  const along = checkAxis('axis', axis, x.rank)
  const y = new Tensor(binding.softmax(id, along), x.shape, x.dtype, x.device)
  if (recording !== undefined) recordSoftmax(x, along, y)
  return y
}
