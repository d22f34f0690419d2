import { expect, test } from 'vitest'
import { models, rewards, type Tensor, tensor, vjp, zeros } from '../../lib/index.js'
import { expectGradients } from '../autograd/gradients.js'
import { expectRefusal, expectRejection, expectValues } from '../expectations.js'
import { generator, randomValues, type Values, values } from '../reference.js'

const reference = (x: Values, center: readonly number[], curvature: number) => {
  const size = center.length
  return values([x.shape[0] as number], (b) =>
    center.reduce(
      (sum, c, i) => sum - (curvature / 2) * ((x.data[b * size + i] as number) - c) ** 2,
      0,
    ),
  )
}

test('values and gradients, over samples of any shape', async () => {
  const draw = generator(3)
  for (const shape of [[3, 2], [2, 3, 5, 7], [1, 1], [5], [0, 4]]) {
    const size = shape.slice(1).reduce((product, n) => product * n, 1)
    const center = Array.from({ length: size }, () => Math.fround(4 * draw() - 2))
    const reward = rewards.quadratic({ center, curvature: 1.5 })
    const x = randomValues(draw, shape, 'float32')
    await expectGradients(`quadratic of [${shape}]`, {
      inputs: [x],
      op: (images) => rewards.scoreDifferentiably(reward, images as Tensor<'float32'>),
      reference: (at) => reference(at, center, 1.5),
    })
    const expected = reference(x, center, 1.5)
    await expectValues(
      `quadratic of [${shape}]`,
      await rewards.scoreNumbers(reward, tensor(x.data, { shape }) as Tensor<'float32'>),
      expected,
      { absolute: (i) => 4e-7 * Math.abs(expected.data[i] as number) },
    )
  }
})

test('bfloat16 samples are scored in float32', async () => {
  const reward = rewards.quadratic({ center: [0.1, 0.2] })
  const x = tensor([[1.5, -3]], { dtype: 'bfloat16' }) as Tensor<'bfloat16'>
  const [score] = await (await rewards.scoreNumbers(reward, x)).data()
  expect(score).toBeCloseTo(-0.5 * (1.4 ** 2 + 3.2 ** 2), 5)
})

test('tilts a mixture: its gradient is what tilting adds to the score of clean samples', async () => {
  const center = [4, 0]
  const reward = rewards.quadratic({ center, curvature: 0.7 })
  const ring = models.gaussianMixture({
    means: [
      [1, 2],
      [-1, 0.5],
    ],
    std: 0.5,
  })
  const target = ring.tilt(reward.quadratic, 2)
  const x = tensor([
    [0.3, 0.4],
    [1, 1],
    [-2, 0],
  ]) as Tensor<'float32'>
  const t = new Float32Array(3)
  const { pullback } = vjp((x) => rewards.scoreDifferentiably(reward, x as typeof x), [x])
  const [gradient] = pullback(tensor([1, 1, 1]) as Tensor<'float32', [number]>)
  const added = await target.score(x, t).sub(ring.score(x, t)).data()
  for (const [i, value] of (await gradient.data()).entries())
    expect(value / 2).toBeCloseTo(added[i] as number, 5)
  expect(rewards.quadratic({ center }).quadratic).toEqual({ center, curvature: 1 })
})

test('refusals', async () => {
  const reward = rewards.quadratic({ center: [1, 2] })
  const wide = zeros([2, 3]) as Tensor<'float32'>
  await expectRejection(
    () => rewards.scoreNumbers(reward, wide),
    'ERR_SHAPE',
    'reward "quadratic": images: expected 2 elements in a sample, as the centre has, got [2, 3]',
  )
  const bad = (options: unknown) => () => rewards.quadratic(options as rewards.QuadraticOptions)
  expectRefusal(
    bad({}),
    'ERR_CONFIG',
    /^options.center: expected an array of numbers, got undefined/,
  )
  expectRefusal(bad({ center: [] }), 'ERR_CONFIG', /^options.center/)
  expectRefusal(bad({ center: [1, Number.NaN] }), 'ERR_RANGE', /^options.center\[1\]/)
  expectRefusal(
    bad({ center: [1], curvature: -1 }),
    'ERR_RANGE',
    'options.curvature: expected a number from 0 on, got -1',
  )
  expectRefusal(bad({ centre: [1] }), 'ERR_CONFIG', /^options.centre: unknown option/)
})
