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

  it('have no names, so that several may stand in one page, and tell their frame', () => {
    const svg = chart({
      title: 't',
      x: { label: 'x', range: [0, 1] },
      y: { label: 'y', range: [0.5, 2], log: true },
      series,
      background: (toX, toY) => `<circle cx="${toX(0)}" cy="${toY(2)}" r="2"/>`,
    })
    expect(svg).not.toMatch(/\sid="|url\(|<style/)
    expect(svg).toContain('data-plot="58 34 486 320" data-x="0 1" data-y="0.5 2" data-log="y"')
    // The plot's place is also that of the pictures inside, in the same coordinates.
    expect(svg).toContain(
      '<svg x="58" y="34" width="486" height="320" viewBox="58 34 486 320"><circle cx="58" cy="34" r="2"/></svg>',
    )
  })

  it('leave out what a logarithm does not have', () => {
    const points = [
      [1, 0],
      [2, -5],
      [3, 10],
      [4, 1000],
    ] as [number, number][]
    const svg = chart({
      title: '',
      x: { label: '' },
      y: { label: '', log: true },
      series: [{ label: 's', kind: 'both', points }],
    })
    expect(svg.match(/<circle /g)).toHaveLength(2)
    expect(svg).toContain(`data-y="${10 / 1.2} 1200"`)
    expect(svg).not.toMatch(/NaN|Infinity/)
  })

  it('use the colours again with hollow points and broken lines, in the legend too', () => {
    const many = Array.from({ length: 9 }, (_, i) => ({
      label: `s${i}`,
      kind: 'both' as const,
      points: [[i, i]] as [number, number][],
    }))
    const axes = { title: '', x: { label: '' }, y: { label: '' } }
    const svg = chart({ ...axes, series: many })
    const hollow = 'fill="#0072b2" fill-opacity="0.1" stroke="#0072b2"'
    expect(svg.split(hollow)).toHaveLength(3)
    expect(svg.match(/stroke-dasharray/g)).toHaveLength(1)
    // A slot is the same as that many series before it; what is said of a line holds.
    const one = { ...(many[0] as (typeof many)[0]), slot: 8 }
    expect(chart({ ...axes, series: [one] })).toContain(hollow)
    expect(chart({ ...axes, series: [{ ...one, dashed: false }] })).not.toContain('dasharray')
  })

  it('name their points', () => {
    const points = [
      [Number.NaN, 0],
      [1, 1],
      [2, 2],
    ] as [number, number][]
    const svg = chart({
      title: '',
      x: { label: '' },
      y: { label: '' },
      series: [{ label: 's', kind: 'points', points, names: ['none', 'a < b', 'c'] }],
    })
    expect(svg.match(/<title>.*?<\/title>/g)).toEqual([
      '<title>a &#60; b</title>',
      '<title>c</title>',
    ])
  })

  it('write large steps so that ticks can be told apart', () => {
    const axis = (high: number) =>
      chart({ title: '', x: { label: '', range: [0, high] }, y: { label: '' }, series: [] })
    expect(axis(15_000)).toMatch(/>5000<.*>10000<.*>15000</)
    expect(axis(6e6)).toMatch(/>1e\+6<.*>2e\+6</)
    expect(axis(1.5e6)).toContain('>1.5e+6<')
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
