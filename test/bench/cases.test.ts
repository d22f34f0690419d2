import { mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { caseOf, cases } from '../../bench/cases/index.mjs'
import { didr } from '../../bench/harness.mjs'
import { loadSafetensors, type StoredArray, within } from '../../bench/peers/protocol.mjs'

const ops = cases.filter(({ family }) => family !== 'training')
const smallest = ({ sizes }: (typeof cases)[number]) => (Array.isArray(sizes) ? sizes[0] : 65536)

describe('cases', () => {
  it('have names of their own', () => {
    expect(new Set(cases.map(({ name }) => name)).size).toBe(cases.length)
    expect(() => caseOf('nothing')).toThrow('nothing: no such case')
  })

  it.each(ops.map((entry) => [entry.name, entry] as const))('%s moves something', (_, entry) => {
    const { elements, moved, flops } = entry.work(smallest(entry) as number)
    expect(elements).toBeGreaterThan(0)
    expect(moved).toBeGreaterThan(0)
    expect(flops).toBeGreaterThanOrEqual(0)
    expect(['memory', 'compute', 'call']).toContain(entry.bound)
    // Rates are compared per element, whatever the size.
    if (entry.sizes === 'elements') {
      expect(entry.work(2 ** 20).elements).toBe(2 ** 20)
      expect(entry.work(2 ** 21).moved).toBe(2 * entry.work(2 ** 20).moved)
    }
  })
})

describe('the subject', () => {
  it('runs every case in each of its dtypes', async () => {
    const subject = didr(1)
    for (const entry of ops)
      for (const dtype of entry.dtypes) {
        const given = { task: entry.name, size: smallest(entry), dtype }
        expect(await subject.run(given, 2), `${entry.name} ${dtype}`).toBeGreaterThan(0)
      }
    await expect(subject.run({ task: 'nothing', size: 1 })).rejects.toThrow('no such case')
    subject.close()
  })

  it('writes what a peer has to find', async () => {
    const folder = mkdtempSync(path.join(os.tmpdir(), 'didr-bench-'))
    const subject = didr(1)
    try {
      const file = path.join(folder, 'perturb.safetensors')
      await subject.ask(`write perturb 640 ${file}`)
      const { arrays } = loadSafetensors(file)
      const { x0, noise } = within('in.', arrays) as Record<'x0' | 'noise', StoredArray>
      const { xt } = within('out.', arrays) as Record<'xt', StoredArray>
      const at = ({ data }: StoredArray, i: number) => data[i] as number
      expect(xt.shape).toEqual([64, 10])
      for (let i = 0; i < 640; i++) {
        const sigma = 0.1 + (0.8 * Math.floor(i / 10)) / 63
        const expected = (1 - sigma) * at(x0, i) + sigma * at(noise, i)
        expect(at(xt, i)).toBeCloseTo(expected, 5)
      }

      const product = path.join(folder, 'matmul.safetensors')
      await subject.ask(`write matmul 16 ${product}`)
      const { arrays: matrices } = loadSafetensors(product)
      const of = (name: string) => matrices[name] as StoredArray
      for (let i = 0; i < 256; i++) {
        let sum = 0
        for (let k = 0; k < 16; k++)
          sum += at(of('in.a'), i - (i % 16) + k) * at(of('in.b'), 16 * k + (i % 16))
        expect(at(of('out.c'), i)).toBeCloseTo(sum, 4)
      }
    } finally {
      subject.close()
      rmSync(folder, { recursive: true })
    }
  })

  it('gives the same losses whenever a training starts again', async () => {
    const subject = didr(1)
    const first = JSON.parse(await subject.ask('losses ring 2'))
    expect(first).toHaveLength(2)
    expect(JSON.parse(await subject.ask('losses ring 2'))).toEqual(first)
    subject.close()
  })
})
