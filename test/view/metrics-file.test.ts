import { appendFile, truncate, unlink, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { ViewedFolder } from '../../lib/view/folder.js'
import { lastLines, MetricsFile, parseLine } from '../../lib/view/metrics-file.js'
import { temporaryFolder } from '../data/shapes.js'
import { linesOf } from './run-folders.js'

async function opened(text?: string) {
  const root = await temporaryFolder()
  const file = path.join(root, 'metrics.jsonl')
  if (text !== undefined) await writeFile(file, text)
  const folder = await ViewedFolder.open(root)
  return { root, file, folder, metrics: new MetricsFile(folder, 'metrics.jsonl') }
}

const losses = (from: number, to: number, scale = 1) =>
  Array.from({ length: to - from + 1 }, (_, i) => ({
    step: from + i,
    seconds: 0.5,
    loss: scale / (from + i),
  }))

describe('a line of metrics', () => {
  it('has numbers and texts', () => {
    expect(parseLine('{"step":3,"loss":0.5,"noOps":["drs"],"x":null,"y":{"z":1}}')).toEqual({
      step: 3,
      numbers: [['loss', 0.5]],
      texts: [['noOps', ['drs']]],
    })
  })

  it.each(['', '{"step":1,"lo', '[]', 'null', '7', '{"loss":1}', '{"step":"1"}', '{"step":1.5}'])(
    '%j is none',
    (text) => {
      expect(parseLine(text)).toBeUndefined()
    },
  )

  it('with names of the language itself is as any other', () => {
    const { numbers } = parseLine('{"step":1,"__proto__":2,"constructor":3}') ?? { numbers: [] }
    expect(numbers).toEqual([
      ['__proto__', 2],
      ['constructor', 3],
    ])
  })
})

describe('a metrics.jsonl that is followed', () => {
  it('is read on from where it ended', async () => {
    const { file, metrics } = await opened(linesOf(losses(1, 3)))
    await metrics.update()
    expect(metrics.series.get('loss')).toEqual({ steps: [1, 2, 3], values: [1, 1 / 2, 1 / 3] })
    const { position } = metrics
    const before = metrics.series.get('loss')
    await appendFile(file, linesOf(losses(4, 5)))
    await metrics.update()
    // The same series, longer: nothing was read twice.
    expect(metrics.series.get('loss')).toBe(before)
    expect(before?.steps).toEqual([1, 2, 3, 4, 5])
    expect(metrics.position).toBe(position + linesOf(losses(4, 5)).length)
  })

  it('takes a line when its end is there', async () => {
    const [first, second] = losses(1, 2).map((line) => JSON.stringify(line))
    const { file, metrics } = await opened(`${first}\n${second?.slice(0, 9)}`)
    await metrics.update()
    expect(metrics.series.get('loss')?.steps).toEqual([1])
    await appendFile(file, second?.slice(9) as string)
    await metrics.update()
    expect(metrics.series.get('loss')?.steps).toEqual([1])
    await appendFile(file, '\n')
    await metrics.update()
    expect(metrics.series.get('loss')?.steps).toEqual([1, 2])
    expect(metrics.unreadableLines).toBe(0)
  })

  it('cut in the middle of a character is read whole', async () => {
    const bytes = Buffer.from('{"step":1,"β":2}\n')
    const { file, metrics } = await opened('')
    const middle = bytes.indexOf(0xce) + 1
    await appendFile(file, bytes.subarray(0, middle))
    await metrics.update()
    await appendFile(file, bytes.subarray(middle))
    await metrics.update()
    expect([...metrics.series.keys()]).toEqual(['β'])
  })

  it('is read anew when a run that is resumed has cut it, even if it is as long again', async () => {
    const { file, metrics } = await opened(linesOf(losses(1, 9)))
    await metrics.update()
    await truncate(file, linesOf(losses(1, 4)).length)
    await metrics.update()
    expect(metrics.series.get('loss')?.steps).toEqual([1, 2, 3, 4])

    await writeFile(file, linesOf([...losses(1, 2), ...losses(3, 40, 7)]))
    await metrics.update()
    expect(metrics.series.get('loss')?.steps).toEqual(Array.from({ length: 40 }, (_, i) => i + 1))
    expect(metrics.series.get('loss')?.values[2]).toBeCloseTo(7 / 3, 12)
  })

  it('is empty when it is gone, and there again when it comes', async () => {
    const { file, metrics } = await opened()
    await metrics.update()
    expect(metrics.series.size).toBe(0)
    await writeFile(file, linesOf(losses(1, 1)))
    await metrics.update()
    expect(metrics.series.get('loss')?.steps).toEqual([1])
    await unlink(file)
    await metrics.update()
    expect(metrics.series.size).toBe(0)
  })

  it('counts lines that are none and goes on behind them', async () => {
    const { metrics } = await opened(
      `{"step":1,"loss":1}\n{"step":2,"lo{"step":3,"loss":3}\n\n\0\0\0\n{"step":4,"loss":4}\n`,
    )
    await metrics.update()
    expect(metrics.series.get('loss')).toEqual({ steps: [1, 4], values: [1, 4] })
    expect(metrics.unreadableLines).toBe(2)
  })

  it('with a line that does not end goes on behind it, and keeps none of it', async () => {
    const long = 'x'.repeat(6 * 2 ** 20)
    const { file, metrics } = await opened(`{"step":1,"loss":1}\n${long}`)
    await metrics.update()
    expect(metrics.position).toBeGreaterThan(2 ** 22)
    await appendFile(file, `${long}\n{"step":2,"loss":2}\n`)
    await metrics.update()
    expect(metrics.series.get('loss')?.steps).toEqual([1, 2])
    expect(metrics.unreadableLines).toBe(1)
  })

  it('longer than what is read at once is the same', async () => {
    const lines = losses(1, 30_000)
    const { metrics } = await opened(linesOf(lines))
    await Promise.all([metrics.update(), metrics.update()])
    expect(metrics.position).toBeGreaterThan(2 ** 20)
    expect(metrics.series.get('loss')?.values).toEqual(lines.map(({ loss }) => loss))
  })

  it('keeps a text that stays as one note, the latest first', async () => {
    const { metrics } = await opened(
      linesOf([
        { step: 1, noOps: ['a'] },
        { step: 2, noOps: ['a'] },
        { step: 3, noOps: ['a', 'b'] },
        { step: 4, noOps: ['a', 'b'] },
      ]),
    )
    await metrics.update()
    expect(metrics.notes).toEqual([
      { step: 3, name: 'noOps', texts: ['a', 'b'] },
      { step: 1, name: 'noOps', texts: ['a'] },
    ])
  })
})

describe('the last lines', () => {
  it('are those that are complete, of a long file its end', async () => {
    const lines = losses(1, 5000)
    const { folder } = await opened(`${linesOf(lines)}{"step":5001,"lo`)
    const last = await lastLines(folder, 'metrics.jsonl')
    expect(last?.lines.at(-1)).toEqual({
      step: 5000,
      numbers: [
        ['seconds', 0.5],
        ['loss', 1 / 5000],
      ],
      texts: [],
    })
    expect(last?.lines.length).toBeGreaterThan(100)
    expect(last?.lines.length).toBeLessThan(5000)
    expect(await lastLines(folder, 'nothing')).toBeUndefined()
  })
})
