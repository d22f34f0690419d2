import { describe, expect, it } from 'vitest'
import {
  models,
  normal,
  type Prediction,
  type Schedule,
  schedules,
  type Tensor,
  tensor,
  vjp,
} from '../../lib/index.js'
import { expectRefusal } from '../expectations.js'

type Float = ReturnType<models.Generator['forward']>

const allSchedules = [
  ['flow', schedules.flow()],
  ['vp', schedules.vp()],
  ['edm', schedules.edm()],
] as const satisfies readonly (readonly [string, Schedule])[]
const predictions: readonly Prediction[] = ['epsilon', 'x0', 'v', 'flow']

const network = (prediction: Prediction = 'x0', options: Partial<models.MlpOptions> = {}) =>
  models.mlp({ size: 6, hidden: [12], timeFeatures: 8, prediction, seed: 3, ...options })

/** x̂0 at x_t in plain operations. */
function denoised(
  model: models.Mlp,
  xt: Float,
  time: number,
  schedule: Schedule,
  condition?: Tensor,
) {
  const [alpha, sigma] = [schedule.alpha(time), schedule.sigma(time)]
  const o = model.forward(xt, new Float32Array(xt.shape[0] as number).fill(time), condition)
  switch (model.prediction) {
    case 'x0':
      return o
    case 'epsilon':
      return xt.sub(o.mul(sigma)).div(alpha)
    case 'v':
      return xt
        .mul(alpha)
        .sub(o.mul(sigma))
        .div(alpha ** 2 + sigma ** 2)
    case 'flow':
      return xt.sub(o.mul(sigma)).div(alpha + sigma)
  }
}

async function expectSame(got: Tensor, expected: Tensor, tolerance = 2e-5) {
  expect(got.shape).toEqual(expected.shape)
  const [a, b] = [await got.data(), await expected.data()]
  for (const [i, value] of b.entries())
    expect(Math.abs((a[i] as number) - value), `element ${i}`).toBeLessThan(
      tolerance * Math.max(1, Math.abs(value)),
    )
}

describe('oneStep', () => {
  it.each(allSchedules)('is the denoiser at tInit: %s', async (_, schedule) => {
    for (const prediction of predictions)
      for (const tInit of [0.4, 0.9]) {
        const model = network(prediction)
        const generator = models.oneStep(model, { schedule, sampleShape: [2, 3], tInit })
        expect(generator.inputShape(5)).toEqual([5, 2, 3])
        const z = normal([5, 2, 3], { seed: 1 }) as Float
        const scale = Math.hypot(schedule.alpha(tInit), schedule.sigma(tInit))
        const expected = denoised(model, z.mul(scale) as Float, tInit, schedule)
        await expectSame(generator.forward(z), expected as Tensor)
      }
  })

  it('asks at t = 1 by default, where a flow has nothing but noise', async () => {
    const model = network('flow')
    const schedule = schedules.flow({ shift: 3 })
    const generator = models.oneStep(model, { schedule, sampleShape: [6] })
    const z = normal([4, 6], { seed: 2 }) as Float
    await expectSame(
      generator.forward(z),
      z.sub(model.forward(z, new Float32Array(4).fill(1))) as Tensor,
    )
  })

  it('scales its noise as asked', async () => {
    const model = network()
    const schedule = schedules.edm()
    const generator = models.oneStep(model, { schedule, sampleShape: [6], inputScale: 2.5 })
    const z = normal([4, 6], { seed: 2 }) as Float
    await expectSame(
      generator.forward(z),
      denoised(model, z.mul(2.5) as Float, 1, schedule) as Tensor,
    )
  })

  it('hands the condition on, and takes no samples as well as one', async () => {
    const model = network('x0', { conditionSize: 2 })
    const schedule = schedules.flow()
    const generator = models.oneStep(model, { schedule, sampleShape: [6], tInit: 0.5 })
    for (const batch of [0, 1, 3]) {
      const condition = normal([batch, 2], { seed: 4 }) as Tensor
      const z = normal([batch, 6], { seed: 2 }) as Float
      const scale = Math.hypot(0.5, 0.5)
      await expectSame(
        generator.forward(z, condition),
        denoised(model, z.mul(scale) as Float, 0.5, schedule, condition) as Tensor,
      )
    }
  })

  it('trains the parameters of its model', async () => {
    const model = network('v')
    const generator = models.oneStep(model, { schedule: schedules.vp(), sampleShape: [6] })
    expect(generator.parameters()).toEqual(model.parameters())
    const z = normal([4, 6], { seed: 2 }) as Float
    const { value, pullback } = vjp((x: Float) => generator.forward(x), [z])
    const [gradient] = pullback(value.mul(0).add(1) as typeof value)
    expect(gradient.shape).toEqual([4, 6])
    for (const { grad, name } of model.parameters())
      expect(await (grad as Tensor).abs().sum().item(), name).toBeGreaterThan(0)
    model.zeroGrad()
  })

  it('keeps the dtype of the noise', () => {
    const generator = models.oneStep(network('v', { dtype: 'bfloat16' }), {
      schedule: schedules.flow(),
      sampleShape: [6],
      tInit: 0.7,
    })
    const z = normal([4, 6], { seed: 2, dtype: 'bfloat16' }) as Float
    expect(generator.forward(z).dtype).toBe('bfloat16')
  })
})

describe('fewStep', () => {
  it.each(allSchedules)('is denoising and noising in turn: %s', async (_, schedule) => {
    for (const prediction of predictions) {
      const model = network(prediction)
      const times = [0.9, 0.5, 0.25]
      const generator = models.fewStep(model, { schedule, sampleShape: [6], times })
      expect(generator.inputShape(4)).toEqual([4, 3, 6])
      const z = normal([4, 3, 6], { seed: 1 }) as Float
      const noise = (i: number) => z.slice([0, i, 0], [4, 1, 6]).reshape([4, 6]) as Float
      const scale = Math.hypot(schedule.alpha(0.9), schedule.sigma(0.9))
      let expected = denoised(model, noise(0).mul(scale) as Float, 0.9, schedule)
      for (const [i, time] of [0.5, 0.25].entries()) {
        const xt = expected.mul(schedule.alpha(time)).add(noise(i + 1).mul(schedule.sigma(time)))
        expected = denoised(model, xt as Float, time, schedule)
      }
      await expectSame(generator.forward(z), expected as Tensor, 1e-4)
    }
  })

  it('of one time is oneStep with an axis more', async () => {
    const model = network('v')
    const schedule = schedules.flow()
    const one = models.oneStep(model, { schedule, sampleShape: [3, 2], tInit: 0.8 })
    const few = models.fewStep(model, { schedule, sampleShape: [3, 2], times: [0.8] })
    const z = normal([5, 3, 2], { seed: 1 }) as Float
    await expectSame(few.forward(z.reshape([5, 1, 3, 2]) as Float), one.forward(z), 0.0000001)
  })

  it('asks at its times, with the condition each time', () => {
    const asked: [number[], unknown][] = []
    const model: models.ScoreModel = {
      prediction: 'x0',
      parameters: () => [],
      forward(x, t, condition) {
        asked.push([[...t], condition])
        return x.mul(1) as Float
      },
    }
    const generator = models.fewStep(model, {
      schedule: schedules.flow(),
      sampleShape: [1],
      times: [1, 0.5, 0],
    })
    const condition = tensor([[1], [2]]) as Tensor
    generator.forward(normal([2, 3, 1], { seed: 1 }) as Float, condition)
    expect(asked).toEqual([1, 0.5, 0].map((t) => [[t, t], condition]))
  })

  it('is differentiable through all its steps', async () => {
    const generator = models.fewStep(network('flow'), {
      schedule: schedules.flow(),
      sampleShape: [6],
      times: [1, 0.6],
    })
    const z = normal([2, 2, 6], { seed: 1 }) as Float
    const weights = normal([2, 6], { seed: 2 }) as Float
    const { value, pullback } = vjp((x: Float) => generator.forward(x), [z])
    const got = await pullback(weights as typeof value)[0].data()
    const start = await z.data()
    const loss = async (i: number, step: number) => {
      const moved = start.slice()
      moved[i] = (moved[i] as number) + step
      const x = tensor(Float32Array.from(moved), { shape: [2, 2, 6] }) as Float
      return generator.forward(x).mul(weights).sum().item()
    }
    for (let i = 0; i < start.length; i++) {
      const expected = ((await loss(i, 1e-2)) - (await loss(i, -1e-2))) / 2e-2
      expect(Math.abs((got[i] as number) - expected), `element ${i}`).toBeLessThan(2e-3)
    }
  })
})

describe('what generators refuse', () => {
  const schedule = schedules.flow()
  const model = network()
  const one = (change: object) => () =>
    models.oneStep(model, { schedule, sampleShape: [6], ...change })
  const few = (change: object) => () =>
    models.fewStep(model, { schedule, sampleShape: [6], times: [1, 0.5], ...change })

  it.each([
    ['an unknown option', one({ t: 1 }), 'ERR_CONFIG', /options\.t: unknown option/],
    ['times for oneStep', one({ times: [1] }), 'ERR_CONFIG', /options\.times: unknown option/],
    [
      'a time above 1',
      one({ tInit: 1.1 }),
      'ERR_RANGE',
      /options\.tInit: expected a time from 0 to 1/,
    ],
    ['a time that is none', one({ tInit: '1' }), 'ERR_CONFIG', /options\.tInit: expected a number/],
    ['NaN', one({ tInit: Number.NaN }), 'ERR_RANGE', /options\.tInit: expected a finite number/],
    [
      'no schedule',
      one({ schedule: 'flow' }),
      'ERR_CONFIG',
      /options\.schedule: expected a schedule/,
    ],
    [
      'a shape that is none',
      one({ sampleShape: 6 }),
      'ERR_CONFIG',
      /options\.sampleShape: expected an array/,
    ],
    [
      'empty samples',
      one({ sampleShape: [0] }),
      'ERR_RANGE',
      /options\.sampleShape\[0\]: expected an integer/,
    ],
    [
      'a scale that is none',
      one({ inputScale: null }),
      'ERR_CONFIG',
      /options\.inputScale: expected a number/,
    ],
    ['no times', few({ times: [] }), 'ERR_CONFIG', /options\.times: expected an array of times/],
    [
      'one number for times',
      few({ times: 1 }),
      'ERR_CONFIG',
      /options\.times: expected an array of times/,
    ],
    [
      'rising times',
      few({ times: [0.5, 1] }),
      'ERR_RANGE',
      /options\.times: expected falling times/,
    ],
    [
      'equal times',
      few({ times: [0.5, 0.5] }),
      'ERR_RANGE',
      /options\.times: expected falling times/,
    ],
    [
      'a time below 0',
      few({ times: [0.5, -0.5] }),
      'ERR_RANGE',
      /options\.times\[1\]: expected a time/,
    ],
    [
      'epsilon where there is no signal',
      () => models.oneStep(network('epsilon'), { schedule, sampleShape: [6] }),
      'ERR_RANGE',
      /the epsilon prediction has no denoiser at 1, where alpha is 0/,
    ],
    [
      'a model that is none',
      () => models.oneStep({} as models.ScoreModel, { schedule, sampleShape: [6] }),
      'ERR_CONFIG',
      /model: expected a score model/,
    ],
  ] as const)('%s', (_, call, code, message) => {
    // A network of its own is made in some of the calls.
    expect(call).toThrow(message)
    expect(call).toThrow(expect.objectContaining({ code }))
  })

  it('noise of another shape', () => {
    const z = normal([4, 5], { seed: 1 }) as Float
    const deep = normal([4, 2, 7], { seed: 1 }) as Float
    const [oneStep, fewStep] = [one({})(), few({})()]
    expectRefusal(
      () => oneStep.forward(z),
      'ERR_SHAPE',
      'z: expected [batch, 6], got [4, 5]; inputShape(batch) has the shape',
    )
    expectRefusal(
      () => fewStep.forward(deep),
      'ERR_SHAPE',
      'z: expected [batch, 2, 6], got [4, 2, 7]; inputShape(batch) has the shape',
    )
  })
})
