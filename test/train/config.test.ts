import { writeFile } from 'node:fs/promises'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { train } from '../../lib/index.js'
import { temporaryFolder } from '../data/shapes.js'

const { resolveConfig, readConfig } = train
const defaults = {
  steps: 10,
  name: 'a',
  on: true,
  betas: [0.9, 0.99],
  model: { dim: 8, axes: [1] },
}

describe('a configuration', () => {
  it('is the defaults where nothing is given, and never the defaults themselves', () => {
    const config = resolveConfig(defaults)
    expect(config).toEqual(defaults)
    config.betas.push(1)
    config.model.axes.push(2)
    expect(defaults.betas).toEqual([0.9, 0.99])
    expect(defaults.model.axes).toEqual([1])
  })

  it('replaces fields at any depth, and whole arrays', () => {
    expect(resolveConfig(defaults, { on: false, betas: [], model: { dim: 4 } })).toEqual({
      steps: 10,
      name: 'a',
      on: false,
      betas: [],
      model: { dim: 4, axes: [1] },
    })
  })

  it('takes texts in a list that is empty by default, and nothing else', () => {
    expect(resolveConfig({ shown: [] }, { shown: ['a', 'b'] })).toEqual({ shown: ['a', 'b'] })
    expect(() => resolveConfig({ shown: [] }, { shown: [1] })).toThrow(
      'config.shown[0]: expected a string, got 1',
    )
  })

  it.each([
    [{ step: 1 }, 'config.step: unknown field; known are steps, name, on, betas, model'],
    [{ model: { dimm: 1 } }, 'config.model.dimm: unknown field; known are dim, axes'],
    [{ steps: '1e3' }, 'config.steps: expected a number, got "1e3"'],
    [{ steps: null }, 'config.steps: expected a number, got null'],
    [{ steps: Number.NaN }, 'config.steps: expected a finite number, got NaN'],
    [{ on: 1 }, 'config.on: expected a boolean, got 1'],
    [{ name: ['a'] }, 'config.name: expected a string, got ["a"]'],
    [{ betas: 0.9 }, 'config.betas: expected an array, got 0.9'],
    [{ betas: [0.9, '0.99'] }, 'config.betas[1]: expected a number, got "0.99"'],
    [{ model: [] }, 'config.model: expected an object, got []'],
    [{ model: { axes: { 0: 1 } } }, 'config.model.axes: expected an array, got an object'],
    [JSON.parse('{"__proto__": 1}'), 'config.__proto__: unknown field'],
    [[], 'config: expected an object, got []'],
    [null, 'config: expected an object, got null'],
  ])('refuses %j', (given, message) => {
    expect(() => resolveConfig(defaults, given)).toThrow(message)
  })

  it('is read from a file', async () => {
    const file = path.join(await temporaryFolder(), 'config.json')
    await expect(readConfig(file)).rejects.toMatchObject({ code: 'ERR_IO' })
    await writeFile(file, '{"steps": 3}')
    expect(await readConfig(file)).toEqual({ steps: 3 })
    for (const text of ['{"steps": 3', '[]', '3', 'null', '']) {
      await writeFile(file, text)
      await expect(readConfig(file), text).rejects.toMatchObject({
        code: 'ERR_FORMAT',
        message: expect.stringContaining(file),
      })
    }
  })
})
