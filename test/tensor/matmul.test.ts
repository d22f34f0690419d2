import { describe, it } from 'vitest'
import { type Activation, type MatmulOptions, type Tensor, zeros } from '../../lib/index.js'
import { expectValues, tensorOf } from '../expectations.js'
import {
  elementwise,
  generator,
  integer,
  product,
  randomValues,
  stored,
  unaryFunctions,
  type Values,
  values,
} from '../reference.js'

const absolute = (x: Values): Values => ({ shape: x.shape, data: x.data.map(Math.abs) })

interface Case {
  a: number[]
  b: number[]
  transA?: boolean
  transB?: boolean
  bias?: boolean
  activation?: Activation
  dtype?: 'float32' | 'bfloat16'
}

/** k roundings of partial sums, each at most half a unit of the sum of magnitudes. */
async function check(
  draw: () => number,
  { a, b, transA = false, transB = false, bias, activation, dtype = 'float32' }: Case,
) {
  const [x, y] = [
    randomValues(draw, a, dtype, { most: 1 }),
    randomValues(draw, b, dtype, { most: 1 }),
  ]
  let expected = product(x, y, transA, transB)
  const magnitude = product(absolute(x), absolute(y), transA, transB)
  const options: MatmulOptions<typeof dtype> = {}
  if (transA) options.transA = true
  if (transB) options.transB = true
  if (bias) {
    const n = expected.shape.at(-1) as number
    const row = randomValues(draw, [n], dtype, { most: 1 })
    options.bias = tensorOf(row, dtype) as Tensor<typeof dtype>
    expected = elementwise((p, q) => p + q, expected, row)
  }
  if (activation !== undefined) {
    options.activation = activation
    if (activation !== 'none') expected = elementwise(unaryFunctions[activation], expected)
  }
  const k = x.shape.at(transA ? -2 : -1) as number
  const got = tensorOf(x, dtype).matmul(tensorOf(y, dtype), options)
  await expectValues(
    `${JSON.stringify({ a, b, transA, transB, bias, activation, dtype })}`,
    got,
    elementwise((value) => stored(dtype, value), expected),
    {
      ulps: dtype === 'float32' ? 8 : 1,
      absolute: (i) => (k + 4) * 2 ** -24 * (magnitude.data[i] ?? 0) * 1.2 + 2 ** -23,
    },
  )
  got.dispose()
}

describe('matmul', () => {
  it('sizes around the tile edges', async () => {
    const draw = generator(1)
    for (const m of [1, 3, 17, 64, 65])
      for (const k of [1, 5, 63, 130])
        for (const n of [1, 7, 16, 65]) await check(draw, { a: [m, k], b: [k, n] })
  })

  it('every transposition, with and without bias, every activation', async () => {
    const draw = generator(2)
    const activations = ['none', 'relu', 'gelu', 'geluTanh', 'silu', 'tanh', 'sigmoid'] as const
    for (const dtype of ['float32', 'bfloat16'] as const)
      for (const transA of [false, true])
        for (const transB of [false, true])
          for (const bias of [false, true])
            for (const activation of activations)
              await check(draw, {
                a: transA ? [9, 13] : [13, 9],
                b: transB ? [21, 9] : [9, 21],
                transA,
                transB,
                bias,
                activation,
                dtype,
              })
  })

  it('batches: in both, in one, transposed, of several axes', async () => {
    const draw = generator(3)
    for (const dtype of ['float32', 'bfloat16'] as const) {
      await check(draw, { a: [3, 5, 7], b: [3, 7, 4], dtype })
      await check(draw, { a: [3, 5, 7], b: [7, 4], dtype, bias: true, activation: 'gelu' })
      await check(draw, { a: [5, 7], b: [3, 7, 4], dtype, bias: true })
      await check(draw, { a: [2, 3, 7, 5], b: [2, 3, 7, 4], transA: true, dtype })
      await check(draw, { a: [2, 3, 7, 5], b: [7, 4], transA: true, dtype })
      await check(draw, { a: [2, 3, 5, 7], b: [2, 3, 4, 7], transB: true, dtype })
      await check(draw, { a: [5, 7], b: [2, 3, 4, 7], transB: true, dtype, bias: true })
      await check(draw, { a: [33, 1, 16], b: [33, 16, 1], dtype })
    }
  })

  it('random shapes', async () => {
    const draw = generator(4)
    for (let round = 0; round < 60; round++) {
      const [m, k, n] = [integer(draw, 1, 40), integer(draw, 1, 40), integer(draw, 1, 40)]
      const [transA, transB] = [draw() < 0.5, draw() < 0.5]
      const batch = draw() < 0.5 ? [] : [integer(draw, 1, 4)]
      const dtype = draw() < 0.5 ? 'float32' : 'bfloat16'
      await check(draw, {
        a: [...batch, ...(transA ? [k, m] : [m, k])],
        b: [...(draw() < 0.5 ? batch : []), ...(transB ? [n, k] : [k, n])],
        transA,
        transB,
        bias: draw() < 0.5,
        activation: draw() < 0.5 ? 'silu' : 'none',
        dtype,
      })
    }
  })

  it('larger than the caches, and a tall thin one', async () => {
    const draw = generator(5)
    await check(draw, { a: [300, 517], b: [517, 260], bias: true, activation: 'relu' })
    await check(draw, { a: [5000, 3], b: [3, 2] })
    await check(draw, { a: [2, 5000], b: [5000, 3] })
    await check(draw, { a: [130, 257], b: [257, 140], dtype: 'bfloat16' })
  })

  it('empty operands: nothing to sum leaves the bias, no rows or columns leave nothing', async () => {
    const bias = values([3], (i) => i - 1)
    await expectValues(
      'k = 0',
      zeros([2, 0]).matmul(zeros([0, 3])),
      values([2, 3], () => 0),
    )
    await expectValues(
      'k = 0 with a bias',
      zeros([2, 0]).matmul(zeros([0, 3]), { bias: tensorOf(bias, 'float32'), activation: 'relu' }),
      values([2, 3], (i) => Math.max(0, (i % 3) - 1)),
    )
    await expectValues(
      'm = 0',
      zeros([0, 4]).matmul(zeros([4, 3])),
      values([0, 3], () => 0),
    )
    await expectValues(
      'n = 0',
      zeros([2, 4]).matmul(zeros([4, 0])),
      values([2, 0], () => 0),
    )
    await expectValues(
      'no batches',
      zeros([0, 2, 4]).matmul(zeros([0, 4, 3])),
      values([0, 2, 3], () => 0),
    )
  })

  it('NaN and infinity reach exactly their row or column', async () => {
    const a = values([3, 4], (i) => (i === 5 ? Number.NaN : 1))
    const b = values([4, 3], (i) => (i === 2 ? 1 / 0 : 1))
    await expectValues(
      'product',
      tensorOf(a, 'float32').matmul(tensorOf(b, 'float32')),
      product(a, b),
    )
  })

  it('one tensor as both operands', async () => {
    const x = randomValues(generator(6), [17, 17], 'float32', { most: 1 })
    const t = tensorOf(x, 'float32')
    await expectValues('x x', t.matmul(t), elementwise(Math.fround, product(x, x)), {
      ulps: 4,
      absolute: 1e-5,
    })
    await expectValues(
      'x xᵀ',
      t.matmul(t, { transB: true }),
      elementwise(Math.fround, product(x, x, false, true)),
      {
        ulps: 4,
        absolute: 1e-5,
      },
    )
  })
})
