import { describe, expect, it } from 'vitest'
import { full, type Tensor, tensor, zeros } from '../../lib/index.js'
import { expectValues, tensorOf } from '../expectations.js'
import {
  elementwise,
  generator,
  integer,
  largest,
  logSumExp,
  randomValues,
  reduced,
  smallest,
  softmaxed,
  stored,
  sum,
  type Values,
  values,
} from '../reference.js'

const mean = (elements: readonly number[]) => sum(elements) / elements.length
const kinds = { sum, mean, max: largest, min: smallest, logSumExp }
type Kind = keyof typeof kinds

function run(kind: Kind, x: Tensor, axes?: number | readonly number[], keepDims?: boolean): Tensor {
  if (axes === undefined) return x[kind]()
  return keepDims === undefined ? x[kind](axes) : x[kind](axes, { keepDims })
}

/** An error of one rounding, plus that of float64 sums of what may cancel. */
function closeness(kind: Kind, x: Values, axes: readonly number[]) {
  const magnitude = reduced(x, axes, (v) => sum(v.map(Math.abs)), false)
  const ulps = kind === 'sum' || kind === 'mean' ? 1 : kind === 'logSumExp' ? 4 : 0
  // logSumExp is the largest element plus a logarithm: where those nearly cancel, their rounding is left.
  const largest = Math.max(0, ...Array.from(x.data, (v) => (Number.isFinite(v) ? Math.abs(v) : 0)))
  const absolute = (i: number) => {
    if (kind === 'sum') return 1e-7 * (magnitude.data[i] ?? 0)
    return kind === 'logSumExp' ? 2 ** -23 * largest : 0
  }
  return { ulps, absolute }
}

function subset(draw: () => number, rank: number): number[] {
  return Array.from({ length: rank }, (_, axis) => axis).filter(() => draw() < 0.5)
}

describe('reductions', () => {
  for (const [kind, reference] of Object.entries(kinds) as [Kind, (v: number[]) => number][])
    it(`${kind} over random shapes and axes`, async () => {
      const draw = generator(kind.length * 3)
      for (let round = 0; round < 60; round++) {
        const shape = Array.from({ length: integer(draw, 0, 5) }, () =>
          draw() < 0.04 ? 0 : integer(draw, 1, 7),
        )
        const axes = subset(draw, shape.length)
        for (const dtype of ['float32', 'bfloat16'] as const) {
          const x = randomValues(draw, shape, dtype)
          const keep = draw() < 0.5
          const expected = reduced(x, axes, reference, keep)
          const t = tensorOf(x, dtype)
          const asked = axes.map((axis) => (draw() < 0.3 ? axis - shape.length : axis))
          const y = run(kind, t, asked, keep)
          expect(y.dtype).toBe(dtype)
          await expectValues(
            `${kind} of ${dtype} [${shape}] over [${asked}]${keep ? ', kept' : ''}`,
            y,
            elementwise((value) => stored(dtype, value), expected),
            closeness(kind, x, axes),
          )
        }
      }
    })

  for (const [kind, reference] of Object.entries(kinds) as [Kind, (v: number[]) => number][])
    it(`${kind}: all elements, one axis, lengths around the block and vector widths`, async () => {
      const draw = generator(77)
      for (const length of [0, 1, 3, 5, 15, 16, 17, 63, 64, 65, 255, 257, 1023, 4097]) {
        const x = randomValues(draw, [length], 'float32')
        const all = x.shape.map((_, axis) => axis)
        const expected = elementwise(Math.fround, reduced(x, all, reference))
        await expectValues(
          `${kind} of ${length}`,
          run(kind, tensorOf(x, 'float32')),
          expected,
          closeness(kind, x, all),
        )
      }
      for (const shape of [
        [65, 3],
        [3, 65],
        [1, 33],
        [33, 1],
        [5, 17, 9],
        [2, 300, 3],
      ])
        for (let axis = 0; axis < shape.length; axis++) {
          const x = randomValues(draw, shape, 'float32')
          const expected = elementwise(Math.fround, reduced(x, [axis], reference))
          await expectValues(
            `${kind} of [${shape}] over ${axis}`,
            run(kind, tensorOf(x, 'float32'), axis),
            expected,
            closeness(kind, x, [axis]),
          )
        }
    })

  it('an empty axis gives the neutral element', async () => {
    const x = zeros([2, 0, 3])
    for (const [kind, neutral] of [
      ['sum', 0],
      ['mean', Number.NaN],
      ['max', -1 / 0],
      ['min', 1 / 0],
      ['logSumExp', -1 / 0],
    ] as const)
      await expectValues(
        kind,
        run(kind, x, 1),
        values([2, 3], () => neutral),
      )
    const none = zeros([0], { dtype: 'int32' })
    expect(await none.sum().item()).toBe(0)
    expect(await none.max().item()).toBe(-(2 ** 31))
    expect(await none.min().item()).toBe(2 ** 31 - 1)
  })

  it('over no axes every element is its own result, up to rank 8', async () => {
    for (const shape of [[], [3], [2, 3], [2, 1, 2, 1, 2, 1, 2, 3]]) {
      const x = randomValues(generator(9), shape, 'float32')
      await expectValues(`sum of [${shape}]`, tensorOf(x, 'float32').sum([]), x)
      await expectValues(`max of [${shape}]`, tensorOf(x, 'float32').max([], { keepDims: true }), x)
    }
  })

  it('NaN goes through', async () => {
    const x = values([3, 4], (i) => (i === 5 ? Number.NaN : i))
    const t = tensorOf(x, 'float32')
    for (const [kind, reference] of Object.entries(kinds) as [Kind, (v: number[]) => number][])
      await expectValues(
        kind,
        run(kind, t, 1),
        elementwise(Math.fround, reduced(x, [1], reference)),
        { ulps: 4 },
      )
  })

  it('logSumExp does not overflow and knows the infinities', async () => {
    const rows = [
      [1000, 1000],
      [-1000, -1001],
      [-1 / 0, -1 / 0],
      [1 / 0, 0],
      [-1 / 0, 3],
      [88, 89],
    ]
    const x = values([rows.length, 2], (i) => rows[Math.floor(i / 2)]?.[i % 2] as number)
    const expected = reduced(x, [1], logSumExp)
    await expectValues(
      'logSumExp',
      tensorOf(x, 'float32').logSumExp(1),
      elementwise(Math.fround, expected),
      { ulps: 2 },
    )
  })

  it('int32 sums wrap, max and min are exact', async () => {
    const draw = generator(19)
    for (const length of [1, 3, 17, 64, 1001]) {
      const x = values([length, 3], () => integer(draw, -(2 ** 31), 2 ** 31 - 1))
      const t = tensorOf(x, 'int32')
      for (const axes of [[0], [1], [0, 1]]) {
        await expectValues(
          'sum',
          t.sum(axes),
          reduced(x, axes, (v) => v.reduce((a, b) => (a + b) | 0, 0)),
        )
        await expectValues('max', t.max(axes), reduced(x, axes, largest))
        await expectValues('min', t.min(axes), reduced(x, axes, smallest))
      }
    }
  })

  it('a sum of 2^24 elements is within 1e-6', async () => {
    const one = full([2 ** 24], 0.1)
    const expected = 2 ** 24 * Math.fround(0.1)
    expect(Math.abs((await one.sum().item()) - expected) / expected).toBeLessThan(1e-6)
    expect(Math.abs((await one.mean().item()) - Math.fround(0.1))).toBeLessThan(1e-7)
    // A one that is far smaller than the rest of the sum must not be lost.
    const tiny = tensor([2 ** 24, ...new Array<number>(1000).fill(1)])
    expect(await tiny.sum().item()).toBe(2 ** 24 + 1000)
  })
})

describe('argMax', () => {
  const argMax = (v: readonly number[]) => {
    const nan = v.findIndex(Number.isNaN)
    return nan >= 0 ? nan : v.indexOf(largest(v))
  }

  it('the first of equals and the first NaN, along every axis', async () => {
    const draw = generator(23)
    for (const shape of [[1], [17], [64, 3], [3, 65], [2, 5, 4], [3, 1, 300]])
      for (const dtype of ['float32', 'bfloat16', 'int32'] as const)
        for (let axis = 0; axis < shape.length; axis++) {
          const x = values(shape, () => integer(draw, -4, 4))
          if (dtype !== 'int32') x.data[integer(draw, 0, x.data.length - 1)] = Number.NaN
          const y = tensorOf(x, dtype).argMax(axis)
          expect(y.dtype).toBe('int32')
          await expectValues(`argMax of [${shape}] along ${axis}`, y, reduced(x, [axis], argMax))
        }
    const x = values([2, 3], (i) => i)
    await expectValues(
      'from the back',
      tensorOf(x, 'float32').argMax(-1),
      values([2], () => 2),
    )
    await expectValues(
      'no rows',
      zeros([0, 3]).argMax(1),
      values([0], () => 0),
    )
  })
})

describe('softmax', () => {
  it('along every axis of random shapes', async () => {
    const draw = generator(29)
    for (const shape of [
      [1],
      [17],
      [3, 5],
      [64, 65],
      [2, 3, 4, 5],
      [7, 1],
      [0, 3],
      [3, 0],
      [1, 1000],
      [1000, 3],
    ])
      for (const dtype of ['float32', 'bfloat16'] as const)
        for (let axis = 0; axis < shape.length; axis++) {
          const x = randomValues(draw, shape, dtype, { most: 10 })
          await expectValues(
            `softmax of [${shape}] along ${axis}`,
            tensorOf(x, dtype).softmax(axis),
            elementwise((value) => stored(dtype, value), softmaxed(x, axis)),
            // x - max, up to 20 here, is rounded before exp: 2^-24 · 32 of the result, 16 units in the last place.
            { ulps: dtype === 'float32' ? 24 : 1 },
          )
        }
  })

  it('the last axis by default, stable for large elements, NaN where it is not defined', async () => {
    const x = values([3, 2], (i) => [1000, 1001, -1e30, -1e30, 5, -1 / 0][i] as number)
    await expectValues(
      'large',
      tensorOf(x, 'float32').softmax(),
      elementwise(Math.fround, softmaxed(x, 1)),
      { ulps: 4 },
    )
    const bad = tensor([
      [Number.NaN, 1],
      [1 / 0, 1],
      [-1 / 0, -1 / 0],
    ])
    await expectValues(
      'not defined',
      bad.softmax(),
      values([3, 2], () => Number.NaN),
    )
  })
})
