import { record, recording } from '../autograd/tape.js'
import { checkInteger, checkOneOf, checkOptions } from '../checks.js'
import { fail } from '../errors.js'
import { binding } from '../native/binding.js'
import type { FloatDType } from '../tensor/dtype.js'
import type { Shape } from '../tensor/shape.js'
import { Tensor } from '../tensor/tensor.js'
import { denoiserCoefficients, type Prediction, predictionIndex } from './prediction.js'
import {
  checkLike,
  checkSamples,
  checkTimes,
  type NoiseLevels,
  noiseLevels,
  uploadFloats,
  uploadLevels,
  withTemporaries,
} from './samples.js'
import type { Schedule } from './schedules.js'

const weightings = ['output', 'x0', 'epsilon'] as const

/**
 * The space in which the squared error is measured: `output` that of the network's output as it is, `x0` that of the
 * denoiser x̂0, `epsilon` that of the noise; or the weight of the output's squared error as a function of t.
 */
export type DenoisingWeighting = (typeof weightings)[number] | ((t: number) => number)

/** What {@link denoisingLoss} is given. */
export interface DenoisingLossOptions<D extends FloatDType, S extends Shape> {
  /** Clean samples [B, ...], float32 or bfloat16. */
  x0: Tensor<D, S>
  /** What the network's output is. */
  prediction: Prediction
  /** The network's output at x_t, like x0. */
  output: Tensor<NoInfer<D>>
  /** One time per sample, each in [0, 1], as given to `perturb`. */
  t: Float32Array
  schedule: Schedule
  /** As given to `perturb`: the same ε is drawn again instead of being stored. */
  seed: number
  /** Default 0. */
  offset?: number
  /** Default `output`. */
  weighting?: DenoisingWeighting
}

/**
 * Denoising score matching (Vincent 2011), value and gradient in one pass:
 * ℓ_b = w(t_b) · mean_j (output - target)², the target following from x0, ε and the prediction type. `loss` and
 * `perSample` are differentiable by the output; x0 counts as a constant.
 *
 * @returns `loss` [] the mean of ℓ over the batch; `perSample` [B] (float32); `grad` like the output, the gradient of
 *   `loss` by the output
 * @throws {DidrError} as {@link perturb}; ERR_NONFINITE at the next wait if x0 or the output are not finite.
 */
export function denoisingLoss<D extends FloatDType, S extends Shape>(
  options: DenoisingLossOptions<D, S>,
): { loss: Tensor<'float32', []>; perSample: Tensor<'float32', [number]>; grad: Tensor<D, S> } {
  checkOptions('options', options, [
    'x0',
    'prediction',
    'output',
    't',
    'schedule',
    'seed',
    'offset',
    'weighting',
  ])
  const { x0, prediction, output, t, schedule, seed, offset = 0, weighting = 'output' } = options
  const id = checkSamples('x0', x0)
  const outputId = checkLike('output', output, x0)
  const kind = predictionIndex('prediction', prediction)
  const batch = x0.shape[0] as number
  checkTimes(t, 'x0', batch)
  checkInteger('seed', seed, 0)
  checkInteger('offset', offset, 0)
  const levels = noiseLevels(t, schedule, { positive: weighting !== 'output' })
  const weights = weightsOf(weighting, prediction, t, levels)
  const [perSampleId, gradId] = withTemporaries((keep) =>
    binding.denoisingLoss(
      id,
      outputId,
      keep(uploadLevels(x0.device, levels)),
      weights === null ? null : keep(uploadFloats(x0.device, weights, [batch])),
      kind,
      seed,
      offset,
    ),
  )
  const perSample = new Tensor<'float32', [number]>(perSampleId, [batch], 'float32', x0.device)
  const grad = new Tensor<D, S>(gradId, x0.shape, x0.dtype, x0.device)
  if (recording !== undefined) recordLoss(output as Tensor, perSample as Tensor, grad as Tensor)
  let loss: Tensor<'float32', []> | undefined
  return {
    // Made when it is first asked for: the fused kernel has all that training needs.
    get loss() {
      loss ??= perSample.mean()
      return loss
    },
    perSample,
    grad,
  }
}

/** `grad` is that of the mean over the batch: a sample's own is batch times it. x0 is a constant. */
function recordLoss(output: Tensor, perSample: Tensor, grad: Tensor): void {
  const { dtype } = output
  const shape = [output.shape[0] as number, ...output.shape.slice(1).fill(1)]
  record([perSample], [output], ({ save }) => {
    const kept = save(grad)
    return (dy) => {
      const factor = dy.mul(dy.size).reshape(shape)
      return [kept.mul(dtype === 'float32' ? factor : factor.cast(dtype))]
    }
  })
}

/** The weight of each sample's squared error in the output; null for 1 throughout. */
function weightsOf(
  weighting: DenoisingWeighting,
  prediction: Prediction,
  t: Float32Array,
  { alpha, sigma }: NoiseLevels,
): Float32Array | null {
  if (weighting === 'output') return null
  if (typeof weighting !== 'function') checkOneOf('weighting', weighting, weightings)
  return Float32Array.from(t, (time, i) => {
    if (typeof weighting === 'function') {
      const weight = weighting(time)
      if (!(Number.isFinite(weight) && weight >= 0))
        fail(
          'ERR_RANGE',
          `weighting: expected a finite weight from 0 on at t = ${time}, got ${weight}`,
        )
      return weight
    }
    // An error e in the output is one of |output coefficient| e in x̂0, and α/σ times that in ε.
    const [a, s] = [alpha[i] as number, sigma[i] as number]
    const scale = denoiserCoefficients(prediction, a, s).output * (weighting === 'x0' ? 1 : a / s)
    return scale * scale
  })
}
