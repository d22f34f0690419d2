// Whether a change has made anything slower: this checkout beside another revision, interleaved.
//
//   npm run bench:regress -- --base main [--filter didr,nn] [--size 256K,16M] [--threads 2] [--dtype float32]
//                            [--rounds 11] [--turn 0.25] [--json FILE] [--built]
//
//   --base    a revision of git; it is checked out and built in out/regress/, where a second run finds it again. Where its
//             native sources are this checkout's, the built addon is copied
//   --built   this checkout's addon as it is built; default: build it, too
//
// Both run this checkout's cases; one that the base cannot run is named and left out. A ratio is of paired rounds; it
// counts as a change where 1 is outside the middle 80% of the rounds' ratios and the median more than 2% from 1. Ends with
// 1 where something is slower.
import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { cases } from './cases/index.mjs'
import { benchFolder, didr, interleave } from './harness.mjs'
import { lastLevelCacheBytes, machine, root } from './machine.mjs'
import { chosen, elementsOf, parseCount, parseList, parseSize } from './options.mjs'
import { percent, table, time } from './report/rows.mjs'
import { leastRounds, pairedRatio, verdict } from './statistics.mjs'

const { values: options } = parseArgs({
  options: {
    base: { type: 'string' },
    filter: { type: 'string' },
    size: { type: 'string', default: '256K,16M' },
    threads: { type: 'string', default: String(os.cpus().length) },
    dtype: { type: 'string', default: 'float32' },
    rounds: { type: 'string', default: '11' },
    turn: { type: 'string', default: '0.25' },
    json: { type: 'string' },
    built: { type: 'boolean', default: false },
  },
})
if (options.base === undefined)
  throw new Error('--base: expected a revision, such as main or HEAD~1')
const sizes = parseList('size', options.size, parseSize)
const threadCounts = parseList('threads', options.threads, (text) => parseCount('threads', text))
const dtypes = options.dtype.split(',')
const rounds = parseCount('rounds', options.rounds, leastRounds)
const wanted = chosen(cases, options.filter)

function command(name, words, cwd = root) {
  const { status, error } = spawnSync(name, words, { cwd, stdio: ['ignore', 2, 2] })
  if (error) throw error
  if (status !== 0) throw new Error(`${name} ${words.join(' ')} in ${cwd} ended with ${status}`)
}

/** Whether a revision's files are those of this checkout. */
function isSame(commit, ...files) {
  const words = ['diff', '--quiet', commit, '--', ...files]
  return spawnSync('git', words, { cwd: root }).status === 0
}

/** @returns the folder of the revision's bench/, which is this checkout's */
function buildBase(commit) {
  const folder = path.join(root, 'out/regress', commit)
  if (!existsSync(folder))
    command('git', ['worktree', 'add', '--quiet', '--detach', folder, commit])
  if (!existsSync(path.join(folder, 'node_modules'))) {
    if (isSame(commit, 'package-lock.json'))
      symlinkSync(path.join(root, 'node_modules'), path.join(folder, 'node_modules'))
    else command('npm', ['ci', '--ignore-scripts'], folder)
  }
  if (!existsSync(path.join(folder, 'out/Release/didr.node'))) {
    if (isSame(commit, 'native', 'CMakeLists.txt', 'binding.gyp', 'scripts/build-native.mjs'))
      cpSync(path.join(root, 'out/Release'), path.join(folder, 'out/Release'), { recursive: true })
    else command(process.execPath, ['scripts/build-native.mjs'], folder)
  }
  if (!existsSync(path.join(folder, 'dist')))
    command(path.join(folder, 'node_modules/.bin/tsc'), ['-p', folder], folder)
  const bench = path.join(folder, 'bench')
  rmSync(bench, { recursive: true })
  cpSync(benchFolder, bench, {
    recursive: true,
    filter: (file) => !/[/\\](node_modules|results)$/.test(file),
  })
  return bench
}

const found = spawnSync('git', ['rev-parse', '--verify', `${options.base}^{commit}`], {
  cwd: root,
  encoding: 'utf8',
})
if (found.status !== 0) throw new Error(`--base: no such revision: ${options.base}`)
const commit = found.stdout.trim()
if (!options.built) command(process.execPath, ['scripts/build-native.mjs'])
const baseFolder = buildBase(commit)

const bytesOf = { float32: 4, bfloat16: 2 }
const limits = { cacheBytes: lastLevelCacheBytes(), memoryBytes: os.freemem() / 6 }

/** Sizes of a case: those asked for, or its own. */
function sizesOf(entry, dtype) {
  if (entry.sizes !== 'elements')
    return entry.sizes.map((size) => ({ label: `${size} ${entry.unit}`, size }))
  const bytesPerElement = (bytesOf[dtype] * entry.work(2 ** 20).moved) / 2 ** 20
  return sizes.map((size) => ({
    label: size.label,
    size: elementsOf(size, { bytesPerElement, ...limits }),
  }))
}

const results = []
for (const threads of threadCounts) {
  const contestants = [
    didr(threads, { folder: baseFolder, name: 'base' }),
    didr(threads, { name: 'head' }),
  ]
  try {
    for (const entry of wanted)
      for (const dtype of entry.dtypes.filter((name) => dtypes.includes(name)))
        for (const { label, size } of sizesOf(entry, dtype)) {
          process.stderr.write(`${entry.name}, ${dtype}, ${label}, ${threads} threads\n`)
          const entries = contestants.map((contestant) => ({
            ...{ contestant, task: entry.name, size, dtype },
            ...(entry.repeats === undefined ? {} : { repeats: entry.repeats }),
          }))
          const common = { case: entry.name, dtype, label, threads }
          for (const contestant of contestants) await contestant.ask('forget')
          try {
            await contestants[0].run(entries[0])
          } catch (error) {
            results.push({ ...common, left: error.message })
            continue
          }
          const turnSeconds = Number(options.turn)
          const [base, head] = await interleave(entries, rounds, { turnSeconds })
          const paired = pairedRatio(head.seconds, base.seconds)
          results.push({ ...common, base, head, paired, verdict: verdict(paired) })
        }
  } finally {
    for (const contestant of contestants) contestant.close()
  }
}

const timed = results.filter(({ left }) => left === undefined)
console.log(
  table(
    ['op', 'dtype', 'size', 'threads', 'base', 'this', 'ratio', 'middle 80%', 'spread', 'verdict'],
    timed.map(({ base, head, paired, ...row }) => [
      ...[row.case, row.dtype, row.label, String(row.threads)],
      ...[time(base.median), time(head.median), paired.ratio.toFixed(3)],
      `${paired.low.toFixed(3)} to ${paired.high.toFixed(3)}`,
      percent(Math.max(base.spread, head.spread)),
      row.verdict === 'same' ? '' : row.verdict.toUpperCase(),
    ]),
  ),
)
for (const row of results.filter(({ left }) => left !== undefined))
  console.log(`left out, as the base cannot run it: ${row.case} ${row.dtype}: ${row.left}`)
const slower = timed.filter((row) => row.verdict === 'slower')
const faster = timed.filter((row) => row.verdict === 'faster')
console.log(
  `\n${slower.length} slower, ${faster.length} faster of ${timed.length}, beside ${commit}`,
)
if (options.json !== undefined)
  writeFileSync(
    options.json,
    `${JSON.stringify({ kind: 'regress', machine: machine(), base: commit, options, results }, null, 1)}\n`,
  )
if (slower.length > 0) process.exitCode = 1
