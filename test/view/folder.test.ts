import { spawnSync } from 'node:child_process'
import { mkdir, symlink, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { findRuns } from '../../lib/view/find-runs.js'
import { ViewedFolder } from '../../lib/view/folder.js'
import { temporaryFolder } from '../data/shapes.js'
import { writeRun } from './run-folders.js'

describe('a folder that is viewed', () => {
  it('gives the files inside and nothing else', async () => {
    const root = await temporaryFolder()
    await mkdir(path.join(root, 'inside/a..b'), { recursive: true })
    await writeFile(path.join(root, 'secret'), 'outside')
    await writeFile(path.join(root, 'inside/a..b/..file'), 'text')
    await mkdir(path.join(root, 'inside-too'))
    await writeFile(path.join(root, 'inside-too/secret'), 'outside')
    const folder = await ViewedFolder.open(path.join(root, 'inside'))
    expect(await folder.readText('a..b/..file')).toBe('text')
    expect(await folder.stateOf('a..b/..file')).toMatchObject({ bytes: 4 })
    for (const name of [
      ...[
        '../secret',
        'a..b/../../secret',
        './a..b/..file',
        'a..b//..file',
        '/a..b/..file',
        'a..b',
      ],
      ...['../inside-too/secret', path.join(root, 'secret'), 'a..b/..file\0', 'a..b/..file/', ''],
    ]) {
      expect(await folder.readText(name), name).toBeUndefined()
      expect(await folder.stateOf(name), name).toBeUndefined()
    }
    expect(await folder.list('..')).toEqual([])
    expect((await folder.list('')).map(({ name }) => name)).toEqual(['a..b'])
  })

  it('follows links that stay inside and no others', async () => {
    const root = await temporaryFolder()
    await mkdir(path.join(root, 'inside'))
    await mkdir(path.join(root, 'outside'))
    await writeFile(path.join(root, 'outside/secret'), 'outside')
    await writeFile(path.join(root, 'inside/file'), 'text')
    await symlink('../outside/secret', path.join(root, 'inside/file-link'))
    await symlink('../outside', path.join(root, 'inside/folder-link'))
    await symlink('file', path.join(root, 'inside/own-link'))
    await symlink('round', path.join(root, 'inside/round'))
    await symlink('inside', path.join(root, 'link'))
    const folder = await ViewedFolder.open(path.join(root, 'link'))
    expect(await folder.readText('file')).toBe('text')
    expect(await folder.readText('own-link')).toBe('text')
    expect(await folder.readText('file-link')).toBeUndefined()
    expect(await folder.readText('folder-link/secret')).toBeUndefined()
    expect(await folder.list('folder-link')).toEqual([])
    expect(await folder.readText('round')).toBeUndefined()
  })

  it('does not wait at a pipe, and leaves files alone that are too long', async () => {
    const root = await temporaryFolder()
    const { status } = spawnSync('mkfifo', [path.join(root, 'pipe')])
    expect(status).toBe(0)
    await writeFile(path.join(root, 'long'), 'abc')
    const folder = await ViewedFolder.open(root)
    expect(await folder.readText('pipe')).toBeUndefined()
    expect(await folder.readText('long', 2)).toBeUndefined()
    expect(await folder.readText('long', 3)).toBe('abc')
  })

  it('has to be one', async () => {
    const root = await temporaryFolder()
    await writeFile(path.join(root, 'file'), '')
    await expect(ViewedFolder.open(path.join(root, 'file'))).rejects.toMatchObject({
      code: 'ERR_IO',
      message: expect.stringContaining('expected a folder'),
    })
    await expect(ViewedFolder.open(path.join(root, 'none'))).rejects.toMatchObject({
      code: 'ERR_IO',
    })
  })
})

describe('finding runs', () => {
  it('goes to any depth and knows a run from other folders', async () => {
    const root = await temporaryFolder()
    for (const run of ['a10', 'a9', 'compare/runs/b', 'x/y/z/ü & %'])
      await writeRun(path.join(root, run), {})
    // What only looks like one.
    await writeRun(path.join(root, 'a9/checkpoints/inner'), {})
    await writeRun(path.join(root, '.hidden'), {})
    await writeRun(path.join(root, 'node_modules/package'), {})
    await mkdir(path.join(root, 'tool'))
    await writeFile(path.join(root, 'tool/config.json'), '{}')
    await writeFile(path.join(root, 'compare/compare.json'), '[]')
    const outside = await temporaryFolder()
    await writeRun(outside, {})
    await symlink(outside, path.join(root, 'link'))
    await symlink(root, path.join(root, 'loop'))
    const found = await findRuns(await ViewedFolder.open(root))
    expect(found).toEqual({
      runs: ['a9', 'a10', 'compare/runs/b', 'x/y/z/ü & %'],
      comparisons: ['compare'],
      truncated: false,
    })
    const few = await findRuns(await ViewedFolder.open(root), 3)
    expect(few.truncated).toBe(true)
    expect(few.runs.length).toBeLessThan(4)
  })

  it('finds the folder itself', async () => {
    const root = await temporaryFolder()
    await writeRun(root, {})
    expect((await findRuns(await ViewedFolder.open(root))).runs).toEqual([''])
  })
})
