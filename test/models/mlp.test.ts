import { describe, expect, test } from 'vitest'
import { memory, models, type Tensor, tensor, tidy, valueAndGrad } from '../../lib/index.js'
import { expectRefusal } from '../expectations.js'
import { linear } from '../nn/reference.js'
import { elementwise, unaryFunctions, type Values } from '../reference.js'
import { settled } from '../settled.js'

const place = (shape: number[], at: (i: number) => number) =>
  tensor(
    Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => at(i)),
    {
      shape,
    },
  ) as Tensor<'float32'>

describe('mlp', () => {
  test('is a chain of linear layers', async () => {
    const model = models.mlp({ size: 3, hidden: [5, 4], time: 'none', activation: 'tanh', seed: 3 })
    const x = place([2, 3], Math.sin)
    const y = model.forward(x)
    const valuesOf = async (t: Tensor): Promise<Values> => ({
      shape: t.shape,
      data: Float64Array.from(await t.data()),
    })
    let expected = await valuesOf(x)
    for (const [i, layer] of model.layers.entries()) {
      expected = linear(
        expected,
        await valuesOf(layer.weight.value as Tensor),
        await valuesOf(layer.bias?.value as Tensor),
      )
      if (i < 2) expected = elementwise(unaryFunctions.tanh, expected)
    }
    const got = await y.data()
    for (const [i, e] of expected.data.entries())
      expect(Math.abs((got[i] as number) - e)).toBeLessThan(1e-6)
  })

  test('names, shapes and seeds', async () => {
    const model = models.mlp({ size: 2, hidden: [8], timeFeatures: 6, conditionSize: 3, seed: 1 })
    expect(model.parameters().map(({ name, shape }) => [name, shape])).toEqual([
      ['layers.0.weight', [8, 11]],
      ['layers.0.bias', [8]],
      ['layers.1.weight', [2, 8]],
      ['layers.1.bias', [2]],
    ])
    const weights = async (seed: number) =>
      models.mlp({ size: 2, hidden: [8], seed }).layers[0]?.weight.value.data()
    expect(await weights(1)).toEqual(await weights(1))
    expect(await weights(1)).not.toEqual(await weights(2))
  })

  test('takes time and condition, and keeps the shape', async () => {
    for (const time of ['plain', 'sinusoidal'] as const) {
      const model = models.mlp({ size: 4, hidden: [8], time, conditionSize: 2, seed: 1 })
      const x = place([3, 1, 2, 2], Math.cos)
      const c = place([3, 2], (i) => i)
      const y = model.forward(x, Float32Array.of(0.1, 0.5, 0.9), c)
      expect(y.shape).toEqual([3, 1, 2, 2])
      const later = model.forward(x, Float32Array.of(0.1, 0.6, 0.9), c)
      const [a, b] = [await y.data(), await later.data()]
      expect([...a.slice(0, 4)]).toEqual([...b.slice(0, 4)])
      expect([...a.slice(4, 8)]).not.toEqual([...b.slice(4, 8)])
    }
  })

  test('refusals', () => {
    const model = models.mlp({ size: 2, hidden: [4], conditionSize: 1 })
    const [x, wide, c] = [place([1, 2], Math.sin), place([1, 3], Math.sin), place([1, 2], Math.sin)]
    const t = Float32Array.of(0.5)
    expectRefusal(
      () => model.forward(wide, t),
      'ERR_SHAPE',
      'xt: expected [batch, ...] with 2 elements in a sample, got [1, 3]',
    )
    expectRefusal(() => model.forward(x), 'ERR_CONFIG', /^t: expected a Float32Array/)
    expectRefusal(
      () => tidy(() => model.forward(x, t)),
      'ERR_CONFIG',
      /^condition: expected a tensor/,
    )
    expectRefusal(
      () => tidy(() => model.forward(x, t, c)),
      'ERR_SHAPE',
      'condition: expected [1, 1], got [1, 2]',
    )
    expectRefusal(
      () => models.mlp({ size: 2, hiden: [3] } as never),
      'ERR_CONFIG',
      /^options.hiden: unknown option/,
    )
    expectRefusal(
      () => models.mlp({ size: 2, timeFeatures: 3 }),
      'ERR_RANGE',
      'options.timeFeatures: expected an even number, got 3',
    )
  })
})

test('2,000 training steps leave live bytes where they were, and resident memory flat', async () => {
  const model = models.mlp({ size: 8, hidden: [32, 32], time: 'sinusoidal', seed: 1 })
  const parameters = model.parameters()
  const x = place([64, 8], Math.sin)
  const target = place([64, 8], Math.cos)
  const t = Float32Array.from({ length: 64 }, (_, i) => i / 64)
  const losses: Tensor[] = []
  await settled()
  const step = () => {
    const { value } = valueAndGrad(() =>
      model
        .forward(x, t)
        .sub(target as never)
        .square()
        .mean(),
    )
    tidy(() => {
      for (const { value: w, grad } of parameters)
        w.copyFrom(w.addScaled(grad as never, -0.05) as never)
    })
    for (const parameter of parameters) parameter.zeroGrad()
    return value
  }
  losses.push(step())
  const { tensors, bytes } = memory()
  const early: number[] = []
  const late: number[] = []
  for (let i = 0; i < 2000; i++) {
    const loss = step()
    if (i === 1999) losses.push(loss)
    else loss.dispose()
    if (i < 1999) expect([memory().tensors, memory().bytes]).toEqual([tensors, bytes])
    if (i % 50 === 49) {
      await x.device.synchronize()
      if (i >= 500) (i < 1000 ? early : late).push(process.memoryUsage.rss())
    }
  }
  const [first, last] = [await losses[0]?.item(), await losses[1]?.item()]
  expect(last).toBeLessThan((first as number) / 4)
  const lowest = (list: number[]) => Math.min(...list)
  expect(lowest(late) - lowest(early)).toBeLessThan(8 * 2 ** 20)
  model.dispose()
})
