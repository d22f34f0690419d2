import { describe, expect, it } from 'vitest'
import { chart, escapeMarkup, ticksOf } from '../../lib/plot/chart.js'

describe('ticks', () => {
  it.each([
    [[0, 1], 5, [0, 0.2, 0.4, 0.6, 0.8, 1]],
    [[-3.6, 3.6], 6, [-2, 0, 2]],
    [[0, 2000], 6, [0, 500, 1000, 1500, 2000]],
  ] as const)('divide %j roundly', (range, count, expected) => {
    const ticks = ticksOf(range, count)
    expect(ticks.length).toBe(expected.length)
    for (const [i, tick] of ticks.entries()) expect(tick).toBeCloseTo(expected[i] as number, 9)
  })

  it('are powers of ten on a logarithmic axis', () => {
    const ticks = ticksOf([0.05, 200], 5, true)
    expect(ticks.map((tick) => Math.round(Math.log10(tick)))).toEqual([-1, 0, 1, 2])
  })
})

describe('charts', () => {
  const series = [
    {
      label: 'a <b> & "c"',
      points: [
        [0, 0],
        [1, 2],
        [Number.NaN, 1],
      ] as [number, number][],
    },
  ]

  it('put points where the axes say, and leave out what is not finite', () => {
    const svg = chart({
      title: 't',
      x: { label: 'x', range: [0, 1] },
      y: { label: 'y', range: [0, 2] },
      series,
    })
    expect(svg).toContain('points="58.0,354.0 544.0,34.0"')
    expect(svg).not.toContain('NaN')
  })

  it('escape text', () => {
    expect(escapeMarkup('<&>"\'')).toBe('&#60;&#38;&#62;&#34;&#39;')
    const svg = chart({ title: '<script>', x: { label: '' }, y: { label: '' }, series })
    expect(svg).not.toContain('<script>')
    expect(svg).toContain('a &#60;b&#62; &#38; &#34;c&#34;')
  })

  it('survive no points, one point and equal points', () => {
    for (const points of [
      [],
      [[1, 1]],
      [
        [1, 1],
        [1, 1],
      ],
    ] as [number, number][][]) {
      const svg = chart({
        title: '',
        x: { label: '' },
        y: { label: '', log: points.length > 0 },
        series: [{ label: 's', kind: 'both', points }],
      })
      expect(svg).not.toMatch(/NaN|Infinity/)
    }
  })
})
