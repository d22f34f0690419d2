import { describe, expect, it } from 'vitest'
import {
  diffusedRewardScore,
  normal,
  rewardWeights,
  schedules,
  type Tensor,
  tensor,
  tidy,
  weightedRewardGradient,
} from '../../lib/index.js'
import { exactRewardScore, levelsAt, posterior } from './gaussians.js'

const schedule = schedules.flow()
const prior = { mean: 0.4, std: 0.8 }
const reward = { centre: 1, curvature: 0.5, beta: 0.7 }
const dimensions = 2

/** Exact posterior samples of x0 for points x_t, and their quadratic rewards. */
function drawParticles(xt: Float32Array, t: number, count: number, seed: number) {
  const { alpha, sigma } = levelsAt(schedule, t)
  const batch = xt.length / dimensions
  return tidy(() => {
    const means = Float32Array.from(xt, (x) => posterior(prior, x, alpha, sigma).mean)
    const { variance } = posterior(prior, 0, alpha, sigma)
    const particles = normal([count, batch, dimensions], { seed, std: Math.sqrt(variance) }).add(
      tensor(means, { shape: [batch, dimensions] }),
    ) as Tensor<'float32', number[]>
    const rewards = particles
      .sub(reward.centre)
      .square()
      .sum(2)
      .mul(-reward.curvature / 2)
    return { particles, rewards }
  })
}

describe('diffusedRewardScore', () => {
  it('converges to the closed form of a Gaussian prior as 1/sqrt(N)', async () => {
    const points: [logN: number, logError: number][] = []
    for (const count of [16, 64, 256, 1024, 4096, 16384, 65536]) {
      const batch = 64
      let squares = 0
      let terms = 0
      for (const t of [0.3, 0.6, 0.9]) {
        const { alpha, sigma } = levelsAt(schedule, t)
        const xt = await normal([batch * dimensions], { seed: 11 }).data()
        const { particles, rewards } = drawParticles(xt, t, count, count)
        const { score } = diffusedRewardScore({
          particles,
          rewards,
          t: new Float32Array(batch).fill(t),
          schedule,
          beta: reward.beta,
        })
        const estimate = await score.data()
        for (const [i, x] of xt.entries()) {
          const exact = exactRewardScore(prior, reward, x, alpha, sigma)
          squares += ((estimate[i] as number) - exact) ** 2
          terms++
        }
        for (const used of [particles, rewards, score]) used.dispose()
      }
      points.push([Math.log(count), 0.5 * Math.log(squares / terms)])
    }
    const meanX = points.reduce((sum, [x]) => sum + x, 0) / points.length
    const meanY = points.reduce((sum, [, y]) => sum + y, 0) / points.length
    const slope =
      points.reduce((sum, [x, y]) => sum + (x - meanX) * (y - meanY), 0) /
      points.reduce((sum, [x]) => sum + (x - meanX) ** 2, 0)
    expect(slope).toBeGreaterThan(-0.56)
    expect(slope).toBeLessThan(-0.44)
  })

  it('equals the composition of plain tensor ops, and says how many particles count', async () => {
    const t = new Float32Array([0.2, 0.5, 0.8])
    const particles = normal([7, 3, 5, 3], { seed: 1 })
    const rewards = normal([7, 3], { seed: 2, std: 3 })
    const { score, weights, effectiveSampleSize } = diffusedRewardScore({
      particles,
      rewards,
      t,
      schedule,
      beta: 0.5,
    })
    const composed = tidy(() => {
      const w = rewards.div(0.5).softmax(0)
      const factor = tensor(
        Float32Array.from(t, (time) => schedule.alpha(time) / schedule.sigma(time) ** 2),
        { shape: [3, 1, 1] },
      )
      const mean = particles
        .mul(w.reshape([7, 3, 1, 1]))
        .sum(0)
        .sub(particles.mean(0))
      return { score: mean.mul(factor), weights: w, effective: w.square().sum(0).reciprocal() }
    })
    await expectClose(score, composed.score, 2e-5)
    await expectClose(weights, composed.weights, 1e-6)
    await expectClose(effectiveSampleSize, composed.effective, 1e-5)
    expect(score.shape).toEqual([3, 5, 3])
  })

  it('stays finite for rewards that overflow exp, and reports infinite ones', async () => {
    const rewards = tensor([
      [1e30, -1e30],
      [1e30, 1e30],
    ])
    const { weights, effectiveSampleSize } = rewardWeights({ rewards, beta: 1e-3 })
    expect([...(await weights.data())]).toEqual([0.5, 0, 0.5, 1])
    expect([...(await effectiveSampleSize.data())]).toEqual([2, 1])
    const bad = rewardWeights({ rewards: tensor([[Number.POSITIVE_INFINITY], [0]]), beta: 1 })
    await expect(bad.weights.data()).rejects.toMatchObject({ code: 'ERR_NONFINITE' })
  })

  it('refuses shapes that do not belong together', () => {
    const particles = normal([4, 3, 2], { seed: 1 })
    const t = new Float32Array(3).fill(0.5)
    const rewards = normal([4, 3], { seed: 1 })
    const call = (change: object) => () =>
      diffusedRewardScore({ particles, rewards, t, schedule, beta: 1, ...change })
    expect(call({ rewards: normal([3, 4], { seed: 1 }) })).toThrow(
      'rewards: expected shape [4, 3], got [3, 4]',
    )
    expect(call({ t: new Float32Array(4).fill(0.5) })).toThrow(
      't: expected length 3 (batch of particles), got 4',
    )
    expect(call({ beta: 0 })).toThrow('beta: expected a number above 0, got 0')
    expect(call({ beta: Number.NaN })).toThrow('beta: expected a finite number')
    expect(call({ particles: normal([4], { seed: 1 }) })).toThrow(
      'particles: expected [particles, batch, ...]',
    )
    expect(call({ t: new Float32Array(3) })).toThrow(
      't[0]: expected a time where alpha and sigma are above 0',
    )
  })
})

describe('weightedRewardGradient', () => {
  it('with the damped factor is exact for a Gaussian prior and a quadratic reward', async () => {
    const t = new Float32Array([0.1, 0.3, 0.5, 0.7, 0.9, 0.98])
    const xt = await normal([t.length, dimensions], { seed: 3 }).data()
    const gradients = new Float32Array(xt.length)
    const rewards = new Float32Array(t.length)
    const exact = new Float64Array(xt.length)
    for (const [i, x] of xt.entries()) {
      const b = Math.floor(i / dimensions)
      const { alpha, sigma } = levelsAt(schedule, t[b] as number)
      const { mean, variance } = posterior(prior, x, alpha, sigma)
      // ∇_{x_t} r(x̂0), with ∂x̂0/∂x_t = α v / σ²
      gradients[i] = ((reward.curvature * (reward.centre - mean) * alpha) / sigma ** 2) * variance
      rewards[b] = (rewards[b] as number) - (reward.curvature / 2) * (mean - reward.centre) ** 2
      exact[i] = exactRewardScore(prior, reward, x, alpha, sigma)
    }
    const { score } = weightedRewardGradient({
      gradients: tensor(gradients, { shape: [1, t.length, dimensions] }),
      rewards: tensor(rewards, { shape: [1, t.length] }),
      beta: reward.beta,
      damping: { curvature: reward.curvature, dataStd: prior.std },
      t,
      schedule,
    })
    for (const [i, value] of (await score.data()).entries())
      expect(Math.abs(value - (exact[i] as number))).toBeLessThan(
        1e-5 * Math.max(1, Math.abs(exact[i] as number)),
      )
  })

  it('is the softmax-weighted sum over beta, clipped to the norm asked for', async () => {
    const gradients = normal([5, 4, 33], { seed: 1 })
    const rewards = normal([5, 4], { seed: 2 })
    const { score, norm } = weightedRewardGradient({ gradients, rewards, beta: 0.25 })
    const composed = tidy(() => {
      const weights = rewards.div(0.25).softmax(0).reshape([5, 4, 1])
      const sum = gradients.mul(weights).sum(0).div(0.25)
      return { sum, norm: sum.square().sum(1).sqrt() }
    })
    await expectClose(score, composed.sum, 1e-4)
    await expectClose(norm, composed.norm, 1e-4)
    const limit = (await composed.norm.data())[1] as number
    const clipped = weightedRewardGradient({ gradients, rewards, beta: 0.25, maxNorm: limit })
    const norms = await clipped.score.square().sum(1).sqrt().data()
    for (const [b, before] of (await composed.norm.data()).entries())
      expect(norms[b] as number).toBeCloseTo(Math.min(before, limit), 3)
    await expectClose(clipped.norm, composed.norm, 1e-4)
  })
})

async function expectClose(a: Tensor, b: Tensor, tolerance: number) {
  expect(a.shape).toEqual(b.shape)
  const [x, y] = [await a.data(), await b.data()]
  for (let i = 0; i < x.length; i++)
    expect(Math.abs((x[i] as number) - (y[i] as number))).toBeLessThan(
      tolerance * Math.max(1, Math.abs(y[i] as number)),
    )
}
