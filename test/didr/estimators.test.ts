import { describe, expect, it } from 'vitest'
import { resolveDrs } from '../../lib/didr/drs-config.js'
import { type EstimateOptions, estimateScore } from '../../lib/didr/estimators.js'
import { RandomStream } from '../../lib/didr/philox.js'
import {
  type DrsOptions,
  models,
  normal,
  rewards,
  type Schedule,
  schedules,
  type Tensor,
  tensor,
} from '../../lib/index.js'
import { exactRewardScore, posterior } from './gaussians.js'
import { type Float, ring } from './problems.js'

const prior = { mean: -0.3, std: 0.8 }
const target = { centre: 1, curvature: 0.9, beta: 0.7 }
const reward = rewards.quadratic({
  center: [target.centre, target.centre],
  curvature: target.curvature,
})
const none = { condition: undefined, unconditional: undefined }

interface Ask {
  schedule?: Schedule
  options?: Partial<EstimateOptions>
}

/** The estimate as plain numbers; everything that it holds is released. */
async function estimate(
  xt: readonly number[],
  t: Float32Array,
  drs: DrsOptions,
  { schedule = schedules.flow(), options = {} }: Ask = {},
) {
  const teacher = models.gaussianMixture({
    means: [[prior.mean, prior.mean]],
    std: prior.std,
    schedule,
  })
  using parts = new rewards.PartScores()
  using x = tensor(Float32Array.from(xt), { shape: [t.length, xt.length / t.length] }) as Float
  const result = await estimateScore(x, t, {
    drs: resolveDrs('drs', drs),
    teacher,
    reward,
    decode: (samples) => samples,
    schedule,
    beta: target.beta,
    conditions: none,
    withUnconditional: false,
    random: new RandomStream(1),
    parts,
    ...options,
  })
  const numbers: Record<string, Float32Array | undefined> = {}
  for (const [name, value] of Object.entries(result)) {
    numbers[name] = (await (value as Tensor | undefined)?.data()) as Float32Array | undefined
    ;(value as Tensor | undefined)?.dispose()
  }
  return numbers as { score: Float32Array } & Record<keyof typeof result, Float32Array | undefined>
}

const times = new Float32Array([0.05, 0.3, 0.6, 0.9, 0.97])
const points = [-1.3, 0.2, 0.9, 2.5, 0.1, -0.4, 1.1, -2, 0, 0.6]

function expected(schedule: Schedule, of: (x: number, alpha: number, sigma: number) => number) {
  return points.map((x, i) => {
    const t = times[Math.floor(i / 2)] as number
    return of(x, schedule.alpha(t), schedule.sigma(t))
  })
}

const exactScores = (schedule: Schedule) =>
  expected(schedule, (x, alpha, sigma) => exactRewardScore(prior, target, x, alpha, sigma))

/** The root mean square of the difference, over that of what is expected. */
function relativeError(got: ArrayLike<number>, wanted: readonly number[]): number {
  const difference = wanted.map((value, i) => value - (got[i] as number))
  return Math.hypot(...difference) / Math.hypot(...wanted)
}

function expectClose(got: ArrayLike<number>, wanted: readonly number[], tolerance: number) {
  for (const [i, value] of wanted.entries())
    expect(
      Math.abs((got[i] as number) - value),
      `element ${i} of ${got[i]}, ${value}`,
    ).toBeLessThan(tolerance * Math.max(1, Math.abs(value)))
}

describe.each([
  ['flow', schedules.flow()],
  ['vp', schedules.vp()],
  ['edm', schedules.edm({ sigmaMin: 0.05, sigmaMax: 20 })],
] as const)('for a Gaussian prior and a quadratic reward, with %s', (_, schedule) => {
  it('exact and damped are the closed form', async () => {
    const exact = await estimate(points, times, { estimator: 'exact' }, { schedule })
    expectClose(exact.score, exactScores(schedule), 1e-4)
    const { curvature } = target
    const drs = { estimator: 'damped', curvature, dataStd: prior.std } as const
    expectClose(
      (await estimate(points, times, drs, { schedule })).score,
      exactScores(schedule),
      1e-4,
    )
  })

  it('tweedie is the plug-in formula, which overshoots', async () => {
    const plugIn = expected(schedule, (x, alpha, sigma) => {
      const { mean, variance } = posterior(prior, x, alpha, sigma)
      const gain = (alpha * variance) / sigma ** 2
      return ((target.curvature * (target.centre - mean)) / target.beta) * gain
    })
    for (const drs of [
      { estimator: 'tweedie' },
      { estimator: 'drp', steps: 1 },
      { estimator: 'damped', curvature: 0 },
    ] as const)
      expectClose((await estimate(points, times, drs, { schedule })).score, plugIn, 1e-4)
    const exact = exactScores(schedule)
    expect(plugIn.every((value, i) => Math.abs(value) >= Math.abs(exact[i] as number))).toBe(true)
    expect(relativeError(plugIn, exact)).toBeGreaterThan(0.05)
  })

  it('drp approaches the closed form with many stochastic particles of many steps', async () => {
    const exact = exactScores(schedule)
    const errors: number[] = []
    for (const [steps, particles] of [
      [2, 4],
      [6, 64],
      [48, 2048],
    ] as const) {
      const drs = { estimator: 'drp', steps, particles, logSnrEnd: 8 } as const
      const { score, effectiveSampleSize } = await estimate(points, times, drs, { schedule })
      errors.push(relativeError(score, exact))
      for (const size of effectiveSampleSize as Float32Array) {
        expect(size).toBeGreaterThan(0.999)
        expect(size).toBeLessThan(particles * 1.001)
      }
    }
    expect(errors[2]).toBeLessThan(0.06)
    expect(errors[1]).toBeLessThan(errors[0] as number)
    expect(errors[2]).toBeLessThan(errors[1] as number)
  })

  it('particles approach it, too, from the exact posterior and from a rollout', async () => {
    const exact = exactScores(schedule)
    // The factor α/σ² makes the least noisy points the noisiest estimates; each has its own standard error.
    const count = 16_384
    const drs = { estimator: 'particles', sampler: 'posterior', particles: count } as const
    const { score } = await estimate(points, times, drs, { schedule })
    const deviation = expected(schedule, (x, alpha, sigma) => {
      const { variance } = posterior(prior, x, alpha, sigma)
      return (alpha / sigma ** 2) * Math.sqrt(variance / count)
    })
    for (const [i, value] of exact.entries())
      expect(Math.abs((score[i] as number) - value)).toBeLessThan(8 * (deviation[i] as number))
    const rolled = await estimate(
      points,
      times,
      { estimator: 'particles', particles: 4096, steps: 32, logSnrEnd: 9 },
      { schedule },
    )
    for (const [i, value] of exact.entries())
      expect(Math.abs((rolled.score[i] as number) - value)).toBeLessThan(
        16 * (deviation[i] as number) + 0.08 * Math.abs(value),
      )
  })
})

describe('an estimate', () => {
  const schedule = schedules.flow()

  it('comes with what the teacher said at x_t', async () => {
    const teacher = ring(schedule, 'v')
    const said = async () => {
      using x = tensor(Float32Array.from(points), { shape: [5, 2] }) as Float
      using output = teacher.forward(x, times)
      return [...(await output.data())]
    }
    for (const drs of [
      { estimator: 'exact' },
      { estimator: 'tweedie' },
      { estimator: 'drp', particles: 2 },
      { estimator: 'particles' },
      { estimator: 'particles', sampler: 'posterior' },
    ] as const)
      for (const withUnconditional of [false, true]) {
        const got = await estimate(points, times, drs, {
          options: { teacher, withUnconditional },
        })
        expect([...(got.teacher as Float32Array)]).toEqual(await said())
        expect(got.teacherUncond && [...got.teacherUncond]).toEqual(
          withUnconditional ? await said() : undefined,
        )
      }
  })

  it('is scaled down to maxNorm where it is above, and tells the norm of before', async () => {
    const plain = await estimate(points, times, { estimator: 'tweedie' })
    const norms = Array.from({ length: 5 }, (_, b) =>
      Math.hypot(plain.score[2 * b] as number, plain.score[2 * b + 1] as number),
    )
    const maxNorm = norms.toSorted((a, b) => a - b)[2] as number
    const clipped = await estimate(points, times, { estimator: 'tweedie', maxNorm })
    expectClose(clipped.norm as Float32Array, norms, 1e-5)
    expectClose(
      clipped.score,
      Array.from(plain.score, (value, i) => {
        const norm = norms[Math.floor(i / 2)] as number
        return value * Math.min(1, maxNorm / norm)
      }),
      1e-5,
    )
  })

  it('is guided where asked: x̂0(∅) + g (x̂0(c) - x̂0(∅)), in the reward alone', async () => {
    // A Gaussian whose mean is the condition.
    const gains = (t: Float32Array) =>
      Array.from(t, (time) => {
        const [alpha, sigma] = [schedule.alpha(time), schedule.sigma(time)]
        return (alpha * prior.std ** 2) / (alpha ** 2 * prior.std ** 2 + sigma ** 2)
      })
    const teacher: models.ScoreModel = {
      prediction: 'x0',
      parameters: () => [],
      forward(x, t, condition) {
        const gain = gains(t)
        const column = (values: number[]) =>
          tensor(Float32Array.from(values), { shape: [t.length, 1] }) as Float
        const rest = gain.map((value, i) => 1 - value * schedule.alpha(t[i] as number))
        return x.mul(column(gain)).add((condition as Float).mul(column(rest))) as Float
      },
    }
    const means = [0.2, 1.4, -0.6, 0.5, -1]
    using condition = tensor(Float32Array.from(means), { shape: [5, 1] }) as Tensor
    using unconditional = tensor(new Float32Array(5).fill(-0.8), { shape: [5, 1] }) as Tensor
    const conditions = { condition, unconditional }
    const plugIn = (guidance: number) =>
      points.map((x, i) => {
        const b = Math.floor(i / 2)
        const gain = gains(times)[b] as number
        const rest = 1 - gain * schedule.alpha(times[b] as number)
        const mean = -0.8 + guidance * ((means[b] as number) + 0.8)
        const denoised = gain * x + rest * mean
        return ((target.curvature * (target.centre - denoised)) / target.beta) * gain
      })
    for (const guidance of [1, 2.5, 0]) {
      const got = await estimate(
        points,
        times,
        { estimator: 'tweedie', guidance },
        { options: { teacher, conditions } },
      )
      expectClose(got.score, plugIn(guidance), 1e-4)
      expect(got.teacherUncond === undefined).toBe(guidance === 1)
    }
  })

  it('goes through the decoder', async () => {
    const half = rewards.quadratic({
      center: [target.centre / 2, target.centre / 2],
      curvature: 4 * target.curvature,
    })
    for (const drs of [
      { estimator: 'tweedie' },
      { estimator: 'drp', particles: 3 },
      { estimator: 'particles', particles: 5 },
    ] as const) {
      const plain = await estimate(points, times, drs)
      const decoded = await estimate(points, times, drs, {
        options: { reward: half, decode: (samples) => samples.mul(0.5) as Float },
      })
      expectClose(decoded.score, [...plain.score], 1e-4)
    }
  })

  it('gives black boxes the particles with their conditions, and notes what the parts say', async () => {
    using condition = normal([5, 1], { seed: 1 }) as Tensor
    const seen: number[][] = []
    const judge = rewards.blackBox('judge', async (images, given) => {
      seen.push([...images.shape], [...(given as Tensor).shape])
      return (await images.sum(1).data()) as Float32Array
    })
    using parts = new rewards.PartScores()
    const got = await estimate(
      points,
      times,
      { estimator: 'particles', particles: 3, steps: 2 },
      {
        options: {
          parts,
          reward: rewards.weighted([{ reward: judge }]),
          conditions: { condition, unconditional: undefined },
        },
      },
    )
    expect(seen).toEqual([
      [15, 2],
      [15, 1],
    ])
    expect((await parts.read()).get('judge')?.length).toBe(15)
    expect(got.rewards).toBeUndefined()
    expect(condition.disposed).toBe(false)
  })

  it('of one sample, and of samples with several axes, is that of the same numbers', async () => {
    const image = ring(schedule)
    const drs = { estimator: 'drp', particles: 2 } as const
    const flat = await estimate(points.slice(0, 2), times.slice(0, 1), drs, {
      options: { teacher: image },
    })
    expect(flat.score.length).toBe(2)
    using parts = new rewards.PartScores()
    using x = tensor(Float32Array.from(points.slice(0, 2)), { shape: [1, 1, 2, 1] }) as Float
    const deep = await estimateScore(x, times.slice(0, 1), {
      drs: resolveDrs('drs', drs),
      teacher: image,
      reward,
      decode: (samples) => samples,
      schedule,
      beta: target.beta,
      conditions: none,
      withUnconditional: false,
      random: new RandomStream(1),
      parts,
    })
    expect(deep.score.shape).toEqual([1, 1, 2, 1])
    expect([...(await deep.score.data())]).toEqual([...flat.score])
  })
})
