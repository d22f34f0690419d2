import { describe, expect, it } from 'vitest'
import { models, type Tensor, valueAndGrad } from '../../lib/index.js'

describe('the caption encoder', () => {
  const vocabulary = models.vocabularyOf(['red heart', 'Red  circle!', 'blue heart', 'red'])
  const encoder = models.captionEncoder({ vocabulary, dim: 5, max_length: 4 }, { seed: 3 })

  it('orders its vocabulary by count, then alphabetically', () => {
    expect(vocabulary).toEqual(['red', 'heart', 'blue', 'circle'])
    expect(models.vocabularyOf(['b a b', 'c a b'], 2)).toEqual(['b', 'a'])
  })

  it('reads words of letters and digits, in any case and script', () => {
    expect(models.wordsOf('A  keycap: #10, Ångström-блок 色')).toEqual([
      ...['a', 'keycap', '10', 'ångström', 'блок', '色'],
    ])
  })

  it('gives unknown words, empty captions and long ones their ids', () => {
    expect(encoder.tokenize('RED heart')).toEqual([2, 3])
    expect(encoder.tokenize('red dragon')).toEqual([2, 0])
    expect(encoder.tokenize(' ... ')).toEqual([1])
    expect(encoder.tokenize('red red red red heart heart')).toEqual([2, 2, 2, 2])
  })

  it('packs the rows of its table, and sends gradients back to them', async () => {
    const table = await encoder.embedding.weight.value.data()
    const { features, lengths } = encoder.forward(['blue heart', '', 'red red dragon'])
    expect(lengths).toEqual([2, 1, 3])
    expect(features.shape).toEqual([6, 5])
    const rows = [4, 3, 1, 2, 2, 0]
    expect([...(await features.data())]).toEqual(
      rows.flatMap((row) => [...table.slice(row * 5, row * 5 + 5)]),
    )
    valueAndGrad(() => encoder.forward(['blue heart', '', 'red red dragon']).features.sum())
    const counts = [1, 1, 2, 1, 1, 0]
    expect([...(await (encoder.embedding.weight.grad as Tensor).data())]).toEqual(
      counts.flatMap((count) => new Array(5).fill(count)),
    )
  })

  it('refuses repeated words and captions that are not text', () => {
    expect(() => models.captionEncoder({ vocabulary: ['a', 'a'], dim: 2 })).toThrow(
      'each word once',
    )
    expect(() => encoder.forward([1] as unknown as string[])).toThrow('captions: expected an array')
  })
})

describe('sinusoidal features', () => {
  it('are cosines and then sines at frequencies down to almost 1 / 10,000', async () => {
    const times = [0, 1, 999.5]
    using tensor = models.sinusoidalFeatures(times, 8)
    const features = await tensor.data()
    for (const [row, t] of times.entries())
      for (let i = 0; i < 4; i++) {
        const angle = t * 10000 ** (-i / 4)
        expect(features[row * 8 + i]).toBeCloseTo(Math.cos(angle), 3)
        expect(features[row * 8 + 4 + i]).toBeCloseTo(Math.sin(angle), 3)
      }
  })
})
