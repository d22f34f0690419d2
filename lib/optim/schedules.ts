/**
 * Learning-rate schedules: pure functions from the step, counted from 0, to what the learning rate is scaled by. Give the
 * value to {@link AdamW.step} as `lrScale`.
 */
import { checkFinite, checkInteger, checkOptions } from '../checks.js'
import { fail } from '../errors.js'

/** What the learning rate is multiplied by at a step, counted from 0. */
export type LearningRateSchedule = (step: number) => number

function checked(scale: LearningRateSchedule): LearningRateSchedule {
  return (step) => {
    checkInteger('step', step, 0)
    return scale(step)
  }
}

function linearWarmup(step: number, steps: number): number {
  return step < steps ? (step + 1) / steps : 1
}

/** 1 at every step. */
export function constant(): LearningRateSchedule {
  return checked(() => 1)
}

/** From 1/steps at step 0 linearly to 1 at step `steps` - 1, and 1 from there on. */
export function warmup(options: { steps: number }): LearningRateSchedule {
  checkOptions('options', options, ['steps'])
  const { steps } = options
  checkInteger('options.steps', steps, 0)
  return checked((step) => linearWarmup(step, steps))
}

/** The course of {@link cosine}. */
export interface CosineOptions {
  /** Where the schedule ends; it stays at `final` from there on. */
  steps: number
  /** Steps of linear warm-up, which come first. Default 0. */
  warmup?: number
  /** The value at the end. Default 0. */
  final?: number
}

/** A warm-up, then half a cosine from 1 to `final` (Loshchilov and Hutter, arXiv 1608.03983, without restarts). */
export function cosine(options: CosineOptions): LearningRateSchedule {
  checkOptions('options', options, ['steps', 'warmup', 'final'])
  const { steps, warmup = 0, final = 0 } = options
  checkInteger('options.steps', steps, 1)
  checkInteger('options.warmup', warmup, 0)
  checkFinite('options.final', final)
  if (warmup > steps)
    fail('ERR_RANGE', `options.warmup: expected at most steps = ${steps}, got ${warmup}`)
  if (final < 0) fail('ERR_RANGE', `options.final: expected a number from 0 on, got ${final}`)
  return checked((step) => {
    if (step < warmup) return linearWarmup(step, warmup)
    if (step >= steps) return final
    const progress = (step - warmup) / (steps - warmup)
    return final + ((1 - final) * (1 + Math.cos(Math.PI * progress))) / 2
  })
}
