/** Derivatives of lib/tensor/matmul.ts: y = activation(op(a) op(b) + bias). */
import type { Activation } from '../../tensor/matmul.js'
import type { Tensor } from '../../tensor/tensor.js'
import { record } from '../tape.js'
import { activationBackward } from './elementwise.js'

export interface Product {
  a: Tensor
  b: Tensor
  bias: Tensor | undefined
  transA: boolean
  transB: boolean
  activation: Activation
  /** op(a) op(b) + bias. */
  product: Tensor
}

export function recordMatmul(
  { a, b, bias, transA, transB, activation, product }: Product,
  y: Tensor,
): void {
  const [rankA, rankB] = [a.rank, b.rank]
  record([y], [a, b, bias], ({ needs, save }) => {
    const keptA = needs[1] ? save(a) : undefined
    const keptB = needs[0] ? save(b) : undefined
    const keptProduct = activation === 'none' ? undefined : save(product)
    return (dy) => {
      const dz = keptProduct ? activationBackward(activation, keptProduct, dy) : dy
      return [
        keptB && gradientOfA(dz, keptB, transA, transB, rankA),
        keptA && gradientOfB(dz, keptA, transA, transB, rankB),
        needs[2] ? rows(dz).sum(0) : undefined,
      ]
    }
  })
}

/** op(a)' = dz op(b)ᵀ, summed over the batches where a had none. */
function gradientOfA(
  dz: Tensor,
  b: Tensor,
  transA: boolean,
  transB: boolean,
  rankA: number,
): Tensor {
  const da: Tensor = transA
    ? b.matmul(dz, { transA: transB, transB: true })
    : dz.matmul(b, { transB: !transB })
  return rankA === 2 && da.rank > 2 ? sumOverBatches(da) : da
}

/** op(b)' = op(a)ᵀ dz, summed over the batches where b had none. */
function gradientOfB(
  dz: Tensor,
  a: Tensor,
  transA: boolean,
  transB: boolean,
  rankB: number,
): Tensor {
  // Stacked rows of a against one b are one product, and so is its gradient.
  const flat = rankB === 2 && !transA
  const [left, right] = flat ? [rows(a), rows(dz)] : [a, dz]
  const db: Tensor = transB
    ? right.matmul(left, { transA: true, transB: transA })
    : left.matmul(right, { transA: !transA })
  return rankB === 2 && db.rank > 2 ? sumOverBatches(db) : db
}

/** All axes but the last as one. */
function rows(x: Tensor): Tensor {
  return x.rank === 2 ? x : x.reshape([-1, x.shape.at(-1) as number])
}

function sumOverBatches(x: Tensor): Tensor {
  return x.sum(Array.from({ length: x.rank - 2 }, (_, axis) => axis))
}
