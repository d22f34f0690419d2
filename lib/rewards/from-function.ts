import { fail, show } from '../errors.js'
import type { Condition } from '../models/score-model.js'
import { tensor } from '../tensor/create.js'
import type { FloatDType } from '../tensor/dtype.js'
import { Tensor } from '../tensor/tensor.js'
import { checkName, type Reward } from './reward.js'

/**
 * A differentiable reward from a synchronous function of the package's operations.
 *
 * @param fn gets images [B, ...], float32 or bfloat16, and returns a new float32 tensor [B]. What it makes besides is
 *   disposed.
 * @example
 * const bright = rewards.fromFunction('bright', (images) => images.mean([1, 2, 3]))
 */
export function fromFunction(
  name: string,
  fn: (images: Tensor<FloatDType>, condition?: Condition) => Tensor,
): Reward {
  checkFunction(name, fn)
  return {
    name,
    differentiable: true,
    score: (images, condition) => fn(images, condition),
  }
}

/** Scores as a black box may give them: one number for each image, or a new float32 tensor [B]. */
export type Numbers = readonly number[] | Float32Array | Float64Array | Tensor

/**
 * A reward that gives numbers and no gradients: a call of another program, of a service, of a person.
 *
 * @param fn gets images [B, ...], float32 or bfloat16, which stay alive until its promise settles. Tensors that it makes
 *   besides the one that it returns are its own to dispose.
 * @example
 * const judge = rewards.blackBox('judge', async (images) => askTheJudge(await images.data()))
 */
export function blackBox(
  name: string,
  fn: (images: Tensor<FloatDType>, condition?: Condition) => Numbers | Promise<Numbers>,
): Reward {
  checkFunction(name, fn)
  return {
    name,
    differentiable: false,
    async score(images, condition) {
      const { device } = images
      const scores = await fn(images, condition)
      if (scores instanceof Tensor) return scores
      const isArray =
        Array.isArray(scores) || scores instanceof Float32Array || scores instanceof Float64Array
      if (!isArray)
        fail('ERR_CONFIG', `expected one number for each image, or a tensor, got ${show(scores)}`)
      return tensor(scores as number[] | Float32Array | Float64Array, { device })
    },
  }
}

function checkFunction(name: unknown, fn: unknown): void {
  checkName('name', name)
  if (typeof fn !== 'function') fail('ERR_CONFIG', `fn: expected a function, got ${show(fn)}`)
}
