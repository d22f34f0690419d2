import { expect, test } from 'vitest'
import { customOp, memory, normal, type Tensor, tensor, vjp } from '../../lib/index.js'
import { settled } from '../settled.js'

type F = Tensor<'float32'>

const draw = (shape: number[], seed: number) => normal(shape, { seed }) as F

const witness = (bytes: number[]) =>
  customOp({
    forward: (x: F) => x.mul(1) as F,
    pullback: ({ cotangent }) => {
      bytes.push(memory().bytes)
      return [cotangent]
    },
  })

test('what a step of the backward pass has used is released before the next', async () => {
  await settled()
  const seen: number[] = []
  const look = witness(seen)
  const x = draw([64, 64], 1)
  const { value, pullback } = vjp(
    (v) => {
      let y = look(v)
      for (let i = 0; i < 20; i++) {
        y = y.sin() as F
        if (i % 5 === 4) y = look(y)
      }
      return y
    },
    [x],
  )
  pullback(value)[0].dispose()
  // The activations between two looks, 16 KiB each, are gone from one to the next.
  expect(seen.length).toBe(5)
  for (let i = 1; i < seen.length; i++)
    expect((seen[i - 1] as number) - (seen[i] as number)).toBeGreaterThanOrEqual(4 * 64 * 64 * 4)
})

test('a branch that no cotangent reaches is released, too', async () => {
  await settled()
  const x = draw([32, 32], 1)
  const before = memory()
  const { value, pullback } = vjp((v) => [v.sin().cos().exp(), v.square()] as const, [x])
  for (const y of value) y.dispose()
  const one = draw([32, 32], 2)
  pullback([undefined, one] as never)[0].dispose()
  one.dispose()
  expect([memory().tensors, memory().bytes]).toEqual([before.tensors, before.bytes])
})

test('a pullback that is never called is released with it', async () => {
  const x = draw([64, 64], 1)
  const before = await settled()
  const forget = () => {
    for (let i = 0; i < 100; i++) vjp((v) => v.sin().cos().exp().sum(), [x]).value.dispose()
  }
  forget()
  expect(memory().bytes - before).toBeGreaterThan(100 * 64 * 64 * 4)
  expect(await settled()).toBe(before)
})

test('dispose() releases what a pullback keeps', async () => {
  const x = draw([64, 64], 1)
  const before = await settled()
  const { value, pullback } = vjp((v) => v.sin().cos().sin(), [x])
  // sin x and cos sin x, for the derivatives of cos and sin, and the value.
  expect(memory().bytes).toBe(before + 3 * 64 * 64 * 4)
  {
    using released = pullback
    expect(released).toBe(pullback)
  }
  expect(memory().bytes).toBe(before + 64 * 64 * 4)
  value.dispose()
})

test('nothing is kept that no gradient needs', async () => {
  await settled()
  const x = draw([64, 64], 1)
  const w = draw([64, 64], 2)
  const keptBy = (fn: (v: F) => Tensor) => {
    const before = memory().bytes
    const { value, pullback } = vjp((v) => fn(v), [x])
    value.dispose()
    const bytes = memory().bytes - before
    pullback.dispose()
    return bytes
  }
  expect(keptBy((v) => v.add(w).mul(2).sub(w).neg().reshape([-1]).sum())).toBe(0)
  // Products with a constant keep the constant, which is alive anyhow.
  expect(keptBy((v) => v.mul(w).matmul(w))).toBe(0)
  expect(keptBy((v) => v.matmul(w).sin())).toBe(64 * 64 * 4)
  expect(keptBy((v) => v.greater(0).cast('float32'))).toBe(0)
  expect(keptBy(() => tensor([1]).exp())).toBe(0)
})
