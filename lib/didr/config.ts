/** What a DIDR run is made of, and its settings with all defaults filled in. */
import { checkFinite, checkInteger, checkOneOf, checkOptions } from '../checks.js'
import { fail, show } from '../errors.js'
import { GaussianMixture } from '../models/gaussian-mixture.js'
import { checkModel, type Generator } from '../models/generator.js'
import type { ScoreModel } from '../models/score-model.js'
import type { AdamWSettings } from '../optim/adamw.js'
import { cosine, type LearningRateSchedule, warmup } from '../optim/schedules.js'
import { checkReward, type Reward } from '../rewards/reward.js'
import type { Float } from './denoiser.js'
import type { DenoisingWeighting } from './denoising-loss.js'
import { type DrsOptions, type ResolvedDrs, resolveDrs } from './drs-config.js'
import type { Weighting } from './integral-kl.js'
import { checkSchedule, type Schedule } from './schedules.js'
import {
  type ResolvedTimeSampling,
  resolveTimeSampling,
  type TimeSampling,
} from './time-sampling.js'

/** Every {@link Objective}. */
export const objectives = [
  'didr',
  'diff-instruct',
  'diff-instruct++',
  'diff-instruct*',
  'dmd2',
  'reward',
] as const

/**
 * What the generator's step minimises. All start from the Integral KL to the teacher's distribution:
 * `didr` to the diffused reward-tilted one (arXiv 2605.24001); `diff-instruct` to the teacher's itself (arXiv 2305.18455);
 * `diff-instruct++` that plus the reward of the samples, -r(x0)/β (arXiv 2410.18881); `diff-instruct*` a pseudo-Huber
 * score divergence in its place, plus -r(x0)/β (arXiv 2410.20898); `dmd2` as `diff-instruct` with the weighting `dmd`
 * (arXiv 2405.14867); `reward` -r(x0)/β alone, which shows what hacking the reward looks like.
 */
export type Objective = (typeof objectives)[number]

/** Which terms make up an objective. */
export const termsOf: Record<
  Objective,
  {
    /** The Integral KL and its target, or the score divergence. */
    match: 'target' | 'reference' | 'divergence' | undefined
    /** -r(x0)/β */
    terminalReward: boolean
  }
> = {
  didr: { match: 'target', terminalReward: false },
  'diff-instruct': { match: 'reference', terminalReward: false },
  'diff-instruct++': { match: 'reference', terminalReward: true },
  'diff-instruct*': { match: 'divergence', terminalReward: true },
  dmd2: { match: 'reference', terminalReward: false },
  reward: { match: undefined, terminalReward: true },
}

/** AdamW, clipped. */
export interface OptimizerOptions extends Partial<AdamWSettings> {
  /** The norm that gradients are scaled down to; null: no limit. Default 1. */
  maxNorm?: number | null
  /** Steps over which the learning rate grows from 0. Default 0. */
  warmup?: number
  /** Steps over which the learning rate then falls to 0 by half a cosine; null: it stays. Default null. */
  decaySteps?: number | null
}

/** What {@link createDidr} is given: the models, the reward, and the method's settings. */
export interface DidrOptions {
  /** What is aligned; its trainable parameters are changed in place. See `models.oneStep`. */
  generator: Generator
  /** The reference p_ref. Never changed. */
  teacher: ScoreModel
  /** The score of the generator's samples is learnt by it; start it from the teacher's weights. */
  assistant: ScoreModel
  /** Needed by all objectives that have a reward, and for the metrics of the others. */
  reward?: Reward
  /** From samples to the images that the reward sees, differentiable: an autoencoder's decoder. Default: as they are. */
  decode?: (samples: Float) => Float
  /** Of the teacher and the assistant. */
  schedule: Schedule
  /** The temperature of the reward: p* ∝ p_ref exp(r/β). Above 0. Default 1. */
  beta?: number
  /** g of the guided teacher s(∅) + g (s(c) - s(∅)). Default 1. */
  guidance?: number
  /** Default didr. */
  objective?: Objective
  /** w(t) of the Integral KL. Default x0; for dmd2, dmd. */
  weighting?: Weighting
  /** The estimator of the diffused reward score. Default drp with its defaults, for black boxes particles. */
  drs?: DrsOptions
  /** c of the pseudo-Huber norm of `diff-instruct*`, above 0. Default 0.00054 √D (arXiv 2310.14189). */
  huber?: number
  /** Updates of the assistant before each of the generator. Default 2. */
  assistantSteps?: number
  /** The weighting of the assistant's loss. Default output. */
  assistantWeighting?: DenoisingWeighting
  /** How the generator's step draws its times. Default uniform in [0.02, 0.98]. */
  times?: TimeSampling
  /** How the assistant's steps draw theirs. Default: as `times`. */
  assistantTimes?: TimeSampling
  optimizer?: {
    /** Default: lr 1e-4, betas [0, 0.99], eps 1e-8, weightDecay 0, maxNorm 1. */
    generator?: OptimizerOptions
    /** The same defaults. */
    assistant?: OptimizerOptions
  }
  /** Decay of the averages of the generator's parameters; null: none are kept. Default 0.999. */
  ema?: number | null
  /** Of all random numbers. Default 0. */
  seed?: number
  /** Score the generator's samples for the metrics at every so many steps; 0: only where they are scored anyway. Default 1. */
  rewardEvery?: number
  /** Steps that the metrics klToTarget and klToReference look back on: up to twice as many. Default 100. */
  klWindow?: number
  /** Steps of exactly zero gradient after which a term is reported as without effect. Default 20. */
  noOpAfter?: number
}

interface ResolvedOptimizer {
  lr: number
  betas: readonly [number, number]
  eps: number
  weightDecay: number
  maxNorm: number | null
  warmup: number
  decaySteps: number | null
}

/** Every setting, plain JSON: functions and models by what they call themselves. */
export interface DidrConfig {
  objective: Objective
  schedule: { name: string; config: Readonly<Record<string, string | number>> }
  reward: string | null
  beta: number
  guidance: number
  weighting: Exclude<Weighting, (t: number) => number> | 'function'
  drs: ResolvedDrs | null
  huber: number | null
  assistantSteps: number
  assistantWeighting: Exclude<DenoisingWeighting, (t: number) => number> | 'function'
  times: ResolvedTimeSampling
  assistantTimes: ResolvedTimeSampling
  optimizer: { generator: ResolvedOptimizer; assistant: ResolvedOptimizer }
  ema: number | null
  seed: number
  rewardEvery: number
  klWindow: number
  noOpAfter: number
}

const fields = [
  'generator',
  'teacher',
  'assistant',
  'reward',
  'decode',
  'schedule',
  'beta',
  'guidance',
  'objective',
  'weighting',
  'drs',
  'huber',
  'assistantSteps',
  'assistantWeighting',
  'times',
  'assistantTimes',
  'optimizer',
  'ema',
  'seed',
  'rewardEvery',
  'klWindow',
  'noOpAfter',
] as const satisfies readonly (keyof DidrOptions)[]

/** Checks everything and fills in the defaults. @throws {DidrError} naming the path of the field */
export function resolveConfig(options: DidrOptions): DidrConfig {
  checkOptions('options', options, fields)
  const { generator, teacher, assistant, reward, decode, schedule } = options
  const { objective = 'didr', beta = 1, guidance = 1, huber = null } = options
  const { assistantSteps = 2, ema = 0.999, seed = 0 } = options
  const { rewardEvery = 1, klWindow = 100, noOpAfter = 20 } = options
  checkGenerator(generator)
  checkModel(teacher, 'options.teacher')
  checkModel(assistant, 'options.assistant')
  if (reward !== undefined) checkReward('options.reward', reward)
  if (decode !== undefined && typeof decode !== 'function')
    fail('ERR_CONFIG', `options.decode: expected a function, got ${show(decode)}`)
  checkSchedule('options.schedule', schedule)
  checkOneOf('options.objective', objective, objectives)
  checkPositive('options.beta', beta)
  checkFinite('options.guidance', guidance)
  if (huber !== null) checkPositive('options.huber', huber)
  checkInteger('options.assistantSteps', assistantSteps, 0)
  if (ema !== null) {
    checkFinite('options.ema', ema)
    if (ema < 0 || ema > 1)
      fail('ERR_RANGE', `options.ema: expected a number from 0 to 1, got ${ema}`)
  }
  checkInteger('options.seed', seed, 0)
  checkInteger('options.rewardEvery', rewardEvery, 0)
  checkInteger('options.klWindow', klWindow, 1)
  checkInteger('options.noOpAfter', noOpAfter, 1)
  const { weighting = objective === 'dmd2' ? 'dmd' : 'x0' } = options
  checkWeighting('options.weighting', weighting, ['x0', 'sigma2', 'dmd', 'uniform'])
  if (objective === 'diff-instruct*' && weighting === 'dmd')
    fail(
      'ERR_CONFIG',
      'options.weighting: dmd divides a denoiser difference, which diff-instruct* has not',
    )
  const { assistantWeighting = 'output' } = options
  checkWeighting('options.assistantWeighting', assistantWeighting, ['output', 'x0', 'epsilon'])
  const { times: sampling = { kind: 'uniform' }, optimizer = {} } = options
  const times = resolveTimeSampling('options.times', sampling, schedule)
  const assistantTimes =
    options.assistantTimes === undefined
      ? times
      : resolveTimeSampling('options.assistantTimes', options.assistantTimes, schedule)
  checkOptions('options.optimizer', optimizer, ['generator', 'assistant'])
  const config: DidrConfig = {
    objective,
    schedule: { name: schedule.name, config: schedule.config },
    reward: reward?.name ?? null,
    beta,
    guidance,
    weighting: typeof weighting === 'function' ? 'function' : weighting,
    drs: null,
    huber,
    assistantSteps,
    assistantWeighting: typeof assistantWeighting === 'function' ? 'function' : assistantWeighting,
    times,
    assistantTimes,
    optimizer: {
      generator: resolveOptimizer('options.optimizer.generator', optimizer.generator),
      assistant: resolveOptimizer('options.optimizer.assistant', optimizer.assistant),
    },
    ema,
    seed,
    rewardEvery,
    klWindow,
    noOpAfter,
  }
  checkTeacherSchedule(teacher, schedule)
  const { match, terminalReward } = termsOf[objective]
  if (reward === undefined && (terminalReward || match === 'target'))
    fail('ERR_CONFIG', `options.reward: the objective ${objective} needs one`)
  if (terminalReward && !(reward as Reward).differentiable)
    fail(
      'ERR_CONFIG',
      `options.objective: ${objective} needs the gradient of the reward, and ${show(reward?.name)} is a black box; ` +
        'didr with the estimator particles takes it',
    )
  const { drs = { estimator: reward?.differentiable === false ? 'particles' : 'drp' } } = options
  // Checked even where the objective has no use for it: whoever switches objectives learns of mistakes at once.
  const resolved = resolveDrs('options.drs', drs)
  if (match === 'target') {
    checkEstimator(resolved, options, reward as Reward)
    config.drs = resolved
  }
  return config
}

/** That teacher and reward have what the estimator needs. */
function checkEstimator(drs: ResolvedDrs, options: DidrOptions, reward: Reward): void {
  const { estimator } = drs
  const { teacher, decode } = options
  const name = 'options.drs.estimator'
  if (estimator === 'exact') {
    if (!(teacher instanceof GaussianMixture) || !Object.hasOwn(reward, 'quadratic') || decode)
      fail(
        'ERR_CONFIG',
        `${name}: exact is the closed form of models.gaussianMixture and rewards.quadratic, and needs these two`,
      )
  } else if (estimator === 'particles') {
    if (drs.sampler === 'posterior' && !(teacher instanceof GaussianMixture))
      fail(
        'ERR_CONFIG',
        'options.drs.sampler: posterior needs a teacher with exact posterior samples, models.gaussianMixture',
      )
  } else if (!reward.differentiable)
    fail(
      'ERR_CONFIG',
      `${name}: ${estimator} needs the gradient of the reward, and ${show(reward.name)} is a black box; particles takes it`,
    )
}

/** A teacher that knows its schedule has to be asked with that one. */
function checkTeacherSchedule(teacher: ScoreModel, schedule: Schedule): void {
  const own = (teacher as { schedule?: Schedule }).schedule
  const plain = (x: Schedule) => JSON.stringify([x.name, x.config])
  if (own !== undefined && plain(own) !== plain(schedule))
    fail('ERR_CONFIG', `options.schedule: the teacher's is ${plain(own)}, got ${plain(schedule)}`)
}

function checkGenerator(generator: unknown): asserts generator is Generator {
  const { forward, parameters, inputShape } = (generator ?? {}) as Partial<Generator>
  if ([forward, parameters, inputShape].some((method) => typeof method !== 'function'))
    fail(
      'ERR_CONFIG',
      'options.generator: expected a generator with forward, parameters and inputShape, such as models.oneStep makes, ' +
        `got ${show(generator)}`,
    )
}

function checkPositive(name: string, value: unknown): asserts value is number {
  checkFinite(name, value)
  if (value <= 0) fail('ERR_RANGE', `${name}: expected a number above 0, got ${value}`)
}

function checkWeighting(name: string, weighting: unknown, known: readonly string[]): void {
  if (typeof weighting !== 'function') checkOneOf(name, weighting, known)
}

function resolveOptimizer(name: string, options: OptimizerOptions = {}): ResolvedOptimizer {
  checkOptions(name, options, [
    'lr',
    'betas',
    'eps',
    'weightDecay',
    'maxNorm',
    'warmup',
    'decaySteps',
  ])
  const { lr = 1e-4, betas = [0, 0.99], eps = 1e-8, weightDecay = 0 } = options
  const { maxNorm = 1, warmup = 0, decaySteps = null } = options
  for (const [field, value] of Object.entries({ lr, eps, weightDecay })) {
    checkFinite(`${name}.${field}`, value)
    if (value < 0) fail('ERR_RANGE', `${name}.${field}: expected a number from 0 on, got ${value}`)
  }
  if (!Array.isArray(betas) || betas.length !== 2)
    fail('ERR_CONFIG', `${name}.betas: expected two numbers, got ${show(betas)}`)
  for (const [i, beta] of betas.entries()) {
    checkFinite(`${name}.betas[${i}]`, beta)
    if (beta < 0 || beta >= 1)
      fail('ERR_RANGE', `${name}.betas[${i}]: expected a number in [0, 1), got ${beta}`)
  }
  if (maxNorm !== null) checkPositive(`${name}.maxNorm`, maxNorm)
  checkInteger(`${name}.warmup`, warmup, 0)
  if (decaySteps !== null) checkInteger(`${name}.decaySteps`, decaySteps, 1)
  const [first, second] = betas as [number, number]
  return { lr, betas: [first, second], eps, weightDecay, maxNorm, warmup, decaySteps }
}

/** What the learning rate is scaled by at each step. */
export function learningRateOf(optimizer: ResolvedOptimizer): LearningRateSchedule {
  return optimizer.decaySteps === null
    ? warmup({ steps: optimizer.warmup })
    : cosine({ steps: optimizer.warmup + optimizer.decaySteps, warmup: optimizer.warmup })
}
