import { describe, expect, test } from 'vitest'
import {
  DidrError,
  memory,
  normal,
  ones,
  rewards,
  type Tensor,
  tensor,
  vjp,
  zeros,
} from '../../lib/index.js'
import { expectRefusal, expectRejection } from '../expectations.js'

type Scores = Tensor<'float32', [number]>

const images = normal([4, 3, 2, 2], { seed: 1 }) as Tensor<'float32'>
const brightness = rewards.fromFunction('bright', (x) => x.mean([1, 2, 3]))

/** A differentiable reward that answers as it is told. */
const answering = (answer: () => unknown) => rewards.fromFunction('odd', answer as () => Tensor)
/** The same as a black box. */
const telling = (answer: () => unknown) => rewards.blackBox('odd', answer as () => number[])

describe('with gradients', () => {
  test('scores and their gradients', async () => {
    const before = memory().tensors
    const { value, pullback } = vjp(
      (x) => rewards.scoreDifferentiably(brightness, x as Tensor<'float32'>),
      [images],
    )
    const cotangent = tensor([1, 2, -3, 0]) as Scores
    const [gradient] = pullback(cotangent)
    const pixels = await images.data()
    const scores = await value.data()
    for (const [i, score] of scores.entries())
      expect(score).toBeCloseTo(pixels.slice(12 * i, 12 * i + 12).reduce((a, b) => a + b) / 12, 6)
    const expected = [1, 2, -3, 0].flatMap((c) => new Array(12).fill(Math.fround(c / 12)))
    expect([...(await gradient.data())]).toEqual(expected)
    for (const made of [value, cotangent, gradient]) made.dispose()
    expect(memory().tensors).toBeLessThanOrEqual(before)
  })

  test('intermediates are disposed outside a vjp, too', () => {
    const before = memory().tensors
    rewards.scoreDifferentiably(brightness, images).dispose()
    expect(memory().tensors).toBeLessThanOrEqual(before)
  })

  test('a reward that returns its images leaves them alone', async () => {
    const flat = tensor([1, 2, 3]) as Scores
    const identity = rewards.fromFunction('identity', (x) => x)
    rewards.scoreDifferentiably(identity, flat).dispose()
    ;(await rewards.scoreNumbers(identity, flat)).dispose()
    const box = rewards.blackBox('identity', (x) => x)
    ;(await rewards.scoreNumbers(box, flat)).dispose()
    expect([...(await flat.data())]).toEqual([1, 2, 3])
    const { pullback } = vjp((x) => rewards.scoreDifferentiably(identity, x as Scores), [flat])
    expect([...(await pullback(tensor([4, 5, 6]) as Scores)[0].data())]).toEqual([4, 5, 6])
  })

  test('the condition arrives', () => {
    const condition = ones([4, 2])
    const seen: unknown[] = []
    const reward = rewards.fromFunction('asks', (x, c) => {
      seen.push(c)
      return x.sum([1, 2, 3])
    })
    rewards.scoreDifferentiably(reward, images, condition)
    rewards.scoreDifferentiably(reward, images)
    expect(seen).toEqual([condition, undefined])
  })

  test('refusals', () => {
    const score = (reward: rewards.Reward, x: Tensor<'float32'> = images) =>
      rewards.scoreDifferentiably(reward, x)
    expectRefusal(
      () => score(rewards.blackBox('judge', () => [1])),
      'ERR_CONFIG',
      /^reward "judge": expected a differentiable reward; this one gives numbers without gradients\. .*fromFunction/,
    )
    expectRefusal(
      () => score(answering(async () => zeros([4]))),
      'ERR_CONFIG',
      'reward "odd": expected a tensor, got a promise; a differentiable reward is synchronous',
    )
    expectRefusal(
      () => score(answering(() => Promise.reject(new Error('unheard')))),
      'ERR_CONFIG',
      /got a promise/,
    )
    for (const shape of [[4, 1], [3], [], [1, 4]])
      expectRefusal(
        () => score(answering(() => zeros(shape))),
        'ERR_SHAPE',
        `reward "odd": expected shape [4], got [${shape.join(', ')}]`,
      )
    expectRefusal(
      () => score(answering(() => zeros([4], { dtype: 'bfloat16' }))),
      'ERR_DTYPE',
      'reward "odd": expected float32, got bfloat16',
    )
    expectRefusal(
      () => score(answering(() => 3)),
      'ERR_CONFIG',
      'reward "odd": expected a tensor, got 3',
    )
    expectRefusal(
      () => score(answering(() => undefined)),
      'ERR_CONFIG',
      'reward "odd": expected a tensor, got undefined',
    )
    const gone = zeros([4])
    gone.dispose()
    expectRefusal(
      () => score(answering(() => gone)),
      'ERR_DISPOSED',
      'reward "odd": the tensor [4] is disposed',
    )
    const scalar = tensor(1) as Tensor<'float32'>
    expectRefusal(
      () => score(brightness, scalar),
      'ERR_SHAPE',
      'images: expected [batch, ...], got []',
    )
    expectRefusal(
      () => score({ name: '', differentiable: true, score: () => gone }),
      'ERR_CONFIG',
      'reward.name: expected a name, got ""',
    )
    expectRefusal(
      () => score({ name: 'x', score: () => gone } as unknown as rewards.Reward),
      'ERR_CONFIG',
      'reward.differentiable: expected a boolean, got undefined',
    )
    expectRefusal(
      () => score({ name: 'x', differentiable: true } as unknown as rewards.Reward),
      'ERR_CONFIG',
      'reward.score: expected a function, got undefined',
    )
    expectRefusal(
      () => score(null as unknown as rewards.Reward),
      'ERR_CONFIG',
      'reward: expected a reward, got null',
    )
  })

  test('what the reward throws is passed on by name', () => {
    const cause = new TypeError('no such thing')
    const thrown = (throws: () => never) => {
      try {
        rewards.scoreDifferentiably(rewards.fromFunction('odd', throws), images)
      } catch (error) {
        return error as DidrError
      }
      return undefined
    }
    const wrapped = thrown(() => {
      throw cause
    })
    expect(wrapped).toBeInstanceOf(DidrError)
    expect([wrapped?.code, wrapped?.message]).toEqual([
      'ERR_CONFIG',
      'reward "odd": threw: no such thing',
    ])
    expect(wrapped?.cause).toBe(cause)
    const plain = thrown(() => {
      throw 'a string'
    })
    expect(plain?.message).toBe('reward "odd": threw: "a string"')
    const own = thrown(() => {
      images.reshape([5])
      throw new Error('not reached')
    })
    expect([own?.code, own?.message]).toEqual([
      'ERR_SHAPE',
      'reward "odd": shape: expected 48 elements as in [4, 3, 2, 2], got [5]',
    ])
    expect(own?.cause).toBeInstanceOf(DidrError)
  })

  test('a throwing reward leaves nothing on the tape of a vjp', () => {
    const before = memory().tensors
    const reward = rewards.fromFunction('odd', (x) => {
      x.mul(2)
      throw new Error('late')
    })
    expect(() =>
      vjp((x) => rewards.scoreDifferentiably(reward, x as Tensor<'float32'>), [images]),
    ).toThrow('reward "odd": threw: late')
    expect(memory().tensors).toBeLessThanOrEqual(before)
  })
})

describe('for numbers', () => {
  test('all forms of answers', async () => {
    const expected = [0.5, -1, 2, 1e-3].map(Math.fround)
    const answers: (() => unknown)[] = [
      () => expected,
      () => Float32Array.from(expected),
      () => Float64Array.from(expected),
      () => tensor(expected),
      async () => expected,
      async () => tensor(expected),
    ]
    for (const answer of answers) {
      const before = memory().tensors
      const scores = await rewards.scoreNumbers(telling(answer), images)
      expect([scores.dtype, scores.shape, scores.device]).toEqual(['float32', [4], images.device])
      expect([...(await scores.data())]).toEqual(expected)
      scores.dispose()
      expect(memory().tensors).toBeLessThanOrEqual(before)
    }
  })

  test('a black box may wait, and reads the images', async () => {
    const reward = rewards.blackBox('first pixel', async (x) => {
      const pixels = await x.data()
      await new Promise((resolve) => setTimeout(resolve, 1))
      return pixels.filter((_, i) => i % 12 === 0)
    })
    using scores = await rewards.scoreNumbers(reward, images)
    expect([...(await scores.data())]).toEqual(
      [...(await images.data())].filter((_, i) => i % 12 === 0),
    )
  })

  test('of a differentiable reward: the same bits, and no gradient', async () => {
    const before = memory().tensors
    const scores = await rewards.scoreNumbers(brightness, images)
    const again = rewards.scoreDifferentiably(brightness, images)
    expect(await scores.data()).toEqual(await again.data())
    scores.dispose()
    again.dispose()
    expect(memory().tensors).toBeLessThanOrEqual(before)
  })

  test('no images', async () => {
    const none = zeros([0, 3, 2, 2]) as Tensor<'float32'>
    const reward = rewards.blackBox('none', () => [])
    expect((await rewards.scoreNumbers(reward, none)).shape).toEqual([0])
    expect((await rewards.scoreNumbers(brightness, none)).shape).toEqual([0])
  })

  test('refusals, which leave no tensors behind', async () => {
    const score = (answer: () => unknown) => () => rewards.scoreNumbers(telling(answer), images)
    await expectRejection(
      score(() => [1, 2, 3]),
      'ERR_SHAPE',
      'reward "odd": expected shape [4], got [3]',
    )
    await expectRejection(
      score(() => tensor([[1], [2], [3], [4]])),
      'ERR_SHAPE',
      'reward "odd": expected shape [4], got [4, 1]',
    )
    await expectRejection(
      score(() => zeros([4], { dtype: 'int32' })),
      'ERR_DTYPE',
      'reward "odd": expected float32, got int32',
    )
    for (const [answer, got] of [
      [undefined, 'undefined'],
      ['good', '"good"'],
      [new Uint8Array(4), 'a Uint8Array'],
    ])
      await expectRejection(
        score(() => answer),
        'ERR_CONFIG',
        `reward "odd": expected one number for each image, or a tensor, got ${got}`,
      )
    await expectRejection(
      score(() => [1, '2', 3, 4]),
      'ERR_CONFIG',
      'reward "odd": values: expected numbers 1 arrays deep, got "2"',
    )
    await expectRejection(
      score(() => Promise.reject(new Error('the service is down'))),
      'ERR_CONFIG',
      'reward "odd": threw: the service is down',
    )
    await expectRejection(
      score(() => {
        throw new RangeError('at once')
      }),
      'ERR_CONFIG',
      'reward "odd": threw: at once',
    )
  })

  test('NaN and infinite scores', async () => {
    const score = (answer: number[]) => () =>
      rewards.scoreNumbers(
        telling(() => answer),
        images,
      )
    await expectRejection(
      score([1, Number.NaN, 2, 3]),
      'ERR_NONFINITE',
      'reward "odd": expected finite scores, got NaN for sample 1 (1 of 4 are not finite)',
    )
    await expectRejection(
      score([1, 0, Number.NEGATIVE_INFINITY, Number.NaN]),
      'ERR_NONFINITE',
      'reward "odd": expected finite scores, got -Infinity for sample 2 (2 of 4 are not finite)',
    )
    // Past float32.
    await expectRejection(
      score([1e300, 0, 0, 0]),
      'ERR_NONFINITE',
      'reward "odd": expected finite scores, got Infinity for sample 0 (1 of 4 are not finite)',
    )
    const logarithm = rewards.fromFunction('log', (x) => x.square().neg().sum([1, 2, 3]).log())
    await expectRejection(
      () => rewards.scoreNumbers(logarithm, images),
      'ERR_NONFINITE',
      /^reward "log": expected finite scores, got NaN for sample 0 \(4 of 4/,
    )
  })
})

test('checkRewards gives the numbers, or says which are none', async () => {
  using good = tensor([1, 2]) as Scores
  expect(await rewards.checkRewards('mine', good)).toEqual(Float32Array.of(1, 2))
  using bad = tensor([1, Number.POSITIVE_INFINITY]) as Scores
  await expectRejection(
    () => rewards.checkRewards('mine', bad),
    'ERR_NONFINITE',
    'reward "mine": expected finite scores, got Infinity for sample 1 (1 of 2 are not finite)',
  )
})

test('functions are asked for', () => {
  const none = undefined as unknown as () => Tensor
  expectRefusal(
    () => rewards.fromFunction('x', none),
    'ERR_CONFIG',
    'fn: expected a function, got undefined',
  )
  expectRefusal(
    () => rewards.blackBox('x', none),
    'ERR_CONFIG',
    'fn: expected a function, got undefined',
  )
  expectRefusal(
    () => rewards.fromFunction(3 as unknown as string, none),
    'ERR_CONFIG',
    'name: expected a name, got 3',
  )
})

describe('scores of parts', () => {
  test('are joined, nested, averaged and released', async () => {
    const before = memory().tensors
    const parts = new rewards.PartScores()
    const noted = [tensor([1, 2]), tensor([6]), tensor([10, 20]), zeros([0])] as Scores[]
    const [a, b, c, none] = noted as [Scores, Scores, Scores, Scores]
    parts.add('a', a)
    parts.add('a', b)
    parts.of('sum').add('c', c)
    parts.of('sum').of('deep').add('none', none)
    for (const scores of noted) scores.dispose()
    expect(await parts.read()).toEqual(
      new Map([
        ['a', Float32Array.of(1, 2, 6)],
        ['sum/c', Float32Array.of(10, 20)],
        ['sum/deep/none', new Float32Array(0)],
      ]),
    )
    expect(await parts.means()).toEqual({ a: 3, 'sum/c': 15, 'sum/deep/none': Number.NaN })
    parts.dispose()
    expect(await parts.read()).toEqual(new Map())
    expect(memory().tensors).toBeLessThanOrEqual(before)
  })

  test('outlive the vjp in which they were noted, as constants', async () => {
    using parts = new rewards.PartScores()
    const { value, pullback } = vjp(
      (x) => {
        const scores = x.mean([1, 2, 3]) as Scores
        parts.add('mean', scores)
        return scores
      },
      [images],
    )
    pullback.dispose()
    expect((await parts.read()).get('mean')).toEqual(await value.data())
  })
})
