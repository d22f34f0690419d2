/**
 * Finding and loading the addon. Every candidate is tried in order and every failure kept, so that when none works the
 * error says what was tried and which command mends it.
 */
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { DidrError } from '../errors.js'
import type { Binding } from './binding.js'

export interface LoadReport {
  /** The file that was loaded. */
  file: string
  /** The candidates before it and why each was passed over. */
  refused: { candidate: string; reason: string }[]
}

const packageRoot = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..')

export function loadAddon(): { addon: Binding; report: LoadReport } {
  const require = createRequire(import.meta.url)
  const refused: LoadReport['refused'] = []

  const candidates: [name: string, resolve: () => string][] = []
  const override = process.env.DIDR_BINARY
  if (override) candidates.push(['DIDR_BINARY', () => path.resolve(override)])
  candidates.push([
    'a local build by cmake-js',
    () => path.join(packageRoot, 'out/Release/didr.node'),
  ])
  candidates.push([
    'a prebuilt binary or a local build by node-gyp',
    () => (require('node-gyp-build') as { path(root: string): string }).path(packageRoot),
  ])

  for (const [name, resolve] of candidates) {
    let candidate = name
    try {
      const file = resolve()
      candidate = `${name} (${file})`
      if (!existsSync(file)) throw new Error('no such file')
      const addon = require(file) as Binding
      addon.init(DidrError)
      return { addon, report: { file, refused } }
    } catch (error) {
      const reason = error instanceof Error ? (error.message.split('\n')[0] ?? '') : String(error)
      refused.push({ candidate, reason })
    }
  }
  const lines = refused.map(({ candidate, reason }) => `  - ${candidate}: ${reason}`).join('\n')
  throw new DidrError(
    'ERR_BACKEND',
    `the native addon of didr could not be loaded on ${process.platform}-${process.arch}, Node ${process.version}. Tried:\n` +
      `${lines}\nTo build it here, with CMake and a C++20 compiler: npm rebuild didr` +
      ` (in a clone of the repository: npm run build)`,
  )
}
