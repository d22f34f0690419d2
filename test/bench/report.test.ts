import { describe, expect, it } from 'vitest'
import { kernelPeersTable, ratioTo, trainingPeersTable } from '../../bench/report/peers-table.mjs'
import { figures, withFigures } from '../../bench/report/readme.mjs'
import { rooflineChart, roofOf } from '../../bench/report/roofline.mjs'
import {
  ceilingOf,
  digits,
  fractionOfCeiling,
  gigabytesPerSecond,
  gigaflops,
  nanosecondsPerElement,
  opsTable,
  scalingTable,
  speedup,
  time,
} from '../../bench/report/rows.mjs'
import { chart } from '../../lib/plot/chart.js'
import { loop, peerRow, row } from './rows.js'

describe('rates', () => {
  it('are of the least traffic and of the formula', () => {
    expect(nanosecondsPerElement(row())).toBeCloseTo(1e6 / 2 ** 20, 12)
    expect(gigabytesPerSecond(row())).toBeCloseTo((8 * 2 ** 20) / 1e6, 9)
    expect(gigaflops(row())).toBeCloseTo((3 * 2 ** 20) / 1e6, 9)
  })

  it('are compared with the best loop of the same size and number of threads', () => {
    const rows = [
      row(),
      loop({ median: 0.5e-3 }),
      loop({ case: 'triad', median: 0.4e-3 }),
      loop({ label: '16M', median: 0.1e-3 }),
      loop({ threads: 2, median: 0.1e-3 }),
    ]
    expect(ceilingOf(rows, row())).toBeCloseTo(gigabytesPerSecond(row()) / 0.4, 9)
    expect(fractionOfCeiling(rows, row())).toBeCloseTo(0.4, 12)
    expect(fractionOfCeiling(rows, row({ threads: 4 }))).toBeUndefined()
    expect(fractionOfCeiling(rows, row({ bound: 'call' }))).toBeUndefined()
  })

  it('of products are compared with the BLAS, at any size', () => {
    const product = { bound: 'compute', flops: 2e9 }
    const rows = [loop({ ...product, label: '1024', median: 0.01 }), loop({ median: 1e-9 })]
    const own = row({ ...product, label: '256', median: 0.02 })
    expect(fractionOfCeiling(rows, own)).toBeCloseTo(0.5, 12)
  })

  it('gain by threads over one thread with the same dtype and size', () => {
    const rows = [row(), row({ dtype: 'bfloat16', median: 9 }), row({ label: '16M', median: 9 })]
    expect(speedup(rows, row({ threads: 2, median: 0.5e-3 }))).toBeCloseTo(2, 12)
    expect(speedup(rows, row({ case: 'add', threads: 2 }))).toBeUndefined()
  })
})

describe('numbers as tables show them', () => {
  it.each([
    [1.5, '1.50 s'],
    [0.0123456, '12.3 ms'],
    [9.999e-7, '1000 ns'],
    [1.234e-6, '1.23 µs'],
    [1e-12, '0.00100 ns'],
  ])('time %f', (seconds, text) => {
    expect(time(seconds)).toBe(text)
  })

  it.each([
    [0, '0.00'],
    [1234.5, '1235'],
    [99.96, '100.0'],
    [0.61549, '0.615'],
    [-0.0123456, '-0.0123'],
    [Number.NaN, 'NaN'],
    [Infinity, 'Infinity'],
  ])('digits %f', (value, text) => {
    expect(digits(value)).toBe(text)
  })
})

const lines = (markdown: string) =>
  markdown.split('\n').map((line) => line.slice(2, -2).split(' | '))

describe('tables', () => {
  it('have a line for each row, and as many cells as titles', () => {
    const rows = [
      loop({ median: 0.5e-3 }),
      row({ disturbed: 3 }),
      row({ case: 'ring', bound: 'step', label: '1', size: 1, unit: 'steps', median: 0.02 }),
    ]
    const [titles, , ...cells] = lines(opsTable(rows))
    expect(cells).toHaveLength(3)
    for (const cell of cells) expect(cell).toHaveLength(titles?.length as number)
    expect(cells[0]?.[8]).toBe('ceiling')
    expect(cells[1]).toEqual([
      ...['perturb', 'float32', '1M', '1', '1.00 ms', '0.954', '8.39', '3.15', '50%', '2%'],
      '7 (3 disturbed)',
    ])
    expect(cells[2]?.slice(0, 9)).toEqual([
      ...['ring', 'float32', '1 steps', '1', '20.0 ms', '', '', '', ''],
    ])
  })

  it('of scaling have sizes across and gains beside', () => {
    const rows = [
      row(),
      row({ threads: 2, median: 0.55e-3 }),
      row({ label: '16M', threads: 2, median: 2e-3 }),
    ]
    const [titles, , ...cells] = lines(scalingTable(rows))
    expect(titles).toEqual(['op', 'dtype', 'threads', '1M', '16M'])
    expect(cells).toEqual([
      ['perturb', 'float32', '1', '0.954 ns', ''],
      ['perturb', 'float32', '2', '0.525 ns, 1.82x', '1.91 ns'],
    ])
  })

  it('of peers have ratios where both were there', () => {
    const rows = [
      peerRow({ didr: 1e-3, PyTorch: 8e-3, C: 0.8e-3 }),
      peerRow({ didr: 1e-3, NumPy: 5e-3 }, { task: 'add' }),
    ]
    const [titles, , ...cells] = lines(kernelPeersTable(rows))
    expect(titles?.slice(-2)).toEqual(['PyTorch (times slower)', 'NumPy (times slower)'])
    expect(cells[0]?.slice(-4)).toEqual(['0.763 ns', '1.25', '7.63 ns (8.00)', ''])
    expect(cells[1]?.slice(-4)).toEqual(['', '', '', '4.77 ns (5.00)'])
    expect(ratioTo(peerRow({ didr: 1 }), 'PyTorch')).toBeUndefined()
    const product = peerRow({ didr: 0.01, C: 0.02 }, { task: 'matmul', size: 1000 })
    expect(lines(kernelPeersTable([product]))[2]?.slice(2, 6)).toEqual([
      ...['200 GFLOP/s', '1%', '100 GFLOP/s', '0.50'],
    ])
    const step = peerRow({ didr: 0.3, PyTorch: 1 }, { task: 'nano', training: true })
    expect(lines(trainingPeersTable([step]))[2]).toEqual([
      ...['nano', '2', '300 ms', '1%', '1.00 s (0.30)'],
    ])
  })
})

describe('the roofline', () => {
  const rows = [
    loop({ threads: 2, bytes: 2e10, median: 1 }),
    loop({ threads: 2, bound: 'compute', label: '1024', flops: 1e11, median: 1 }),
    loop({ threads: 1, bytes: 9e10, median: 1 }),
    row({ threads: 2 }),
    row({ threads: 2, case: 'transpose', flops: 0 }),
    row({ threads: 2, dtype: 'bfloat16' }),
    row({ threads: 2, label: '16M' }),
    row({ threads: 2, case: 'attention', family: 'nn', bound: 'compute', label: '64' }),
    row({ threads: 1 }),
  ]

  it('has the limits of as many threads', () => {
    expect(roofOf(rows, 2)).toEqual({ bandwidth: 20, arithmetic: 100 })
    expect(roofOf(rows, 3)).toEqual({ bandwidth: 0, arithmetic: 0 })
  })

  it('shows float32 at one size and the most threads, under min(bandwidth · intensity, arithmetic)', () => {
    const { series, title } = rooflineChart(rows, '1M')
    expect(title).toContain('2 threads')
    expect(series.map(({ label }) => label)).toEqual([
      ...['plain C: 20 GB/s, BLAS 100 GFLOP/s', 'didr', 'nn'],
    ])
    expect(series[1]?.points).toEqual([[3 / 8, gigaflops(row())]])
    for (const [x, y] of series[0]?.points ?? []) expect(y).toBeCloseTo(Math.min(20 * x, 100), 9)
    // The ridge is a corner of the roof.
    expect(series[0]?.points).toContainEqual([5, 100])
  })

  it('is a drawing, also without a product or anything at all', () => {
    for (const some of [rows, rows.slice(0, 1).concat(rows.slice(3, 4)), [loop()]]) {
      const svg = chart(rooflineChart(some, '1M'))
      expect(svg).toMatch(/^<svg.*<\/svg>\n$/s)
      expect(svg).not.toMatch(/NaN|Infinity|undefined/)
    }
  })
})

describe("the README's section", () => {
  const machine = {
    date: '2026-11-25T17:00:00.000Z',
    processor: 'A Processor',
    cores: 2,
    node: 'v20.20.2',
    revision: 'abc1234',
  }
  const peers = {
    machine,
    versions: { didr: { didr: '0.1.0' }, PyTorch: { blas: ['x'], torch: '1.13' } },
    absent: { 'jax-js': 'not installed' },
    rows: [
      peerRow({ didr: 1e-3, PyTorch: 8e-3, C: 0.8e-3 }),
      peerRow({ didr: 0.3, PyTorch: 1 }, { task: 'nano', training: true }),
      peerRow({ didr: 0.6, PyTorch: 2 }, { task: 'nano', training: true, threads: 1 }),
    ],
  }

  it('names versions, what was absent, the date and the machine, and the steps at the most threads', () => {
    const text = figures({ ops: { machine, rows: [row(), row({ family: 'nn' })] }, peers })
    expect(text).toContain('beside PyTorch 1.13 (not there: jax-js)')
    expect(text).toContain('2026-11-25, A Processor, 2 cores, Node v20.20.2, revision abc1234')
    expect(text).toContain('| didrStep, nano Z-Image, low-rank additions | 2 | 300 ms |')
    expect(text).not.toContain('600 ms')
    expect(text.match(/\| perturb \|/g)).toHaveLength(2)
  })

  it('does without results of ops', () => {
    expect(figures({ ops: undefined, peers })).not.toContain('over sizes and threads')
  })

  it('replaces what is between the markers, and that alone', () => {
    const readme = 'a\n<!-- figures:begin -->\nold\n<!-- figures:end -->\nb\n'
    const once = withFigures(readme, 'new')
    expect(once).toBe('a\n<!-- figures:begin -->\nnew\n<!-- figures:end -->\nb\n')
    expect(withFigures(once, 'new')).toBe(once)
    expect(() => withFigures('a\n<!-- figures:end -->', 'new')).toThrow('expected the markers')
  })
})
