/** Float64 closed forms for Gaussians N(mean, std² I), the second implementation that the fused ops are held against. */
import type { Prediction, Schedule } from '../../lib/index.js'

export interface Gaussian {
  mean: number
  std: number
}

/** E[x0 | x_t] and the posterior's variance. */
export function posterior({ mean, std }: Gaussian, xt: number, alpha: number, sigma: number) {
  const spread = alpha ** 2 * std ** 2 + sigma ** 2
  return {
    mean: mean + ((alpha * std ** 2) / spread) * (xt - alpha * mean),
    variance: (std ** 2 * sigma ** 2) / spread,
  }
}

/** The diffused reward score under the reward -curvature/2 (x - centre)² at temperature beta. */
export function exactRewardScore(
  prior: Gaussian,
  reward: { centre: number; curvature: number; beta: number },
  xt: number,
  alpha: number,
  sigma: number,
): number {
  const { mean, variance } = posterior(prior, xt, alpha, sigma)
  const precision = reward.curvature / reward.beta
  const tilted = (mean / variance + precision * reward.centre) / (1 / variance + precision)
  return (alpha / sigma ** 2) * (tilted - mean)
}

/** KL(p ‖ q) in nats per dimension. */
export function klOfGaussians(p: Gaussian, q: Gaussian): number {
  const ratio = (p.std / q.std) ** 2
  return 0.5 * (ratio + ((p.mean - q.mean) / q.std) ** 2 - 1 - Math.log(ratio))
}

/** The Gaussian of x_t. */
export function diffused({ mean, std }: Gaussian, alpha: number, sigma: number): Gaussian {
  return { mean: alpha * mean, std: Math.hypot(alpha * std, sigma) }
}

/** A network's raw output that stands for the denoiser's value x̂0 at x_t. */
export function outputFor(
  prediction: Prediction,
  denoised: number,
  xt: number,
  alpha: number,
  sigma: number,
): number {
  const noise = (xt - alpha * denoised) / sigma
  switch (prediction) {
    case 'epsilon':
      return noise
    case 'x0':
      return denoised
    case 'v':
      return alpha * noise - sigma * denoised
    case 'flow':
      return noise - denoised
  }
}

/** α and σ as the kernels have them: rounded to float32. */
export function levelsAt(schedule: Schedule, t: number): { alpha: number; sigma: number } {
  return { alpha: Math.fround(schedule.alpha(t)), sigma: Math.fround(schedule.sigma(t)) }
}
