import { describe, expect, it } from 'vitest'
import { memory, normal, scoreErrors, tidy, verify } from '../../lib/index.js'
import { paretoChart, ringChart, trackingChart } from '../../lib/verify/charts.js'
import { distil, ringGenerator, ringProblem } from '../../lib/verify/ring.js'

describe('the ring', () => {
  it('has a target in closed form: moments of exact samples, and the reward it was tilted by', async () => {
    const { reference, target, reward } = ringProblem(2)
    using samples = target.sample({ count: 200_000, seed: 4 })
    const points = await samples.data()
    // E_p*[f] = E_ref[f e^{r/β}] / E_ref[e^{r/β}], by self-normalised importance sampling.
    using prior = reference.sample({ count: 200_000, seed: 5 })
    const drawn = await prior.data()
    const [cx, cy] = reward.quadratic.center as [number, number]
    let [mass, x, y] = [0, 0, 0]
    for (let i = 0; i < drawn.length; i += 2) {
      const [px, py] = [drawn[i] as number, drawn[i + 1] as number]
      const weight = Math.exp(-((px - cx) ** 2 + (py - cy) ** 2) / 4)
      mass += weight
      x += weight * px
      y += weight * py
    }
    let [mx, my] = [0, 0]
    for (let i = 0; i < points.length; i += 2) {
      mx += points[i] as number
      my += points[i + 1] as number
    }
    expect((2 * mx) / points.length).toBeCloseTo(x / mass, 1)
    expect((2 * my) / points.length).toBeCloseTo(y / mass, 1)
  })

  it('is distilled into a start that covers its modes alike', async () => {
    const problem = ringProblem(1)
    const ring = ringGenerator(0, problem)
    using network = ring.network
    await distil(ring, problem, { steps: 400, seed: 0 })
    using samples = tidy(() => ring.generator.forward(normal([20_000, 2], { seed: 9 })))
    const points = await samples.data()
    const shares = new Array<number>(8).fill(0)
    let near = 0
    for (let i = 0; i < points.length; i += 2) {
      const [x, y] = [points[i] as number, points[i + 1] as number]
      const k = ((Math.round((Math.atan2(y, x) * 4) / Math.PI) % 8) + 8) % 8
      shares[k] = (shares[k] as number) + 2 / points.length
      if (
        Math.hypot(x - 2 * Math.cos((k * Math.PI) / 4), y - 2 * Math.sin((k * Math.PI) / 4)) < 0.9
      )
        near++
    }
    for (const share of shares) expect(share).toBeCloseTo(1 / 8, 1)
    expect((2 * near) / points.length).toBeGreaterThan(0.9)
    expect(network.parameters().length).toBe(8)
  })
})

describe('verify', () => {
  it('brings the generator closer to the target within 300 steps, and leaves no tensors', async () => {
    const before = memory().tensors
    const report = await verify({
      steps: 300,
      distilSteps: 300,
      batchSize: 128,
      curveEvery: 100,
      keepSamples: true,
    })
    expect(memory().tensors).toBe(before)
    expect(report.curve.map(({ step }) => step)).toEqual([100, 200, 300])
    expect(report.klToTarget).toBeLessThan(report.start.klToTarget / 2)
    expect(report.meanReward).toBeGreaterThan(report.start.meanReward)
    expect(report.samples?.length).toBe(200_000)
    // What a histogram of exact samples resolves.
    expect(report.target.klToTarget).toBeLessThan(0.02)
    expect(report.target.meanReward).toBeCloseTo(-0.613, 2)
    expect(report.reference.klToReference).toBeLessThan(0.02)
    for (const { klFromScores } of report.curve) expect(klFromScores).toBeGreaterThan(0)

    for (const svg of [
      ringChart(report.settings, report.samples as Float32Array),
      trackingChart(report),
      paretoChart([report, { ...report, settings: { ...report.settings, beta: 2 } }]),
    ]) {
      expect(svg).toMatch(/^<svg [^>]*>.*<\/svg>\n$/s)
      expect(svg).not.toContain('NaN')
    }
  })

  it('gives the same numbers for the same seed, and others for another', async () => {
    const run = (seed: number) => verify({ steps: 3, distilSteps: 20, batchSize: 64, seed })
    const [first, again, other] = [await run(0), await run(0), await run(1)]
    expect(again.klToTarget).toBe(first.klToTarget)
    expect(again.meanReward).toBe(first.meanReward)
    expect(other.klToTarget).not.toBe(first.klToTarget)
  })

  it.each([
    [{ steps: 0 }, 'ERR_RANGE', 'options.steps'],
    [{ beta: -1 }, 'ERR_RANGE', 'options.beta'],
    [{ beta: Number.NaN }, 'ERR_RANGE', 'options.beta'],
    [{ estimator: 'gradient' }, 'ERR_CONFIG', 'options.estimator'],
    [{ objective: 'dpo' }, 'ERR_CONFIG', 'options.objective'],
    [{ batch: 3 }, 'ERR_CONFIG', 'options.batch'],
    [{ seed: 0.5 }, 'ERR_RANGE', 'options.seed'],
    [{ measuredSamples: 0 }, 'ERR_RANGE', 'options.measuredSamples'],
    [{ device: 'cpu' }, 'ERR_CONFIG', 'options.device'],
  ])('refuses %j', async (options, code, path) => {
    await expect(verify(options as object)).rejects.toMatchObject({
      code,
      message: expect.stringContaining(path),
    })
  })
})

describe('score errors', () => {
  it('are those of the closed form: exact particles are consistent, plugging in overshoots at high noise', async () => {
    const errors = await scoreErrors({
      times: [0.3, 0.9],
      points: 256,
      repeats: 8,
      estimators: {
        few: { estimator: 'particles', sampler: 'posterior', particles: 16 },
        many: { estimator: 'particles', sampler: 'posterior', particles: 256 },
        tweedie: { estimator: 'tweedie' },
        exact: { estimator: 'exact' },
      },
    })
    const at = (estimator: string, t: number) =>
      errors.find((error) => error.estimator === estimator && error.t === t) as (typeof errors)[0]
    for (const t of [0.3, 0.9]) {
      expect(at('exact', t).bias).toBe(0)
      expect(at('exact', t).deviation).toBe(0)
      expect(at('tweedie', t).deviation).toBe(0)
      // Spread falls as 1/√N, and bias as 1/N.
      expect(at('many', t).deviation / at('few', t).deviation).toBeGreaterThan(0.15)
      expect(at('many', t).deviation / at('few', t).deviation).toBeLessThan(0.5)
      expect(at('many', t).bias).toBeLessThan(0.1)
    }
    expect(at('tweedie', 0.9).bias).toBeGreaterThan(0.5)
  })
})
