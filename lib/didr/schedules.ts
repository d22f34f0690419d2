/**
 * Noise schedules: x_t = α(t) x0 + σ(t) ε for t from 0 (clean) to 1 (noise).
 *
 * Every schedule has a monotone log-SNR λ = log(α²/σ²), from which steps can be spaced and integrals over noise taken.
 */
import { checkFinite, checkInteger, checkOneOf, checkOptions } from '../checks.js'
import { fail, show } from '../errors.js'

/** A noise schedule. Make one with `schedules.flow`, `schedules.vp` or `schedules.edm`, or write your own. */
export interface Schedule {
  /** For messages and saved configurations. */
  readonly name: string
  /** What was chosen, as plain JSON. */
  readonly config: Readonly<Record<string, string | number>>
  /** The factor of the clean sample at t in [0, 1]. */
  alpha(t: number): number
  /** The standard deviation of the noise at t in [0, 1]. */
  sigma(t: number): number
  /** λ = log(α²/σ²), decreasing in t; +infinity where σ = 0. */
  logSnr(t: number): number
  /** The t in [0, 1] whose log-SNR is the given one, or the nearer end where none is. */
  timeOfLogSnr(logSnr: number): number
}

export interface FlowOptions {
  /** τ = shift·t / (1 + (shift - 1)·t); above 1 spends more of the time at high noise. Default 1. */
  shift?: number
}

/** Rectified flow: α = 1 - τ, σ = τ (arXiv 2209.03003), with the timestep shift of arXiv 2403.03206. */
export function flow(options: FlowOptions = {}): Schedule {
  checkOptions('options', options, ['shift'])
  const { shift = 1 } = options
  checkFinite('options.shift', shift)
  if (shift <= 0) fail('ERR_RANGE', `options.shift: expected a number above 0, got ${shift}`)
  const tau = (t: number) => (shift * t) / (1 + (shift - 1) * t)
  // 1 - τ without the cancellation near t = 1.
  const oneMinusTau = (t: number) => (1 - t) / (1 + (shift - 1) * t)
  return {
    name: 'flow',
    config: { shift },
    alpha: oneMinusTau,
    sigma: tau,
    logSnr: (t) => 2 * Math.log(oneMinusTau(t) / tau(t)),
    timeOfLogSnr(logSnr) {
      const at = 1 / (1 + Math.exp(logSnr / 2))
      return clampTime(at / (shift - (shift - 1) * at))
    },
  }
}

export interface VpOptions {
  /**
   * How the variance grows: `linear` β from 1e-4 to 0.02 (DDPM, arXiv 2006.11239), `scaled-linear` √β from √0.00085 to
   * √0.012 (latent diffusion, SDXL), `cosine` (arXiv 2102.09672). The first two are stated for 1000 steps and scaled to
   * others. Default scaled-linear.
   */
  kind?: 'linear' | 'scaled-linear' | 'cosine'
  /** Steps of the discrete process. Step i, counted from 0, is at t = i / (steps - 1). Default 1000. */
  steps?: number
}

/** Variance preserving: α² + σ² = 1. Between the discrete steps log ᾱ is linear in t. */
export function vp(options: VpOptions = {}): Schedule {
  checkOptions('options', options, ['kind', 'steps'])
  const { kind = 'scaled-linear', steps = 1000 } = options
  checkOneOf('options.kind', kind, ['linear', 'scaled-linear', 'cosine'])
  checkInteger('options.steps', steps, 2, 1_000_000)
  // log ᾱ_i = Σ_{j <= i} log(1 - β_j)
  const logAlphaBar = new Float64Array(steps)
  let sum = 0
  for (let i = 0; i < steps; i++) {
    sum += Math.log1p(-beta(kind, i, steps))
    logAlphaBar[i] = sum
  }
  const last = steps - 1
  const at = (t: number) => {
    const position = clampTime(t) * last
    const i = Math.min(Math.floor(position), last - 1)
    const [a, b] = [logAlphaBar[i] as number, logAlphaBar[i + 1] as number]
    return a + (b - a) * (position - i)
  }
  const logSnr = (t: number) => {
    const value = at(t)
    return value - Math.log(-Math.expm1(value))
  }
  return {
    name: 'vp',
    config: { kind, steps },
    alpha: (t) => Math.exp(at(t) / 2),
    sigma: (t) => Math.sqrt(-Math.expm1(at(t))),
    logSnr,
    timeOfLogSnr(wanted) {
      // λ of log ᾱ inverts in closed form; then the table is searched.
      const value = -Math.log1p(Math.exp(-wanted))
      let [low, high] = [0, last]
      if (value >= (logAlphaBar[0] as number)) return 0
      if (value <= (logAlphaBar[last] as number)) return 1
      while (high - low > 1) {
        const middle = (low + high) >> 1
        if ((logAlphaBar[middle] as number) >= value) low = middle
        else high = middle
      }
      const [a, b] = [logAlphaBar[low] as number, logAlphaBar[high] as number]
      return (low + (a - value) / (a - b)) / last
    },
  }
}

function beta(kind: 'linear' | 'scaled-linear' | 'cosine', i: number, steps: number): number {
  const scale = 1000 / steps
  const fraction = i / (steps - 1)
  switch (kind) {
    case 'linear':
      return Math.min(scale * (1e-4 + (0.02 - 1e-4) * fraction), 0.999)
    case 'scaled-linear':
      return Math.min(
        scale * (Math.sqrt(0.00085) + (Math.sqrt(0.012) - Math.sqrt(0.00085)) * fraction) ** 2,
        0.999,
      )
    case 'cosine': {
      const bar = (u: number) => Math.cos((((u + 0.008) / 1.008) * Math.PI) / 2) ** 2
      return Math.min(1 - bar((i + 1) / steps) / bar(i / steps), 0.999)
    }
  }
}

export interface EdmOptions {
  /** σ at t = 0, above 0. Default 0.002. */
  sigmaMin?: number
  /** σ at t = 1, above sigmaMin. Default 80. */
  sigmaMax?: number
}

/** Variance exploding as in EDM (arXiv 2206.00364): α = 1, log σ linear in t. */
export function edm(options: EdmOptions = {}): Schedule {
  checkOptions('options', options, ['sigmaMin', 'sigmaMax'])
  const { sigmaMin = 0.002, sigmaMax = 80 } = options
  checkFinite('options.sigmaMin', sigmaMin)
  checkFinite('options.sigmaMax', sigmaMax)
  if (!(sigmaMin > 0 && sigmaMax > sigmaMin))
    fail('ERR_RANGE', `options: expected 0 < sigmaMin < sigmaMax, got ${sigmaMin} and ${sigmaMax}`)
  const span = Math.log(sigmaMax / sigmaMin)
  const logSigma = (t: number) => Math.log(sigmaMin) + span * t
  return {
    name: 'edm',
    config: { sigmaMin, sigmaMax },
    alpha: () => 1,
    sigma: (t) => Math.exp(logSigma(t)),
    logSnr: (t) => -2 * logSigma(t),
    timeOfLogSnr: (logSnr) => clampTime((-logSnr / 2 - Math.log(sigmaMin)) / span),
  }
}

/** The noise schedules by name. */
export const schedules = { flow, vp, edm } as const

function clampTime(t: number): number {
  return Math.min(1, Math.max(0, t))
}

export function checkSchedule(name: string, schedule: unknown): asserts schedule is Schedule {
  const methods = ['alpha', 'sigma', 'logSnr', 'timeOfLogSnr'] as const
  const candidate = schedule as Partial<Schedule> | null | undefined
  if (
    typeof candidate !== 'object' ||
    candidate === null ||
    methods.some((method) => typeof candidate[method] !== 'function')
  )
    fail(
      'ERR_CONFIG',
      `${name}: expected a schedule such as schedules.flow(), got ${show(schedule)}`,
    )
}
