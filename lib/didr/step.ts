/**
 * One step of Diff-Instruct with Diffused Reward (arXiv 2605.24001, algorithm 1) and its relatives.
 *
 * Stage I trains the assistant by denoising score matching on the generator's own samples. Stage II sends the gradient of
 * the objective on those samples back through the generator. No data are needed, only conditions.
 */
import { frozen } from '../autograd/parameter.js'
import { noGrad, vjp } from '../autograd/vjp.js'
import { checkInteger, checkOptions } from '../checks.js'
import { type DidrError, fail, show } from '../errors.js'
import type { Condition } from '../models/score-model.js'
import { PartScores } from '../rewards/part-scores.js'
import {
  checkRewards,
  observeScores,
  type Reward,
  scoreDifferentiably,
  scoreNumbers,
} from '../rewards/reward.js'
import { normal } from '../tensor/create.js'
import { stack } from '../tensor/layout.js'
import { tidy } from '../tensor/scope.js'
import { showShape } from '../tensor/shape.js'
import { Tensor } from '../tensor/tensor.js'
import { termsOf } from './config.js'
import { type Conditions, type Float, outputOf } from './denoiser.js'
import { denoisingLoss } from './denoising-loss.js'
import type { Didr } from './didr.js'
import { estimateScore, type ScoreEstimate } from './estimators.js'
import { integralKL } from './integral-kl.js'
import { perturb } from './perturb.js'
import { divergenceGradient } from './score-divergence.js'
import { drawTimes } from './time-sampling.js'

/** What one step of {@link didrStep} is asked for. */
export interface DidrStepOptions {
  /** Samples in each of the step's batches. */
  batchSize: number
  /** What the samples should show: `batchSize` rows. Default: nothing, for unconditional models. */
  condition?: Condition
  /** The condition that stands for none, for guidance other than 1. Default: the teacher is asked without a condition. */
  unconditional?: Condition
}

/** What a step saw. Norms are L2 norms of a sample's elements, averaged over the batch, unless they say otherwise. */
export interface DidrMetrics {
  /** Counted from 1. */
  step: number
  /** Mean and standard deviation of the reward of this step's samples; undefined where they were not scored. */
  reward: number | undefined
  rewardStd: number | undefined
  /** The mean of each part of a reward that is made of several. */
  rewardParts: Record<string, number>
  /**
   * Of the last steps' samples to the target and to the (guided) reference, in nats, as far as the assistant knows their
   * score; undefined for objectives without the Integral KL. See `KlAccumulator`.
   */
  klToTarget: number | undefined
  klToReference: number | undefined
  /** The log-SNRs that the two cover. */
  klLogSnrRange: readonly [low: number, high: number] | undefined
  /** The mean of stage I's losses; undefined without stage I. */
  assistantLoss: number | undefined
  /** Of s_r, before clipping. */
  drsNorm: number | undefined
  /** ‖σ (s_ψ - s̃_ref - s_r)‖ */
  scoreDifferenceNorm: number | undefined
  /** Of the reward's own gradient on the samples, for objectives with a terminal reward. */
  terminalNorm: number | undefined
  /** Of the gradients of all parameters together, before clipping. Stage I's is that of its last update. */
  gradNorm: number
  assistantGradNorm: number | undefined
  /** Of the particles, averaged over the batch: 1 means that the estimate has collapsed to a single one. */
  effectiveSampleSize: number | undefined
  /** Whether gradients were clipped; of the diffused reward score, the fraction of samples. */
  clipped: { generator: boolean; assistant: boolean; drs: number }
  /** Terms whose gradient has been exactly zero for `noOpAfter` steps: they have no effect. */
  noOps: string[]
}

/** Scalars that are read in one go when the step's work is queued. */
type Scalars = Map<string, Tensor<'float32', []>>

/**
 * One step: `assistantSteps` updates of the assistant, one of the generator and its averages.
 *
 * @throws {DidrError} (as a rejection) ERR_CONFIG for options, and while another step of the run is under way; ERR_CONFIG,
 *   ERR_SHAPE, ERR_NONFINITE, ... for a reward that throws, returns what it should not, or numbers that are not finite;
 *   ERR_NONFINITE for anything else that is not finite. Parameters, optimisers, averages and random numbers are then as they
 *   were before the step.
 * @example const { reward, klToReference } = await didrStep(didr, { batchSize: 256 })
 */
export async function didrStep(didr: Didr, options: DidrStepOptions): Promise<DidrMetrics> {
  checkOptions('options', options, ['batchSize', 'condition', 'unconditional'])
  const { batchSize, condition, unconditional } = options
  checkInteger('options.batchSize', batchSize, 1)
  const { assistantOptimizer, kl } = didr
  const changed = [
    ...assistantOptimizer.parameters.map(({ value }) => value as Tensor),
    ...Object.values(assistantOptimizer.state().tensors),
    ...Object.values(kl.tensors()),
  ]
  return didr.attempt(changed, async () => {
    const scalars: Scalars = new Map()
    try {
      const conditions = { condition, unconditional }
      trainAssistant(didr, batchSize, conditions, scalars)
      return await trainGenerator(didr, batchSize, conditions, scalars)
    } finally {
      for (const scalar of scalars.values()) scalar.dispose()
    }
  })
}

/** Stage I. */
function trainAssistant(
  didr: Didr,
  batchSize: number,
  conditions: Conditions,
  scalars: Scalars,
): void {
  const { assistant, schedule, assistantWeighting: weighting = 'output' } = didr.options
  const { objective, assistantSteps, assistantTimes } = didr.config
  if (termsOf[objective].match === undefined) return
  const { prediction } = assistant
  for (let i = 0; i < assistantSteps; i++) {
    const results = tidy(() => {
      const x0 = noGrad(() => samplesOf(didr, batchSize, conditions.condition))
      const t = drawTimes(batchSize, assistantTimes, schedule, didr.random)
      const draw = didr.random.next()
      const { xt } = perturb(x0, { t, schedule, ...draw })
      const { value: output, pullback } = vjp(
        () => outputOf('assistant', assistant, xt, t, conditions.condition),
        [],
      )
      const loss = denoisingLoss({ x0, prediction, output, t, schedule, weighting, ...draw })
      pullback(loss.grad)
      const lrScale = didr.learningRates.assistant(didr.step * assistantSteps + i)
      const norm = didr.assistantOptimizer.step({ lrScale })
      didr.assistantOptimizer.zeroGrad()
      return { [`assistantLoss${i}`]: loss.loss, assistantGradNorm: norm }
    })
    add(scalars, results)
  }
}

/** Stage II. */
async function trainGenerator(
  didr: Didr,
  batchSize: number,
  conditions: Conditions,
  scalars: Scalars,
): Promise<DidrMetrics> {
  const { reward } = didr.options
  const { match, terminalReward } = termsOf[didr.config.objective]
  const { value: x0, pullback } = vjp(() => samplesOf(didr, batchSize, conditions.condition), [])
  using parts = new PartScores()
  using particleParts = new PartScores()
  const gradients: Float[] = []
  /** Rewards that went into gradients as they came. */
  const unchecked: Tensor<'float32', [number]>[] = []
  let scores: Tensor<'float32', [number]> | undefined
  try {
    if (match !== undefined)
      gradients.push(await matchGradient(didr, x0, conditions, scalars, particleParts, unchecked))
    if (terminalReward) {
      const terminal = terminalGradient(didr, x0, conditions.condition, parts)
      gradients.push(terminal.gradient)
      add(scalars, { terminalNorm: terminal.norm })
      scores = terminal.scores
      unchecked.push(scores)
    } else if (reward !== undefined && isScored(didr)) {
      scores = await scoreSamples(didr, reward, x0, conditions.condition, parts)
    }
    tidy(() => {
      const [first, second] = gradients as [Float, Float | undefined]
      pullback(second === undefined ? first : (first.add(second) as Float))
    })

    const numbers = await read(scalars)
    const rewards = scores === undefined ? undefined : await checkRewards(nameOf(reward), scores)
    const estimate = match === undefined ? undefined : await didr.kl.read()
    const rewardParts = await parts.means()
    // What the particles got, or else the samples; in steps that score neither there is nothing to learn.
    const isTarget = match === 'target'
    if (reward !== undefined && (isTarget || scores !== undefined))
      await observeScores(reward, isTarget ? particleParts : parts)

    // Everything that can fail has been waited for: now, and only now, the generator changes.
    const lrScale = didr.learningRates.generator(didr.step)
    using norm = didr.generatorOptimizer.step({ lrScale })
    const gradNorm = await norm.item()
    didr.ema?.update()
    return metricsOf(didr, { numbers, rewards, rewardParts, estimate, gradNorm })
  } catch (error) {
    // A reward that is not finite makes the kernels after it fail; it is the one to name.
    if ((error as Partial<DidrError>).code === 'ERR_NONFINITE')
      for (const rewards of unchecked) await checkRewards(nameOf(reward), rewards)
    throw error
  } finally {
    pullback.dispose()
    for (const tensor of [x0, scores, ...gradients, ...unchecked]) tensor?.dispose()
  }
}

/** The generator's samples from fresh noise. */
function samplesOf(didr: Didr, batchSize: number, condition: Condition | undefined): Float {
  const { generator } = didr.options
  const { dtype, device } = didr
  return tidy(() => {
    const z = normal(generator.inputShape(batchSize), { ...didr.random.next(), dtype, device })
    const x0 = generator.forward(z as Float, condition)
    if (!(x0 instanceof Tensor))
      fail(
        'ERR_CONFIG',
        `generator.forward: expected a function that returns a tensor, got ${show(x0)}`,
      )
    if (x0.shape[0] !== batchSize)
      fail(
        'ERR_SHAPE',
        `generator.forward: expected ${batchSize} samples, got ${showShape(x0.shape)}`,
      )
    return x0
  })
}

/**
 * The gradient on x0 of the mean over the batch of the Integral KL, w α (s_ψ - s̃_ref - s_r), or of the score divergence.
 */
async function matchGradient(
  didr: Didr,
  x0: Float,
  conditions: Conditions,
  scalars: Scalars,
  parts: PartScores,
  unchecked: Tensor<'float32', [number]>[],
): Promise<Float> {
  const { assistant, teacher, schedule, weighting = didr.config.weighting } = didr.options
  const { objective, guidance, times, drs, beta } = didr.config
  const batch = x0.shape[0] as number
  const t = drawTimes(batch, times, schedule, didr.random)
  const { xt } = perturb(x0, { t, schedule, ...didr.random.next() })
  const withUnconditional = guidance !== 1
  let estimate: (Omit<ScoreEstimate, 'score'> & { score?: Float }) | undefined
  try {
    if (drs !== null) {
      estimate = await estimateScore(xt, t, {
        drs,
        teacher,
        reward: didr.options.reward as Reward,
        decode: decoderOf(didr),
        schedule,
        beta,
        conditions,
        withUnconditional,
        random: didr.random,
        parts,
      })
    } else {
      const ask = (condition: Condition | undefined) =>
        noGrad(() => tidy(() => outputOf('teacher', teacher, xt, t, condition)))
      estimate = {
        teacher: ask(conditions.condition),
        teacherUncond: withUnconditional ? ask(conditions.unconditional) : undefined,
        effectiveSampleSize: undefined,
        norm: undefined,
        rewards: undefined,
      }
    }
    if (estimate.rewards !== undefined) unchecked.push(estimate.rewards)
    const { score, teacher: output, teacherUncond, effectiveSampleSize, norm } = estimate
    const { gradient, results } = tidy(() => {
      const divergence =
        objective === 'diff-instruct*'
          ? divergenceGradient(didr, xt, t, conditions.condition, output, teacherUncond)
          : undefined
      const assistantOutput =
        divergence?.assistant ??
        noGrad(() => outputOf('assistant', assistant, xt, t, conditions.condition))
      const { grad, perSample } = integralKL({
        x0,
        xt,
        t,
        schedule,
        prediction: { assistant: assistant.prediction, teacher: teacher.prediction },
        assistant: assistantOutput,
        teacher: output,
        guidance,
        weighting: weighting as 'x0',
        scale: 1 / batch,
        accumulator: didr.kl.next(),
        ...(teacherUncond === undefined ? {} : { teacherUncond }),
        ...(score === undefined ? {} : { drs: score }),
      })
      const results: Record<string, Tensor> = {
        scoreDifferenceNorm: perSample.target.sqrt().mean(),
        matchNorm: normsOf(divergence?.gradient ?? grad).mean(),
      }
      if (score !== undefined) {
        const norms = norm ?? normsOf(score)
        results.drsNorm = norms.mean()
        if (drs !== null && 'maxNorm' in drs && drs.maxNorm !== null)
          results.drsClipped = norms.greater(drs.maxNorm).cast('float32').mean()
      }
      if (effectiveSampleSize !== undefined)
        results.effectiveSampleSize = effectiveSampleSize.mean()
      return { gradient: divergence?.gradient ?? grad, results }
    })
    add(scalars, results)
    return gradient
  } finally {
    xt.dispose()
    for (const tensor of Object.values({ ...estimate, rewards: undefined })) tensor?.dispose()
  }
}

/** The gradient on x0 of the batch mean of -r(x0)/β. */
function terminalGradient(
  didr: Didr,
  x0: Float,
  condition: Condition | undefined,
  parts: PartScores,
): { gradient: Float; scores: Tensor<'float32', [number]>; norm: Tensor } {
  const reward = didr.options.reward as Reward
  const decode = decoderOf(didr)
  return tidy(() =>
    frozen(() => {
      const { value: scores, pullback } = vjp(
        (x: Float) => scoreDifferentiably(reward, decode(x), condition, parts),
        [x0],
      )
      const batch = x0.shape[0] as number
      const cotangent = scores.mul(0).add(-1 / (didr.config.beta * batch))
      const [gradient] = pullback(cotangent as typeof scores) as [Float]
      // Without the factor of the batch mean over β, which is the objective's.
      const norm = normsOf(gradient)
        .mean()
        .mul(didr.config.beta * batch)
      return { gradient, scores, norm }
    }),
  )
}

/** Rewards of the samples, for the metrics alone. */
async function scoreSamples(
  didr: Didr,
  reward: Reward,
  x0: Float,
  condition: Condition | undefined,
  parts: PartScores,
): Promise<Tensor<'float32', [number]>> {
  const images = noGrad(() => tidy(() => decoderOf(didr)(x0)))
  try {
    return await scoreNumbers(reward, images, condition, parts)
  } finally {
    if (images !== x0) images.dispose()
  }
}

function isScored({ step, config: { rewardEvery } }: Didr): boolean {
  return rewardEvery > 0 && (step + 1) % rewardEvery === 0
}

function decoderOf({ options: { decode } }: Didr): (samples: Float) => Float {
  return decode ?? ((samples) => samples)
}

/** [B]: the L2 norms of samples. */
function normsOf(x: Float): Tensor<'float32'> {
  const flat = x.reshape([x.shape[0] as number, -1]).cast('float32') as Tensor<'float32'>
  return flat.square().sum(1).sqrt()
}

function nameOf(reward: Reward | undefined): string {
  return reward?.name ?? ''
}

/** Takes scalars over; one of the same name is replaced. */
function add(scalars: Scalars, results: Readonly<Record<string, Tensor>>): void {
  for (const [name, scalar] of Object.entries(results)) {
    scalars.get(name)?.dispose()
    scalars.set(name, scalar as Tensor<'float32', []>)
  }
}

async function read(scalars: Scalars): Promise<Map<string, number>> {
  if (scalars.size === 0) return new Map()
  using all = tidy(() =>
    stack([...scalars.values()].map((x) => x.reshape([]) as Tensor<'float32'>)),
  )
  const values = await all.data()
  return new Map(Array.from(scalars.keys(), (name, i) => [name, values[i] as number]))
}

function metricsOf(
  didr: Didr,
  seen: {
    numbers: Map<string, number>
    rewards: Float32Array | undefined
    rewardParts: Record<string, number>
    estimate: Awaited<ReturnType<Didr['kl']['read']>> | undefined
    gradNorm: number
  },
): DidrMetrics {
  const { numbers, rewards, rewardParts, estimate, gradNorm } = seen
  const { optimizer, assistantSteps } = didr.config
  const number = (name: string) => numbers.get(name)
  const losses = Array.from({ length: assistantSteps }, (_, i) => number(`assistantLoss${i}`))
  const trained = losses.filter((loss) => loss !== undefined)
  const mean = rewards === undefined ? undefined : meanOf(rewards)
  const above = (norm: number | undefined, limit: number | null) =>
    norm !== undefined && limit !== null && norm > limit
  const norms = {
    scoreDifference: number('matchNorm'),
    diffusedRewardScore: number('drsNorm'),
    terminalReward: number('terminalNorm'),
    generator: gradNorm,
    assistant: number('assistantGradNorm'),
  }
  return {
    step: didr.step + 1,
    reward: mean,
    rewardStd:
      rewards === undefined
        ? undefined
        : Math.sqrt(meanOf(rewards.map((value) => (value - (mean as number)) ** 2))),
    rewardParts,
    klToTarget: estimate?.klToTarget,
    klToReference: estimate?.klToReference,
    klLogSnrRange: estimate?.logSnrRange,
    assistantLoss: trained.length === 0 ? undefined : meanOf(trained),
    drsNorm: norms.diffusedRewardScore,
    scoreDifferenceNorm: number('scoreDifferenceNorm'),
    terminalNorm: norms.terminalReward,
    gradNorm,
    assistantGradNorm: norms.assistant,
    effectiveSampleSize: number('effectiveSampleSize'),
    clipped: {
      generator: above(gradNorm, optimizer.generator.maxNorm),
      assistant: above(norms.assistant, optimizer.assistant.maxNorm),
      drs: number('drsClipped') ?? 0,
    },
    noOps: didr.noOps.observe(norms),
  }
}

function meanOf(values: Float32Array | readonly number[]): number {
  let sum = 0
  for (const value of values) sum += value
  return sum / values.length
}
