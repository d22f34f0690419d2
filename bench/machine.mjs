// What a result was measured on and with, and where results are kept.
import { spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { benchFolder } from './harness.mjs'

export const root = path.join(benchFolder, '..')
const resultsFolder = path.join(benchFolder, 'results')

/** Bytes of the first processor's caches by level, as Linux tells them; a single guess where it does not. */
export function caches() {
  const found = {}
  const folder = '/sys/devices/system/cpu/cpu0/cache'
  try {
    for (const index of readdirSync(folder).filter((name) => name.startsWith('index'))) {
      const read = (name) => readFileSync(path.join(folder, index, name), 'utf8').trim()
      if (read('type') === 'Instruction') continue
      const [, digits, unit] = /^(\d+)([KMG]?)$/.exec(read('size'))
      found[`L${read('level')}`] =
        Number(digits) * { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30 }[unit]
    }
  } catch {
    return { L3: 32 * 2 ** 20 }
  }
  return found
}

export function lastLevelCacheBytes() {
  return Math.max(...Object.values(caches()))
}

function git(...words) {
  const { stdout, status } = spawnSync('git', words, { cwd: root, encoding: 'utf8' })
  return status === 0 ? stdout.trim() : undefined
}

/** The revision, with a plus where files differ from it. */
export function revision() {
  const commit = git('rev-parse', '--short', 'HEAD')
  const changed = git('status', '--porcelain', '--', 'native', 'lib', 'bench', ':!bench/results')
  return commit === undefined ? undefined : `${commit}${changed ? '+' : ''}`
}

export function machine() {
  const relevant = /^(DIDR|OMP|OPENBLAS|GOTO|MKL|UV_THREADPOOL)_?/
  return {
    date: new Date().toISOString(),
    processor: os.cpus()[0]?.model,
    cores: os.cpus().length,
    caches: caches(),
    memory: os.totalmem(),
    load: os.loadavg()[0],
    system: `${os.type()} ${os.release()}`,
    node: process.version,
    revision: revision(),
    environment: Object.fromEntries(
      Object.entries(process.env).filter(([name]) => relevant.test(name)),
    ),
  }
}

/** One line about it. */
export function described({ processor, cores, node, revision: commit }) {
  return `${processor}, ${cores} cores; Node ${node}; revision ${commit ?? 'unknown'}`
}

/**
 * Writes results for machines: to the file, and with `save` to bench/results/ under today's date.
 * @param kind `ops` or `peers`
 * @returns the files
 */
export function writeResults(kind, results, { json, save }) {
  const files = json === undefined ? [] : [json]
  if (save)
    files.push(path.join(resultsFolder, `${results.machine.date.slice(0, 10)}-${kind}.json`))
  for (const file of files) {
    mkdirSync(path.dirname(path.resolve(file)), { recursive: true })
    writeFileSync(file, `${JSON.stringify({ kind, ...results }, null, 1)}\n`)
  }
  return files
}

/** The newest saved results of a kind, or undefined. */
export function newestResults(kind) {
  const names = readdirSync(resultsFolder).filter((name) => name.endsWith(`-${kind}.json`))
  const newest = names.sort().at(-1)
  if (newest === undefined) return undefined
  const file = path.join(resultsFolder, newest)
  return { file, ...JSON.parse(readFileSync(file, 'utf8')) }
}
