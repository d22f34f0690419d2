/** Small problems for the tests of a step: the ring of Gaussians, networks for it, and Gaussians with full covariances. */
import { createHash } from 'node:crypto'
import {
  createDidr,
  type Didr,
  type DidrOptions,
  type FloatDType,
  models,
  type Parameter,
  type Prediction,
  rewards,
  type Schedule,
  schedules,
  type Tensor,
  zeros,
} from '../../lib/index.js'

export type Float = Tensor<FloatDType>

/** Eight Gaussians of standard deviation 0.3 on a circle of radius 2. */
export function ring(schedule: Schedule = schedules.flow(), prediction: Prediction = 'x0') {
  const means = Array.from({ length: 8 }, (_, k) => [
    2 * Math.cos((k * Math.PI) / 4),
    2 * Math.sin((k * Math.PI) / 4),
  ])
  return models.gaussianMixture({ means, std: 0.3, schedule, prediction })
}

export function network(seed: number, options: Partial<models.MlpOptions> = {}): models.Mlp {
  return models.mlp({ size: 2, hidden: [16, 16], timeFeatures: 8, seed, ...options })
}

/** A one-step generator of points. */
export function pointGenerator(seed = 1, options: Partial<models.MlpOptions> = {}) {
  return models.oneStep(network(seed, options), { schedule: schedules.flow(), sampleShape: [2] })
}

/** The default problem, changed; a plain quadratic reward. */
export function ringOptions(change: Partial<DidrOptions> = {}): DidrOptions {
  const { schedule = schedules.flow() } = change
  return {
    reward: rewards.quadratic({ center: [1.5, 1] }),
    schedule,
    seed: 7,
    ...change,
    generator: change.generator ?? pointGenerator(),
    teacher: change.teacher ?? ring(schedule),
    assistant: change.assistant ?? network(2),
  }
}

export const ringRun = (change: Partial<DidrOptions> = {}): Didr => createDidr(ringOptions(change))

/** A score model that counts its calls. */
export class Counted implements models.ScoreModel {
  calls = 0
  /** Rows that each call asked for. */
  readonly batches: number[] = []
  readonly conditions: (models.Condition | undefined)[] = []
  readonly #model: models.ScoreModel

  constructor(model: models.ScoreModel) {
    this.#model = model
  }

  get prediction(): Prediction {
    return this.#model.prediction
  }

  parameters(): Parameter[] {
    return this.#model.parameters()
  }

  forward(xt: Float, t: Float32Array, condition?: models.Condition): Float {
    this.calls++
    this.batches.push(t.length)
    this.conditions.push(condition)
    return this.#model.forward(xt, t, condition)
  }
}

/** Fingerprints of every tensor that a run changes, by name: parameters, both optimisers, averages, KL sums. */
export async function bitsOf(didr: Didr): Promise<Record<string, string>> {
  const { generatorOptimizer, assistantOptimizer, ema, kl } = didr
  const groups: Record<string, Record<string, Tensor>> = {
    generator: valuesOf(didr.options.generator.parameters()),
    assistant: valuesOf(didr.options.assistant.parameters()),
    generatorOptimizer: generatorOptimizer.state().tensors,
    assistantOptimizer: assistantOptimizer.state().tensors,
    ema: ema?.state().tensors ?? {},
    kl: kl.tensors(),
  }
  const bits: Record<string, string> = {}
  for (const [group, tensors] of Object.entries(groups))
    for (const [name, tensor] of Object.entries(tensors))
      bits[`${group}/${name}`] = createHash('sha256')
        .update(await tensor.rawData())
        .digest('hex')
  bits.host = JSON.stringify([
    didr.step,
    didr.random.offset,
    didr.kl.filled,
    didr.noOps.state(),
    didr.options.reward?.state?.(),
  ])
  return bits
}

function valuesOf(parameters: readonly Parameter[]): Record<string, Tensor> {
  return Object.fromEntries(parameters.map(({ name, value }) => [name, value as Tensor]))
}

/** Scores that have no gradient. */
export const zeroScores = (images: Float): Tensor =>
  zeros([images.shape[0] as number], { device: images.device }) as Tensor
