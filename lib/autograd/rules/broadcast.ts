import type { Shape } from '../../tensor/shape.js'
import { sameShape } from '../../tensor/shape.js'
import type { Tensor } from '../../tensor/tensor.js'

/** The cotangent of a tensor of shape `shape` that was broadcast: the sum over the axes that were stretched. */
export function sumToShape(cotangent: Tensor, shape: Shape): Tensor {
  if (sameShape(cotangent.shape, shape)) return cotangent
  const lead = cotangent.rank - shape.length
  const stretched = cotangent.shape.map(
    (size, axis) => axis < lead || (shape[axis - lead] === 1 && size !== 1),
  )
  // One run of adjacent axes after another, from the back: a reduction takes adjacent axes without copying.
  let sum = cotangent
  for (let last = stretched.length - 1; last >= 0; last--) {
    if (!stretched[last]) continue
    let first = last
    while (first > 0 && stretched[first - 1]) first--
    sum = sum.sum(Array.from({ length: last - first + 1 }, (_, i) => first + i))
    last = first
  }
  return sum.reshape(shape)
}
