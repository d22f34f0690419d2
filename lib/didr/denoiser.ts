/** Networks as denoisers: raw outputs turned into x̂0, guidance, and conditions for several particles of one sample. */
import { fail } from '../errors.js'
import type { Condition, ScoreModel } from '../models/score-model.js'
import { tensor } from '../tensor/create.js'
import type { FloatDType } from '../tensor/dtype.js'
import { concat } from '../tensor/layout.js'
import { showShape } from '../tensor/shape.js'
import { Tensor } from '../tensor/tensor.js'

export type Float = Tensor<FloatDType>

/** One factor per sample of `like`, in a shape that broadcasts over the sample's elements. */
export function perSample(values: ArrayLike<number>, like: Float): Float {
  const shape = [values.length, ...like.shape.slice(1).fill(1)]
  const { dtype, device } = like
  return tensor(Float32Array.from(values), { shape, dtype, device }) as Float
}

/** What the networks are asked at x_t. */
export interface Conditions {
  condition: Condition | undefined
  /** For guidance: the condition that stands for none. */
  unconditional: Condition | undefined
}

/** The raw output under guidance g, o(∅) + g (o(c) - o(∅)); affine, so any prediction type may be guided. */
export function guided(conditional: Float, unconditional: Float, guidance: number): Float {
  return unconditional.addScaled(conditional.sub(unconditional), guidance)
}

/** A model's raw output, checked. */
export function outputOf(
  name: string,
  model: ScoreModel,
  xt: Float,
  t: Float32Array,
  condition: Condition | undefined,
): Float {
  const output = model.forward(xt, t, condition)
  if (!(output instanceof Tensor))
    fail('ERR_CONFIG', `${name}.forward: expected a function that returns a tensor`)
  if (output.dtype !== xt.dtype)
    fail('ERR_DTYPE', `${name}.forward: expected ${xt.dtype} as x_t is, got ${output.dtype}`)
  if (`${output.shape}` !== `${xt.shape}`)
    fail(
      'ERR_SHAPE',
      `${name}.forward: expected ${showShape(xt.shape)} as x_t is, got ${showShape(output.shape)}`,
    )
  return output
}

/** A condition of B samples for N particles of each, in the order [N, B]. */
export function repeatCondition(
  condition: Condition | undefined,
  particles: number,
): Condition | undefined {
  if (condition === undefined || particles === 1) return condition
  const times = <T>(item: T): T[] => Array.from({ length: particles }, () => item)
  if (condition instanceof Tensor) return concat(times(condition), 0) as Tensor
  return {
    features: concat(times(condition.features), 0) as Float,
    lengths: times(condition.lengths).flat(),
    ...(condition.texts === undefined ? {} : { texts: times(condition.texts).flat() }),
  }
}
