/** The score divergence of Diff-Instruct* (arXiv 2410.20898), which takes the place of the Integral KL. */
import { frozen } from '../autograd/parameter.js'
import { vjp } from '../autograd/vjp.js'
import type { Condition } from '../models/score-model.js'
import { type Float, guided, outputOf, perSample } from './denoiser.js'
import type { Didr } from './didr.js'
import { denoiserCoefficients, type Prediction } from './prediction.js'
import type { NoiseLevels } from './samples.js'
import { noiseLevels } from './samples.js'

/** c = 0.00054 √D of the pseudo-Huber norm (arXiv 2310.14189). */
const huberPerRootElement = 0.00054

/**
 * The gradient on x0 of the batch mean of E[-w d'(y)ᵀ (s_ψ(x_t) + ε/σ)], y = sg(s_ψ - s̃_ref), with the pseudo-Huber
 * d'(y) = y / √(‖y‖² + c²). ε/σ does not depend on x0: the gradient goes through x_t into the assistant's input alone.
 *
 * @param teacher, teacherUncond the teacher's raw outputs at x_t
 * @returns the gradient, and the assistant's raw output at x_t, which has been computed on the way
 */
export function divergenceGradient(
  didr: Didr,
  xt: Float,
  t: Float32Array,
  condition: Condition | undefined,
  teacher: Float,
  teacherUncond: Float | undefined,
): { gradient: Float; assistant: Float } {
  const { assistant: model, teacher: teacherModel, schedule } = didr.options
  const { guidance } = didr.config
  const levels = noiseLevels(t, schedule, { positive: true })
  const batch = t.length
  const size = xt.size / batch
  const huber = didr.config.huber ?? huberPerRootElement * Math.sqrt(size)
  return frozen(() => {
    const { value, pullback } = vjp(
      (x: Float) => {
        const assistant = outputOf('assistant', model, x, t, condition)
        return [scoreOf(x, assistant, model.prediction, levels), assistant]
      },
      [xt],
    )
    const [score, assistant] = value as [Float, Float]
    const output = teacherUncond === undefined ? teacher : guided(teacher, teacherUncond, guidance)
    const y = score.sub(scoreOf(xt, output, teacherModel.prediction, levels))
    const norm = y
      .reshape([batch, size])
      .square()
      .sum(1)
      .add(huber * huber)
      .sqrt()
    const weights = Float64Array.from(t, (time, b) => {
      const [alpha, sigma] = [levels.alpha[b] as number, levels.sigma[b] as number]
      return -weightOf(didr, time, alpha, sigma) / batch
    })
    const scale = perSample(weights, xt).div(norm.reshape([batch, ...xt.shape.slice(1).fill(1)]))
    const [gradient] = pullback([y.mul(scale), undefined] as unknown as Parameters<
      typeof pullback
    >[0]) as [Float]
    return { gradient: gradient.mul(perSample(levels.alpha, xt)) as Float, assistant }
  })
}

/** s = (α x̂0 - x_t) / σ² of a raw output. */
function scoreOf(xt: Float, output: Float, prediction: Prediction, levels: NoiseLevels): Float {
  const { alpha, sigma } = levels
  const own = new Float64Array(alpha.length)
  const scale = new Float64Array(alpha.length)
  for (let b = 0; b < alpha.length; b++) {
    const [a, s] = [alpha[b] as number, sigma[b] as number]
    const denoiser = denoiserCoefficients(prediction, a, s)
    own[b] = (a * denoiser.xt - 1) / (s * s)
    scale[b] = (a * denoiser.output) / (s * s)
  }
  return xt.mul(perSample(own, xt)).add(output.mul(perSample(scale, xt))) as Float
}

/** w(t), as the Integral KL weights it. */
function weightOf(didr: Didr, t: number, alpha: number, sigma: number): number {
  const weighting = didr.options.weighting ?? didr.config.weighting
  if (typeof weighting === 'function') return weighting(t)
  if (weighting === 'x0') return (sigma / alpha) ** 2
  return weighting === 'sigma2' ? sigma * sigma : 1
}
