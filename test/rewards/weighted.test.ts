import { describe, expect, test } from 'vitest'
import { memory, rewards, type Tensor, tensor, vjp, zeros } from '../../lib/index.js'
import { expectGradients } from '../autograd/gradients.js'
import { expectRefusal, expectRejection } from '../expectations.js'
import { generator, values } from '../reference.js'

type Scores = Tensor<'float32', [number]>

/** Samples [B, 2]; the parts read one of their numbers each, or both. */
const samples = (rows: readonly (readonly number[])[]) =>
  tensor(Float32Array.from(rows.flat()), { shape: [rows.length, 2] }) as Tensor<'float32'>
const column = (name: string, index: number) =>
  rewards.fromFunction(name, (x) => x.slice([0, index], [-1, 1]).reshape([x.shape[0] as number]))
const [first, second] = [column('first', 0), column('second', 1)]
const product = rewards.fromFunction('product', (x) =>
  (first.score(x) as Scores).mul(second.score(x) as Scores),
)
const box = rewards.blackBox('box', async (x) => (await x.data()).filter((_, i) => i % 2 === 0))
const broken = rewards.fromFunction('broken', () => {
  throw new Error('no')
})

const numbers = async (reward: rewards.Reward, x: Tensor<'float32'>) => [
  ...(await (await rewards.scoreNumbers(reward, x)).data()),
]

/** One step of training as far as rewards go. */
async function step(reward: rewards.WeightedReward, x: Tensor<'float32'>): Promise<number[]> {
  using parts = new rewards.PartScores()
  using scores = await rewards.scoreNumbers(reward, x, undefined, parts)
  const read = [...(await scores.data())]
  await reward.observe(parts)
  return read
}

function expectClose(got: readonly number[], expected: readonly number[], within = 1e-5) {
  expect(got.length).toBe(expected.length)
  for (const [i, value] of got.entries())
    expect(Math.abs(value - (expected[i] as number)), `element ${i}`).toBeLessThan(within)
}

const mean = (x: readonly number[]) => x.reduce((a, b) => a + b, 0) / x.length
const std = (x: readonly number[]) => Math.sqrt(mean(x.map((v) => (v - mean(x)) ** 2)))

test('the sum of weighted, normalised and bounded parts', async () => {
  const x = samples([
    [1, 4],
    [-2, 0.5],
    [3, -1],
  ])
  const reward = rewards.weighted([
    { reward: first, weight: 2 },
    { reward: second, mean: 1, std: 0.5, margin: 1.5 },
    { reward: product, weight: -0.25, std: 2 },
  ])
  expect([reward.name, reward.differentiable]).toEqual(['weighted', true])
  const expected = [
    [1, 4],
    [-2, 0.5],
    [3, -1],
  ].map(([a = 0, b = 0]) => 2 * a + Math.min((b - 1) / 0.5, 1.5) - (0.25 * a * b) / 2)
  expectClose(await numbers(reward, x), expected)
  // A part alone is itself.
  expect(await numbers(rewards.weighted([{ reward: first }]), x)).toEqual([1, -2, 3])
})

test('gradients: those of the parts, and none past a margin', async () => {
  const draw = generator(5)
  const reward = rewards.weighted([
    { reward: first, weight: 2, margin: 0.25 },
    { reward: product, mean: -1, std: 0.5, weight: 0.75 },
  ])
  await expectGradients('weighted', {
    inputs: [values([9, 2], () => Math.fround(2 * draw() - 1))],
    op: (x) => rewards.scoreDifferentiably(reward, x as Tensor<'float32'>),
    reference: (x) =>
      values([9], (i) => {
        const [a, b] = [x.data[2 * i] as number, x.data[2 * i + 1] as number]
        return 2 * Math.min(a, 0.25) + (0.75 * (a * b + 1)) / 0.5
      }),
  })
  const bounded = rewards.weighted([{ reward: first, margin: 1 }])
  const { pullback } = vjp(
    (x) => rewards.scoreDifferentiably(bounded, x as Tensor<'float32'>),
    [
      samples([
        [0.9, 0],
        [1.1, 0],
      ]),
    ],
  )
  const [gradient] = pullback(tensor([1, 1]) as Scores)
  expect([...(await gradient.data())]).toEqual([1, 0, 0, 0])
})

test('a black box makes the sum one', async () => {
  const reward = rewards.weighted([{ reward: first }, { reward: box, weight: 10 }])
  expect(reward.differentiable).toBe(false)
  const x = samples([
    [1, 2],
    [3, 4],
  ])
  const before = memory().tensors
  expect(await numbers(reward, x)).toEqual([11, 33])
  expectRefusal(
    () => rewards.scoreDifferentiably(reward, x),
    'ERR_CONFIG',
    /^reward "weighted": expected a differentiable reward/,
  )
  expect(memory().tensors).toBeLessThanOrEqual(before + 1)
})

describe.each([
  { kind: 'differentiable', part: first },
  { kind: 'black box', part: box },
])('running normalisation of a $kind', ({ part }) => {
  const make = () => rewards.weighted([{ reward: part, normalize: 'running' }])
  const batches = [[1, 2, 6], [4], [-3, 0.5]]
  const place = (batch: readonly number[]) => samples(batch.map((value) => [value, 7]))

  test('the first batch by its own moments, the others by those of all before', async () => {
    const reward = make()
    const seen: number[] = []
    for (const batch of batches) {
      const by = seen.length === 0 ? batch : seen
      const expected = batch.map((value) => (value - mean(by)) / std(by))
      // Scoring changes nothing; observing does.
      expectClose(await numbers(reward, place(batch)), expected)
      expectClose(await step(reward, place(batch)), expected)
      seen.push(...batch)
    }
    const running = reward.state().parts[0]?.running as rewards.RunningState
    expect(running.count).toBe(6)
    expect(running.mean).toBeCloseTo(mean(seen), 12)
    expect(Math.sqrt(running.squares / 6)).toBeCloseTo(std(seen), 12)
  })

  test('equal scores are not divided by their spread', async () => {
    for (const value of [0, 1 / 3, 1e6]) {
      const reward = make()
      expectClose(await step(reward, place([value])), [0], 1)
      const [again, above] = await step(reward, place([value, value + 2]))
      expect(Math.abs(again as number)).toBeLessThan(1e-6 * value + 1e-6)
      expect(above).toBeCloseTo(2, 5)
    }
    // Nor are scores that differ in the last place.
    for (const value of [0.1, -1 / 3, 12345.678]) {
      const near = Math.fround(value)
      const batch = [near, near, near * (1 + 2 ** -23)]
      expectClose(await numbers(make(), place(batch)), [0, 0, 0], 0.01)
      const reward = make()
      await step(reward, place(batch))
      expectClose(await numbers(reward, place(batch)), [0, 0, 0], 0.01)
    }
  })

  test('no images change nothing', async () => {
    const reward = make()
    expect(await step(reward, place([]))).toEqual([])
    expect(reward.state().parts[0]?.running?.count).toBe(0)
  })

  test('resumes with the same bits', async () => {
    const [a, b] = [make(), make()]
    for (const batch of batches) await step(a, place(batch))
    b.loadState(JSON.parse(JSON.stringify(a.state())))
    expect(b.state()).toEqual(a.state())
    for (const batch of batches)
      expect(await step(b, place(batch))).toEqual(await step(a, place(batch)))
    expect(b.state()).toEqual(a.state())
  })
})

test('running moments are constants to the gradient', async () => {
  const reward = rewards.weighted([{ reward: first, normalize: 'running', margin: 0.5 }])
  const batch = [1, 2, 6]
  const x = samples(batch.map((value) => [value, 0]))
  const gradients = async () => {
    const before = memory().tensors
    const { value, pullback } = vjp(
      (at) => rewards.scoreDifferentiably(reward, at as Tensor<'float32'>),
      [x],
    )
    const cotangent = tensor([1, 1, 1]) as Scores
    const [gradient] = pullback(cotangent)
    const slopes = (await gradient.data()).filter((_, i) => i % 2 === 0)
    for (const made of [value, cotangent, gradient]) made.dispose()
    expect(memory().tensors).toBeLessThanOrEqual(before)
    return [...slopes]
  }
  // (6 - 3)/2.16 is past the margin.
  const own = 1 / std(batch)
  expectClose(await gradients(), [own, own, 0])
  await step(reward, x)
  await step(reward, samples([[11, 0]]))
  const all = 1 / std([...batch, 11])
  expectClose(await gradients(), [all, all, all])
})

describe('what the parts say', () => {
  const inner = () =>
    rewards.weighted([{ reward: second, normalize: 'running' }], { name: 'inner' })
  const x = samples([
    [1, 10],
    [3, 30],
  ])

  test('is noted before weights, with gradients and without, once for each batch', async () => {
    for (const part of [first, box]) {
      const nested = inner()
      const reward = rewards.weighted([
        { reward: part, weight: 5, mean: 2, margin: 0 },
        { reward: nested, weight: 3 },
      ])
      const before = memory().tensors
      const parts = new rewards.PartScores()
      ;(await rewards.scoreNumbers(reward, x, undefined, parts)).dispose()
      if (reward.differentiable) {
        const { value, pullback } = vjp(
          (at) =>
            rewards.scoreDifferentiably(
              reward,
              at as Tensor<'float32'>,
              undefined,
              parts,
            ) as Scores,
          [x],
        )
        pullback.dispose()
        value.dispose()
      }
      const times = reward.differentiable ? [1, 2] : [1]
      expect(await parts.read()).toEqual(
        new Map([
          [part.name, Float32Array.from(times.flatMap(() => [1, 3]))],
          ['inner', Float32Array.from(times.flatMap(() => [-1, 1]))],
          ['inner/second', Float32Array.from(times.flatMap(() => [10, 30]))],
        ]),
      )
      expect(await parts.means()).toEqual({ [part.name]: 2, inner: 0, 'inner/second': 20 })
      await reward.observe(parts)
      parts.dispose()
      expect(memory().tensors).toBeLessThanOrEqual(before)
      // The inner reward has learnt, and its state is in the outer one's.
      const running = { count: 2 * times.length, mean: 20, squares: 200 * times.length }
      expect(reward.state()).toEqual({
        parts: [
          { name: part.name },
          { name: 'inner', own: { parts: [{ name: 'second', running }] } },
        ],
      })
      const other = inner()
      const copy = rewards.weighted([{ reward: part }, { reward: other }])
      copy.loadState(JSON.parse(JSON.stringify(reward.state())))
      expect(other.state()).toEqual(nested.state())
    }
  })

  test('must be finite to be learnt from, even past a margin', async () => {
    const reward = rewards.weighted([
      { reward: first, normalize: 'running' },
      { reward: second, normalize: 'running', margin: 1 },
    ])
    await step(reward, x)
    const before = reward.state()
    using parts = new rewards.PartScores()
    const odd = samples([
      [1, 2],
      [3, Number.POSITIVE_INFINITY],
    ])
    rewards.scoreDifferentiably(reward, odd, undefined, parts).dispose()
    await expect(reward.observe(parts)).rejects.toThrow(
      'reward "second": expected finite scores, got Infinity for sample 1 (1 of 2 are not finite)',
    )
    expect(reward.state()).toEqual(before)
    using none = new rewards.PartScores()
    await expectRejection(
      () => reward.observe(none),
      'ERR_CONFIG',
      'parts: expected scores of "first", got none',
    )
  })
})

test('what a part throws carries both names', async () => {
  const x = samples([[1, 2]])
  const sum = rewards.weighted([{ reward: first }, { reward: broken }], { name: 'sum' })
  expectRefusal(
    () => rewards.scoreDifferentiably(sum, x),
    'ERR_CONFIG',
    'reward "sum": reward "broken": threw: no',
  )
  const mixed = rewards.weighted([{ reward: first }, { reward: box }, { reward: broken }])
  await expectRejection(
    () => rewards.scoreNumbers(mixed, x),
    'ERR_CONFIG',
    'reward "weighted": reward "broken": threw: no',
  )
  const nan = rewards.weighted([
    { reward: box },
    { reward: rewards.blackBox('nan', () => [0 / 0]) },
  ])
  await expectRejection(
    () => rewards.scoreNumbers(nan, x),
    'ERR_NONFINITE',
    'reward "weighted": reward "nan": expected finite scores, got NaN for sample 0 (1 of 1 are not finite)',
  )
})

test('states of other rewards are refused, and change nothing', () => {
  const reward = rewards.weighted([{ reward: first, normalize: 'running' }, { reward: second }])
  const good = { name: 'first', running: { count: 2, mean: 1, squares: 3 } }
  reward.loadState({ parts: [good, { name: 'second' }] })
  const before = reward.state()
  const cases: [state: unknown, message: RegExp][] = [
    [undefined, /^state: expected that of 2 parts, got undefined/],
    [null, /^state: expected that of 2 parts/],
    [{ parts: [good] }, /^state: expected that of 2 parts, got 1/],
    [
      { parts: [good, { name: 'third' }] },
      /^state.parts\[1\]: expected that of "second", got "third"/,
    ],
    [{ parts: [good, null] }, /^state.parts\[1\]: expected that of "second", got undefined/],
    [
      { parts: [{ name: 'first' }, { name: 'second' }] },
      /^state.parts\[0\].running: expected stat/,
    ],
    [{ parts: [good, { ...good, name: 'second' }] }, /^state.parts\[1\].running: expected none/],
    ...[
      { count: -1, mean: 0, squares: 0 },
      { count: 1.5, mean: 0, squares: 0 },
      { count: 1, mean: null, squares: 0 },
      { count: 1, mean: 0, squares: -1 },
      null,
    ].map((running): [unknown, RegExp] => [
      { parts: [{ name: 'first', running }, { name: 'second' }] },
      /^state.parts\[0\].running: expected a count, a mean and a sum of squares/,
    ]),
  ]
  for (const [state, message] of cases) {
    expectRefusal(() => reward.loadState(state), 'ERR_CONFIG', message)
    expect(reward.state()).toEqual(before)
  }
})

test('options are checked', () => {
  const refused = (part: object, code: 'ERR_CONFIG' | 'ERR_RANGE', message: RegExp | string) =>
    expectRefusal(
      () => rewards.weighted([{ reward: first, ...part } as rewards.WeightedPart]),
      code,
      message,
    )
  refused({ weight: Number.NaN }, 'ERR_RANGE', /^parts\[0\].weight/)
  refused({ std: 0 }, 'ERR_RANGE', 'parts[0].std: expected a number above 0, got 0')
  refused({ mean: Number.POSITIVE_INFINITY }, 'ERR_RANGE', /^parts\[0\].mean/)
  refused({ margin: Number.NaN }, 'ERR_RANGE', /^parts\[0\].margin/)
  refused({ margin: '1' }, 'ERR_CONFIG', /^parts\[0\].margin: expected a number/)
  refused({ normalize: 'batch' }, 'ERR_CONFIG', /^parts\[0\].normalize: expected one of running/)
  refused(
    { normalize: 'running', std: 2 },
    'ERR_CONFIG',
    /^parts\[0\].normalize: expected it alone/,
  )
  refused({ wieght: 2 }, 'ERR_CONFIG', /^parts\[0\].wieght: unknown option/)
  refused({ reward: () => zeros([1]) }, 'ERR_CONFIG', /^parts\[0\].reward: expected a reward/)
  expectRefusal(
    () => rewards.weighted([]),
    'ERR_CONFIG',
    /^parts: expected an array of at least one/,
  )
  expectRefusal(
    () => rewards.weighted([{ reward: first }, { reward: first }]),
    'ERR_CONFIG',
    'parts[1]: a reward named "first" is there already; metrics and states go by names',
  )
  expectRefusal(
    () => rewards.weighted([{ reward: first }], { name: '' }),
    'ERR_CONFIG',
    'options.name: expected a name, got ""',
  )
})
