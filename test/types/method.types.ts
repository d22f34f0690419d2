/** What the compiler knows of the method: its kernels, a run, its settings. Nothing here runs; see tensor.types.ts. */
import {
  createDidr,
  type Didr,
  type DidrMetrics,
  type DidrOptions,
  type DrsOptions,
  denoisingLoss,
  didrStep,
  diffusedRewardScore,
  integralKL,
  KlAccumulator,
  models,
  perturb,
  rewards,
  rewardWeights,
  type Schedule,
  schedules,
  type Tensor,
  type TimeSampling,
  verify,
  weightedRewardGradient,
} from '../../lib/index.js'

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
/** Compiles only if the type of `value` is exactly `T`. */
declare function is<T>(): <V>(value: V, ...same: Same<V, T> extends true ? [] : [never]) => void

declare const x0: Tensor<'float32', [8, 3, 4, 4]>
declare const half: Tensor<'bfloat16', [8, 3, 4, 4]>
declare const ints: Tensor<'int32', [8, 3, 4, 4]>
declare const scores: Tensor<'float32', [4, 8]>
declare const particles: Tensor<'float32', [4, 8, 3, 4, 4]>
declare const t: Float32Array
const schedule = schedules.flow({ shift: 3 })

// --- Kernels: dtypes and shapes go through ----------------------------------------------------------------------------
is<{ xt: Tensor<'float32', [8, 3, 4, 4]>; noise: Tensor<'float32', [8, 3, 4, 4]> }>()(
  perturb(x0, { t, schedule, seed: 1, returnNoise: true }),
)
is<Tensor<'bfloat16', [8, 3, 4, 4]>>()(perturb(half, { t, schedule, seed: 1 }).xt)
is<Tensor<'float32', [8, 3, 4, 4]> | undefined>()(perturb(x0, { t, schedule, seed: 1 }).noise)
// @ts-expect-error samples are floats
perturb(ints, { t, schedule, seed: 1 })
// @ts-expect-error times are a Float32Array
perturb(x0, { t: [0.5], schedule, seed: 1 })
// @ts-expect-error a schedule, not its name
perturb(x0, { t, schedule: 'flow', seed: 1 })
// @ts-expect-error a seed is needed
perturb(x0, { t, schedule })

const { grad, perSample } = integralKL({
  ...{ xt: x0, t, schedule, prediction: 'flow', assistant: x0, teacher: x0 },
  ...{ guidance: 3, teacherUncond: x0, weighting: 'sigma2', accumulator: new KlAccumulator() },
})
is<Tensor<'float32', [8, 3, 4, 4]>>()(grad)
is<Tensor<'float32', [number]>>()(perSample.target)
integralKL({
  ...{ xt: x0, t, schedule, assistant: x0, teacher: x0, weighting: (time: number) => 1 - time },
  prediction: { assistant: 'x0', teacher: 'v' },
})
const networks = { xt: x0, t, schedule, assistant: x0, teacher: x0 } as const
// @ts-expect-error what the outputs are has to be said
integralKL({ ...networks })
// @ts-expect-error of both networks
integralKL({ ...networks, prediction: { assistant: 'x0' } })
// @ts-expect-error no such prediction
integralKL({ ...networks, prediction: 'noise' })
// @ts-expect-error no such weighting
integralKL({ ...networks, prediction: 'x0', weighting: 'snr' })
// @ts-expect-error all of one dtype
integralKL({ ...networks, prediction: 'x0', drs: half })

const loss = denoisingLoss({ x0, prediction: 'flow', output: x0, t, schedule, seed: 1 })
is<Tensor<'float32', []>>()(loss.loss)
is<Tensor<'float32', [8, 3, 4, 4]>>()(loss.grad)
// @ts-expect-error the network's output is missing
denoisingLoss({ x0, prediction: 'flow', t, schedule, seed: 1 })
// @ts-expect-error an output of another dtype
denoisingLoss({ x0, prediction: 'flow', output: half, t, schedule, seed: 1 })

const estimate = diffusedRewardScore({ particles, rewards: scores, t, schedule, beta: 1 })
is<Tensor<'float32', number[]>>()(estimate.score)
is<Tensor<'float32', [number]>>()(estimate.effectiveSampleSize)
// @ts-expect-error a temperature is needed
diffusedRewardScore({ particles, rewards: scores, t, schedule })
// @ts-expect-error rewards are float32
rewardWeights({ rewards: ints, beta: 1 })
weightedRewardGradient({
  ...{ gradients: particles, rewards: scores, t, schedule, beta: 1 },
  damping: { curvature: 1, dataStd: 1 },
})
weightedRewardGradient({
  ...{ gradients: particles, rewards: scores, t, schedule, beta: 1 },
  // @ts-expect-error both of the damping's numbers
  damping: { curvature: 1 },
})

// --- A run ------------------------------------------------------------------------------------------------------------
const network = models.mlp({ size: 2 })
const needed = {
  generator: models.oneStep(network, { schedule, sampleShape: [2] }),
  teacher: models.gaussianMixture({ means: [[0, 1]], std: 1, schedule }),
  assistant: models.mlp({ size: 2, prediction: 'flow' }),
  reward: rewards.quadratic({ center: [1, 0] }),
  schedule,
}
const didr: Didr = createDidr(needed)
is<Promise<DidrMetrics>>()(didrStep(didr, { batchSize: 4 }))
didrStep(didr, { batchSize: 4, condition: x0, unconditional: x0 })
// @ts-expect-error a batch has a size
didrStep(didr, {})
// @ts-expect-error a misspelt option
didrStep(didr, { batchsize: 4 })
// @ts-expect-error a run, not its options
didrStep(needed, { batchSize: 4 })

const { generator, teacher, assistant, reward, schedule: own } = needed
createDidr({ generator, teacher, assistant, schedule: own, objective: 'diff-instruct' })
// @ts-expect-error without a generator
createDidr({ teacher, assistant, reward, schedule: own })
// @ts-expect-error without a teacher
createDidr({ generator, assistant, reward, schedule: own })
// @ts-expect-error without an assistant
createDidr({ generator, teacher, reward, schedule: own })
// @ts-expect-error without a schedule
createDidr({ generator, teacher, assistant, reward })
// @ts-expect-error a score model is no generator
createDidr({ ...needed, generator: network })
// @ts-expect-error a function is no reward
createDidr({ ...needed, reward: (x: Tensor) => x })
// @ts-expect-error no such objective
createDidr({ ...needed, objective: 'didr++' })
// @ts-expect-error a misspelt setting
createDidr({ ...needed, betta: 1 })
// @ts-expect-error null is for what can be switched off
createDidr({ ...needed, beta: null })
createDidr({ ...needed, ema: null, optimizer: { generator: { maxNorm: null } } })
// @ts-expect-error a misspelt optimiser
createDidr({ ...needed, optimizer: { teacher: { lr: 1 } } })
// @ts-expect-error two betas
createDidr({ ...needed, optimizer: { generator: { betas: [0.9] } } })

// --- Settings ---------------------------------------------------------------------------------------------------------
const estimators: DrsOptions[] = [
  { estimator: 'tweedie', maxNorm: 1 },
  { estimator: 'drp', steps: 2, particles: 4, stochastic: true },
  { estimator: 'damped', curvature: 1, dataStd: 1 },
  { estimator: 'particles', sampler: 'posterior' },
  { estimator: 'exact' },
  // @ts-expect-error no such estimator
  { estimator: 'dps' },
  // @ts-expect-error a setting of another estimator
  { estimator: 'exact', particles: 4 },
  // @ts-expect-error settings without an estimator
  { steps: 2 },
]
const samplings: TimeSampling[] = [
  { kind: 'uniform', range: [0.1, 0.9] },
  { kind: 'logit-normal', mean: 0, std: 1 },
  { kind: 'log-snr' },
  // @ts-expect-error a range has two ends
  { kind: 'uniform', range: [0.1] },
  // @ts-expect-error no such kind
  { kind: 'normal' },
]
const bySchedule: Schedule[] = [schedules.vp({ kind: 'cosine' }), schedules.edm({ sigmaMax: 10 })]
// @ts-expect-error no such kind
schedules.vp({ kind: 'sqrt' })
// @ts-expect-error a misspelt option
schedules.flow({ shifts: 3 })
// @ts-expect-error a schedule has all four functions
const partial: Schedule = { name: 'mine', config: {}, alpha: () => 1, sigma: (time) => time }
const readonlyOptions: Readonly<DidrOptions> = needed
verify({ objective: 'dmd2', estimator: 'posterior' })
// @ts-expect-error no such estimator
verify({ estimator: 'particle' })
void [estimators, samplings, bySchedule, partial, readonlyOptions]
