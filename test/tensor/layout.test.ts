import { describe, expect, it } from 'vitest'
import { concat, device, stack, type Tensor, tensor } from '../../lib/index.js'
import { expectValues, tensorOf } from '../expectations.js'
import {
  broadcastShape,
  concatenated,
  count,
  elementwise,
  generator,
  integer,
  permuted,
  randomValues,
  sliced,
  stored,
  type Values,
  values,
} from '../reference.js'

const dtypes = ['float32', 'bfloat16', 'float16', 'int32', 'uint8'] as const

function randomShape(draw: () => number, most = 5): number[] {
  const rank = integer(draw, 0, most)
  return Array.from({ length: rank }, () => (draw() < 0.05 ? 0 : integer(draw, 1, 6)))
}

function shuffled(draw: () => number, length: number): number[] {
  const order = Array.from({ length }, (_, i) => i)
  for (let i = length - 1; i > 0; i--) {
    const j = integer(draw, 0, i)
    ;[order[i], order[j]] = [order[j] as number, order[i] as number]
  }
  return order
}

describe('permute and transpose', () => {
  it('random shapes and orders, every dtype', async () => {
    const draw = generator(11)
    for (let round = 0; round < 100; round++) {
      const dtype = dtypes[round % dtypes.length] as (typeof dtypes)[number]
      const x = randomValues(draw, randomShape(draw), dtype)
      const axes = shuffled(draw, x.shape.length)
      await expectValues(
        `permute [${x.shape}] by [${axes}]`,
        tensorOf(x, dtype).permute(axes),
        permuted(x, axes),
      )
    }
  })

  it('matrices of all sizes around the block edges', async () => {
    const draw = generator(12)
    for (const rows of [1, 3, 8, 17, 64, 65, 129])
      for (const columns of [1, 5, 16, 63, 64, 130]) {
        const x = randomValues(draw, [rows, columns], 'float32')
        await expectValues('transpose', tensorOf(x, 'float32').transpose(), permuted(x, [1, 0]))
      }
  })

  it('negative axes, batches and rank 8', async () => {
    const x = randomValues(generator(13), [2, 3, 4], 'float32')
    const t = tensorOf(x, 'float32')
    await expectValues('negative axes', t.permute([-1, 0, -2]), permuted(x, [2, 0, 1]))
    await expectValues('batched transpose', t.transpose(), permuted(x, [0, 2, 1]))
    const y = randomValues(generator(14), [2, 1, 3, 2, 1, 2, 3, 2], 'int32')
    const order = [7, 0, 6, 1, 5, 2, 4, 3]
    await expectValues('rank 8', tensorOf(y, 'int32').permute(order), permuted(y, order))
  })
})

describe('slice', () => {
  it('random parts, every dtype', async () => {
    const draw = generator(21)
    for (let round = 0; round < 100; round++) {
      const dtype = dtypes[round % dtypes.length] as (typeof dtypes)[number]
      const x = randomValues(draw, randomShape(draw), dtype)
      const begin = x.shape.map((length) => integer(draw, 0, length))
      const size = x.shape.map((length, axis) => integer(draw, 0, length - (begin[axis] as number)))
      await expectValues(
        `slice [${x.shape}] at [${begin}] by [${size}]`,
        tensorOf(x, dtype).slice(begin, size),
        sliced(x, begin, size),
      )
    }
  })

  it('to the end without sizes or with -1', async () => {
    const x = randomValues(generator(22), [5, 7], 'float32')
    const t = tensorOf(x, 'float32')
    await expectValues('no sizes', t.slice([2, 3]), sliced(x, [2, 3], [3, 4]))
    await expectValues('-1', t.slice([1, 0], [-1, 2]), sliced(x, [1, 0], [4, 2]))
    await expectValues('nothing left', t.slice([5, 0]), sliced(x, [5, 0], [0, 7]))
    await expectValues(
      'a scalar',
      tensor(3).slice([]),
      values([], () => 3),
    )
  })
})

describe('concat and stack', () => {
  it('random parts along every axis, every dtype', async () => {
    const draw = generator(31)
    for (let round = 0; round < 60; round++) {
      const dtype = dtypes[round % dtypes.length] as (typeof dtypes)[number]
      const shape = randomShape(draw, 4)
      shape.push(integer(draw, 1, 5))
      const axis = integer(draw, 0, shape.length - 1)
      const parts = Array.from({ length: integer(draw, 1, 4) }, () =>
        randomValues(draw, shape.with(axis, integer(draw, 0, 4)), dtype),
      )
      const tensors = parts.map((part) => tensorOf(part, dtype))
      await expectValues(`concat along ${axis}`, concat(tensors, axis), concatenated(parts, axis))
      const negative = axis - shape.length
      await expectValues(
        `concat along ${negative}`,
        concat(tensors, negative),
        concatenated(parts, axis),
      )
    }
  })

  it('stack along every axis, scalars too', async () => {
    const draw = generator(32)
    const parts = [0, 1, 2].map(() => randomValues(draw, [2, 5], 'float32'))
    const tensors = parts.map((part) => tensorOf(part, 'float32'))
    for (const axis of [0, 1, 2, -1, -3]) {
      const at = axis < 0 ? axis + 3 : axis
      const widened = parts.map((part) => ({
        shape: part.shape.toSpliced(at, 0, 1),
        data: part.data,
      }))
      await expectValues(`stack along ${axis}`, stack(tensors, axis), concatenated(widened, at))
    }
    await expectValues(
      'scalars',
      stack([tensor(1), tensor(2)]),
      values([2], (i) => i + 1),
    )
  })

  it('one tensor many times', async () => {
    const x = values([3], (i) => i)
    const t = tensorOf(x, 'float32')
    await expectValues('concat', concat([t, t, t]), concatenated([x, x, x], 0))
  })
})

describe('reshape and broadcastTo', () => {
  it('reshape keeps the order of elements', async () => {
    const x = randomValues(generator(41), [4, 6], 'bfloat16')
    const t = tensorOf(x, 'bfloat16')
    for (const [asked, shape] of [
      [[24], [24]],
      [
        [2, 3, 4],
        [2, 3, 4],
      ],
      [
        [-1, 8],
        [3, 8],
      ],
      [
        [2, -1],
        [2, 12],
      ],
      [
        [1, 1, 24, 1],
        [1, 1, 24, 1],
      ],
    ] as const)
      await expectValues(`to [${asked}]`, t.reshape(asked), { shape, data: x.data })
    await expectValues(
      'a scalar',
      tensor([7]).reshape([]),
      values([], () => 7),
    )
    await expectValues(
      'empty',
      tensor([]).reshape([3, 0]),
      values([3, 0], () => 0),
    )
  })

  it('broadcastTo, random shapes, every dtype', async () => {
    const draw = generator(42)
    for (let round = 0; round < 60; round++) {
      const dtype = dtypes[round % dtypes.length] as (typeof dtypes)[number]
      const shape = randomShape(draw)
      const own = shape
        .slice(integer(draw, 0, shape.length))
        .map((size) => (draw() < 0.4 ? 1 : size))
      const x = randomValues(draw, own, dtype)
      expect(broadcastShape(own, shape)).toEqual(shape)
      await expectValues(
        `[${own}] to [${shape}]`,
        tensorOf(x, dtype).broadcastTo(shape),
        elementwise(
          (value) => value,
          x,
          values(shape, () => 0),
        ),
      )
    }
  })

  it('keeps its own copy of the shape it is given', async () => {
    const asked = [2, 3]
    const results: Tensor[] = [
      tensor([1, 2, 3]).broadcastTo(asked),
      tensor([0, 1, 2, 3, 4, 5]).reshape(asked),
    ]
    asked[0] = 7
    for (const result of results) {
      expect(result.shape).toEqual([2, 3])
      expect((await result.data()).length).toBe(6)
    }
  })
})

describe('cast, clone, copyFrom, to', () => {
  const hostile = [
    0,
    -0,
    1,
    -1,
    0.5,
    1.5,
    2.5,
    -2.5,
    254.6,
    255.4,
    256,
    -0.9,
    65504,
    65520,
    1e10,
    -1e10,
    3e38,
    -3e38,
    1 / 0,
    -1 / 0,
    Number.NaN,
    1e-40,
    6e-8,
    5.9e-8,
    1.00390625,
    1.01171875,
    2147483520,
    -2147483648,
  ].map(Math.fround)

  it('every pair of dtypes, hostile values', async () => {
    for (const from of dtypes)
      for (const to of dtypes) {
        const x = values([hostile.length], (i) => stored(from, hostile[i] as number))
        const t = tensorOf(x, from)
        expect([...(await t.data())], `making ${from}`).toEqual([...x.data].map((v) => v))
        const expected = elementwise(
          (value) => stored(to, from === 'int32' && to.includes('16') ? Math.fround(value) : value),
          x,
        )
        await expectValues(`${from} to ${to}`, t.cast(to), expected)
      }
  })

  it('lengths around the vector widths', async () => {
    const draw = generator(51)
    for (const length of [0, 1, 3, 7, 15, 16, 17, 31, 33, 63, 65, 1001])
      for (const from of dtypes)
        for (const to of dtypes) {
          const x = randomValues(draw, [length], from, { most: 300 })
          await expectValues(
            `${from}[${length}] to ${to}`,
            tensorOf(x, from).cast(to),
            elementwise((value) => stored(to, value), x),
          )
        }
  })

  it('every bit pattern of the 16-bit floats widens exactly and comes back', async () => {
    const bits = Uint16Array.from({ length: 65536 }, (_, i) => i)
    for (const dtype of ['bfloat16', 'float16'] as const) {
      const t = tensor(bits, { dtype })
      const wide = await t.data()
      const back = new Uint16Array((await t.cast('float32').cast(dtype).rawData()).buffer)
      const single = new Float32Array(1)
      const word = new Uint32Array(single.buffer)
      for (let i = 0; i < 65536; i++) {
        const expected = dtype === 'bfloat16' ? bfloat16(i) : float16(i)
        if (!Object.is(wide[i], expected))
          expect.fail(`${dtype} ${i}: expected ${expected}, got ${wide[i]}`)
        // A NaN stays one, whatever its payload.
        if (back[i] !== i && !Number.isNaN(expected))
          expect.fail(`${dtype} ${i} came back as ${back[i]}`)
      }
      function bfloat16(i: number): number {
        word[0] = i << 16
        return single[0] as number
      }
    }
    function float16(i: number): number {
      const sign = i & 0x8000 ? -1 : 1
      const exponent = (i >> 10) & 31
      const fraction = i & 1023
      if (exponent === 31) return fraction === 0 ? sign / 0 : Number.NaN
      return exponent === 0
        ? sign * fraction * 2 ** -24
        : sign * (1 + fraction / 1024) * 2 ** (exponent - 15)
    }
  })

  it('clone has memory of its own', async () => {
    for (const dtype of dtypes) {
      const x = randomValues(generator(52), [3, 5], dtype)
      const t = tensorOf(x, dtype)
      const copy = t.clone()
      t.copyFrom(
        tensorOf(
          values([3, 5], () => 1),
          dtype,
        ),
      )
      await expectValues('the clone', copy, x)
      await expectValues(
        'the original',
        t,
        values([3, 5], () => 1),
      )
    }
  })

  it('copyFrom takes effect in queue order', async () => {
    const x = tensor([1, 2, 3])
    const before = x.mul(10)
    expect(x.copyFrom(tensor([4, 5, 6]))).toBe(x)
    const after = x.mul(10)
    expect([...(await before.data()), ...(await after.data())]).toEqual([10, 20, 30, 40, 50, 60])
    x.copyFrom(x)
    expect([...(await x.data())]).toEqual([4, 5, 6])
  })

  it('to the device it is on already is the tensor itself', async () => {
    const x = tensor([1, 2])
    expect(await x.to(await device('cpu'))).toBe(x)
  })

  it('rawData gives the stored bytes', async () => {
    const bits = Uint16Array.of(0x3f80, 0x7fc0, 0x8000)
    const raw = await tensor(bits, { dtype: 'bfloat16' }).rawData()
    expect(raw).toBeInstanceOf(Uint8Array)
    expect([...new Uint16Array(raw.buffer)]).toEqual([...bits])
    expect([...(await tensor(Int32Array.of(-2)).rawData())]).toEqual([254, 255, 255, 255])
  })
})

describe('what a tensor says of itself', () => {
  it('size, rank, bytes, toString', () => {
    const x: Values = values([2, 3], (i) => i)
    for (const [dtype, width] of [
      ['float32', 4],
      ['bfloat16', 2],
      ['float16', 2],
      ['int32', 4],
      ['uint8', 1],
    ] as const) {
      const t = tensorOf(x, dtype)
      expect([t.size, t.rank, t.bytes]).toEqual([count([2, 3]), 2, 6 * width])
      expect(String(t)).toBe(`Tensor<${dtype}, [2, 3]>(cpu)`)
      t.dispose()
      expect(String(t)).toBe(`Tensor<${dtype}, [2, 3]>(disposed)`)
    }
  })
})
