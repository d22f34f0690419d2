import { checkOneOf } from '../checks.js'

/** Every {@link Prediction}, in the order of the addon's `Prediction`. */
export const predictions = ['epsilon', 'x0', 'v', 'flow'] as const

/**
 * What a denoising network's output is, with x_t = α x0 + σ ε: `epsilon` the noise, `x0` the clean sample,
 * `v` = α ε - σ x0 (arXiv 2202.00512), `flow` = ε - x0 (arXiv 2210.02747).
 */
export type Prediction = (typeof predictions)[number]

export function predictionIndex(name: string, prediction: unknown): number {
  checkOneOf(name, prediction, predictions)
  return predictions.indexOf(prediction)
}

/**
 * The denoiser as an affine map of x_t and the network's output: x̂0 = `xt`·x_t + `output`·o.
 * `epsilon` needs α > 0.
 */
export function denoiserCoefficients(
  prediction: Prediction,
  alpha: number,
  sigma: number,
): { xt: number; output: number } {
  switch (prediction) {
    case 'epsilon':
      return { xt: 1 / alpha, output: -sigma / alpha }
    case 'x0':
      return { xt: 0, output: 1 }
    case 'v': {
      const power = alpha * alpha + sigma * sigma
      return { xt: alpha / power, output: -sigma / power }
    }
    case 'flow':
      return { xt: 1 / (alpha + sigma), output: -sigma / (alpha + sigma) }
  }
}
