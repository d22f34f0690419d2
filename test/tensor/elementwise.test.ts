import { describe, expect, it } from 'vitest'
import { type DType, type Tensor, tidy, where } from '../../lib/index.js'
import { expectValues, tensorOf } from '../expectations.js'
import {
  binaryFunctions,
  elementwise,
  generator,
  integer,
  integerFunctions,
  randomValues,
  stored,
  unaryFunctions,
  type Values,
  values,
} from '../reference.js'

const lengths = [0, 1, 3, 5, 17, 63, 64, 65, 1027]
const floats = ['float32', 'bfloat16'] as const

/** Units of the last place that float32 results may be off; bfloat16 ones are these, rounded. */
const unaryUlps: Record<string, number> = {
  rsqrt: 2,
  exp: 2,
  log: 2,
  sin: 1,
  cos: 1,
  tanh: 3,
  sigmoid: 3,
  silu: 4,
  gelu: 6,
  // The rounding of its tanh's argument u is magnified 2|u| times in the left tail.
  geluTanh: 100,
}

/** One rounding to bfloat16 may go the other way for a float32 value that is off by a bit. */
const bfloat16Ulps = 1

type Method = (x: Tensor) => Tensor
const apply = (name: string): Method => {
  if (name === 'geluTanh') return (x) => x.gelu('tanh')
  return (x) => (x as unknown as Record<string, () => Tensor>)[name]?.call(x) as Tensor
}
const combine = (name: string, a: Tensor, b: Tensor | number): Tensor =>
  (a as unknown as Record<string, (b: Tensor | number) => Tensor>)[name]?.call(a, b) as Tensor

/** The reference's result as the dtype stores it. */
function rounded(x: Values, dtype: DType): Values {
  return { shape: x.shape, data: x.data.map((value) => stored(dtype, value)) }
}

const answers = new Set([
  'isFinite',
  'logicalNot',
  'equal',
  'notEqual',
  'less',
  'lessEqual',
  'greater',
  'greaterEqual',
])

describe('addScaled', () => {
  for (const dtype of floats)
    it(`is a + scale · b, rounded once, ${dtype}`, async () => {
      const draw = generator(41)
      for (const length of lengths)
        for (const scale of [0, -1.5, 3.25]) {
          const [a, b] = [randomValues(draw, [length], dtype), randomValues(draw, [length], dtype)]
          await expectValues(
            `addScaled of ${length} by ${scale}`,
            tensorOf(a, dtype).addScaled(tensorOf(b, dtype), scale),
            values([length], (i) =>
              stored(dtype, (a.data[i] as number) + scale * (b.data[i] as number)),
            ),
            // bfloat16 goes through float32, so it may be rounded twice.
            { ulps: dtype === 'float32' ? 0 : 1 },
          )
        }
      const x = tensorOf(randomValues(draw, [3], dtype), dtype)
      expect(() => x.addScaled(x.reshape([1, 3]), 2)).toThrow('b: expected shape [3], got [1, 3]')
      expect(() => x.addScaled(x, '2' as never)).toThrow('scale: expected a number')
    })
})

describe('unary', () => {
  for (const [name, reference] of Object.entries(unaryFunctions))
    it(name, async () => {
      const draw = generator(name.length)
      const positive = ['sqrt', 'rsqrt', 'log', 'reciprocal'].includes(name)
      for (const dtype of floats)
        for (const length of lengths) {
          const x = randomValues(draw, [length], dtype, { positive, most: 8 })
          const y = apply(name)(tensorOf(x, dtype))
          expect(y.dtype).toBe(answers.has(name) ? 'uint8' : dtype)
          await expectValues(
            `${name} of ${dtype}[${length}]`,
            y,
            rounded(elementwise(reference, x), y.dtype),
            {
              ulps: name in unaryUlps ? (dtype === 'float32' ? unaryUlps[name] : bfloat16Ulps) : 0,
            },
          )
        }
    })

  it('special values: infinities, NaN, zeros, the largest and the smallest numbers', async () => {
    const special = [
      0,
      -0,
      1,
      -1,
      1 / 0,
      -1 / 0,
      Number.NaN,
      3.4028234663852886e38,
      -3.4028234663852886e38,
      1.1754943508222875e-38,
      1.401298464324817e-45,
      -1.401298464324817e-45,
      88,
      -88,
      104,
      -104,
      1e4,
      -1e4,
      2 ** 23 + 1,
      0.5,
      -0.5,
      1.5,
    ]
    const x = values([special.length], (i) => special[i] as number)
    for (const [name, reference] of Object.entries(unaryFunctions)) {
      const expected = elementwise((value) => {
        const result = reference(value)
        // The limits, where the formula itself gives infinity times 0.
        if (Number.isNaN(result) && value === Number.NEGATIVE_INFINITY && /silu|gelu/.test(name))
          return -0
        return result
      }, x)
      const y = apply(name)(tensorOf(x, 'float32'))
      // In float32, x³ of gelu's tanh form overflows for the largest numbers; the result stays x or 0.
      await expectValues(name, y, rounded(expected, y.dtype), {
        ulps: unaryUlps[name] ?? 0,
        absolute: /silu|gelu/.test(name) ? 1e-37 : 0,
      })
    }
    // Zeros keep their sign where the function is odd.
    for (const name of ['neg', 'sign', 'sqrt', 'floor', 'tanh', 'sin']) {
      const zeros = await apply(name)(
        tensorOf(
          values([2], (i) => (i === 0 ? 0 : -0)),
          'float32',
        ),
      ).data()
      expect(
        [...zeros].map((zero) => Object.is(zero, -0)),
        name,
      ).toEqual(name === 'neg' ? [true, false] : [false, true])
    }
  })

  it('int32 and uint8', async () => {
    const extremes = [0, 1, -1, 7, 2 ** 31 - 1, -(2 ** 31), 46341, -46341, 65536]
    for (const length of [0, 1, 5, 33]) {
      const x = values([length], (i) => extremes[i % extremes.length] as number)
      const t = tensorOf(x, 'int32')
      for (const name of ['neg', 'abs', 'sign', 'square'] as const)
        await expectValues(
          `${name} of int32`,
          apply(name)(t),
          elementwise(integerFunctions[name], x),
        )
      await expectValues('logicalNot', t.logicalNot(), elementwise(unaryFunctions.logicalNot, x))
      await expectValues(
        'clip',
        t.clip(-5, 100),
        elementwise((value) => Math.min(100, Math.max(-5, value)), x),
      )
      const bytes = values([length], (i) => (i * 97) % 256)
      await expectValues(
        'logicalNot of uint8',
        tensorOf(bytes, 'uint8').logicalNot(),
        elementwise(unaryFunctions.logicalNot, bytes),
      )
    }
  })

  it('clip keeps NaN, takes infinite bounds and exact int32 bounds', async () => {
    const x = values([6], (i) => [-3, -0.5, 0.25, 9, Number.NaN, 1 / 0][i] as number)
    const t = tensorOf(x, 'float32')
    const clipped = (low: number, high: number) =>
      elementwise(
        (value) => (Number.isNaN(value) ? value : Math.min(high, Math.max(low, value))),
        x,
      )
    await expectValues('clip', t.clip(-1, 1), clipped(-1, 1))
    await expectValues('open below', t.clip(-1 / 0, 1), clipped(-1 / 0, 1))
    await expectValues('open above', t.clip(0, 1 / 0), clipped(0, 1 / 0))
    await expectValues('a point', t.clip(2, 2), clipped(2, 2))
    const large = values([3], (i) => 2 ** 24 + i)
    await expectValues(
      'int32 bounds past 2^24',
      tensorOf(large, 'int32').clip(0, 2 ** 24 + 1),
      elementwise((value) => Math.min(value, 2 ** 24 + 1), large),
    )
  })

  it('a tensor of a million elements, over several blocks and threads', async () => {
    const x = values([1_000_003], (i) => Math.fround(((i % 2001) - 1000) / 250))
    await expectValues(
      'exp',
      tensorOf(x, 'float32').exp(),
      rounded(elementwise(Math.exp, x), 'float32'),
      { ulps: 2 },
    )
  })
})

describe('binary', () => {
  /** Shapes of rank 0 to 5 that broadcast with each other, zero sizes included. */
  function shapes(draw: () => number): [number[], number[]] {
    const rank = integer(draw, 0, 5)
    const full = Array.from({ length: rank }, () =>
      draw() < 0.05 ? 0 : integer(draw, 1, rank > 3 ? 4 : 9),
    )
    const part = () =>
      full.slice(integer(draw, 0, draw() < 0.5 ? 0 : rank)).map((size) => (draw() < 0.3 ? 1 : size))
    return [part(), part()]
  }

  for (const [name, reference] of Object.entries(binaryFunctions))
    it(`${name} on broadcast shapes`, async () => {
      const draw = generator(100 + name.length)
      for (let round = 0; round < 40; round++) {
        const [shapeA, shapeB] = shapes(draw)
        for (const dtype of floats) {
          const a = randomValues(draw, shapeA, dtype, { positive: name === 'pow' })
          const b = randomValues(draw, shapeB, dtype)
          // Some equal elements, or the comparisons would never see any.
          for (let i = 0; i < b.data.length; i += 3)
            b.data[i] = a.data[i % (a.data.length || 1)] ?? 0
          const [ta, tb] = [tensorOf(a, dtype), tensorOf(b, dtype)]
          const y = combine(name, ta, tb)
          expect(y.dtype).toBe(answers.has(name) ? 'uint8' : dtype)
          await expectValues(
            `${name} of ${dtype} [${shapeA}] and [${shapeB}]`,
            y,
            rounded(elementwise(reference, a, b), y.dtype),
            { ulps: name === 'pow' ? 1 : 0 },
          )
          for (const t of [ta, tb, y]) t.dispose()
        }
      }
    })

  for (const length of lengths)
    it(`every kind on ${length} elements, and beside a number`, async () => {
      const draw = generator(length + 7)
      for (const [name, reference] of Object.entries(binaryFunctions)) {
        const a = randomValues(draw, [length], 'float32', { positive: name === 'pow' })
        const b = randomValues(draw, [length], 'float32')
        const ulps = name === 'pow' ? 1 : 0
        const ta = tensorOf(a, 'float32')
        const y = combine(name, ta, tensorOf(b, 'float32'))
        await expectValues(name, y, rounded(elementwise(reference, a, b), y.dtype), { ulps })
        const scalar = values([], () => Math.fround(1.7))
        const z = combine(name, ta, 1.7)
        await expectValues(name, z, rounded(elementwise(reference, a, scalar), z.dtype), { ulps })
      }
    })

  it('special values in every pair', async () => {
    const special = [
      0,
      -0,
      1,
      -1,
      2,
      3,
      0.5,
      -2.5,
      1 / 0,
      -1 / 0,
      Number.NaN,
      1e38,
      -1e38,
      1e-45,
      1e-38,
    ]
    const n = special.length
    const a = values([n, n], (i) => special[Math.floor(i / n)] as number)
    const b = values([n, n], (i) => special[i % n] as number)
    const [ta, tb] = [tensorOf(a, 'float32'), tensorOf(b, 'float32')]
    a.data.forEach((value, i) => {
      a.data[i] = Math.fround(value)
    })
    b.data.forEach((value, i) => {
      b.data[i] = Math.fround(value)
    })
    for (const [name, reference] of Object.entries(binaryFunctions)) {
      const y = combine(name, ta, tb)
      await expectValues(name, y, rounded(elementwise(reference, a, b), y.dtype), {
        ulps: name === 'pow' ? 1 : 0,
      })
    }
  })

  it('int32 wraps, divides towards zero and by zero to zero', async () => {
    const extremes = [0, 1, -1, 2, -7, 100, 2 ** 31 - 1, -(2 ** 31), 65536, -46341]
    const n = extremes.length
    const a = values([n, 1], (i) => extremes[i] as number)
    const b = values([n], (i) => extremes[i] as number)
    const [ta, tb] = [tensorOf(a, 'int32'), tensorOf(b, 'int32')]
    for (const name of ['add', 'sub', 'mul', 'div'] as const)
      await expectValues(name, combine(name, ta, tb), elementwise(integerFunctions[name], a, b))
    for (const name of ['maximum', 'minimum', 'equal', 'less', 'greaterEqual'] as const)
      await expectValues(name, combine(name, ta, tb), elementwise(binaryFunctions[name], a, b))
    await expectValues(
      'beside a number',
      ta.add(-3),
      elementwise((x) => (x - 3) | 0, a),
    )
  })

  it('uint8: comparisons and logic', async () => {
    const a = values([16, 1], (i) => i * 17)
    const b = values([1, 16], (i) => 255 - i * 17)
    const [ta, tb] = [tensorOf(a, 'uint8'), tensorOf(b, 'uint8')]
    for (const name of [
      'equal',
      'notEqual',
      'less',
      'lessEqual',
      'greater',
      'greaterEqual',
    ] as const)
      await expectValues(name, combine(name, ta, tb), elementwise(binaryFunctions[name], a, b))
    await expectValues(
      'logicalAnd',
      ta.logicalAnd(tb),
      elementwise((x, y) => Number(x !== 0 && y !== 0), a, b),
    )
    await expectValues(
      'logicalOr',
      ta.logicalOr(tb),
      elementwise((x, y) => Number(x !== 0 || y !== 0), a, b),
    )
    await expectValues(
      'equal 255',
      ta.equal(255),
      elementwise((x) => Number(x === 255), a),
    )
  })

  it('an operand on both sides', async () => {
    const x = values([3, 5], (i) => i - 7)
    const t = tensorOf(x, 'float32')
    await expectValues(
      'x - x',
      t.sub(t),
      elementwise(() => 0, x),
    )
    await expectValues(
      'x · x',
      t.mul(t),
      elementwise((v) => v * v, x),
    )
  })

  it('rank 8', async () => {
    const draw = generator(5)
    const a = randomValues(draw, [2, 1, 3, 1, 2, 1, 3, 1], 'float32')
    const b = randomValues(draw, [1, 2, 1, 3, 1, 2, 1, 3], 'float32')
    await expectValues(
      'add',
      tensorOf(a, 'float32').add(tensorOf(b, 'float32')),
      rounded(elementwise(binaryFunctions.add, a, b), 'float32'),
    )
  })
})

describe('where', () => {
  it('chooses by element, broadcasting all three, for every dtype', async () => {
    const draw = generator(3)
    for (const dtype of ['float32', 'bfloat16', 'float16', 'int32', 'uint8'] as const)
      for (const [c, a, b] of [
        [[5], [5], [5]],
        [[], [3], [2, 1]],
        [[2, 1, 4], [3, 1], [1]],
        [[0, 4], [4], []],
        [
          [1, 65],
          [3, 1],
          [3, 65],
        ],
      ] as const) {
        const condition = values(c, () => integer(draw, 0, 2))
        const [x, y] = [randomValues(draw, a, dtype), randomValues(draw, b, dtype)]
        await expectValues(
          `where of ${dtype} [${c}], [${a}], [${b}]`,
          where(tensorOf(condition, 'uint8'), tensorOf(x, dtype), tensorOf(y, dtype)),
          elementwise((k, p, q) => (k !== 0 ? p : q), condition, x, y),
        )
      }
  })

  it('follows a comparison', async () => {
    const x = values([7], (i) => i - 3)
    const result = tidy(() => {
      const t = tensorOf(x, 'float32')
      return where(t.less(0), t.neg(), t)
    })
    await expectValues('|x|', result, elementwise(Math.abs, x))
  })
})
