import { recordMatmul } from '../autograd/rules/matmul.js'
import { isTracked, recording } from '../autograd/tape.js'
import { checkBoolean, checkOneOf, checkOptions } from '../checks.js'
import { fail } from '../errors.js'
import { binding } from '../native/binding.js'
import type { DType } from './dtype.js'
import { unaryIndex } from './elementwise.js'
import { type Shape, sameShape, showShape } from './shape.js'
import {
  checkFloat,
  checkSameDevice,
  checkSameDType,
  checkTensorShape,
  idOf,
  Tensor,
} from './tensor.js'

/** In the order of the addon's `Activation`. */
export const activations = ['none', 'relu', 'gelu', 'geluTanh', 'silu', 'tanh', 'sigmoid'] as const

/** An elementwise function that is applied to a result before it is stored. */
export type Activation = (typeof activations)[number]

/** Settings of a matrix product. */
export interface MatmulOptions<D extends DType = DType> {
  /** Read the first operand transposed. Default false. */
  transA?: boolean
  /** Read the second operand transposed. Default false. */
  transB?: boolean
  /** Added to every row of the product: shape [n]. */
  bias?: Tensor<D>
  /** Applied last. Default none. */
  activation?: Activation
}

export function matmul<D extends DType, R extends Shape>(
  a: Tensor<D>,
  b: Tensor<D>,
  options: MatmulOptions<D> = {},
): Tensor<D, R> {
  const idA = idOf('tensor', a)
  const idB = idOf('b', b)
  checkFloat('matmul', a as Tensor)
  checkSameDevice('b', b, a)
  checkSameDType('b', b, a)
  checkOptions('options', options, ['transA', 'transB', 'bias', 'activation'])
  const { transA = false, transB = false, bias, activation = 'none' } = options
  checkBoolean('options.transA', transA)
  checkBoolean('options.transB', transB)
  checkOneOf('options.activation', activation, activations)
  if (a.rank < 2 || b.rank < 2)
    fail(
      'ERR_SHAPE',
      `matmul: expected at least two axes in each operand, got ${showShape(a.shape)} and ${showShape(b.shape)}`,
    )
  const [m, k] = lastTwo(a, transA)
  const [kb, n] = lastTwo(b, transB)
  if (k !== kb)
    fail(
      'ERR_SHAPE',
      `b: expected ${k} rows to match ${showShape(a.shape)}, got ${showShape(b.shape)}${transB ? ' transposed' : ''}`,
    )
  const batchA = a.shape.slice(0, -2)
  const batchB = b.shape.slice(0, -2)
  if (batchA.length > 0 && batchB.length > 0 && !sameShape(batchA, batchB))
    fail(
      'ERR_SHAPE',
      `b: expected batch axes ${showShape(batchA)} or none, got ${showShape(batchB)}`,
    )
  let idBias = null
  if (bias !== undefined) {
    idBias = idOf('options.bias', bias)
    checkSameDevice('options.bias', bias, a)
    checkSameDType('options.bias', bias, a)
    checkTensorShape('options.bias', bias, [n])
  }
  const shape = [...(batchA.length > 0 ? batchA : batchB), m, n]
  const multiply = (activated: Activation) =>
    new Tensor<D, R>(
      binding.matmul(idA, idB, idBias, transA, transB, activations.indexOf(activated)),
      shape as Shape as R,
      a.dtype,
      a.device,
    )
  if (recording === undefined || ![a, b, bias].some((x) => x && isTracked(x)))
    return multiply(activation)
  // The backward pass needs what the activation was applied to, so the two are not fused.
  const product = multiply('none')
  const y = activation === 'none' ? product : activate(activation, product)
  recordMatmul({ a, b, bias, transA, transB, activation, product }, y)
  if (y !== product) product.dispose()
  return y
}

function activate<D extends DType, R extends Shape>(
  activation: Exclude<Activation, 'none'>,
  x: Tensor<D, R>,
): Tensor<D, R> {
  const id = binding.unary(unaryIndex[activation], idOf('product', x), 0, 0)
  return new Tensor(id, x.shape, x.dtype, x.device)
}

function lastTwo(x: Tensor, transposed: boolean): [rows: number, columns: number] {
  const [rows, columns] = x.shape.slice(-2) as [number, number]
  return transposed ? [columns, rows] : [rows, columns]
}
