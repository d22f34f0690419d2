import { checkFinite, checkOneOf, checkOptions } from '../checks.js'
import { fail, show } from '../errors.js'
import { binding, type TensorId } from '../native/binding.js'
import { dtypeIndex, type FloatDType } from '../tensor/dtype.js'
import type { Shape } from '../tensor/shape.js'
import { Tensor } from '../tensor/tensor.js'
import { KlAccumulator } from './kl-accumulator.js'
import { type Prediction, predictionIndex } from './prediction.js'
import {
  checkLike,
  checkLikeIfGiven,
  checkSamples,
  checkTimes,
  noiseLevels,
  uploadFloats,
  uploadLevels,
  withTemporaries,
} from './samples.js'
import type { Schedule } from './schedules.js'

/** In the order of the addon's `Weighting`, whose last is a weight per sample. */
const weightings = ['x0', 'sigma2', 'dmd', 'uniform'] as const

/**
 * w(t) of the Integral KL: `x0` σ²/α², so that the cotangent is x̂0_ψ - x̂0_ref - (σ²/α) s_r; `sigma2` σ²
 * (Diff-Instruct, arXiv 2305.18455); `dmd` as x0, divided per sample by mean|x0 - x̂0_ref| (DMD2, arXiv 2405.14867; the
 * divisor is at least 1e-6); `uniform` 1; or a function of t.
 */
export type Weighting = (typeof weightings)[number] | ((t: number) => number)

/** What {@link integralKL} is given. */
export interface IntegralKLOptions<D extends FloatDType, S extends Shape> {
  /** The generator's samples [B, ...]. Read by the `dmd` weighting alone. */
  x0?: Tensor<NoInfer<D>>
  /** The perturbed samples [B, ...], float32 or bfloat16. */
  xt: Tensor<D, S>
  /** One time per sample, each in [0, 1], with α and σ above 0. */
  t: Float32Array
  schedule: Schedule
  /** What the networks' outputs are, of both or of each. */
  prediction: Prediction | { assistant: Prediction; teacher: Prediction }
  /** The assistant's raw output at x_t, like xt. */
  assistant: Tensor<NoInfer<D>>
  /** The teacher's raw output at x_t under the condition, like xt. */
  teacher: Tensor<NoInfer<D>>
  /** The teacher's raw output without the condition, like xt. Needed for guidance other than 1. */
  teacherUncond?: Tensor<NoInfer<D>>
  /** g of the guided teacher s(∅) + g (s(c) - s(∅)). Default 1: the conditional teacher as it is. */
  guidance?: number
  /** The diffused reward score s_r at x_t, like xt. Default 0. */
  drs?: Tensor<NoInfer<D>>
  /** Default x0. */
  weighting?: Weighting
  /** A factor of the cotangent, such as 1/B for the gradient of a batch mean. Default 1. */
  scale?: number
  /** Collects the KL in nats; see {@link KlAccumulator}. */
  accumulator?: KlAccumulator
}

/**
 * The gradient of the Integral KL ∫ w(t) KL(p_θ,t ‖ p*_t) dt on the generator's samples, and how far they are from the
 * target and from the reference, in one pass (arXiv 2605.24001):
 * grad = w α (s_ψ - s̃_ref - s_r), the cotangent on x0.
 *
 * @returns `grad` like xt; `perSample.target` [B] = ‖σ (s_ψ - s̃_ref - s_r)‖² and `perSample.reference` [B] =
 *   ‖σ (s_ψ - s̃_ref)‖², sums over a sample's elements, float32
 * @throws {DidrError} ERR_SHAPE, ERR_DTYPE, ERR_DEVICE, ERR_RANGE, ERR_CONFIG at the call; ERR_NONFINITE at the next
 *   wait if an input that is read has NaN or infinite elements. Such samples add nothing to the accumulator.
 */
export function integralKL<D extends FloatDType, S extends Shape>(
  options: IntegralKLOptions<D, S>,
): {
  grad: Tensor<D, S>
  perSample: { target: Tensor<'float32', [number]>; reference: Tensor<'float32', [number]> }
} {
  checkOptions('options', options, [
    'x0',
    'xt',
    't',
    'schedule',
    'prediction',
    'assistant',
    'teacher',
    'teacherUncond',
    'guidance',
    'drs',
    'weighting',
    'scale',
    'accumulator',
  ])
  const { x0, xt, t, schedule, prediction, assistant, teacher, teacherUncond, drs } = options
  const { guidance = 1, weighting = 'x0', scale = 1, accumulator } = options
  const id = checkSamples('xt', xt)
  const assistantId = checkLike('assistant', assistant, xt)
  const teacherId = checkLike('teacher', teacher, xt)
  const uncondId = checkLikeIfGiven('teacherUncond', teacherUncond, xt)
  const drsId = checkLikeIfGiven('drs', drs, xt)
  const x0Id = checkLikeIfGiven('x0', x0, xt)
  const batch = xt.shape[0] as number
  checkTimes(t, 'xt', batch)
  checkFinite('guidance', guidance)
  checkFinite('scale', scale)
  if (guidance !== 1 && teacherUncond === undefined)
    fail(
      'ERR_CONFIG',
      `teacherUncond: guidance ${guidance} needs the teacher's output without the condition`,
    )
  const [assistantKind, teacherKind] = predictionsOf(prediction)
  const weightingKind = weightingIndex(weighting)
  if (weighting === 'dmd' && x0 === undefined)
    fail('ERR_CONFIG', 'x0: the dmd weighting needs the samples themselves')
  if (accumulator !== undefined && !(accumulator instanceof KlAccumulator))
    fail('ERR_CONFIG', `accumulator: expected a KlAccumulator, got ${show(accumulator)}`)
  if (accumulator !== undefined && accumulator.device.id !== xt.device.id)
    fail(
      'ERR_DEVICE',
      `accumulator: expected one on ${xt.device.name}, got one on ${accumulator.device.name}`,
    )
  const levels = noiseLevels(t, schedule, { positive: true })
  const weights = typeof weighting === 'function' ? weightsOf(weighting, t) : null

  const [grad, target, reference] = withTemporaries((keep) => {
    let bins: TensorId | null = null
    let sums: TensorId | null = null
    if (accumulator !== undefined) {
      bins = keep(
        binding.upload(xt.device.id, dtypeIndex('int32'), [batch], accumulator.binsOf(t, schedule)),
      )
      sums = accumulator.sumsId()
    }
    return binding.integralKL(
      id,
      x0Id,
      assistantId,
      teacherId,
      guidance === 1 ? null : uncondId,
      drsId,
      keep(uploadLevels(xt.device, levels)),
      weights === null ? null : keep(uploadFloats(xt.device, weights, [batch])),
      bins,
      sums,
      guidance,
      scale,
      assistantKind,
      teacherKind,
      weightingKind,
    )
  })
  const perBatch = (result: TensorId) =>
    new Tensor<'float32', [number]>(result, [batch], 'float32', xt.device)
  return {
    grad: new Tensor(grad, xt.shape, xt.dtype, xt.device),
    perSample: { target: perBatch(target), reference: perBatch(reference) },
  }
}

function predictionsOf(prediction: IntegralKLOptions<FloatDType, Shape>['prediction']) {
  if (typeof prediction !== 'object') {
    const kind = predictionIndex('prediction', prediction)
    return [kind, kind] as const
  }
  checkOptions('prediction', prediction, ['assistant', 'teacher'])
  return [
    predictionIndex('prediction.assistant', prediction.assistant),
    predictionIndex('prediction.teacher', prediction.teacher),
  ] as const
}

function weightingIndex(weighting: unknown): number {
  if (typeof weighting === 'function') return weightings.length
  checkOneOf('weighting', weighting, weightings)
  return weightings.indexOf(weighting)
}

function weightsOf(weighting: (t: number) => number, t: Float32Array): Float32Array {
  return Float32Array.from(t, (time) => {
    const weight = weighting(time)
    if (!Number.isFinite(weight))
      fail('ERR_RANGE', `weighting: expected a finite weight at t = ${time}, got ${weight}`)
    return weight
  })
}
