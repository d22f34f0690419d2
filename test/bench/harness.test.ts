import { describe, expect, it } from 'vitest'
import { Contestant, interleave } from '../../bench/harness.mjs'

/** Answers with the numbers given, the last one forever, and notes who was asked. */
function scripted(name: string, asked: string[], secondsOf: (repeats: number) => number) {
  return {
    name,
    run(_entry: unknown, repeats = 1) {
      asked.push(name)
      return Promise.resolve(secondsOf(repeats))
    },
  }
}

const still = () => undefined
const entry = (contestant: unknown) => ({ contestant, task: 'x', size: 1 }) as never

describe('interleaved turns', () => {
  it('take turns, the order changing from round to round', async () => {
    const asked: string[] = []
    const entries = ['a', 'b', 'c'].map((name) => entry(scripted(name, asked, () => 1)))
    const options = { turnSeconds: 0.001, accounts: still }
    const results = await interleave(entries, 3, options)
    const order = asked.filter((name, i) => name !== asked[i - 1]).join('')
    expect(order).toBe('abcbcacab')
    expect(results.map(({ name, turns, median }) => [name, turns, median])).toEqual([
      ['a', 3, 1],
      ['b', 3, 1],
      ['c', 3, 1],
    ])
  })

  it('do not count the first run of a turn', async () => {
    let runs = 0
    const cold = scripted('a', [], () => (runs++ % 3 === 1 ? 100 : 2))
    // One run to calibrate; then turns of a cold one and two.
    const [result] = await interleave([entry(cold)], 4, { turnSeconds: 1, accounts: still })
    expect(result?.median).toBe(2)
    expect(result?.spread).toBe(0)
  })

  it('repeat what is short until asking for it does not matter', async () => {
    const repeats: number[] = []
    const quick = scripted('a', [], (count) => {
      repeats.push(count)
      return 1e-5
    })
    await interleave([entry(quick)], 1, { turnSeconds: 0.001, accounts: still })
    expect(repeats[0]).toBe(1)
    expect(repeats.at(-1)).toBeGreaterThanOrEqual(500)
    expect(repeats.at(-1)).toBeLessThan(2000)
  })

  it('keep the number of repeats that is asked for', async () => {
    const repeats: number[] = []
    const step = scripted('a', [], (count) => {
      repeats.push(count)
      return 1e-5
    })
    const given = { contestant: step, task: 'x', size: 1, repeats: 20 } as never
    await interleave([given], 1, { turnSeconds: 1e-6, accounts: still })
    expect(new Set(repeats)).toEqual(new Set([20]))
  })

  it('are run again where something else ran, at most as often', async () => {
    // Accounts are read before and after each turn: a processor is taken in turns 0 and 2.
    const accountsOf = (busy: (turn: number) => boolean) => {
      let [reads, taken] = [0, 0]
      return () => {
        const turn = Math.floor(reads / 2)
        if (reads++ % 2 === 1 && busy(turn)) taken += 100
        return { total: 100 * reads, busy: taken, own: 0 }
      }
    }
    const options = { turnSeconds: 0.001 }
    const steady = () => [entry(scripted('a', [], () => 1))]
    const twice = accountsOf((turn) => turn === 0 || turn === 2)
    expect(await interleave(steady(), 4, { ...options, accounts: twice })).toMatchObject([
      { turns: 4, disturbed: 2 },
    ])
    const always = accountsOf(() => true)
    expect(await interleave(steady(), 4, { ...options, accounts: always })).toMatchObject([
      { turns: 4, disturbed: 8 },
    ])
  })
})

describe('a contestant', () => {
  const program = (code: string) => new Contestant('x', process.execPath, ['-e', code])
  const echo = `
    require('readline').createInterface({ input: process.stdin }).on('line', (line) =>
      console.log(line.startsWith('run bad') ? 'error: no such task' : line.startsWith('run zero') ? '0' : '0.5'))`

  it('is asked in lines and answers in seconds', async () => {
    const contestant = program(echo)
    expect(await contestant.run({ task: 'good', size: 3 })).toBe(0.5)
    await expect(contestant.run({ task: 'bad', size: 3 })).rejects.toThrow(
      'x: run bad 3 float32 1: no such task',
    )
    await expect(contestant.run({ task: 'zero', size: 3 })).rejects.toThrow('x: zero 3: 0')
    contestant.close()
  })

  it('that ends is told', async () => {
    const contestant = program('')
    await expect(contestant.ask('about')).rejects.toThrow('x ended at: about')
  })
})
