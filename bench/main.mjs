// How fast each op is, beside what plain C loops and a plain BLAS reach on this machine in the same run.
//
//   npm run bench -- [--filter perturb,matmul] [--size 64K,1M,16M,10x] [--threads 1,2] [--dtype float32,bfloat16]
//                    [--rounds 7] [--turn 0.25] [--device cpu] [--json FILE] [--svg FILE] [--save]
//
//   --filter   cases with this in their name, or of this family (didr, random, elementwise, reduce, nn, matmul, optim,
//              training). Default: all
//   --size     elements; 10x: so many that a case moves ten times the last-level cache. Cases with sizes of their own
//              (edges, tokens, steps) take those of them that are named, or else all. Default 16K,256K,4M,16M,10x
//   --threads  default 1 and, where there are more, all cores
//   --rounds   of interleaved turns; --turn: the least seconds of a turn
//   --save     keep the results in bench/results/, with the roofline
//
// All of it takes most of an hour on two cores. harness.mjs says how turns are interleaved and which do not count.
import { writeFileSync } from 'node:fs'
import os from 'node:os'
import { parseArgs } from 'node:util'
import { chart } from '../dist/plot/chart.js'
import { cases } from './cases/index.mjs'
import { didr, interleave, plainC } from './harness.mjs'
import { described, lastLevelCacheBytes, machine, writeResults } from './machine.mjs'
import { chosen, elementsOf, parseCount, parseList, parseSize } from './options.mjs'
import { rooflineChart } from './report/roofline.mjs'
import { ceilingFamily, opsTable, scalingTable } from './report/rows.mjs'

const { values: options } = parseArgs({
  options: {
    filter: { type: 'string' },
    size: { type: 'string', default: '16K,256K,4M,16M,10x' },
    threads: { type: 'string', default: os.cpus().length > 1 ? `1,${os.cpus().length}` : '1' },
    dtype: { type: 'string', default: 'float32,bfloat16' },
    rounds: { type: 'string', default: '7' },
    turn: { type: 'string', default: '0.25' },
    device: { type: 'string', default: 'cpu' },
    json: { type: 'string' },
    svg: { type: 'string' },
    save: { type: 'boolean', default: false },
  },
})
const sizes = parseList('size', options.size, parseSize)
const threadCounts = parseList('threads', options.threads, (text) => parseCount('threads', text))
const dtypes = parseList('dtype', options.dtype, (text) => {
  if (!['float32', 'bfloat16'].includes(text))
    throw new Error(`--dtype: expected float32 or bfloat16, got ${text}`)
  return text
})
const rounds = parseCount('rounds', options.rounds)
const turnSeconds = Number(options.turn)
if (!(turnSeconds > 0)) throw new Error(`--turn: expected seconds, got ${options.turn}`)
const wanted = chosen(cases, options.filter)

const bytesOf = { float32: 4, bfloat16: 2 }
// All contestants hold what one case moves at sizes in caches, at the same time: the package's processes and the loops'.
const holders = 2 * threadCounts.length
const limits = {
  cacheBytes: lastLevelCacheBytes(),
  memoryBytes: (0.6 * os.freemem()) / holders,
}

/** A loop of plain C, as a case. */
const loop = (name, { moved, flops }) => ({
  name,
  family: ceilingFamily,
  unit: 'elements',
  bound: 'memory',
  dtypes: ['float32'],
  work: (size) => ({ elements: size, moved: moved * size, flops: flops * size }),
})
const loops = [
  loop('copy', { moved: 2, flops: 0 }),
  loop('scale', { moved: 2, flops: 1 }),
  loop('triad', { moved: 3, flops: 2 }),
]
const product = {
  ...loop('matmul', { moved: 0, flops: 0 }),
  unit: 'edge',
  bound: 'compute',
  work: (edge) => ({ elements: edge ** 2, moved: 3 * edge ** 2, flops: 2 * edge ** 3 }),
}

/** What is timed of a case at a size, in each of the dtypes that it has and with each number of threads. */
function entriesOf(entry, size, contestants, among = dtypes) {
  const own = entry.dtypes.filter(
    (dtype) => among.includes(dtype) || entry.family === ceilingFamily,
  )
  return own.flatMap((dtype) => {
    const bytesPerElement = (bytesOf[dtype] * entry.work(2 ** 20).moved) / 2 ** 20
    const elements = elementsOf(size, { bytesPerElement, ...limits })
    const { moved, flops, elements: counted } = entry.work(elements)
    return contestants.map((contestant, i) => ({
      contestant,
      task: entry.name,
      size: elements,
      dtype,
      ...(entry.repeats === undefined ? {} : { repeats: entry.repeats }),
      row: {
        ...{ case: entry.name, family: entry.family, dtype, label: size.label, size: elements },
        ...{ unit: entry.unit, threads: threadCounts[i], bound: entry.bound },
        ...{ elements: counted, bytes: moved * bytesOf[dtype], flops },
      },
    }))
  })
}

/**
 * What is interleaved with each other: everything of one size, with the loops at that size; of sizes in caches, whatever
 * moves as much for each element in one dtype, so that inputs are shared and fit in memory; the rest case by case.
 */
function groups(ours, plain) {
  const list = []
  const streaming = wanted.filter((entry) => entry.sizes === 'elements')
  const movedBy = (entry) => entry.work(2 ** 20).moved
  const add = (size, part, among) => {
    const own = part.flatMap((entry) => entriesOf(entry, size, ours, among))
    if (own.length === 0) return
    const beside = loops.flatMap((entry) => entriesOf(entry, size, plain))
    list.push({ name: `${size.label} elements`, entries: [...beside, ...own] })
  }
  for (const size of sizes) {
    if ('caches' in size)
      for (const moved of new Set(streaming.map(movedBy)))
        for (const dtype of dtypes)
          add(
            size,
            streaming.filter((entry) => movedBy(entry) === moved),
            [dtype],
          )
    else add(size, streaming, dtypes)
  }
  for (const entry of wanted.filter((other) => other.sizes !== 'elements')) {
    const named = entry.sizes.filter((size) => sizes.some(({ elements }) => elements === size))
    const own = (named.length > 0 ? named : entry.sizes).map((size) => ({
      label: String(size),
      elements: size,
    }))
    const edges = entry.name === 'matmul' ? own : [{ label: '1024', elements: 1024 }]
    list.push({
      name: entry.name,
      entries: [
        ...(entry.bound === 'compute'
          ? edges.flatMap((size) => entriesOf(product, size, plain))
          : []),
        ...own.flatMap((size) => entriesOf(entry, size, ours)),
      ],
    })
  }
  return list
}

const about = machine()
const rows = []
const contestants = []
const started = (start) => {
  const list = threadCounts.map(start)
  contestants.push(...list)
  return list
}
try {
  const ours = started((threads) => didr(threads, { device: options.device }))
  const plain = started(plainC)
  const package_ = JSON.parse(await ours[0].ask('about'))
  console.log(`${described(about)}\n${rounds} interleaved rounds; ${JSON.stringify(package_)}`)
  for (const { name, entries } of groups(ours, plain)) {
    process.stderr.write(`${name}: ${entries.length} to time\n`)
    for (const contestant of ours) await contestant.ask('forget')
    const results = await interleave(entries, rounds, { turnSeconds })
    const timed = results.map(({ median, spread, low, high, turns, disturbed }, i) => ({
      ...entries[i].row,
      ...{ median, spread, low, high, turns, disturbed },
    }))
    console.log(`\n${name}\n${opsTable(timed)}`)
    rows.push(...timed)
  }
  const measured = rows.filter(({ family }) => family !== ceilingFamily)
  console.log(`\nScaling, per element; at several threads beside one\n${scalingTable(measured)}`)

  const results = { machine: about, package: package_, options, rows }
  const files = writeResults('ops', results, options)
  const svgs = [options.svg, ...files.map((file) => file.replace(/\.json$/, '-roofline.svg'))]
  const roofSize = sizes.findLast(({ label }) => rows.some((row) => row.label === label))
  for (const file of svgs.filter((name) => name !== undefined))
    writeFileSync(file, chart(rooflineChart(rows, roofSize?.label ?? '')))
  for (const file of files) console.log(`\nwritten: ${file}`)
} finally {
  for (const contestant of contestants) contestant.close()
}
