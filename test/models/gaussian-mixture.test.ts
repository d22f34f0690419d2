import { describe, expect, test } from 'vitest'
import { memory, models, schedules, type Tensor, tensor, tidy, vjp } from '../../lib/index.js'
import { expectRefusal } from '../expectations.js'
import { generator, logSumExp } from '../reference.js'

/** A mixture in float64, written from the density alone. */
interface Mixture {
  means: number[][]
  stds: number[]
  weights: number[]
}

function logDensity({ means, stds, weights }: Mixture, x: readonly number[]): number {
  return logSumExp(
    means.map((mean, k) => {
      const variance = (stds[k] as number) ** 2
      const distance = mean.reduce((sum, m, i) => sum + ((x[i] as number) - m) ** 2, 0)
      return (
        Math.log(weights[k] as number) -
        (x.length / 2) * Math.log(2 * Math.PI * variance) -
        distance / (2 * variance)
      )
    }),
  )
}

function diffused({ means, stds, weights }: Mixture, alpha: number, sigma: number): Mixture {
  return {
    means: means.map((mean) => mean.map((m) => alpha * m)),
    stds: stds.map((std) => Math.hypot(alpha * std, sigma)),
    weights,
  }
}

function gradient(f: (x: number[]) => number, x: readonly number[]): number[] {
  const h = 2 ** -17
  return x.map((value, i) => (f(x.with(i, value + h)) - f(x.with(i, value - h))) / (2 * h))
}

const mixture: Mixture = {
  means: [
    [2, 0.5],
    [-1, 1.5],
    [0.25, -2],
  ],
  stds: [0.5, 0.3, 0.8],
  weights: [0.5, 0.2, 0.3],
}
const make = (options: object = {}) =>
  models.gaussianMixture({
    means: mixture.means,
    std: mixture.stds,
    weights: [5, 2, 3],
    ...options,
  })

const draw = generator(3)
const points = Array.from({ length: 6 }, () => [
  Math.fround(6 * draw() - 3),
  Math.fround(6 * draw() - 3),
])
const place = (x: number[][]) => tensor(x) as Tensor<'float32'>
const times = Float32Array.of(0.02, 0.2, 0.4, 0.6, 0.8, 0.98)

async function expectRows(x: Tensor, expected: number[][], tolerance: number): Promise<void> {
  const [data, flat] = [await x.data(), expected.flat()]
  expect(data.length).toBe(flat.length)
  for (const [i, value] of flat.entries()) {
    const error = Math.abs((data[i] as number) - value)
    if (!(error <= tolerance * Math.max(1, Math.abs(value))))
      expect.fail(`element ${i}: expected ${value}, got ${data[i]}`)
  }
}

for (const schedule of [
  schedules.flow({ shift: 3 }),
  schedules.vp({ kind: 'cosine' }),
  schedules.edm({ sigmaMax: 10 }),
])
  describe(`under the ${schedule.name} schedule`, () => {
    const model = make({ schedule })
    const levels = Array.from(times, (t) => [schedule.alpha(t), schedule.sigma(t)] as const)
    const at = (i: number) => diffused(mixture, ...(levels[i] as [number, number]))

    test('logProb', async () => {
      const expected = points.map((x, i) => [logDensity(at(i), x)])
      await expectRows(model.logProb(place(points), times), expected, 1e-5)
      const clean = points.map((x) => [logDensity(mixture, x)])
      await expectRows(model.logProb(place(points)), clean, 1e-5)
    })

    test('score', async () => {
      const expected = points.map((x, i) => gradient((y) => logDensity(at(i), y), x))
      await expectRows(model.score(place(points), times), expected, 2e-5)
    })

    test('denoise, by Tweedie: (x_t + σ² score) / α', async () => {
      const expected = points.map((x, i) => {
        const [alpha, sigma] = levels[i] as [number, number]
        const score = gradient((y) => logDensity(at(i), y), x)
        return x.map((value, j) => (value + sigma ** 2 * (score[j] as number)) / alpha)
      })
      // Where α is small this formula for what is expected divides its own error by it.
      await expectRows(model.denoise(place(points), times), expected, 1e-5)
    })

    test('forward, of every prediction type, agrees with the denoiser', async () => {
      const denoised = await model.denoise(place(points), times).data()
      for (const prediction of ['x0', 'epsilon', 'v', 'flow'] as const) {
        const output = await make({ schedule, prediction }).forward(place(points), times).data()
        for (const [i, [alpha, sigma]] of levels.entries())
          for (const j of [0, 1]) {
            const x0 = denoised[2 * i + j] as number
            const noise = ((points[i]?.[j] as number) - alpha * x0) / sigma
            const expected = {
              x0,
              epsilon: noise,
              v: alpha * noise - sigma * x0,
              flow: noise - x0,
            }[prediction]
            const error = Math.abs((output[2 * i + j] as number) - expected)
            // x0's rounding error, seen through a division by σ.
            expect(error).toBeLessThan((3e-6 * (1 + Math.abs(x0) + alpha)) / Math.min(1, sigma))
          }
      }
    })

    test('tilt and rewardScore', async () => {
      const [reward, beta] = [{ curvature: 2, center: [1, -0.5] }, 0.7]
      const target = model.tilt(reward, beta)
      const r = (x: number[]) =>
        -(reward.curvature / 2) *
        x.reduce((sum, v, i) => sum + (v - (reward.center[i] as number)) ** 2, 0)
      // log p* - log p - r/β is the same constant everywhere.
      const [tilted, base] = [
        await target.logProb(place(points)).data(),
        await model.logProb(place(points)).data(),
      ]
      const constants = points.map(
        (x, i) => (tilted[i] as number) - (base[i] as number) - r(x) / beta,
      )
      for (const constant of constants)
        expect(Math.abs(constant - (constants[0] as number))).toBeLessThan(2e-4)
      const tiltedMixture: Mixture = {
        means: target.means as number[][],
        stds: [...target.stds],
        weights: [...target.weights],
      }
      const expected = points.map((x, i) => {
        const [alpha, sigma] = levels[i] as [number, number]
        const plain = gradient((y) => logDensity(at(i), y), x)
        const better = gradient((y) => logDensity(diffused(tiltedMixture, alpha, sigma), y), x)
        return better.map((value, j) => value - (plain[j] as number))
      })
      await expectRows(model.rewardScore(place(points), times, reward, beta), expected, 1e-4)
    })
  })

test('the diffused density and the tilted one are the integrals that they stand for', async () => {
  // In one dimension, by the midpoint rule, which converges exponentially for smooth functions that vanish at the ends.
  const [alpha, sigma] = [0.6, 0.4]
  const line: Mixture = { means: [[1.5], [-1]], stds: [0.5, 0.25], weights: [0.3, 0.7] }
  const schedule = schedules.flow()
  const model = models.gaussianMixture({ means: line.means, std: line.stds, weights: line.weights })
  const [reward, beta] = [{ curvature: 1.5, center: [0.25] }, 0.8]
  const [from, to, count] = [-8, 8, 4000]
  const width = (to - from) / count
  const integral = (f: (x: number) => number) => {
    let sum = 0
    for (let i = 0; i < count; i++) sum += f(from + (i + 0.5) * width)
    return sum * width
  }
  const p = (x: number) => Math.exp(logDensity(line, [x]))
  const gain = (x: number) => Math.exp((-reward.curvature / 2 / beta) * (x - 0.25) ** 2)
  const kernel = (xt: number, x0: number) =>
    Math.exp(-((xt - alpha * x0) ** 2) / (2 * sigma * sigma)) / (sigma * Math.sqrt(2 * Math.PI))
  const xs = [-1.25, 0.1, 0.8]
  const t = new Float32Array(3).fill(0.4)
  expect([schedule.alpha(t[0] as number), schedule.sigma(t[0] as number)]).toEqual([
    1 - Math.fround(0.4),
    Math.fround(0.4),
  ])
  const xt = place(xs.map((x) => [x]))
  await expectRows(
    model.logProb(xt, t),
    xs.map((x) => [Math.log(integral((x0) => p(x0) * kernel(x, x0)))]),
    1e-5,
  )
  await expectRows(
    model.denoise(xt, t),
    xs.map((x) => [
      integral((x0) => x0 * p(x0) * kernel(x, x0)) / integral((x0) => p(x0) * kernel(x, x0)),
    ]),
    1e-5,
  )
  const normaliser = integral((x) => p(x) * gain(x))
  await expectRows(
    model.tilt(reward, beta).logProb(xt),
    xs.map((x) => [Math.log((p(x) * gain(x)) / normaliser)]),
    1e-5,
  )
  // s_r = d/dx log E[exp(r(x0)/β) | x_t]
  const expectation = (x: number) =>
    Math.log(
      integral((x0) => gain(x0) * p(x0) * kernel(x, x0)) / integral((x0) => p(x0) * kernel(x, x0)),
    )
  await expectRows(
    model.rewardScore(xt, t, reward, beta),
    xs.map((x) => gradient(([y]) => expectation(y as number), [x])),
    2e-5,
  )
})

test('gradients through the denoiser, the score and logProb', async () => {
  const model = make()
  const dy = place(points.map(([a, b]) => [b as number, a as number]))
  const cotangent = points.map(([a, b]) => [b as number, a as number])
  const denoise = (x: readonly number[], i: number) => {
    const [alpha, sigma] = [
      model.schedule.alpha(times[i] as number),
      model.schedule.sigma(times[i] as number),
    ]
    // γ_k (μ_k + α s_k² / v_k (x - α μ_k)), in float64
    const of = diffused(mixture, alpha, sigma)
    const logs = of.means.map((mean, k) =>
      logDensity(
        { means: [mean], stds: [of.stds[k] as number], weights: [of.weights[k] as number] },
        x,
      ),
    )
    const total = logSumExp(logs)
    return x.map((value, j) =>
      logs.reduce((sum, log, k) => {
        const [mean, std] = [mixture.means[k]?.[j] as number, mixture.stds[k] as number]
        const gain = (alpha * std * std) / (of.stds[k] as number) ** 2
        return sum + Math.exp(log - total) * (mean + gain * (value - alpha * mean))
      }, 0),
    )
  }
  const expected = points.map((x, i) =>
    gradient(
      (y) =>
        denoise(y, i).reduce((sum, value, j) => sum + value * (cotangent[i]?.[j] as number), 0),
      x,
    ),
  )
  const { pullback } = vjp((x) => model.denoise(x, times) as Tensor<'float32'>, [place(points)])
  await expectRows(pullback(dy)[0], expected, 1e-4)

  // The gradient of logProb is the score.
  const log = vjp((x) => model.logProb(x, times), [place(points)])
  const [score] = log.pullback(tensor(new Float32Array(6).fill(1)) as Tensor<'float32'>)
  await expectRows(
    score,
    [...(await model.score(place(points), times).data())].map((x) => [x]),
    1e-5,
  )
})

test('images: axes after the batch are flattened', async () => {
  const model = models.gaussianMixture({ means: [[1, 2, 3, 4]], std: 0.5 })
  const xt = tensor(new Float32Array(8), { shape: [2, 1, 2, 2] }) as Tensor<'float32'>
  const t = Float32Array.of(0.5, 0.5)
  for (const result of [model.denoise(xt, t), model.score(xt, t), model.forward(xt, t)])
    expect(result.shape).toEqual([2, 1, 2, 2])
  expect(model.posteriorSample(xt, t, { particles: 3, seed: 1 }).shape).toEqual([3, 2, 1, 2, 2])
})

describe('sampling', () => {
  test('draws have the mixture’s moments, and repeat', async () => {
    const model = make()
    const count = 200_000
    const x = await model.sample({ count, seed: 5 }).data()
    expect(await model.sample({ count, seed: 5 }).data()).toEqual(x)
    expect(await model.sample({ count: 4, seed: 5, offset: 1 }).data()).not.toEqual(x.slice(0, 8))
    const mean = [0, 1].map((j) =>
      mixture.weights.reduce((sum, w, k) => sum + w * (mixture.means[k]?.[j] as number), 0),
    )
    for (const j of [0, 1]) {
      let [first, second] = [0, 0]
      for (let i = 0; i < count; i++) {
        const value = x[2 * i + j] as number
        first += value
        second += value * value
      }
      const expectedSecond = mixture.weights.reduce(
        (sum, w, k) =>
          sum + w * ((mixture.means[k]?.[j] as number) ** 2 + (mixture.stds[k] as number) ** 2),
        0,
      )
      // Five standard errors: the spread of x is below 2, that of x² below 4.
      expect(Math.abs(first / count - (mean[j] as number))).toBeLessThan((5 * 2) / Math.sqrt(count))
      expect(Math.abs(second / count - expectedSecond)).toBeLessThan((5 * 4) / Math.sqrt(count))
    }
    // Component shares, told by the nearest centre: they are well apart.
    const shares = [0, 0, 0]
    for (let i = 0; i < count; i++) {
      const distances = mixture.means.map(
        ([a, b], k) =>
          Math.hypot(
            (x[2 * i] as number) - (a as number),
            (x[2 * i + 1] as number) - (b as number),
          ) / (mixture.stds[k] as number),
      )
      const k = distances.indexOf(Math.min(...distances))
      shares[k] = (shares[k] as number) + 1
    }
    for (const [k, weight] of mixture.weights.entries())
      expect(Math.abs((shares[k] as number) / count - weight)).toBeLessThan(0.01)
  })

  test('posterior draws have the denoiser as mean, and the right spread', async () => {
    const model = make()
    const particles = 100_000
    const xt = place([[0.4, 0.1]])
    const t = Float32Array.of(0.5)
    const x = await model.posteriorSample(xt, t, { particles, seed: 2 }).data()
    const denoised = await model.denoise(xt, t).data()
    // Cov[x0 | x_t] = (σ²/α) ∂x̂0/∂x_t
    const { pullback } = vjp((v) => model.denoise(v, t) as Tensor<'float32'>, [xt])
    const [row] = pullback(place([[1, 0]]))
    const variance = ((await row.data())[0] as number) * (0.5 ** 2 / 0.5)
    let [first, second, other] = [0, 0, 0]
    for (let i = 0; i < particles; i++) {
      first += x[2 * i] as number
      second += (x[2 * i] as number) ** 2
      other += x[2 * i + 1] as number
    }
    const mean = first / particles
    const error = 5 * Math.sqrt(2 / particles)
    expect(Math.abs(mean - (denoised[0] as number))).toBeLessThan(error)
    expect(Math.abs(other / particles - (denoised[1] as number))).toBeLessThan(error)
    expect(Math.abs(second / particles - mean ** 2 - variance)).toBeLessThan(4 * error)
  })
})

test('one component', async () => {
  const model = models.gaussianMixture({ means: [[1]], std: 2 })
  const x = await model.sample({ count: 3, seed: 1 }).data()
  expect(x.length).toBe(3)
  // For a Gaussian the reward's tilt is damped: mean (μ + a s² c) / (1 + a s²).
  expect(model.tilt({ curvature: 1, center: [3] }, 2).means).toEqual([[(1 + 2 * 3) / 3]])
})

test('nothing is left behind', () => {
  const model = make()
  const [xt, before] = [place(points), memory().tensors + 0]
  tidy(() => {
    model.forward(xt, times)
    model.score(xt, times)
    model.logProb(xt, times)
    model.sample({ count: 4, seed: 1 })
    model.posteriorSample(xt, times, { particles: 2, seed: 1 })
    model.rewardScore(xt, times, { curvature: 1, center: [0, 0] }, 1)
  })
  expect(memory().tensors).toBe(before)
  model.score(xt, times).dispose()
  expect(memory().tensors).toBe(before)
})

test('refusals', () => {
  const model = make()
  const [wide, fits] = [tensor([[1, 2, 3]]) as Tensor<'float32'>, place([[1, 2]])]
  const t = Float32Array.of(0.5)
  expectRefusal(() => make({ std: 0 }), 'ERR_RANGE', 'options.std: expected numbers above 0, got 0')
  expectRefusal(() => make({ weights: [1] }), 'ERR_SHAPE', /^options.weights: expected 3 numbers/)
  expectRefusal(() => make({ means: [] }), 'ERR_CONFIG', /^options.means/)
  expectRefusal(
    () => make({ means: [[1, 2], [3], [4, 5]] }),
    'ERR_SHAPE',
    'options.means[1]: expected 2 numbers, got 1',
  )
  expectRefusal(
    () => model.score(wide, t),
    'ERR_SHAPE',
    'xt: expected [batch, ...] with 2 elements in a sample, got [1, 3]',
  )
  expectRefusal(
    () => model.forward(fits, new Float32Array(2)),
    'ERR_SHAPE',
    't: expected length 1 (batch of xt), got 2',
  )
  expectRefusal(
    () => model.tilt({ curvature: 1, center: [0] }, 1),
    'ERR_SHAPE',
    /^reward.center: expected 2 numbers/,
  )
  expectRefusal(
    () => model.tilt({ curvature: 1, center: [0, 0] }, 0),
    'ERR_RANGE',
    'beta: expected a number above 0, got 0',
  )
})
