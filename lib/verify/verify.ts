/** `verify`: trains on a problem whose answer is known and says how far from it the generator ends. */
import { noGrad } from '../autograd/vjp.js'
import { checkFinite, checkInteger, checkOneOf, checkOptions } from '../checks.js'
import { type Objective, objectives } from '../didr/config.js'
import { createDidr, type Didr } from '../didr/didr.js'
import type { DrsOptions } from '../didr/drs-config.js'
import type { Weighting } from '../didr/integral-kl.js'
import { didrStep } from '../didr/step.js'
import { fail, show } from '../errors.js'
import type { GaussianMixture } from '../models/gaussian-mixture.js'
import { mlp } from '../models/mlp.js'
import { normal } from '../tensor/create.js'
import { cpuDevice, Device } from '../tensor/device.js'
import { tidy } from '../tensor/scope.js'
import { type Grid, histogramKl, histogramOf, nearestShares, probabilitiesOf } from './histogram.js'
import { distil, type RingGenerator, type RingProblem, ringGenerator, ringProblem } from './ring.js'

/** The estimators as `verify` runs them, and the particles drawn from the exact posterior as `posterior`. */
export const ringEstimators = {
  exact: { estimator: 'exact' },
  posterior: { estimator: 'particles', sampler: 'posterior', particles: 64 },
  particles: { estimator: 'particles', steps: 8, particles: 16, eta: 1.2 },
  drp: { estimator: 'drp', steps: 8, particles: 16, stochastic: true, eta: 1.2 },
  damped: { estimator: 'damped', curvature: 1, dataStd: 1.45 },
  tweedie: { estimator: 'tweedie' },
} as const satisfies Record<string, DrsOptions>

/** The estimators that {@link verify} knows by name. */
export type RingEstimator = keyof typeof ringEstimators

/** Settings of {@link verify}. */
export interface VerifyOptions {
  /** Default didr. */
  objective?: Objective
  /** By name, or with settings of your own. Default exact. */
  estimator?: RingEstimator | DrsOptions
  /** Default 1. */
  beta?: number
  /** Updates of the generator. Default 2500. */
  steps?: number
  /** Steps of least squares that make the start. Default 1500. */
  distilSteps?: number
  /** Default 0. */
  seed?: number
  /** Samples in a batch. Default 512. */
  batchSize?: number
  /** w(t). Default sigma2; for dmd2, dmd. */
  weighting?: Weighting
  /** Updates of the assistant for each of the generator. Default 4. */
  assistantSteps?: number
  /** Measure at every so many steps besides the end. Default 0: at the end alone. */
  curveEvery?: number
  /** Keep the samples of the last measurement. Default false. */
  keepSamples?: boolean
  /** Samples that a measurement takes. With fewer, the histogram resolves less. Default 100000. */
  measuredSamples?: number
  /** Where the generator is trained. Default: the CPU. */
  device?: Device
  /** Called now and then with the steps done. */
  onProgress?: (step: number, steps: number) => void
}

/** What a generator's samples say. */
export interface Measurement {
  /** KL(p_θ‖p*) and KL(p_θ‖p_ref) of the histogram, in nats. */
  klToTarget: number
  klToReference: number
  meanReward: number
  /** Half the sum of |share - weight| over the modes of p*: the share of samples that are at the wrong mode. */
  modeWeightError: number
}

/** What {@link verify} finds, beside what there is to compare it with. */
export interface VerifyReport extends Measurement {
  settings: {
    objective: Objective
    estimator: string
    beta: number
    steps: number
    seed: number
    batchSize: number
  }
  /** The same of the start, of exact samples of p* (what the histogram can resolve), and of p_ref. */
  start: Measurement
  target: Measurement
  reference: Measurement
  /** The KL of the histogram beside the run's own estimate from scores. */
  curve: ({ step: number; klFromScores: number | undefined } & Measurement)[]
  /** Samples [n, 2] if they were asked for. */
  samples: Float32Array | undefined
  seconds: number
}

const grid: Grid = { cells: 64, extent: 3.6 }
/** Updates over which the generator's learning rate grows: the assistant has to learn the start first. */
const warmup = 100
/** Of generator and assistant, AdamW with betas 0 and 0.99. */
const learningRate = 4e-3
/** A seed apart from those of training. */
const measurementSeed = 0x5eed

/** Measures distributions in the plane against a problem's closed forms. */
class RingMeasure {
  readonly #problem: RingProblem
  readonly #samples: number
  readonly #target: Float64Array
  readonly #reference: Float64Array

  private constructor(
    problem: RingProblem,
    samples: number,
    target: Float64Array,
    reference: Float64Array,
  ) {
    this.#problem = problem
    this.#samples = samples
    this.#target = target
    this.#reference = reference
  }

  static async of(problem: RingProblem, samples: number): Promise<RingMeasure> {
    const [target, reference] = await Promise.all([
      probabilitiesOf(problem.target, grid),
      probabilitiesOf(problem.reference, grid),
    ])
    return new RingMeasure(problem, samples, target, reference)
  }

  points(points: Float32Array): Measurement {
    const { target, reward } = this.#problem
    const shares = histogramOf(points, grid)
    const [cx, cy] = reward.quadratic.center as [number, number]
    let rewards = 0
    for (let i = 0; i < points.length; i += 2)
      rewards -= ((points[i] as number) - cx) ** 2 + ((points[i + 1] as number) - cy) ** 2
    const atModes = nearestShares(points, target.means)
    return {
      klToTarget: histogramKl(shares, this.#target),
      klToReference: histogramKl(shares, this.#reference),
      meanReward: (reward.quadratic.curvature / 2) * (rewards / (points.length / 2)),
      modeWeightError:
        atModes.reduce(
          (sum, share, k) => sum + Math.abs(share - (target.weights[k] as number)),
          0,
        ) / 2,
    }
  }

  async mixture(mixture: GaussianMixture): Promise<Measurement> {
    using samples = mixture.sample({ count: this.#samples, seed: measurementSeed })
    return this.points(await samples.data())
  }

  /** A generator's samples. */
  async samplesOf({ generator, device }: RingGenerator): Promise<Float32Array> {
    const draw = { seed: measurementSeed, device }
    using samples = noGrad(() => tidy(() => generator.forward(normal([this.#samples, 2], draw))))
    return (await samples.data()) as Float32Array
  }

  /** The averages' samples: what a user would keep of the run. */
  async averagedSamples(didr: Didr, ring: RingGenerator): Promise<Float32Array> {
    didr.ema?.swap()
    try {
      return await this.samplesOf(ring)
    } finally {
      didr.ema?.swap()
    }
  }
}

/**
 * Trains a small generator on the ring of eight Gaussians, from a distilled start, and compares it with the closed form.
 *
 * @throws {DidrError} (as a rejection) ERR_CONFIG, ERR_RANGE with the path of the option
 * @example
 * const { klToTarget, meanReward } = await verify({ estimator: 'exact', steps: 1000 })
 */
export async function verify(options: VerifyOptions = {}): Promise<VerifyReport> {
  checkOptions('options', options, [
    'objective',
    'estimator',
    'beta',
    'steps',
    'distilSteps',
    'seed',
    'batchSize',
    'weighting',
    'assistantSteps',
    'curveEvery',
    'keepSamples',
    'measuredSamples',
    'device',
    'onProgress',
  ])
  const { objective = 'didr', estimator = 'exact', beta = 1, steps = 2500, seed = 0 } = options
  const { batchSize = 512, assistantSteps = 4, curveEvery = 0, distilSteps = 1500 } = options
  const { measuredSamples = 100_000, device = cpuDevice() } = options
  checkOneOf('options.objective', objective, objectives)
  checkFinite('options.beta', beta)
  if (beta <= 0) fail('ERR_RANGE', `options.beta: expected a number above 0, got ${beta}`)
  checkInteger('options.steps', steps, 1)
  checkInteger('options.distilSteps', distilSteps, 0)
  checkInteger('options.seed', seed, 0)
  checkInteger('options.curveEvery', curveEvery, 0)
  checkInteger('options.measuredSamples', measuredSamples, 1)
  if (!(device instanceof Device))
    fail('ERR_CONFIG', `options.device: expected what device() resolves to, got ${show(device)}`)
  if (typeof estimator === 'string')
    checkOneOf('options.estimator', estimator, Object.keys(ringEstimators))
  const began = performance.now()
  const problem = ringProblem(beta)
  const measure = await RingMeasure.of(problem, measuredSamples)
  const ring = ringGenerator(seed, problem, device)
  using network = ring.network
  using assistant = mlp({ size: 2, prediction: 'flow', seed: seed + 1, device })
  await distil(ring, problem, { steps: distilSteps, seed })
  const start = measure.points(await measure.samplesOf(ring))
  const optimizer = { lr: learningRate, maxNorm: null }
  using didr = createDidr({
    generator: ring.generator,
    teacher: problem.reference,
    assistant,
    reward: problem.reward,
    schedule: problem.schedule,
    objective,
    beta,
    drs: typeof estimator === 'string' ? ringEstimators[estimator as RingEstimator] : estimator,
    weighting: options.weighting ?? (objective === 'dmd2' ? 'dmd' : 'sigma2'),
    assistantSteps,
    optimizer: {
      generator: { ...optimizer, warmup, decaySteps: steps },
      assistant: { ...optimizer, decaySteps: steps * Math.max(assistantSteps, 1) },
    },
    ema: 0.99,
    seed,
    rewardEvery: 0,
  })
  const curve: VerifyReport['curve'] = []
  let samples = new Float32Array()
  for (let step = 1; step <= steps; step++) {
    const { klToTarget } = await didrStep(didr, { batchSize })
    if (step === steps || (curveEvery > 0 && step % curveEvery === 0)) {
      samples = new Float32Array(await measure.averagedSamples(didr, ring))
      curve.push({ step, klFromScores: klToTarget, ...measure.points(samples) })
    }
    if (step % 50 === 0) options.onProgress?.(step, steps)
  }
  network.zeroGrad()
  const { step: _, klFromScores: __, ...last } = curve.at(-1) as (typeof curve)[number]
  return {
    settings: {
      objective,
      estimator: typeof estimator === 'string' ? estimator : JSON.stringify(estimator),
      beta,
      steps,
      seed,
      batchSize,
    },
    ...last,
    start,
    target: await measure.mixture(problem.target),
    reference: await measure.mixture(problem.reference),
    curve,
    samples: options.keepSamples ? samples : undefined,
    seconds: (performance.now() - began) / 1000,
  }
}
