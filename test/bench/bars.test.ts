import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { cases } from '../../bench/cases/index.mjs'
import { type Bar, barsTable, judge } from '../../bench/report/bars.mjs'
import { loop, peerRow, row } from './rows.js'

const source = 'a sentence.'
const verdictOf = (bar: Bar, ops = [row()], peers = [peerRow({ didr: 1, PyTorch: 4, C: 0.8 })]) => {
  const { verdict, measured, at, missed } = judge(bar, { ops, peers })
  return { verdict, measured, at, missed }
}

describe('bars', () => {
  it('on times per element are of the case, dtype, size and threads named', () => {
    const bar: Bar = {
      ...{ name: 'b', measure: 'nanosecondsPerElement', case: 'perturb', source },
      ...{ label: '1M', dtype: 'float32', threads: 1, most: 1 },
    }
    const others = [
      row({ threads: 2, median: 9 }),
      row({ label: '2M', median: 9 }),
      row({ dtype: 'bfloat16', median: 9 }),
      row({ case: 'add', median: 9 }),
      loop({ case: 'perturb', median: 9 }),
    ]
    expect(verdictOf(bar, [...others, row()])).toMatchObject({
      verdict: 'pass',
      measured: 1e6 / 2 ** 20,
      at: '1 thread',
    })
    expect(verdictOf({ ...bar, most: 0.9 }, [...others, row()]).verdict).toBe('miss')
    expect(verdictOf(bar, others)).toMatchObject({ verdict: 'not measured', measured: undefined })
  })

  it('on ratios are ours over theirs, or how many times faster', () => {
    const bar: Bar = { name: 'b', measure: 'ratio', task: 'perturb', peer: 'PyTorch', source }
    expect(verdictOf({ ...bar, most: 0.25 })).toMatchObject({ verdict: 'pass', measured: 0.25 })
    expect(verdictOf({ ...bar, most: 0.24 }).verdict).toBe('miss')
    const faster: Bar = { ...bar, measure: 'timesFaster' }
    expect(verdictOf({ ...faster, least: 4 })).toMatchObject({ verdict: 'pass', measured: 4 })
    expect(verdictOf({ ...faster, least: 4.1 }).verdict).toBe('miss')
    expect(verdictOf({ ...bar, peer: 'C', most: 1.2 })).toMatchObject({ verdict: 'miss' })
    expect(verdictOf({ ...bar, peer: 'JAX', most: 1 }).verdict).toBe('not measured')
  })

  it('without a number of threads are as good as the worst', () => {
    const bar: Bar = { name: 'b', measure: 'ratio', task: 'perturb', peer: 'C', most: 2, source }
    const peers = [
      peerRow({ didr: 1, C: 1 }, { threads: 1 }),
      peerRow({ didr: 3, C: 1 }, { threads: 2 }),
    ]
    expect(verdictOf(bar, [], peers)).toEqual({
      ...{ verdict: 'miss', measured: 3, at: '2 threads', missed: ['2 threads: 3.00'] },
    })
    const least: Bar = { ...bar, measure: 'timesFaster', least: 0.5 }
    expect(verdictOf(least, [], peers)).toMatchObject({ measured: 1 / 3, verdict: 'miss' })
  })

  it('on threads are of all that is large, and of steps, and name what misses', () => {
    const bar: Bar = {
      ...{ name: 'b', measure: 'speedup', threads: 2, elementsAbove: 2 ** 20, least: 1.8, source },
    }
    const large = { elements: 2 ** 24, label: '16M' }
    const ops = [
      row(large),
      row({ ...large, threads: 2, median: 0.5e-3 }),
      // Not large, no work of its own, no other to compare with.
      row({ case: 'small' }),
      row({ case: 'small', threads: 2 }),
      row({ ...large, case: 'call', bound: 'call' }),
      row({ ...large, case: 'call', bound: 'call', threads: 2 }),
      row({ ...large, case: 'alone', threads: 2 }),
      loop(large),
      loop({ ...large, threads: 2 }),
    ]
    expect(verdictOf(bar, ops, [])).toMatchObject({ verdict: 'pass', measured: 2 })
    const step = { case: 'ring', bound: 'step', elements: 1 }
    const slow = [row(step), row({ ...step, threads: 2, median: 0.7e-3 })]
    expect(verdictOf(bar, [...ops, ...slow], [])).toMatchObject({
      verdict: 'miss',
      missed: ['ring float32 1M, 2 threads: 1.43'],
    })
    const peers = [1, 2].map((threads) =>
      peerRow({ didr: 1 / threads ** 0.5 }, { task: 'nano', training: true, threads }),
    )
    expect(verdictOf(bar, ops, peers)).toMatchObject({
      verdict: 'miss',
      missed: ['nano float32 beside peers, 2 threads: 1.41'],
    })
  })

  it('without a limit show the number alone', () => {
    const bar: Bar = { name: 'b', measure: 'seconds', case: 'perturb', source }
    expect(verdictOf(bar)).toMatchObject({ verdict: 'no bar', measured: 1e-3, missed: [] })
    expect(barsTable([judge(bar, { ops: [row()], peers: [] })])).toContain(
      '| b |  | 1.00 ms | 1 thread | no bar | a sentence. |',
    )
  })
})

describe('the bars that are kept', () => {
  const bars: Bar[] = JSON.parse(
    readFileSync(new URL('../../bench/bars.json', import.meta.url), 'utf8'),
  )
  const names = cases.map(({ name }) => name)

  it.each(bars.map((bar) => [bar.name, bar] as const))('%s', (_, bar) => {
    expect(bar.source).toMatch(/\.$/)
    expect(['nanosecondsPerElement', 'seconds', 'ratio', 'timesFaster', 'speedup']).toContain(
      bar.measure,
    )
    const about = bar.case ?? bar.task
    if (bar.measure !== 'speedup') expect(names).toContain(about)
    const fields = ['name', 'measure', 'case', 'task', 'peer', 'label', 'dtype', 'threads']
    const known = [...fields, 'elementsAbove', 'most', 'least', 'source']
    for (const field of Object.keys(bar)) expect(known).toContain(field)
  })

  it('have names of their own', () => {
    expect(new Set(bars.map(({ name }) => name)).size).toBe(bars.length)
  })
})
