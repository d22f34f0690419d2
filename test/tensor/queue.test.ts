import { afterEach, beforeAll, describe, expect, it } from 'vitest'
import {
  type Device,
  device,
  normal,
  ones,
  perturb,
  schedules,
  type Tensor,
  tensor,
} from '../../lib/index.js'
import { expectRejection } from '../expectations.js'

let cpu: Device
beforeAll(async () => {
  cpu = await device('cpu')
})

const made: Tensor[] = []
afterEach(() => {
  for (const t of made.splice(0)) t.dispose()
})
const hold = <T extends Tensor>(t: T): T => {
  made.push(t)
  return t
}

/** Products that keep the queue busy for long compared with a call. */
function longQueue(products = 12): Tensor {
  const n = 1024
  const a = hold(normal([n, n], { seed: 1 }))
  let y = a
  for (let i = 0; i < products; i++) {
    y = hold(a.matmul(a))
  }
  return y
}

/** An op that fails when it runs, not when it is called. */
function failLater(): Tensor {
  using bad = tensor([[1, Number.NaN, 1 / 0]])
  return hold(perturb(bad, { t: Float32Array.of(0.5), schedule: schedules.flow(), seed: 1 }).xt)
}

describe('the event loop', () => {
  it('turns while the queue works', async () => {
    const y = longQueue()
    let ticks = 0
    let done = false
    const reading = y.data().then(() => {
      done = true
    })
    while (!done) {
      await new Promise((resolve) => setImmediate(resolve))
      ticks++
    }
    await reading
    expect(ticks).toBeGreaterThan(10)
  })

  it('gets its timers while the queue works, before the result', async () => {
    const y = longQueue()
    const order: string[] = []
    setTimeout(() => order.push('timer'), 1)
    await y.data().then(() => order.push('data'))
    expect(order).toEqual(['timer', 'data'])
  })

  it('calls return before the work is done', async () => {
    const y = longQueue()
    let resolved = false
    const wait = cpu.synchronize().then(() => {
      resolved = true
    })
    // A few turns of the loop do not suffice for twelve large products.
    await Promise.resolve()
    expect(resolved).toBe(false)
    await wait
    expect(resolved).toBe(true)
    expect((await y.data()).length).toBe(1024 * 1024)
  })
})

describe('reads', () => {
  it('resolve in the order of the calls', async () => {
    const order: number[] = []
    await Promise.all(
      Array.from({ length: 50 }, (_, i) => {
        const x = hold(ones([i % 7 === 0 ? 100_000 : 3]).add(i))
        return x.data().then(() => order.push(i))
      }),
    )
    expect(order).toEqual(Array.from({ length: 50 }, (_, i) => i))
  })

  it('a thousand at a time, of one tensor and of many', async () => {
    const x = hold(tensor([1, 2, 3]))
    const same = await Promise.all(Array.from({ length: 1000 }, () => x.data()))
    expect(new Set(same).size).toBe(1000)
    for (const data of same) expect([...data]).toEqual([1, 2, 3])
    const many = await Promise.all(
      Array.from({ length: 1000 }, async (_, i) => {
        using y = x.mul(i)
        return (await y.data())[2]
      }),
    )
    expect(many).toEqual(Array.from({ length: 1000 }, (_, i) => 3 * i))
  })

  it('see the tensor as it was when they were called', async () => {
    const x = hold(tensor([1, 2, 3]))
    const before = x.data()
    x.copyFrom(hold(tensor([7, 8, 9])))
    const after = x.data()
    expect([...(await before), ...(await after)]).toEqual([1, 2, 3, 7, 8, 9])
  })

  it('what they give belongs to the caller', async () => {
    const x = hold(tensor([1, 2, 3]))
    const first = await x.data()
    first.fill(0)
    expect([...(await x.data())]).toEqual([1, 2, 3])
  })

  it('dataSync() waits for what was enqueued', () => {
    const x = hold(ones([1000]))
    const sum = hold(x.add(1).sum())
    expect([...sum.dataSync()]).toEqual([2000])
    expect([...hold(tensor([1.5, 2], { dtype: 'bfloat16' })).dataSync()]).toEqual([1.5, 2])
    expect([...hold(tensor([])).dataSync()]).toEqual([])
  })
})

describe('an op that fails when it runs', () => {
  const message = /^perturb: sample 0 has 2 NaN or infinite values/

  it('rejects the next wait, once', async () => {
    const y = failLater()
    await expectRejection(() => y.data(), 'ERR_NONFINITE', message)
    expect((await y.data()).length).toBe(3)
    failLater()
    await expectRejection(() => cpu.synchronize(), 'ERR_NONFINITE', message)
    await cpu.synchronize()
  })

  it('is thrown by dataSync()', async () => {
    const y = failLater()
    expect(() => y.dataSync()).toThrow(message)
    expect(y.dataSync().length).toBe(3)
  })

  it('does not touch a wait that was called before it', async () => {
    const x = hold(ones([1000, 1000]))
    for (let round = 0; round < 20; round++) {
      const before = hold(x.add(round)).data()
      const y = failLater()
      const after = y.data()
      const [first, second] = await Promise.allSettled([before, after])
      expect([first.status, second.status]).toEqual(['fulfilled', 'rejected'])
    }
  })

  it('only the first of several failures is told', async () => {
    failLater()
    const bad = hold(
      tensor([
        [1, 2],
        [Number.NaN, 3],
      ]),
    )
    hold(perturb(bad, { t: Float32Array.of(0.5, 0.5), schedule: schedules.flow(), seed: 1 }).xt)
    await expectRejection(() => cpu.synchronize(), 'ERR_NONFINITE', message)
    await cpu.synchronize()
  })
})
