/** Which estimator of the diffused reward score, and its settings. */
import { checkBoolean, checkFinite, checkInteger, checkOneOf, checkOptions } from '../checks.js'
import { fail } from '../errors.js'

export const estimators = ['tweedie', 'drp', 'damped', 'particles', 'exact'] as const

/** The estimators of the diffused reward score, by name; {@link DrsOptions} has the formula of each. */
export type Estimator = (typeof estimators)[number]

/** Of the estimators that differentiate the reward. */
interface GradientSettings {
  /** Guidance of the teacher inside the reward's path. Default 1: the conditional teacher as it is. */
  guidance?: number
  /** Scales a sample's score down to this L2 norm where it is above it. Default null: never. */
  maxNorm?: number | null
}

/** Of the estimators that denoise in several steps; see `rollout`. */
interface RolloutSettings {
  /** K, calls of the teacher from x_t on, evenly spaced in log-SNR. Default 2 for drp, 8 for particles. */
  steps?: number
  /** N, particles of each sample. Default 1 for drp, or 4 where it is stochastic; 16 for particles. */
  particles?: number
  /** Whether noise is added between the steps. Default: whether eta is above 0 or, without it, there are several particles. */
  stochastic?: boolean
  /**
   * η, how much noise, from 0 to 2: none at 0, as ancestral sampling at 1; a little more makes up for few steps. Default 1
   * where it is stochastic.
   */
  eta?: number
  /**
   * The log-SNR towards which the steps are spaced: beyond it a denoiser call is as good as the sample. Rollouts that start
   * cleaner than 4 below it go on for 4. Default 4, where the noise is an eighth of the signal.
   */
  logSnrEnd?: number
}

/** The estimator of the diffused reward score s_r(x_t) = ∇ log E[exp(r(x0)/β) | x_t], and its settings. */
export type DrsOptions =
  /** ∇ r(x̂0(x_t))/β: plug-in (arXiv 2209.14687). Biased: overshoots at high noise. */
  | ({ readonly estimator: 'tweedie' } & GradientSettings)
  /** ∇ log mean_n exp(r(x̂0⁽ⁿ⁾)/β) through short denoising from x_t (arXiv 2605.24001). */
  | ({
      readonly estimator: 'drp'
      /** Gradients through the last so many steps only. Default: all. */
      gradientSteps?: number
    } & GradientSettings &
      RolloutSettings)
  /** ∇ r(x̂0)/(β + κ v_t): exact for a Gaussian prior and a quadratic reward (arXiv 2606.02884). */
  | ({
      readonly estimator: 'damped'
      /** κ of the reward, from 0 on. Default 1. */
      curvature?: number
      /** σ_d of the data, above 0. Default 1. */
      dataStd?: number
    } & GradientSettings)
  /** Weighted mean of posterior samples minus their mean: any reward, black boxes too. */
  | ({
      readonly estimator: 'particles'
      /** Where the posterior samples come from: short stochastic denoising, or a teacher that has exact ones. */
      sampler?: 'rollout' | 'posterior'
      /** Guidance of the teacher inside the rollout. Default 1. */
      guidance?: number
    } & RolloutSettings)
  /** The closed form, of a Gaussian mixture and a quadratic reward. */
  | { readonly estimator: 'exact' }

interface Rollout {
  steps: number
  particles: number
  eta: number
  logSnrEnd: number
}

/** With all defaults filled in; plain JSON. */
export type ResolvedDrs =
  | { estimator: 'tweedie'; guidance: number; maxNorm: number | null }
  | ({
      estimator: 'drp'
      guidance: number
      maxNorm: number | null
      gradientSteps: number
    } & Rollout)
  | {
      estimator: 'damped'
      curvature: number
      dataStd: number
      guidance: number
      maxNorm: number | null
    }
  | ({ estimator: 'particles'; sampler: 'rollout' | 'posterior'; guidance: number } & Rollout)
  | { estimator: 'exact' }

const rolloutFields = ['steps', 'particles', 'stochastic', 'eta', 'logSnrEnd']
const fieldsOf: Record<Estimator, readonly string[]> = {
  tweedie: ['guidance', 'maxNorm'],
  drp: ['guidance', 'maxNorm', 'gradientSteps', ...rolloutFields],
  damped: ['guidance', 'maxNorm', 'curvature', 'dataStd'],
  particles: ['sampler', 'guidance', ...rolloutFields],
  exact: [],
}

/** Fills in the defaults. @throws {DidrError} ERR_CONFIG, ERR_RANGE with the path of the field */
export function resolveDrs(name: string, options: DrsOptions): ResolvedDrs {
  const known = ['estimator', ...new Set(Object.values(fieldsOf).flat())]
  checkOptions(name, options, known)
  const { estimator } = options
  checkOneOf(`${name}.estimator`, estimator, estimators)
  for (const field of Object.keys(options))
    if (field !== 'estimator' && !fieldsOf[estimator].includes(field))
      fail(
        'ERR_CONFIG',
        `${name}.${field}: ${estimator} has no such setting; it has ${fieldsOf[estimator].join(', ') || 'none'}`,
      )
  switch (options.estimator) {
    case 'exact':
      return { estimator: 'exact' }
    case 'tweedie':
      return { estimator: 'tweedie', ...gradientSettings(name, options) }
    case 'damped': {
      const { curvature = 1, dataStd = 1 } = options
      checkFinite(`${name}.curvature`, curvature)
      checkFinite(`${name}.dataStd`, dataStd)
      if (curvature < 0)
        fail('ERR_RANGE', `${name}.curvature: expected a number from 0 on, got ${curvature}`)
      if (dataStd <= 0)
        fail('ERR_RANGE', `${name}.dataStd: expected a number above 0, got ${dataStd}`)
      return { estimator: 'damped', curvature, dataStd, ...gradientSettings(name, options) }
    }
    case 'drp': {
      const particles = options.particles ?? (options.stochastic ? 4 : 1)
      const rollout = resolveRollout(name, { steps: 2, ...options, particles })
      const { gradientSteps = rollout.steps } = options
      checkInteger(`${name}.gradientSteps`, gradientSteps, 1, rollout.steps)
      return { estimator: 'drp', ...rollout, gradientSteps, ...gradientSettings(name, options) }
    }
    case 'particles': {
      const { sampler = 'rollout', guidance = 1 } = options
      checkOneOf(`${name}.sampler`, sampler, ['rollout', 'posterior'])
      checkFinite(`${name}.guidance`, guidance)
      const rollout = resolveRollout(name, { steps: 8, particles: 16, ...options })
      if (rollout.particles < 2)
        fail(
          'ERR_RANGE',
          `${name}.particles: one particle says nothing; expected at least 2, got 1`,
        )
      return { estimator: 'particles', sampler, guidance, ...rollout }
    }
  }
}

function gradientSettings(name: string, { guidance = 1, maxNorm = null }: GradientSettings) {
  checkFinite(`${name}.guidance`, guidance)
  if (maxNorm !== null) {
    checkFinite(`${name}.maxNorm`, maxNorm)
    if (maxNorm <= 0)
      fail('ERR_RANGE', `${name}.maxNorm: expected a number above 0, got ${maxNorm}`)
  }
  return { guidance, maxNorm }
}

function resolveRollout(
  name: string,
  options: RolloutSettings & { steps: number; particles: number; sampler?: string },
): Rollout {
  const { steps, particles } = options
  const { stochastic = options.eta === undefined ? particles > 1 : options.eta > 0 } = options
  checkInteger(`${name}.steps`, steps, 1)
  checkInteger(`${name}.particles`, particles, 1)
  checkBoolean(`${name}.stochastic`, stochastic)
  const { eta = stochastic ? 1 : 0, logSnrEnd = 4 } = options
  checkFinite(`${name}.eta`, eta)
  checkFinite(`${name}.logSnrEnd`, logSnrEnd)
  if (eta < 0 || eta > 2)
    fail('ERR_RANGE', `${name}.eta: expected a number from 0 to 2, got ${eta}`)
  if (eta > 0 !== stochastic)
    fail('ERR_CONFIG', `${name}.eta: ${eta} contradicts stochastic: ${stochastic}`)
  if (particles > 1 && options.sampler !== 'posterior' && (eta === 0 || steps === 1))
    fail(
      'ERR_CONFIG',
      `${name}.particles: without noise between steps all particles are the same; expected stochastic: true and steps ` +
        `from 2 on, got stochastic: ${stochastic} and steps: ${steps}`,
    )
  return { steps, particles, eta, logSnrEnd }
}
