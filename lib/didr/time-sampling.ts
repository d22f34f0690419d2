import { checkFinite, checkOneOf, checkOptions } from '../checks.js'
import { fail, show } from '../errors.js'
import { hostUniform, type RandomStream } from './philox.js'
import type { Schedule } from './schedules.js'

/** How training draws the time of each sample. Times stay away from both ends, where scores or signal vanish. */
export type TimeSampling =
  /** Uniform in t. */
  | {
      readonly kind: 'uniform'
      /** Default [0.02, 0.98]. */
      readonly range?: readonly [low: number, high: number]
    }
  /** The logistic function of a normal number (arXiv 2403.03206), stretched over the range. */
  | {
      readonly kind: 'logit-normal'
      /** Of the normal number. Default 0. */
      readonly mean?: number
      /** Of the normal number, above 0. Default 1. */
      readonly std?: number
      /** Default [0.02, 0.98]. */
      readonly range?: readonly [low: number, high: number]
    }
  /** Uniform in the log-SNR λ. */
  | {
      readonly kind: 'log-snr'
      /** Of λ. Default: from the schedule's at t = 0.98 to that at t = 0.02. */
      readonly range?: readonly [low: number, high: number]
    }

export type ResolvedTimeSampling = {
  readonly [K in TimeSampling['kind']]: Required<Extract<TimeSampling, { kind: K }>>
}[TimeSampling['kind']]

export const defaultTimeRange: readonly [number, number] = [0.02, 0.98]

/** Fills in the defaults. @throws {DidrError} ERR_CONFIG, ERR_RANGE with the path of the field */
export function resolveTimeSampling(
  name: string,
  sampling: TimeSampling,
  schedule: Schedule,
): ResolvedTimeSampling {
  checkOptions(name, sampling, ['kind', 'range', 'mean', 'std'])
  checkOneOf(`${name}.kind`, sampling.kind, ['uniform', 'logit-normal', 'log-snr'])
  switch (sampling.kind) {
    case 'uniform':
      checkOptions(name, sampling, ['kind', 'range'])
      return { kind: 'uniform', range: timeRange(name, sampling.range) }
    case 'logit-normal': {
      const { mean = 0, std = 1 } = sampling
      checkFinite(`${name}.mean`, mean)
      checkFinite(`${name}.std`, std)
      if (std <= 0) fail('ERR_RANGE', `${name}.std: expected a number above 0, got ${std}`)
      return { kind: 'logit-normal', mean, std, range: timeRange(name, sampling.range) }
    }
    case 'log-snr': {
      checkOptions(name, sampling, ['kind', 'range'])
      const [first, last] = defaultTimeRange
      const { range = [schedule.logSnr(last), schedule.logSnr(first)] } = sampling
      return { kind: 'log-snr', range: checkRange(name, range) }
    }
  }
}

function timeRange(name: string, range: readonly number[] = defaultTimeRange): [number, number] {
  const [low, high] = checkRange(name, range)
  if (low < 0 || high > 1)
    fail('ERR_RANGE', `${name}.range: expected times from 0 to 1, got ${show(range)}`)
  return [low, high]
}

function checkRange(name: string, range: readonly number[]): [number, number] {
  if (!Array.isArray(range) || range.length !== 2)
    fail('ERR_CONFIG', `${name}.range: expected [low, high], got ${show(range)}`)
  const [low, high] = range as [number, number]
  checkFinite(`${name}.range[0]`, low)
  checkFinite(`${name}.range[1]`, high)
  if (!(low <= high))
    fail('ERR_RANGE', `${name}.range: expected low <= high, got ${low} and ${high}`)
  return [low, high]
}

/** One time for each of `batch` samples, each in [0, 1]. */
export function drawTimes(
  batch: number,
  sampling: ResolvedTimeSampling,
  schedule: Schedule,
  random: RandomStream,
): Float32Array {
  const { seed, offset } = random.next()
  const [low, high] = sampling.range
  const between = (fraction: number) => low + (high - low) * fraction
  switch (sampling.kind) {
    case 'uniform':
      return hostUniform(batch, seed, offset).map(between)
    case 'logit-normal': {
      const numbers = hostUniform(2 * batch, seed, offset)
      return Float32Array.from({ length: batch }, (_, i) => {
        // Box-Muller; 1 - u is above 0.
        const radius = Math.sqrt(-2 * Math.log(1 - (numbers[2 * i] as number)))
        const normal = radius * Math.cos(2 * Math.PI * (numbers[2 * i + 1] as number))
        return between(1 / (1 + Math.exp(-(sampling.mean + sampling.std * normal))))
      })
    }
    case 'log-snr':
      return hostUniform(batch, seed, offset).map((u) => schedule.timeOfLogSnr(between(u)))
  }
}
