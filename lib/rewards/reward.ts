/** Rewards, and the two ways in which training asks them: with gradients, or for numbers alone. */
import { noGrad } from '../autograd/vjp.js'
import { checkBoolean } from '../checks.js'
import { checkSamples } from '../didr/samples.js'
import { DidrError, fail, show } from '../errors.js'
import type { Condition } from '../models/score-model.js'
import type { FloatDType } from '../tensor/dtype.js'
import { tidy } from '../tensor/scope.js'
import { checkSameDevice, checkTensorShape, idOf, Tensor } from '../tensor/tensor.js'
import type { PartScores } from './part-scores.js'

/**
 * What a generator is aligned with: one number for each image, larger for better.
 *
 * Any object of this form will do; {@link fromFunction} and {@link blackBox} make one from a function.
 */
export interface Reward {
  /** For messages and metrics. */
  readonly name: string
  /** Whether gradients flow through `score`; then it is synchronous and made of the package's operations. */
  readonly differentiable: boolean
  /**
   * Scores a batch. It changes nothing: what a reward learns from batches it learns in `observe`.
   *
   * @param images [B, ...], float32 or bfloat16; not to be disposed or overwritten
   * @param condition what the images were made for
   * @param parts where a reward made of others notes what each of them said; other rewards ignore it
   * @returns [B], float32: a new tensor, which becomes the caller's
   */
  score(
    images: Tensor<FloatDType>,
    condition?: Condition,
    parts?: PartScores,
  ): Tensor | Promise<Tensor>
  /**
   * Learns from what has been scored (running normalisation): later batches are scored with what is known then.
   * Training awaits it once a step, after the scoring and before any parameter changes.
   *
   * @param parts what the parts said, as `score` noted it
   */
  observe?(parts: PartScores): Promise<void>
  /** What the reward has learnt from earlier batches, as JSON can hold it; for checkpoints. */
  state?(): unknown
  /** Goes on from what `state()` gave. @throws {DidrError} ERR_CONFIG if it is the state of another reward */
  loadState?(state: unknown): void
}

/** Refuses what is no reward. */
export function checkReward(name: string, reward: unknown): asserts reward is Reward {
  if (typeof reward !== 'object' || reward === null)
    fail('ERR_CONFIG', `${name}: expected a reward, got ${show(reward)}`)
  const { name: own, differentiable, score } = reward as Partial<Reward>
  checkName(`${name}.name`, own)
  checkBoolean(`${name}.differentiable`, differentiable)
  if (typeof score !== 'function')
    fail('ERR_CONFIG', `${name}.score: expected a function, got ${show(score)}`)
}

/** Refuses what cannot name a reward in messages. */
export function checkName(name: string, value: unknown): asserts value is string {
  if (typeof value !== 'string' || value === '')
    fail('ERR_CONFIG', `${name}: expected a name, got ${show(value)}`)
}

/**
 * The scores of a batch for a backward pass: call it inside a `vjp` that tracks the images. Waits for nothing, so NaN
 * and infinite scores pass; {@link checkRewards} finds them.
 *
 * @param images [B, ...], float32 or bfloat16
 * @param parts where the parts of the reward note their scores
 * @returns [B], float32
 * @throws {DidrError} ERR_CONFIG for a reward that is not differentiable, that throws, or that returns no tensor;
 *   ERR_SHAPE, ERR_DTYPE, ERR_DEVICE, ERR_DISPOSED for a tensor other than a living float32 one [B] beside the images.
 *   Errors of the package inside the reward keep their code. All messages name the reward.
 * @example
 * const { value, pullback } = vjp((x) => rewards.scoreDifferentiably(reward, x, condition), [images])
 */
export function scoreDifferentiably(
  reward: Reward,
  images: Tensor<FloatDType>,
  condition?: Condition,
  parts?: PartScores,
): Tensor<'float32', [number]> {
  checkReward('reward', reward)
  checkSamples('images', images)
  if (!reward.differentiable)
    fail(
      'ERR_CONFIG',
      `${called(reward)}: expected a differentiable reward; this one gives numbers without gradients. ` +
        'An estimator that needs only numbers (particles) takes it; fromFunction makes a differentiable reward of the ' +
        "package's operations",
    )
  return tidy(() => scoreNow(reward, images, condition, parts))
}

/**
 * The scores of a batch as constants, of any reward, awaited and checked.
 *
 * @param images [B, ...], float32 or bfloat16; alive until the promise has settled
 * @param parts where the parts of the reward note their scores
 * @returns [B], float32, on the device of the images; the caller's
 * @throws {DidrError} (as a rejection) as {@link scoreDifferentiably}, and {@link checkRewards}
 * @example
 * using scores = await rewards.scoreNumbers(reward, images, condition)
 */
export async function scoreNumbers(
  reward: Reward,
  images: Tensor<FloatDType>,
  condition?: Condition,
  parts?: PartScores,
): Promise<Tensor<'float32', [number]>> {
  checkReward('reward', reward)
  checkSamples('images', images)
  const scores = reward.differentiable
    ? noGrad(() => tidy(() => scoreNow(reward, images, condition, parts)))
    : await scoreLater(reward, images, condition, parts)
  try {
    await checkRewards(reward.name, scores)
    return scores
  } catch (error) {
    scores.dispose()
    throw error
  }
}

/**
 * Waits for scores and refuses NaN and infinite ones.
 *
 * @param name of the reward
 * @param scores [B], float32
 * @returns the scores as numbers
 * @throws {DidrError} (as a rejection) ERR_NONFINITE, with the reward, the first sample and the count
 */
export async function checkRewards(
  name: string,
  scores: Tensor<'float32', [number]>,
): Promise<Float32Array<ArrayBuffer>> {
  const values = await scores.data()
  refuseNonFinite(name, values)
  return values
}

/** @throws {DidrError} ERR_NONFINITE unless all scores are finite */
export function refuseNonFinite(name: string, scores: Float32Array): void {
  const first = scores.findIndex((score) => !Number.isFinite(score))
  if (first < 0) return
  const count = scores.reduce((sum, score) => sum + (Number.isFinite(score) ? 0 : 1), 0)
  fail(
    'ERR_NONFINITE',
    `${called({ name })}: expected finite scores, got ${scores[first]} for sample ${first} ` +
      `(${count} of ${scores.length} are not finite)`,
  )
}

/** Lets a reward learn from scores; what goes wrong names it. */
export async function observeScores(reward: Reward, parts: PartScores): Promise<void> {
  try {
    await reward.observe?.(parts)
  } catch (error) {
    failIn(reward, error)
  }
}

function called({ name }: Pick<Reward, 'name'>): string {
  return `reward ${show(name)}`
}

function scoreNow(
  reward: Reward,
  images: Tensor<FloatDType>,
  condition?: Condition,
  parts?: PartScores,
): Tensor<'float32', [number]> {
  let scores: Tensor | Promise<Tensor>
  try {
    scores = reward.score(images, condition, parts)
  } catch (error) {
    return failIn(reward, error)
  }
  if (scores instanceof Promise) {
    // Nobody waits for it: a rejection would end the process.
    scores.catch(() => {})
    fail(
      'ERR_CONFIG',
      `${called(reward)}: expected a tensor, got a promise; a differentiable reward is synchronous`,
    )
  }
  return checkScores(reward, images, scores)
}

async function scoreLater(
  reward: Reward,
  images: Tensor<FloatDType>,
  condition?: Condition,
  parts?: PartScores,
): Promise<Tensor<'float32', [number]>> {
  let scores: Tensor
  try {
    // What comes after an `await` in there runs outside every vjp, as all asynchronous code does.
    scores = await noGrad(() => reward.score(images, condition, parts))
  } catch (error) {
    return failIn(reward, error)
  }
  try {
    return checkScores(reward, images, scores)
  } catch (error) {
    if (scores instanceof Tensor && scores !== images) scores.dispose()
    throw error
  }
}

function failIn(reward: Reward, error: unknown): never {
  if (error instanceof DidrError)
    fail(error.code, `${called(reward)}: ${error.message}`, { cause: error })
  const message = error instanceof Error ? error.message : show(error)
  return fail('ERR_CONFIG', `${called(reward)}: threw: ${message}`, { cause: error })
}

function checkScores(
  reward: Reward,
  images: Tensor<FloatDType>,
  scores: Tensor,
): Tensor<'float32', [number]> {
  const what = called(reward)
  idOf(what, scores)
  checkSameDevice(what, scores, images)
  if (scores.dtype !== 'float32')
    fail('ERR_DTYPE', `${what}: expected float32, got ${scores.dtype}`)
  checkTensorShape(what, scores, [images.shape[0] as number])
  // A reward that returns its images would have them disposed with the scores.
  const own = scores === images ? scores.reshape(scores.shape) : scores
  return own as Tensor<'float32', [number]>
}
