import { describe, expect, it } from 'vitest'
import {
  denoisingLoss,
  normal,
  type Prediction,
  perturb,
  schedules,
  tensor,
  tidy,
} from '../../lib/index.js'
import { levelsAt, outputFor } from './gaussians.js'

const allSchedules = {
  flow: schedules.flow({ shift: 3 }),
  vp: schedules.vp(),
  edm: schedules.edm(),
}
const predictions: Prediction[] = ['epsilon', 'x0', 'v', 'flow']
const cases = Object.keys(allSchedules).flatMap((name) =>
  predictions.flatMap((prediction) =>
    (['output', 'x0', 'epsilon'] as const).map((weighting) => ({ name, prediction, weighting })),
  ),
)

describe('denoisingLoss', () => {
  it.each(cases)(
    'agrees with float64, $name $prediction $weighting',
    async ({ name, prediction, weighting }) => {
      const schedule = allSchedules[name as keyof typeof allSchedules]
      const [batch, size] = [5, 67]
      const t = new Float32Array([0.05, 0.2, 0.5, 0.8, 0.95])
      const x0 = normal([batch, size], { seed: 1 })
      const output = normal([batch, size], { seed: 2 })
      const { loss, perSample, grad } = denoisingLoss({
        x0,
        prediction,
        output,
        t,
        schedule,
        seed: 3,
        offset: 4,
        weighting,
      })
      const noise = await normal([batch, size], { seed: 3, offset: 4 }).data()
      const [clean, out] = [await x0.data(), await output.data()]
      const [losses, gradient] = [await perSample.data(), await grad.data()]
      let mean = 0
      for (let b = 0; b < batch; b++) {
        const { alpha, sigma } = levelsAt(schedule, t[b] as number)
        let sum = 0
        const errors: number[] = []
        let scale = 1
        for (let j = 0; j < size; j++) {
          const i = b * size + j
          const [x, eps] = [clean[i] as number, noise[i] as number]
          const target = outputFor(prediction, x, alpha * x + sigma * eps, alpha, sigma)
          errors.push((out[i] as number) - target)
          // The same error in another space, measured by moving the output by one.
          const at = (o: number) => {
            const xt = alpha * x + sigma * eps
            // x̂0 from the output, by inverting outputFor (affine in x̂0).
            const [o0, o1] = [
              outputFor(prediction, 0, xt, alpha, sigma),
              outputFor(prediction, 1, xt, alpha, sigma),
            ]
            return (o - o0) / (o1 - o0)
          }
          const perUnit = at(1) - at(0)
          scale =
            weighting === 'output'
              ? 1
              : weighting === 'x0'
                ? perUnit ** 2
                : (perUnit * (alpha / sigma)) ** 2
          sum += scale * (errors[j] as number) ** 2
        }
        const expected = sum / size
        mean += expected / batch
        expect(Math.abs((losses[b] as number) - expected)).toBeLessThan(2e-5 * expected)
        for (let j = 0; j < size; j++) {
          const exact = (2 * scale * (errors[j] as number)) / (size * batch)
          const magnitude =
            (2 * scale * (Math.abs(out[b * size + j] as number) + 10)) / (size * batch)
          expect(Math.abs((gradient[b * size + j] as number) - exact)).toBeLessThan(
            1e-5 * magnitude,
          )
        }
      }
      expect(Math.abs((await loss.item()) - mean)).toBeLessThan(2e-5 * mean)
    },
  )

  it('equals the composition of plain tensor ops with the noise of perturb', async () => {
    const schedule = allSchedules.flow
    const t = new Float32Array([0.3, 0.6, 0.9])
    const x0 = normal([3, 4, 8], { seed: 1 })
    const output = normal([3, 4, 8], { seed: 2 })
    const { noise } = perturb(x0, { t, schedule, seed: 5, returnNoise: true })
    const { loss, grad } = denoisingLoss({ x0, prediction: 'flow', output, t, schedule, seed: 5 })
    const composed = tidy(() => {
      const error = output.sub(noise.sub(x0))
      return { loss: error.square().mean(), grad: error.mul(2 / (3 * 32)) }
    })
    expect(Math.abs((await loss.item()) - (await composed.loss.item()))).toBeLessThan(1e-5)
    const [a, b] = [await grad.data(), await composed.grad.data()]
    for (let i = 0; i < a.length; i++)
      expect(Math.abs((a[i] as number) - (b[i] as number))).toBeLessThan(1e-7)
  })

  it('takes a weight per time, in bfloat16 too, and names non-finite samples', async () => {
    const schedule = allSchedules.vp
    const t = new Float32Array([0.25, 0.75])
    const x0 = normal([2, 9], { seed: 1 })
    const output = normal([2, 9], { seed: 2 })
    const options = { x0, prediction: 'v', output, t, schedule, seed: 5 } as const
    const plain = await denoisingLoss(options).perSample.data()
    const weighted = await denoisingLoss({
      ...options,
      weighting: (time) => 4 * time,
    }).perSample.data()
    expect((weighted[0] as number) / (plain[0] as number)).toBeCloseTo(1, 6)
    expect((weighted[1] as number) / (plain[1] as number)).toBeCloseTo(3, 6)
    const rounded = denoisingLoss({
      ...options,
      x0: x0.cast('bfloat16'),
      output: output.cast('bfloat16'),
    })
    expect(rounded.grad.dtype).toBe('bfloat16')
    const coarse = await rounded.perSample.data()
    expect(Math.abs((coarse[0] as number) / (plain[0] as number) - 1)).toBeLessThan(2e-2)

    const bad = tensor(new Float32Array(18).fill(Number.NaN, 9, 11), { shape: [2, 9] })
    await expect(denoisingLoss({ ...options, output: bad }).loss.item()).rejects.toMatchObject({
      code: 'ERR_NONFINITE',
      message: 'denoisingLoss: sample 1 has 2 NaN or infinite values',
    })
    expect(() => denoisingLoss({ ...options, weighting: () => -1 })).toThrow(
      /weighting: expected a finite weight/,
    )
    expect(() => denoisingLoss({ ...options, prediction: 'noise' as never })).toThrow(
      /prediction: expected one of/,
    )
  })
})
