import { describe, expect, it } from 'vitest'
import { arange, full, ones, tensor, zeros } from '../../lib/index.js'
import { expectRefusal, expectValues } from '../expectations.js'
import { count, stored, values } from '../reference.js'

const dtypes = ['float32', 'bfloat16', 'float16', 'int32', 'uint8'] as const

describe('tensor() of numbers and nested arrays', () => {
  it('takes its shape from the nesting', async () => {
    await expectValues(
      'a number',
      tensor(2.5),
      values([], () => 2.5),
    )
    await expectValues(
      'a list',
      tensor([1, 2, 3]),
      values([3], (i) => i + 1),
    )
    await expectValues(
      'a matrix',
      tensor([
        [0, 1, 2],
        [3, 4, 5],
      ]),
      values([2, 3], (i) => i),
    )
    await expectValues(
      'deep',
      tensor([
        [[0], [1]],
        [[2], [3]],
      ]),
      values([2, 2, 1], (i) => i),
    )
    await expectValues(
      'nothing',
      tensor([]),
      values([0], () => 0),
    )
    await expectValues(
      'no columns',
      tensor([[], [], []]),
      values([3, 0], () => 0),
    )
    await expectValues(
      'eight deep',
      tensor([[[[[[[[7]]]]]]]]),
      values([1, 1, 1, 1, 1, 1, 1, 1], () => 7),
    )
  })

  it('takes a shape of its own', async () => {
    await expectValues(
      'flat',
      tensor([0, 1, 2, 3, 4, 5], { shape: [3, 2] }),
      values([3, 2], (i) => i),
    )
    await expectValues(
      'nested',
      tensor(
        [
          [0, 1],
          [2, 3],
        ],
        { shape: [4] },
      ),
      values([4], (i) => i),
    )
    await expectValues(
      'a scalar',
      tensor([4], { shape: [] }),
      values([], () => 4),
    )
  })

  it('converts to every dtype as cast does', async () => {
    const numbers = [0, 1.5, -2.75, 300, -1e10, 1e10, Number.NaN, 1 / 0, 16777217, 2147483647]
    for (const dtype of dtypes) {
      const x = tensor(numbers, { dtype })
      expect(x.dtype).toBe(dtype)
      await expectValues(
        dtype,
        x,
        values([numbers.length], (i) => stored(dtype, numbers[i] as number)),
      )
    }
  })

  it('refuses ragged and mixed arrays', () => {
    expectRefusal(
      () => tensor([[1, 2], [3]]),
      'ERR_SHAPE',
      'values: expected arrays of 2 at depth 1, got [3]',
    )
    expectRefusal(
      () => tensor([[1], 2] as number[][]),
      'ERR_SHAPE',
      'values: expected arrays of 1 at depth 1, got 2',
    )
    expectRefusal(
      () => tensor([1, [2]] as number[]),
      'ERR_CONFIG',
      'values: expected numbers 1 arrays deep, got [2]',
    )
    expectRefusal(
      () => tensor([[], [1]]),
      'ERR_SHAPE',
      'values: expected arrays of 0 at depth 1, got [1]',
    )
    expectRefusal(
      () => tensor(['1'] as unknown as number[]),
      'ERR_CONFIG',
      'values: expected numbers 1 arrays deep, got "1"',
    )
    expectRefusal(
      () => tensor([1n] as unknown as number[]),
      'ERR_CONFIG',
      'values: expected numbers 1 arrays deep, got 1n',
    )
    expectRefusal(
      () => tensor(new Array<number>(3)),
      'ERR_CONFIG',
      'values: expected numbers 1 arrays deep, got undefined',
    )
  })

  it('refuses other values', () => {
    for (const [value, shown] of [
      [undefined, 'undefined'],
      [null, 'null'],
      ['abc', '"abc"'],
      [true, 'true'],
      [{}, 'an object'],
      [new Map(), 'a Map'],
      [new DataView(new ArrayBuffer(4)), 'a DataView'],
      [new ArrayBuffer(4), 'a ArrayBuffer'],
    ] as const)
      expectRefusal(
        () => tensor(value as unknown as number),
        'ERR_CONFIG',
        `values: expected numbers 0 arrays deep, got ${shown}`,
      )
  })

  it('refuses nesting that never ends', () => {
    const endless: unknown[] = []
    endless[0] = endless
    expectRefusal(
      () => tensor(endless as number[]),
      'ERR_SHAPE',
      'values: expected at most 8 axes, got more',
    )
    expectRefusal(
      () => tensor([[[[[[[[[1]]]]]]]]] as unknown as number[]),
      'ERR_SHAPE',
      'values: expected at most 8 axes, got more',
    )
  })
})

describe('tensor() of typed arrays', () => {
  it('keeps the dtype that an array has', async () => {
    for (const [array, dtype] of [
      [Float32Array.of(1, -2.5, 3), 'float32'],
      [Float64Array.of(1, -2.5, 0.1), 'float32'],
      [Int32Array.of(1, -2, 2 ** 31 - 1), 'int32'],
      [Uint8Array.of(0, 128, 255), 'uint8'],
      [Uint8ClampedArray.of(0, 300, 255), 'uint8'],
    ] as const) {
      const x = tensor(array)
      expect(x.dtype).toBe(dtype)
      await expectValues(
        array.constructor.name,
        x,
        values([3], (i) => stored(dtype, array[i] as number)),
      )
    }
  })

  it('converts every kind to every dtype', async () => {
    for (const array of [
      Float32Array.of(1.5, -2.5, 300),
      Float64Array.of(0.1, -70000, 255.9),
      Int32Array.of(1, -2, 16777217),
      Uint8Array.of(0, 128, 255),
    ])
      for (const dtype of dtypes)
        await expectValues(
          `${array.constructor.name} to ${dtype}`,
          tensor(array, { dtype, shape: [3, 1] }),
          values([3, 1], (i) => {
            const value = array[i] as number
            return stored(
              dtype,
              array instanceof Int32Array && /16/.test(dtype) ? Math.fround(value) : value,
            )
          }),
        )
  })

  it('takes the bits of 16-bit floats from a Uint16Array', async () => {
    const bits = Uint16Array.of(0x3f80, 0x4000, 0xc040, 0x0001)
    await expectValues(
      'bfloat16',
      tensor(bits, { dtype: 'bfloat16' }),
      values([4], (i) => [1, 2, -3, 2 ** -133][i] as number),
    )
    await expectValues(
      'float16',
      tensor(Uint16Array.of(0x3c00, 0xc000, 1), { dtype: 'float16' }),
      values([3], (i) => [1, -2, 2 ** -24][i] as number),
    )
    const message = 'options.dtype: a Uint16Array holds the bits of bfloat16 or float16; say which'
    expectRefusal(() => tensor(bits), 'ERR_DTYPE', message)
    expectRefusal(() => tensor(bits, { dtype: 'float32' }), 'ERR_DTYPE', message)
  })

  it('refuses arrays whose numbers have no dtype', () => {
    for (const array of [
      new BigInt64Array(3),
      new BigUint64Array(3),
      new Int8Array(3),
      new Int16Array(3),
      new Uint32Array(3),
    ])
      expectRefusal(
        () => tensor(array as unknown as Float32Array),
        'ERR_DTYPE',
        `values: expected an array of 32-bit or 64-bit floats, 32-bit integers or bytes, got a ${array.constructor.name}`,
      )
  })

  it('copies: what the caller does with the array later does not show', async () => {
    const array = Float32Array.of(1, 2, 3)
    const x = tensor(array)
    array.fill(9)
    await expectValues(
      'a copy',
      x,
      values([3], (i) => i + 1),
    )
  })

  it('reads a view of part of a buffer, aligned or not', async () => {
    const buffer = new ArrayBuffer(64)
    new Uint8Array(buffer).forEach((_, i, bytes) => {
      bytes[i] = i
    })
    await expectValues(
      'odd start',
      tensor(new Uint8Array(buffer, 3, 7)),
      values([7], (i) => i + 3),
    )
    await expectValues(
      'subarray',
      tensor(new Uint8Array(buffer).subarray(1, 6)),
      values([5], (i) => i + 1),
    )
    const floats = Float32Array.from({ length: 16 }, (_, i) => i)
    await expectValues(
      'floats',
      tensor(floats.subarray(3, 8)),
      values([5], (i) => i + 3),
    )
    await expectValues(
      'pooled Buffer',
      tensor(Buffer.from([9, 8, 7])),
      values([3], (i) => 9 - i),
    )
  })

  it('reads shared memory', async () => {
    const shared = new Float32Array(new SharedArrayBuffer(24))
    shared.set([0, 1, 2, 3, 4, 5])
    await expectValues(
      'all',
      tensor(shared, { shape: [2, 3] }),
      values([2, 3], (i) => i),
    )
    await expectValues(
      'a part',
      tensor(shared.subarray(2, 5)),
      values([3], (i) => i + 2),
    )
    const growable = new SharedArrayBuffer(8, { maxByteLength: 64 })
    const tracking = new Int32Array(growable)
    growable.grow(16)
    tracking.set([4, 5, 6, 7])
    await expectValues(
      'grown',
      tensor(tracking),
      values([4], (i) => i + 4),
    )
  })

  it('refuses a detached buffer', () => {
    for (const array of [new Float32Array(6), new Float64Array(6), new Uint8Array(6)]) {
      structuredClone(array.buffer, { transfer: [array.buffer] })
      const message = 'values: the array buffer is detached, or was resized to end before the array'
      expectRefusal(() => tensor(array), 'ERR_SHAPE', message)
      expectRefusal(() => tensor(array, { shape: [2, 3] }), 'ERR_SHAPE', message)
      expectRefusal(() => tensor(array, { shape: [0] }), 'ERR_SHAPE', message)
    }
  })

  it('follows a resized buffer, and refuses a view that it no longer covers', async () => {
    const buffer = new ArrayBuffer(16, { maxByteLength: 64 })
    const tracking = new Float32Array(buffer)
    const fixed = new Float32Array(buffer, 4, 3)
    buffer.resize(32)
    tracking.set([0, 1, 2, 3, 4, 5, 6, 7])
    await expectValues(
      'grown',
      tensor(tracking, { shape: [2, 4] }),
      values([2, 4], (i) => i),
    )
    await expectValues(
      'a fixed part',
      tensor(fixed),
      values([3], (i) => i + 1),
    )
    buffer.resize(8)
    await expectValues(
      'shrunk',
      tensor(tracking),
      values([2], (i) => i),
    )
    expectRefusal(
      () => tensor(fixed),
      'ERR_SHAPE',
      /^values: the array buffer is detached, or was resized/,
    )
    expectRefusal(
      () => tensor(tracking, { shape: [8] }),
      'ERR_SHAPE',
      'values: expected 8 elements for shape [8], got 2',
    )
  })

  it('refuses a shape of another size', () => {
    expectRefusal(
      () => tensor(new Float32Array(6), { shape: [2, 2] }),
      'ERR_SHAPE',
      'values: expected 4 elements for shape [2, 2], got 6',
    )
    expectRefusal(
      () => tensor([1, 2], { shape: [] }),
      'ERR_SHAPE',
      'values: expected 1 elements for shape [], got 2',
    )
  })
})

describe('zeros, ones, full, arange', () => {
  it('every dtype and odd sizes', async () => {
    for (const dtype of dtypes)
      for (const shape of [
        [],
        [0],
        [1],
        [3],
        [5, 0, 2],
        [17],
        [63],
        [64],
        [65],
        [3, 5, 7],
        [1, 1, 1, 1, 2, 1, 1, 3],
      ]) {
        await expectValues(
          'zeros',
          zeros(shape, { dtype }),
          values(shape, () => 0),
        )
        await expectValues(
          'ones',
          ones(shape, { dtype }),
          values(shape, () => 1),
        )
        await expectValues(
          'full',
          full(shape, -2.6, { dtype }),
          values(shape, () => stored(dtype, -2.6)),
        )
      }
    await expectValues(
      'a million and three',
      full([1_000_003], 0.1),
      values([1_000_003], () => Math.fround(0.1)),
    )
  })

  it('full converts as cast does', async () => {
    for (const dtype of dtypes)
      for (const value of [
        Number.NaN,
        1 / 0,
        -1 / 0,
        1e300,
        -1e300,
        1e-300,
        300,
        -1,
        65520,
        0.1,
        2147483647,
      ])
        await expectValues(
          `${value} as ${dtype}`,
          full([3], value, { dtype }),
          values([3], () => stored(dtype, value)),
        )
  })

  it('arange counts without drift', async () => {
    for (const length of [0, 1, 3, 17, 64, 65, 1_000_003]) {
      await expectValues(
        'arange',
        arange(length),
        values([length], (i) => i),
      )
      await expectValues(
        'steps',
        arange(length, { start: -1.5, step: 0.1 }),
        values([length], (i) => Math.fround(-1.5 + i * 0.1)),
      )
    }
    for (const dtype of dtypes)
      await expectValues(
        dtype,
        arange(300, { dtype, start: 3, step: -0.75 }),
        values([300], (i) => stored(dtype, 3 - 0.75 * i)),
      )
  })

  it('keeps its own copy of the shape', async () => {
    const shape = [2, 3]
    const x = zeros(shape)
    const y = tensor([1, 2, 3, 4, 5, 6], { shape })
    const z = tensor([1, 2, 3, 4, 5, 6], { shape, dtype: 'int32' })
    const w = tensor([1, 2, 3, 4, 5, 6], { shape, dtype: 'bfloat16' })
    shape[0] = 50
    for (const t of [x, y, z, w]) {
      expect(t.shape).toEqual([2, 3])
      expect((await t.data()).length).toBe(count([2, 3]))
    }
  })
})
