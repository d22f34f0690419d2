/** Sampling from a score model in many steps. */
import { checkFinite, checkInteger, checkOptions } from '../checks.js'
import { guided } from '../didr/denoiser.js'
import { denoiserCoefficients } from '../didr/prediction.js'
import { checkSchedule, type Schedule } from '../didr/schedules.js'
import { fail } from '../errors.js'
import type { FloatDType } from '../tensor/dtype.js'
import { tidy } from '../tensor/scope.js'
import { idOf, type Tensor } from '../tensor/tensor.js'
import type { Condition, ScoreModel } from './score-model.js'

type Float = Tensor<FloatDType>

/** Where Z-Image's even points end: 0.003 / 1.002, before the shift. */
const lastPoint = 0.003 / 1.002

/**
 * The times of Z-Image's sampler: shift·u / (1 + (shift - 1)·u) of the first `steps` of `steps` + 1 even points u from 1
 * to 0.002994, and then 0.
 * @param options `shift`: above 1 spends more steps at high noise. Default 3, as published.
 * @returns steps + 1 times, from 1 to 0
 */
export function samplingTimes(steps: number, options: { shift?: number } = {}): number[] {
  checkInteger('steps', steps, 1, 100_000)
  checkOptions('options', options, ['shift'])
  const { shift = 3 } = options
  checkFinite('options.shift', shift)
  if (shift <= 0) fail('ERR_RANGE', `options.shift: expected a number above 0, got ${shift}`)
  const times = Array.from({ length: steps }, (_, i) => {
    const u = 1 + ((lastPoint - 1) * i) / steps
    return (shift * u) / (1 + (shift - 1) * u)
  })
  return [...times, 0]
}

/** How {@link sample} goes from noise to samples. */
export interface SampleOptions {
  /** The schedule whose times the model is given. */
  schedule: Schedule
  condition?: Condition | undefined
  /** The condition of an unconditional sample; needed where `guidance` is not 1. */
  unconditional?: Condition | undefined
  /** g in o(∅) + g (o(c) - o(∅)), classifier-free guidance (arXiv 2207.12598). Default 1. */
  guidance?: number
  /** Decreasing, from that of `noise`. Default: {@link samplingTimes} of 50 steps. */
  times?: readonly number[]
  /** Called after each step. */
  onStep?: (step: number, steps: number) => void
}

/**
 * A sample from noise by DDIM's deterministic steps (arXiv 2010.02502), x' = α' x̂0 + σ' ε̂. On a flow schedule they are
 * Euler's on dx/dτ = ε - x0.
 *
 * @param noise x at `times[0]`, [B, ...]; stays the caller's
 * @returns like `noise`, x at the last time
 * @throws {DidrError} (as a rejection) ERR_CONFIG if guidance needs a condition that is not given, ERR_RANGE for times
 *   that do not decrease
 */
export async function sample(
  model: ScoreModel,
  noise: Float,
  options: SampleOptions,
): Promise<Float> {
  checkOptions('options', options, [
    'schedule',
    'condition',
    'unconditional',
    'guidance',
    'times',
    'onStep',
  ])
  const { schedule, condition, unconditional, guidance = 1, onStep } = options
  const { times = samplingTimes(50) } = options
  idOf('noise', noise as Tensor)
  checkSchedule('options.schedule', schedule)
  checkFinite('options.guidance', guidance)
  if (guidance !== 1 && unconditional === undefined)
    fail('ERR_CONFIG', `options.unconditional: needed for guidance ${guidance}`)
  if (times.length < 2) fail('ERR_CONFIG', 'options.times: expected at least two')
  for (const [i, time] of times.entries())
    if (!(time >= 0 && time <= 1) || time >= (times[i - 1] ?? Infinity))
      fail('ERR_RANGE', `options.times[${i}]: expected decreasing times from 0 to 1, got ${time}`)

  const batch = noise.shape[0] ?? 0
  const steps = times.length - 1
  let x = noise
  for (let step = 0; step < steps; step++) {
    const [from, to] = [times[step] as number, times[step + 1] as number]
    const next = tidy(() => {
      const t = new Float32Array(batch).fill(from)
      let output = guidance === 0 ? undefined : model.forward(x, t, condition)
      if (guidance !== 1) {
        const base = model.forward(x, t, unconditional)
        output = output === undefined ? base : guided(output, base, guidance)
      }
      return stepTo(model, x, output as Float, schedule, from, to)
    })
    if (x !== noise) x.dispose()
    x = next
    // Without it all steps would be enqueued at once, and nobody could follow them.
    await x.device.synchronize()
    onStep?.(step + 1, steps)
  }
  return x
}

function stepTo(
  { prediction }: ScoreModel,
  x: Float,
  output: Float,
  schedule: Schedule,
  from: number,
  to: number,
): Float {
  const [alpha, sigma] = [schedule.alpha(from), schedule.sigma(from)]
  const denoiser = denoiserCoefficients(prediction, alpha, sigma)
  // x' = α' x̂0 + σ'/σ (x - α x̂0), with x̂0 = denoiser.xt x + denoiser.output o
  const ratio = schedule.sigma(to) / sigma
  const change = schedule.alpha(to) - ratio * alpha
  return x.mul(ratio + change * denoiser.xt).addScaled(output, change * denoiser.output) as Float
}
