/** What is asked of images that a generator made, in one report. */
import { checkInteger, checkOptions } from '../checks.js'
import { fail, show } from '../errors.js'
import type { Condition } from '../models/score-model.js'
import { checkImages } from '../rewards/images.js'
import { checkReward, type Reward, scoreNumbers } from '../rewards/reward.js'
import type { FloatDType } from '../tensor/dtype.js'
import { Tensor } from '../tensor/tensor.js'
import { type AlarmStatistics, type ImageStatistics, imageStatistics } from './alarms.js'
import { type Diversity, diversity } from './diversity.js'
import {
  checkFeatures,
  checkSameColumns,
  type FeatureExtractor,
  type Features,
  featuresOf,
} from './features.js'
import { frechetDistance } from './frechet.js'
import {
  type PrecisionRecall,
  type PrecisionRecallOptions,
  precisionRecall,
} from './precision-recall.js'

/** Images to evaluate, and what they were made for. */
export interface ImageBatch {
  /** [b, 3, H, W] from 0 to 1, H and W from 3 on */
  images: Tensor<FloatDType>
  /** What they were made for. With the texts of captions, diversity is also taken within prompts. */
  condition?: Condition
}

/** What {@link evaluateImages} is given. */
export interface EvaluateOptions extends PrecisionRecallOptions {
  /** Two images or more in all. They stay the caller's. */
  batches: readonly ImageBatch[]
  /** Of a network that no reward is made of. */
  features: FeatureExtractor
  /** Features of other images by the same network, by name: of real ones, of the base generator. Default none. */
  references?: Readonly<Record<string, Features>>
  /** Each under a name of its own. Default none. */
  rewards?: readonly Reward[]
}

/** Plain and finite: JSON holds it as it is. */
export interface EvaluationReport {
  /** How many. */
  images: number
  /** By the reward's name; `std` is over n - 1. */
  rewards: Record<string, { mean: number; std: number }>
  /** By the reference's name. */
  references: Record<string, { images: number; frechet: number } & PrecisionRecall>
  diversity: Diversity
  statistics: ImageStatistics
}

/**
 * Evaluates images. Nothing is drawn and nothing learnt: the same images give the same report.
 *
 * @throws {DidrError} (as a rejection) ERR_CONFIG naming the option, ERR_RANGE for fewer than two images, for fewer than
 *   `neighbours` + 1 beside references, and for pixels outside of 0 to 1; what {@link featuresOf}, {@link scoreNumbers},
 *   {@link frechetDistance}, {@link precisionRecall} and {@link imageStatistics} throw
 * @example
 * const report = await evaluation.evaluateImages({
 *   batches: [{ images, condition }],
 *   features: (x) => judge.features(x),
 *   references: { real: await evaluation.featuresOf((x) => judge.features(x), realBatches) },
 *   rewards: [clip.reward(), rewards.colourfulness()],
 * })
 */
export async function evaluateImages(options: EvaluateOptions): Promise<EvaluationReport> {
  checkOptions('options', options, ['batches', 'features', 'references', 'rewards', 'neighbours'])
  const { batches, features: extract, references = {}, rewards = [], neighbours = 3 } = options
  if (!Array.isArray(batches))
    fail('ERR_CONFIG', `options.batches: expected an array of batches, got ${show(batches)}`)
  if (!Array.isArray(rewards))
    fail('ERR_CONFIG', `options.rewards: expected an array of rewards, got ${show(rewards)}`)
  if (typeof references !== 'object' || references === null)
    fail('ERR_CONFIG', `options.references: expected features by name, got ${show(references)}`)
  let count = 0
  for (const [i, batch] of batches.entries()) {
    checkOptions(`options.batches[${i}]`, batch, ['images', 'condition'])
    const [own] = checkImages(batch.images, 3, 3)
    count += own
  }
  if (count < 2) fail('ERR_RANGE', `options.batches: expected two images or more, got ${count}`)
  const compared = Object.entries(references)
  checkInteger(
    'options.neighbours',
    neighbours,
    1,
    compared.length > 0 ? count - 1 : Number.MAX_SAFE_INTEGER,
  )
  for (const [name, reference] of compared)
    checkFeatures(`options.references.${name}`, reference, neighbours + 1)
  const names = new Set<string>()
  for (const [i, reward] of rewards.entries()) {
    checkReward(`options.rewards[${i}]`, reward)
    if (names.has(reward.name))
      fail('ERR_CONFIG', `options.rewards[${i}].name: expected another than ${show(reward.name)}`)
    names.add(reward.name)
  }

  const tensors = batches.map(({ images }) => images)
  const statistics = await imageStatistics(tensors)
  const features = await featuresOf(extract, tensors)
  for (const [name, reference] of compared)
    checkSameColumns(`options.references.${name}`, reference, features)
  const scores: [string, { mean: number; std: number }][] = []
  for (const reward of rewards) scores.push([reward.name, await scoresOf(reward, batches)])
  return {
    images: count,
    rewards: Object.fromEntries(scores),
    references: Object.fromEntries(
      compared.map(([name, reference]) => [
        name,
        {
          images: reference.rows,
          frechet: frechetDistance(features, reference),
          ...precisionRecall(features, reference, { neighbours }),
        },
      ]),
    ),
    diversity: diversity(features, promptsOf(batches)),
    statistics,
  }
}

/** What {@link alarmsOf} compares, out of a report. */
export function alarmStatistics({ statistics, diversity }: EvaluationReport): AlarmStatistics {
  const { all, withinPrompt } = diversity
  return {
    ...statistics,
    diversity: all.euclidean,
    ...(withinPrompt && { promptDiversity: withinPrompt.euclidean }),
  }
}

/** The prompt of every image; undefined unless all batches say theirs. */
function promptsOf(batches: readonly ImageBatch[]): string[] | undefined {
  const prompts: string[] = []
  for (const [i, { images, condition }] of batches.entries()) {
    const texts = condition instanceof Tensor ? undefined : condition?.texts
    if (texts === undefined) return undefined
    const [batch = 0] = images.shape
    if (texts.length !== batch)
      fail(
        'ERR_SHAPE',
        `options.batches[${i}].condition.texts: expected ${batch}, one per image, got ${texts.length}`,
      )
    prompts.push(...texts)
  }
  return prompts
}

async function scoresOf(
  reward: Reward,
  batches: readonly ImageBatch[],
): Promise<{ mean: number; std: number }> {
  const scores: number[] = []
  for (const { images, condition } of batches) {
    using batch = await scoreNumbers(reward, images, condition)
    scores.push(...(await batch.data()))
  }
  const mean = scores.reduce((sum, score) => sum + score, 0) / scores.length
  const squares = scores.reduce((sum, score) => sum + (score - mean) ** 2, 0)
  return { mean, std: Math.sqrt(squares / (scores.length - 1)) }
}
