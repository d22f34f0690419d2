import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { afterAll, describe, expect, it } from 'vitest'

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..')
const blocks = Array.from(
  readFileSync(path.join(root, 'README.md'), 'utf8').matchAll(/```ts\n(.*?)```/gs),
  (match) => match[1] as string,
)
// Inside the repository, where the package can be imported by its name.
const folder = path.join(root, 'out', 'readme')

describe('the programs of the README', () => {
  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  it('are there', () => {
    expect(blocks.length).toBeGreaterThan(1)
  })

  it.each(blocks.map((block, i) => [i, block] as const))('number %i runs', async (i, block) => {
    mkdirSync(folder, { recursive: true })
    const file = path.join(folder, `program-${i}.ts`)
    writeFileSync(file, block)
    const before = process.cwd()
    const work = mkdtempSync(path.join(os.tmpdir(), 'didr-readme-'))
    process.chdir(work)
    try {
      await import(pathToFileURL(file).href)
    } finally {
      process.chdir(before)
      rmSync(work, { recursive: true })
    }
  })
})
