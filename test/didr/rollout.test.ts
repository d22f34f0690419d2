import { describe, expect, it } from 'vitest'
import { RandomStream } from '../../lib/didr/philox.js'
import { type RolloutOptions, rollout } from '../../lib/didr/rollout.js'
import {
  models,
  normal,
  type Prediction,
  type Schedule,
  schedules,
  type Tensor,
  tensor,
  tidy,
  vjp,
} from '../../lib/index.js'
import { posterior } from './gaussians.js'
import { Counted, type Float, ring } from './problems.js'

const [mean, std] = [0.4, 0.8]
const gaussianTeacher = (schedule: Schedule, prediction: Prediction = 'x0') =>
  models.gaussianMixture({ means: [[mean, mean]], std, schedule, prediction })

interface Settings extends Partial<RolloutOptions> {
  model: models.ScoreModel
  schedule: Schedule
}

function options(settings: Settings): RolloutOptions {
  const { steps = 1 } = settings
  return {
    guidance: 1,
    conditions: { condition: undefined, unconditional: undefined },
    steps,
    particles: 1,
    eta: 0,
    logSnrEnd: 4,
    gradientSteps: steps,
    random: new RandomStream(1),
    ...settings,
  }
}

/** The rollout with the calls at x_t that its caller makes. */
function run(xt: Float, t: Float32Array, settings: Settings): Float {
  const { model, conditions, ...rest } = options(settings)
  return tidy(() => {
    const first = {
      conditional: model.forward(xt, t, conditions.condition),
      unconditional:
        rest.guidance === 1 ? undefined : model.forward(xt, t, conditions.unconditional),
    }
    return rollout(xt, t, first, { model, conditions, ...rest })
  })
}

/** The formulas of one step in float64, of a denoiser x̂0 = gain·x + rest: x' = own·x + constant + noise·ξ. */
interface Affine {
  own: number
  constant: number
  noise: number
  /** dx'/dx while the network's output counts as a constant. */
  direct: number
}

function affineSteps(
  schedule: Schedule,
  t: number,
  { steps = 1, eta = 0, logSnrEnd = 4 }: Partial<RolloutOptions>,
  prediction: Prediction = 'x0',
): Affine[] {
  const start = schedule.logSnr(t)
  const span = Math.max(logSnrEnd - start, 4)
  const times = Array.from({ length: steps }, (_, k) =>
    k === 0 ? t : Math.fround(schedule.timeOfLogSnr(start + (span * k) / steps)),
  )
  return times.map((time, k) => {
    const [alpha, sigma] = [schedule.alpha(time), schedule.sigma(time)]
    const spread = alpha ** 2 * std ** 2 + sigma ** 2
    const gain = (alpha * std ** 2) / spread
    const rest = mean - gain * alpha * mean
    // x̂0 for a constant output o: of x0 nothing, of ε x/α, of v α x, of flow x/(α + σ) with α + σ = 1.
    const passed = {
      x0: 0,
      epsilon: 1 / alpha,
      v: alpha / (alpha ** 2 + sigma ** 2),
      flow: 1 / (alpha + sigma),
    }[prediction]
    if (k === steps - 1) return { own: gain, constant: rest, noise: 0, direct: passed }
    const next = times[k + 1] as number
    const [nextAlpha, nextSigma] = [schedule.alpha(next), schedule.sigma(next)]
    const noise =
      eta * nextSigma * Math.sqrt(1 - Math.exp(schedule.logSnr(time) - schedule.logSnr(next)))
    const kept = Math.sqrt(nextSigma ** 2 - noise ** 2) / sigma
    const ofDenoised = nextAlpha - kept * alpha
    return {
      own: ofDenoised * gain + kept,
      constant: ofDenoised * rest,
      noise,
      direct: ofDenoised * passed + kept,
    }
  })
}

const allSchedules = [
  ['flow', schedules.flow()],
  ['flow, shifted', schedules.flow({ shift: 3 })],
  ['vp', schedules.vp()],
  ['edm', schedules.edm()],
] as const
/** A clean and a noisy time, and one beyond the end of the steps. */
const times = new Float32Array([0.3, 0.9, 0.02])
const points = [-1.3, 0.2, 0.9, 2.5, 0.1, -0.4]
const start = () => tensor(Float32Array.from(points), { shape: [3, 2] }) as Float

describe('a deterministic rollout', () => {
  it.each(allSchedules)('takes the steps of the formulas: %s', async (_, schedule) => {
    for (const prediction of ['x0', 'epsilon', 'v', 'flow'] as const)
      for (const steps of [1, 2, 5]) {
        const model = gaussianTeacher(schedule, prediction)
        using got = run(start(), times, { model, schedule, steps })
        const values = await got.data()
        for (const [i, x] of points.entries()) {
          const t = times[Math.floor(i / 2)] as number
          let expected = x
          for (const { own, constant } of affineSteps(schedule, t, { steps }))
            expected = own * expected + constant
          expect(
            Math.abs((values[i] as number) - expected),
            `${prediction}, ${steps} steps, point ${i}`,
          ).toBeLessThan(2e-5 * Math.max(1, Math.abs(expected)))
        }
      }
  })

  it.each(allSchedules)(
    'with many steps follows the probability-flow ODE: %s',
    async (_, schedule) => {
      const model = gaussianTeacher(schedule)
      const logSnrEnd = 10
      const t = new Float32Array([0.5, 0.9, 0.95])
      const errors: number[] = []
      for (const steps of [40, 80, 160]) {
        using got = run(start(), t, { model, schedule, steps, logSnrEnd })
        let worst = 0
        for (const [i, value] of (await got.data()).entries()) {
          const time = t[Math.floor(i / 2)] as number
          const spreadAt = (u: number) => schedule.alpha(u) ** 2 * std ** 2 + schedule.sigma(u) ** 2
          const from = schedule.logSnr(time)
          const last = schedule.timeOfLogSnr(from + ((logSnrEnd - from) * (steps - 1)) / steps)
          const [alpha, sigma] = [schedule.alpha(last), schedule.sigma(last)]
          // x_t - α m scales with the standard deviation of p_t.
          const x =
            alpha * mean +
            Math.sqrt(spreadAt(last) / spreadAt(time)) *
              ((points[i] as number) - schedule.alpha(time) * mean)
          const expected = posterior({ mean, std }, x, alpha, sigma).mean
          worst = Math.max(worst, Math.abs(value - expected))
        }
        errors.push(worst)
      }
      // Of first order: half the step, half the error.
      const [coarse, middle, fine] = errors as [number, number, number]
      expect(fine).toBeLessThan(0.03)
      expect(coarse / middle).toBeGreaterThan(1.7)
      expect(middle / fine).toBeGreaterThan(1.8)
      expect(middle / fine).toBeLessThan(2.2)
    },
  )
})

describe('a stochastic rollout', () => {
  const moments = async (schedule: Schedule, settings: Partial<RolloutOptions>, t: number) => {
    const model = gaussianTeacher(schedule)
    const { particles = 20_000 } = settings
    const x = tensor([[1.7, 1.7]]) as Float
    const time = new Float32Array([t])
    using got = run(x, time, { model, schedule, ...settings, particles })
    expect(got.shape).toEqual([particles, 2])
    const values = await got.data()
    const average = values.reduce((sum, value) => sum + value, 0) / values.length
    const variance = values.reduce((sum, value) => sum + (value - average) ** 2, 0) / values.length
    return { average, variance, count: values.length }
  }

  it.each(allSchedules)('has the moments of the formulas: %s', async (_, schedule) => {
    for (const settings of [
      { steps: 2, eta: 1 },
      { steps: 5, eta: 1 },
      { steps: 4, eta: 0.3 },
      { steps: 3, eta: 1, logSnrEnd: 7 },
    ]) {
      const t = 0.8
      const found = await moments(schedule, settings, t)
      let [expected, variance] = [1.7, 0]
      for (const { own, constant, noise } of affineSteps(schedule, Math.fround(t), settings)) {
        expected = own * expected + constant
        variance = own ** 2 * variance + noise ** 2
      }
      const error = Math.sqrt(variance / found.count)
      expect(Math.abs(found.average - expected), JSON.stringify(settings)).toBeLessThan(5 * error)
      expect(Math.abs(found.variance / variance - 1), JSON.stringify(settings)).toBeLessThan(0.04)
    }
  })

  it.each(allSchedules)('with many steps draws from the posterior: %s', async (_, schedule) => {
    const t = 0.8
    const found = await moments(schedule, { steps: 100, eta: 1, logSnrEnd: 9, particles: 6000 }, t)
    const time = Math.fround(t)
    const exact = posterior({ mean, std }, 1.7, schedule.alpha(time), schedule.sigma(time))
    expect(Math.abs(found.average - exact.mean)).toBeLessThan(
      0.01 + 5 * Math.sqrt(exact.variance / found.count),
    )
    expect(Math.abs(found.variance / exact.variance - 1)).toBeLessThan(0.1)
    // The formulas, which the draws follow for any number of steps, end at the posterior.
    let variance = 0
    const settings = { steps: 3200, eta: 1, logSnrEnd: 9 }
    for (const { own, noise } of affineSteps(schedule, time, settings))
      variance = own ** 2 * variance + noise ** 2
    expect(Math.abs(variance / exact.variance - 1)).toBeLessThan(0.005)
  })

  it('takes each particle through the noise levels of its own sample', async () => {
    const schedule = schedules.flow()
    const model = gaussianTeacher(schedule, 'flow')
    // So little noise that it is a deterministic rollout of several particles.
    const settings = { steps: 4, eta: 1e-6, particles: 3 }
    using got = run(start(), times, { model, schedule, ...settings })
    for (const [i, value] of (await got.data()).entries()) {
      const t = times[Math.floor((i % 6) / 2)] as number
      let expected = points[i % 6] as number
      for (const { own, constant } of affineSteps(schedule, t, settings))
        expected = own * expected + constant
      expect(Math.abs(value - expected), `element ${i}`).toBeLessThan(1e-4)
    }
  })

  it('draws other noise for each particle and step, and the same again from the same place', async () => {
    const schedule = schedules.flow()
    const settings = { model: ring(schedule), schedule, steps: 3, particles: 4, eta: 1 }
    const values = async (seed: number) => {
      using got = run(start(), times, { ...settings, random: new RandomStream(seed) })
      return [...(await got.data())]
    }
    const first = await values(1)
    expect(await values(1)).toEqual(first)
    expect(await values(2)).not.toEqual(first)
    expect(new Set(first).size).toBe(4 * 3 * 2)
    const random = new RandomStream(1)
    using got = run(start(), times, { ...settings, random })
    expect([got.shape, random.offset]).toEqual([[12, 2], 2])
  })
})

describe('the gradient of a rollout', () => {
  it('agrees with finite differences', async () => {
    const schedule = schedules.flow()
    const model = ring(schedule)
    const t = new Float32Array([0.6, 0.75, 0.9])
    for (const settings of [
      { steps: 1 },
      { steps: 3 },
      { steps: 3, particles: 2, eta: 1 },
      { steps: 2, particles: 3, eta: 0.5, guidance: 1.5 },
    ]) {
      const rows = 3 * (settings.particles ?? 1)
      const weights = normal([rows, 2], { seed: 5 }) as Float
      const value = (x: Float) =>
        run(x, t, { model, schedule, ...settings, random: new RandomStream(3) })
      const { value: y, pullback } = vjp(value, [start()])
      const [gradient] = pullback(weights as typeof y)
      const got = await gradient.data()
      const sum = (values: Float32Array) =>
        Float64Array.from(points, (x, i) => x + (values[i] as number))
      const loss = async (step: Float32Array) => {
        using x = tensor(Float32Array.from(sum(step)), { shape: [3, 2] }) as Float
        const [output, factors] = [await value(x).data(), await weights.data()]
        return output.reduce((total, out, i) => total + out * (factors[i] as number), 0)
      }
      for (let i = 0; i < points.length; i++) {
        const h = 1e-2
        const moved = (scale: number) =>
          loss(Float32Array.from(points, (_, j) => (j === i ? scale * h : 0)))
        // Of fourth order, for the steps that float32 needs.
        const [a, b, c, d] = [await moved(2), await moved(1), await moved(-1), await moved(-2)]
        const expected = (-a + 8 * b - 8 * c + d) / (12 * h)
        expect(
          Math.abs((got[i] as number) - expected),
          `${JSON.stringify(settings)}, element ${i}: ${got[i]} against ${expected}`,
        ).toBeLessThan(2e-3 * Math.max(1, Math.abs(expected)))
      }
    }
  })

  it.each(['x0', 'epsilon', 'v', 'flow'] as const)(
    'leaves out the outputs before the last gradientSteps: %s',
    async (prediction) => {
      for (const [, schedule] of allSchedules) {
        const model = gaussianTeacher(schedule, prediction)
        const t = new Float32Array([0.3, 0.6, 0.9])
        const steps = 4
        for (const gradientSteps of [1, 2, 3, 4]) {
          const { value, pullback } = vjp(
            (x: Float) => run(x, t, { model, schedule, steps, gradientSteps }),
            [start()],
          )
          const [gradient] = pullback(value.mul(0).add(1) as typeof value)
          for (const [i, got] of (await gradient.data()).entries()) {
            const time = t[Math.floor(i / 2)] as number
            const expected = affineSteps(schedule, time, { steps }, prediction).reduce(
              (product, { own, direct }, k) => product * (k < steps - gradientSteps ? direct : own),
              1,
            )
            expect(Math.abs(got - expected)).toBeLessThan(1e-4 * Math.max(1, Math.abs(expected)))
          }
        }
      }
    },
  )
})

describe('particles and conditions', () => {
  const schedule = schedules.flow()
  const base: Omit<models.ScoreModel, 'forward'> = { prediction: 'x0', parameters: () => [] }

  it('come in the order [N, B]: a tensor', async () => {
    const condition = tensor([
      [1, 10],
      [2, 20],
      [3, 30],
    ]) as Tensor
    const unconditional = condition.mul(0) as Tensor
    const model = new Counted({
      ...base,
      forward: (x, _t, given) => x.mul(0).add(given as Float) as Float,
    })
    const settings = { model, schedule, steps: 2, particles: 4, eta: 1 }
    using got = run(start(), times, { ...settings, conditions: { condition, unconditional } })
    const rows = Array.from({ length: 4 }, () => [1, 10, 2, 20, 3, 30]).flat()
    expect([...(await got.data())]).toEqual(rows)
    expect(model.batches).toEqual([3, 12])
    using guided = run(start(), times, {
      ...settings,
      guidance: 3,
      conditions: { condition, unconditional },
    })
    expect([...(await guided.data())]).toEqual(rows.map((value) => 3 * value))
    expect(model.batches).toEqual([3, 12, 3, 3, 12, 12])
  })

  it('come in the order [N, B]: captions', async () => {
    const features = tensor([
      [1, 1],
      [2, 2],
      [2, 4],
      [5, 5],
      [5, 6],
      [5, 7],
    ]) as Float
    const condition: models.Captions = {
      features,
      lengths: [1, 2, 3],
      texts: ['one', 'two', 'three'],
    }
    const seen: models.Captions[] = []
    // The sample is the last token of its caption.
    const model: models.ScoreModel = {
      ...base,
      forward(x, _t, given) {
        const captions = given as models.Captions
        seen.push({ ...captions })
        const rows = captions.features.dataSync()
        let end = 0
        const last = captions.lengths.flatMap((length) => {
          end += length
          return [...rows.slice(2 * end - 2, 2 * end)]
        })
        return x.mul(0).add(tensor(last as number[]).reshape(x.shape)) as Float
      },
    }
    using got = run(start(), times, {
      model,
      schedule,
      steps: 2,
      particles: 2,
      eta: 1,
      conditions: { condition, unconditional: undefined },
    })
    expect([...(await got.data())]).toEqual([1, 1, 2, 4, 5, 7, 1, 1, 2, 4, 5, 7])
    expect(seen.map(({ lengths, texts }) => [lengths, texts])).toEqual([
      [
        [1, 2, 3],
        ['one', 'two', 'three'],
      ],
      [
        [1, 2, 3, 1, 2, 3],
        ['one', 'two', 'three', 'one', 'two', 'three'],
      ],
    ])
  })
})
