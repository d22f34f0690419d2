import { describe, expect, it } from 'vitest'
import { keep, memory, normal, ones, type Tensor, tensor, tidy, zeros } from '../../lib/index.js'

/** Tensors and bytes that `work` leaves alive. */
function left(work: () => void): [tensors: number, bytes: number] {
  const before = memory()
  work()
  const after = memory()
  return [after.tensors - before.tensors, after.bytes - before.bytes]
}

describe('dispose', () => {
  it('counts exactly what is alive', () => {
    const made: Tensor[] = []
    expect(left(() => made.push(zeros([3, 5])))).toEqual([1, 60])
    expect(left(() => made.push(zeros([7], { dtype: 'bfloat16' })))).toEqual([1, 14])
    expect(left(() => made.push(zeros([7], { dtype: 'uint8' })))).toEqual([1, 7])
    expect(left(() => made.push(zeros([0])))).toEqual([1, 0])
    expect(left(() => made.push(tensor(1)))).toEqual([1, 4])
    expect(left(() => made.push((made[0] as Tensor<'float32'>).add(1)))).toEqual([1, 60])
    expect(left(() => made.push((made[0] as Tensor<'float32'>).sum([0, 1])))).toEqual([1, 4])
    expect(left(() => made.forEach((t) => void t.dispose()))).toEqual([
      -7,
      -(60 + 14 + 7 + 4 + 60 + 4),
    ])
  })

  it('`using` disposes at the end of the block', () => {
    expect(
      left(() => {
        using x = zeros([4])
        using y = x.add(1)
        expect(memory().tensors).toBeGreaterThan(1)
        expect(y.disposed).toBe(false)
      }),
    ).toEqual([0, 0])
  })

  it('a tensor with queued work may go at once: the work still sees its elements', async () => {
    const n = 512
    const [a, b] = [normal([n, n], { seed: 1 }), normal([n, n], { seed: 2 })]
    const expected = a.matmul(b)
    const copy = a.clone()
    const y = copy.matmul(b)
    copy.dispose()
    // Takes the memory just freed, while the product may still be waiting to read it.
    const thief = zeros([n, n])
    const [want, got] = [await expected.data(), await y.data()]
    expect(got).toEqual(want)
    for (const t of [a, b, expected, y, thief]) t.dispose()
  })

  it('disposing one tensor leaves the reading of another alone', async () => {
    const x = tensor([1, 2, 3])
    const y = x.mul(2)
    const reading = y.data()
    x.dispose()
    y.dispose()
    zeros([3]).dispose()
    expect([...(await reading)]).toEqual([2, 4, 6])
  })

  it('uploads do not overwrite memory that queued work still reads', async () => {
    const n = 256
    const weight = normal([n, n], { seed: 3 })
    const results: Tensor<'float32'>[] = []
    for (let i = 0; i < 50; i++) {
      // Each upload is disposed right after it is used; its memory is wanted by the next.
      using x = tensor(new Float32Array(n * n).fill(i))
      using square = x.reshape([n, n])
      results.push(square.matmul(weight).sum(0))
    }
    const sums = await (results[1] as Tensor<'float32'>).data()
    const largestSum = sums.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
    for (const [i, result] of results.entries()) {
      const got = await result.data()
      const worst = got.reduce(
        (most, value, j) => Math.max(most, Math.abs(value - i * (sums[j] as number))),
        0,
      )
      expect(worst).toBeLessThanOrEqual(1e-4 * i * largestSum)
      result.dispose()
    }
    weight.dispose()
  })
})

describe('reshape shares memory', () => {
  it('a copyFrom shows through, both ways', async () => {
    const x = zeros([2, 3])
    const y = x.reshape([6])
    expect(left(() => x.reshape([3, 2]).dispose())).toEqual([0, 0])
    y.copyFrom(tensor([1, 2, 3, 4, 5, 6]))
    expect([...(await x.data())]).toEqual([1, 2, 3, 4, 5, 6])
    x.copyFrom(ones([2, 3]))
    expect([...(await y.data())]).toEqual([1, 1, 1, 1, 1, 1])
  })

  it('costs no bytes, and the bytes go with the last', async () => {
    const made: Tensor[] = []
    expect(
      left(() => {
        const x = ones([4, 4])
        made.push(x, x.reshape([16]))
      }),
    ).toEqual([2, 64])
    const [x, y] = made as [Tensor, Tensor]
    expect(left(() => x.dispose())).toEqual([-1, 0])
    expect([...(await y.data())]).toEqual(new Array(16).fill(1))
    expect(left(() => y.dispose())).toEqual([-1, -64])
  })
})

describe('tidy', () => {
  it('disposes what is made inside, except what is returned', async () => {
    let result: Tensor | undefined
    expect(
      left(() => {
        result = tidy(() => {
          const x = ones([10])
          const y = x.add(1)
          return y.mul(y)
        })
      }),
    ).toEqual([1, 40])
    expect([...(await (result as Tensor).data())]).toEqual(new Array(10).fill(4))
    result?.dispose()
  })

  it('finds tensors in arrays, objects and maps, nested', () => {
    const shapes: (() => unknown)[] = [
      () => [ones([1]), ones([1])],
      () => ({ a: ones([1]), b: { c: [ones([1])] } }),
      () =>
        new Map([
          ['a', ones([1])],
          ['b', ones([1])],
        ]),
      () => [[new Map([[1, { x: ones([1]), y: ones([1]) }]])]],
      () => Object.assign(Object.create(null) as object, { a: ones([1]), b: ones([1]) }),
    ]
    for (const make of shapes) {
      expect(
        left(() =>
          tidy(() => {
            expect(
              left(() =>
                tidy(() => {
                  ones([9])
                  return make()
                }),
              ),
            ).toEqual([2, 8])
            // The outer tidy has taken them over.
          }),
        ),
      ).toEqual([0, 0])
    }
  })

  it('survives a result that refers to itself', () => {
    const loop: { tensor?: Tensor; self?: unknown } = {}
    expect(
      left(() => {
        tidy(() => {
          ones([9])
          loop.tensor = ones([1])
          loop.self = loop
          return loop
        })
      }),
    ).toEqual([1, 4])
    expect(loop.tensor?.disposed).toBe(false)
    loop.tensor?.dispose()
  })

  it('hands results of inner calls to the outer one', () => {
    expect(
      left(() =>
        tidy(() => {
          const inner = tidy(() => tidy(() => ones([2])).add(1))
          expect(inner.disposed).toBe(false)
          // Not returned: the outer tidy disposes it.
        }),
      ),
    ).toEqual([0, 0])
  })

  it('keep() lets a tensor live on, from any depth', () => {
    const kept: Tensor[] = []
    expect(
      left(() =>
        tidy(() => {
          const outer = ones([1])
          kept.push(keep(ones([2])))
          tidy(() => {
            kept.push(keep(ones([3])))
            // Made in the outer tidy, kept from the inner one.
            kept.push(keep(outer))
            ones([4])
          })
        }),
      ),
    ).toEqual([3, 4 * (2 + 3 + 1)])
    expect(kept.map((t) => t.disposed)).toEqual([false, false, false])
    for (const t of kept) t.dispose()
  })

  it('disposes everything when the function throws, and the scope around goes on', () => {
    const boom = new Error('boom')
    let after: Tensor | undefined
    expect(
      left(() =>
        tidy(() => {
          ones([3])
          expect(() =>
            tidy(() => {
              ones([5]).add(1)
              throw boom
            }),
          ).toThrow(boom)
          after = ones([7])
        }),
      ),
    ).toEqual([0, 0])
    expect(after?.disposed).toBe(true)
  })

  it('leaves alone what was made before, and what is disposed inside', () => {
    const before = ones([2])
    expect(
      left(() =>
        tidy(() => {
          const x = before.add(1)
          x.dispose()
          return before
        }),
      ),
    ).toEqual([0, 0])
    expect(before.disposed).toBe(false)
    before.dispose()
  })

  it('returns what is no tensor unchanged', () => {
    expect(tidy(() => 42)).toBe(42)
    expect(tidy(() => null)).toBe(null)
    const set = new Set([1])
    expect(tidy(() => set)).toBe(set)
  })
})

describe('memory()', () => {
  it('peak and pool', async () => {
    const { device } = zeros([1])
    device.resetPeakBytes()
    const base = device.memory().peakBytes
    const large = zeros([1 << 20])
    expect(device.memory().peakBytes - base).toBe(4 << 20)
    large.dispose()
    expect(device.memory().peakBytes - base).toBe(4 << 20)
    await device.synchronize()
    const pooled = device.memory().pooledBytes
    expect(pooled).toBeGreaterThanOrEqual(4 << 20)
    expect(device.releaseCached()).toBe(pooled)
    expect(device.memory().pooledBytes).toBe(0)
    device.resetPeakBytes()
    expect(device.memory().peakBytes).toBe(device.memory().bytes)
  })

  it('freed memory is used again', async () => {
    const first = zeros([100_000])
    first.dispose()
    const { pooledBytes } = memory()
    const second = zeros([100_000])
    expect(pooledBytes - memory().pooledBytes).toBeGreaterThanOrEqual(400_000)
    second.dispose()
  })
})
