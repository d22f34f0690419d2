import { describe, expect, it } from 'vitest'
import { chosen, elementsOf, parseCount, parseList, parseSize } from '../../bench/options.mjs'

describe('sizes', () => {
  it.each([
    ['7', 7],
    ['64K', 65536],
    ['16M', 2 ** 24],
    ['1G', 2 ** 30],
  ])('%s', (text, elements) => {
    expect(parseSize(text)).toEqual({ label: text, elements })
  })

  it.each(['', '0', '-1', '16m', '1.5M', 'x', '0x', '16 M', 'NaN'])('not %j', (text) => {
    expect(() => parseSize(text)).toThrow('--size: expected sizes such as 64K, 16M or 10x, got')
  })

  const machine = { bytesPerElement: 8, cacheBytes: 2 ** 25, memoryBytes: 2 ** 40 }

  it('in caches are elements by what each of them moves', () => {
    expect(elementsOf(parseSize('10x'), machine)).toBe((10 * 2 ** 25) / 8)
    expect(elementsOf(parseSize('10x'), { ...machine, bytesPerElement: 20 })).toBe(2 ** 24)
    expect(elementsOf(parseSize('16M'), machine)).toBe(2 ** 24)
  })

  it('in caches are multiples that batches and rows divide, within the memory, and never nothing', () => {
    const odd = elementsOf(parseSize('10x'), { ...machine, bytesPerElement: 7 })
    expect(odd % 2 ** 16).toBe(0)
    expect(odd).toBeLessThanOrEqual((10 * 2 ** 25) / 7)
    expect(elementsOf(parseSize('10x'), { ...machine, memoryBytes: 2 ** 23 })).toBe(2 ** 20)
    expect(elementsOf(parseSize('1x'), { ...machine, cacheBytes: 1 })).toBe(2 ** 16)
  })
})

describe('lists and counts', () => {
  it('are parsed item by item', () => {
    expect(parseList('threads', '1,2', (text) => parseCount('threads', text))).toEqual([1, 2])
    expect(() => parseList('threads', ',', Number)).toThrow('--threads: expected a list, got ","')
  })

  it.each(['0', '1.5', 'two', '-3'])('refuse %s', (text) => {
    expect(() => parseCount('rounds', text)).toThrow('--rounds: expected a whole number from 1 on')
  })

  it('keep to their least', () => {
    expect(parseCount('rounds', '8', 8)).toBe(8)
    expect(() => parseCount('rounds', '7', 8)).toThrow('from 8 on, got 7')
  })
})

describe('chosen cases', () => {
  const cases = [
    { name: 'matmul', family: 'matmul' },
    { name: 'twoMatmuls', family: 'matmul' },
    { name: 'add', family: 'elementwise' },
    { name: 'addRow', family: 'elementwise' },
    { name: 'ring', family: 'training' },
  ]
  const names = (filter?: string) => chosen(cases, filter).map(({ name }) => name)

  it('have the text in their name, letter case aside, or are of the family', () => {
    expect(names()).toHaveLength(5)
    expect(names('MATMUL')).toEqual(['matmul', 'twoMatmuls'])
    expect(names('training,addr')).toEqual(['addRow', 'ring'])
  })

  it('are some', () => {
    expect(() => names('nothing')).toThrow('--filter: nothing has nothing in its name; there are')
  })
})
