import { record, recording } from '../autograd/tape.js'
import { checkBoolean, checkInteger, checkOptions } from '../checks.js'
import { binding } from '../native/binding.js'
import { tensor } from '../tensor/create.js'
import type { FloatDType } from '../tensor/dtype.js'
import type { Shape } from '../tensor/shape.js'
import { Tensor } from '../tensor/tensor.js'
import { checkSamples, checkTimes, noiseLevels, uploadLevels, withTemporaries } from './samples.js'
import type { Schedule } from './schedules.js'

/** What {@link perturb} is given beside the samples. */
export interface PerturbOptions {
  /** One time per sample, each in [0, 1]. */
  t: Float32Array
  schedule: Schedule
  /** Which noise, integers from 0 to 2^53 - 1: ε of element i of x0 is element i of `normal(..., { seed, offset })`. */
  seed: number
  /** Default 0. */
  offset?: number
  /** Also return ε. Default false: the noise never reaches memory. */
  returnNoise?: boolean
}

/**
 * The forward process in one pass: x_t = α(t_b) x0 + σ(t_b) ε with ε drawn in registers. Differentiable by x0.
 *
 * @param x0 clean samples [B, ...], float32 or bfloat16
 * @returns `xt` like x0, and `noise` like x0 if it was asked for
 * @throws {DidrError} ERR_SHAPE, ERR_DTYPE, ERR_RANGE, ERR_CONFIG at the call; ERR_NONFINITE at the next wait if x0
 *   has NaN or infinite elements, with the first sample that has some.
 */
export function perturb<D extends FloatDType, S extends Shape>(
  x0: Tensor<D, S>,
  options: PerturbOptions & { returnNoise: true },
): { xt: Tensor<D, S>; noise: Tensor<D, S> }
export function perturb<D extends FloatDType, S extends Shape>(
  x0: Tensor<D, S>,
  options: PerturbOptions,
): { xt: Tensor<D, S>; noise: Tensor<D, S> | undefined }
export function perturb<D extends FloatDType, S extends Shape>(
  x0: Tensor<D, S>,
  options: PerturbOptions,
): { xt: Tensor<D, S>; noise: Tensor<D, S> | undefined } {
  const id = checkSamples('x0', x0)
  checkOptions('options', options, ['t', 'schedule', 'seed', 'offset', 'returnNoise'])
  const { t, schedule, seed, offset = 0, returnNoise = false } = options
  checkTimes(t, 'x0', x0.shape[0] as number)
  checkInteger('seed', seed, 0)
  checkInteger('offset', offset, 0)
  checkBoolean('returnNoise', returnNoise)
  const levels = noiseLevels(t, schedule, { positive: false })
  const [xt, noise] = withTemporaries((keep) =>
    binding.perturb(id, keep(uploadLevels(x0.device, levels)), seed, offset, returnNoise),
  )
  const wrap = (result: typeof xt) => new Tensor<D, S>(result, x0.shape, x0.dtype, x0.device)
  const y = wrap(xt)
  if (recording !== undefined) recordPerturb(x0 as Tensor, levels.alpha, y as Tensor)
  return { xt: y, noise: noise === null ? undefined : wrap(noise) }
}

/** dx0 = α dy: the noise is constant. In float32, whatever the dtype of the samples. */
function recordPerturb(x0: Tensor, alpha: Float64Array, xt: Tensor): void {
  const { dtype, device } = x0
  const shape = [alpha.length, ...x0.shape.slice(1).fill(1)]
  record([xt], [x0], () => (dy) => {
    const factor = tensor(Float32Array.from(alpha), { shape, device }) as Tensor
    const exact: Tensor = dtype === 'float32' ? dy : dy.cast('float32')
    return [exact.mul(factor).cast(dtype)]
  })
}
