/** Derivatives of lib/tensor/reduce.ts. */
import type { Shape } from '../../tensor/shape.js'
import type { Tensor } from '../../tensor/tensor.js'
import { type Recorder, record } from '../tape.js'

/** @param axes the reduced axes, ascending @param y the result, of whichever shape */
export function recordReduce(
  kind: 'sum' | 'mean' | 'max' | 'min' | 'logSumExp' | 'sumSquares',
  x: Tensor,
  axes: readonly number[],
  y: Tensor,
): void {
  const { shape } = x
  const kept: Shape = shape.map((size, axis) => (axes.includes(axis) ? 1 : size))
  const count = axes.reduce((product, axis) => product * (shape[axis] as number), 1)
  record([y], [x], ({ save }: Recorder) => {
    switch (kind) {
      case 'sum':
        return (dy) => [dy.reshape(kept).broadcastTo(shape)]
      case 'mean':
        return (dy) => [dy.div(count).reshape(kept).broadcastTo(shape)]
      case 'sumSquares': {
        const keptX = save(x)
        return (dy) => [keptX.mul(dy.mul(2).reshape(kept))]
      }
      case 'logSumExp': {
        const [keptX, keptY] = [save(x), save(y)]
        return (dy) => [keptX.sub(keptY.reshape(kept)).exp().mul(dy.reshape(kept))]
      }
      // Shared evenly between equal elements, as in PyTorch.
      case 'max':
      case 'min': {
        const [keptX, keptY] = [save(x), save(y)]
        return (dy) => {
          const hits = keptX.equal(keptY.reshape(kept)).cast(dy.dtype)
          const share = dy.reshape(kept).div(hits.sum([...axes], { keepDims: true }))
          return [hits.mul(share)]
        }
      }
    }
  })
}

/** dx = y (dy - Σ y dy) */
export function recordSoftmax(x: Tensor, axis: number, y: Tensor): void {
  record([y], [x], ({ save }) => {
    const kept = save(y)
    return (dy) => {
      const weighted = kept.mul(dy)
      return [weighted.sub(kept.mul(weighted.sum(axis, { keepDims: true })))]
    }
  })
}
