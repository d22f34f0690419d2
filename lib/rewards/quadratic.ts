import { checkFinite, checkOptions } from '../checks.js'
import { checkSamples } from '../didr/samples.js'
import { fail, show } from '../errors.js'
import type { QuadraticReward } from '../models/gaussian-mixture.js'
import { tensor } from '../tensor/create.js'
import { showShape } from '../tensor/shape.js'
import { inFloat32 } from './images.js'
import type { Reward } from './reward.js'

/** The numbers of {@link quadratic}. */
export interface QuadraticOptions extends Omit<QuadraticReward, 'curvature'> {
  /** From 0 on. Default 1. */
  curvature?: number
}

/** A reward of which the closed form is known. */
export interface Quadratic extends Reward {
  /** Its numbers, as `GaussianMixture.tilt` takes them. */
  readonly quadratic: QuadraticReward
}

/**
 * r(x) = -curvature/2 · |x - center|² over the elements of each sample; differentiable. A Gaussian mixture tilted by it
 * is known in closed form.
 *
 * @throws {DidrError} ERR_CONFIG, ERR_RANGE; when scoring, ERR_SHAPE for samples of another size than the centre's
 * @example
 * const reward = rewards.quadratic({ center: [4, 0] })
 * const target = ring.tilt(reward.quadratic, beta)
 */
export function quadratic(options: QuadraticOptions): Quadratic {
  checkOptions('options', options, ['center', 'curvature'])
  const { center, curvature = 1 } = options
  if (!Array.isArray(center) || center.length === 0)
    fail('ERR_CONFIG', `options.center: expected an array of numbers, got ${show(center)}`)
  for (const [i, value] of center.entries()) checkFinite(`options.center[${i}]`, value)
  checkFinite('options.curvature', curvature)
  if (curvature < 0)
    fail('ERR_RANGE', `options.curvature: expected a number from 0 on, got ${curvature}`)
  const size = center.length
  const values = Float32Array.from(center)
  return {
    name: 'quadratic',
    differentiable: true,
    quadratic: { center: [...center], curvature },
    score(images) {
      checkSamples('images', images)
      const batch = images.shape[0] as number
      if (images.size !== batch * size)
        fail(
          'ERR_SHAPE',
          `images: expected ${size} elements in a sample, as the centre has, got ${showShape(images.shape)}`,
        )
      const { device } = images
      const offset = inFloat32(images)
        .reshape([batch, size])
        .sub(tensor(values, { shape: [1, size], device }))
      return offset
        .square()
        .sum(1)
        .mul(-curvature / 2)
    },
  }
}
