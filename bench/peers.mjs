// This package beside what else there is for the same work, on this machine in one run.
//
//   npm run bench:peers -- [--task perturb,nano] [--peer c,torch,numpy,jax,tfjs] [--threads 1,2] [--size 16M]
//                          [--rounds 7] [--turn 0.25] [--json FILE] [--save] [--install]
//
//   --install   the JavaScript peers into bench/peers/node_modules first, in the versions of its lock file
//   --size      elements of the kernels. The products are of 1024, trainings have sizes of their own
//
// A peer that is not installed, or has not got what a task needs, is named and left out. Before anything is timed the peers
// compute what the package has written down: results that differ by more than 1e-3 end the run. README.md has the tasks.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { caseOf } from './cases/index.mjs'
import { benchFolder, didr, interleave, peers, plainC } from './harness.mjs'
import { described, machine, writeResults } from './machine.mjs'
import { parseCount, parseList, parseSize } from './options.mjs'
import { kernelPeersTable, trainingPeersTable } from './report/peers-table.mjs'

/** Which peers a task is written for, and the loop over the same bytes. `streamN` reads N arrays and writes one. */
const tasks = [
  { name: 'perturb', loop: 'stream1', peers: ['torch', 'numpy', 'jax', 'tfjs'] },
  { name: 'integralKL', loop: 'stream4', peers: ['torch', 'numpy', 'jax', 'tfjs'] },
  { name: 'denoisingLoss', loop: 'stream2', peers: ['torch', 'numpy', 'jax', 'tfjs'] },
  { name: 'triad', loop: 'triad', peers: [] },
  { name: 'add', loop: 'stream2', peers: [] },
  { name: 'matmul', loop: 'matmul', size: 1024, peers: ['torch', 'numpy', 'jax', 'tfjs'] },
  { name: 'mlp', training: true, peers: ['torch', 'numpy', 'jax', 'tfjs'] },
  { name: 's3dit', training: true, peers: ['torch'] },
  { name: 'autoencoder', training: true, peers: ['torch'] },
  { name: 'ring', training: true, peers: ['torch'] },
  { name: 'nano', training: true, peers: ['torch'] },
  { name: 'nanoFull', training: true, peers: ['torch'] },
]
/** The two accumulate rounding differently, which AdamW's first steps, ±lr for any gradient, do not hide. */
const agreement = 1e-3
const comparedSteps = 3
/** Elements of the kernels when results are compared. */
const comparedSize = 2 ** 16

const { values: options } = parseArgs({
  options: {
    task: { type: 'string', default: tasks.map(({ name }) => name).join(',') },
    peer: { type: 'string', default: ['c', ...Object.keys(peers)].join(',') },
    threads: { type: 'string', default: os.cpus().length > 1 ? `1,${os.cpus().length}` : '1' },
    size: { type: 'string', default: '16M' },
    rounds: { type: 'string', default: '7' },
    turn: { type: 'string', default: '0.25' },
    json: { type: 'string' },
    save: { type: 'boolean', default: false },
    install: { type: 'boolean', default: false },
  },
})
const known = (name, names) => (text) => {
  if (!names.includes(text))
    throw new Error(`--${name}: expected some of ${names.join(', ')}, got ${text}`)
  return text
}
const taskNames = tasks.map(({ name }) => name)
const wanted = parseList('task', options.task, known('task', taskNames)).map((name) =>
  tasks.find((task) => task.name === name),
)
const peerNames = parseList('peer', options.peer, known('peer', ['c', ...Object.keys(peers)]))
const threadCounts = parseList('threads', options.threads, (text) => parseCount('threads', text))
const rounds = parseCount('rounds', options.rounds)
const turnSeconds = Number(options.turn)
const { elements: kernelSize } = parseSize(options.size)
if (kernelSize === undefined || kernelSize % 64 !== 0)
  throw new Error(`--size: expected a multiple of 64 elements, got ${options.size}`)

if (options.install) {
  const { status } = spawnSync('npm', ['ci', '--no-audit', '--no-fund'], {
    cwd: path.join(benchFolder, 'peers'),
    stdio: 'inherit',
  })
  if (status !== 0) throw new Error(`npm ci in bench/peers ended with ${status}`)
}

/** Peers that cannot take part, with the reason. */
const absent = {}
for (const key of peerNames.filter((name) => name !== 'c')) {
  const missing = peers[key].missing()
  if (missing === undefined) continue
  absent[peers[key].name] = missing
  console.error(`without ${peers[key].name}: ${missing}`)
}

/** How far two lists of numbers are apart, relative to the larger of each pair. */
function distance(numbers, expected) {
  if (numbers.length !== expected.length) return Infinity
  return Math.max(
    ...numbers.map((value, i) => {
      const error = Math.abs(value - expected[i])
      return error === 0 ? 0 : error / Math.max(Math.abs(value), Math.abs(expected[i]))
    }),
  )
}

const folder = mkdtempSync(path.join(os.tmpdir(), 'didr-peers-'))

/** How far each peer's results are from the package's. @throws {Error} naming a peer that disagrees */
async function compare(task, ours, theirs) {
  const file = path.join(folder, `${task.name}.safetensors`)
  const size = task.size === undefined ? comparedSize : 256
  await ours.ask(`write ${task.name} ${task.training ? 1 : size} ${file}`)
  const expected = task.training
    ? JSON.parse(await ours.ask(`losses ${task.name} ${comparedSteps}`))
    : undefined
  const errors = {}
  for (const peer of theirs) {
    let error
    if (task.training) {
      await peer.ask(`open ${task.name} ${file}`)
      const numbers = JSON.parse(await peer.ask(`losses ${task.name} ${comparedSteps}`))
      error = distance(numbers, expected)
    } else error = Number(await peer.ask(`check ${task.name} ${file}`))
    if (!(error <= agreement))
      throw new Error(`${task.name}: ${peer.name} is ${error} away from the package's results`)
    errors[peer.name] = error
  }
  return { errors, ...(expected === undefined ? {} : { losses: expected }) }
}

const about = machine()
const versions = {}
const rows = []
const open = []
console.log(described(about))
try {
  for (const threads of threadCounts) {
    const ours = didr(threads)
    const loops = peerNames.includes('c') ? plainC(threads) : undefined
    const theirs = new Map(
      peerNames
        .filter((key) => key !== 'c' && absent[peers[key].name] === undefined)
        .map((key) => [key, peers[key].start(threads)]),
    )
    const all = [ours, ...theirs.values()]
    open.push(...all, ...(loops === undefined ? [] : [loops]))
    for (const contestant of all)
      versions[contestant.name] = JSON.parse(await contestant.ask('about'))
    const blas = versions[peers.torch.name]?.blas
    if (blas !== undefined && !blas.some((library) => library.includes('openblas-openmp')))
      throw new Error(`PyTorch: expected the openmp OpenBLAS, got ${blas}`)

    for (const task of wanted) {
      await ours.ask('forget')
      const beside = task.peers.flatMap((key) => theirs.get(key) ?? [])
      process.stderr.write(`${task.name}, ${threads} threads\n`)
      const comparison = beside.length > 0 ? await compare(task, ours, beside) : { errors: {} }
      const size = task.size ?? (task.training ? 1 : kernelSize)
      const { repeats } = caseOf(task.name)
      const entries = [ours, ...beside].map((contestant) => ({
        ...{ contestant, task: task.name, size },
        ...(repeats === undefined ? {} : { repeats }),
      }))
      if (loops !== undefined && task.loop !== undefined)
        entries.push({ contestant: loops, task: task.loop, size })
      const times = await interleave(entries, rounds, { turnSeconds })
      rows.push({
        ...{ task: task.name, size, threads, training: task.training === true, ...comparison },
        contestants: Object.fromEntries(
          times.map(({ name, median, spread, low, high, turns, disturbed }) => [
            name,
            { median, spread, low, high, turns, disturbed },
          ]),
        ),
      })
    }
    for (const contestant of open.splice(0)) contestant.close()
  }
} finally {
  for (const contestant of open) contestant.close()
  rmSync(folder, { recursive: true })
}

const kernels = rows.filter(({ training }) => !training)
const trainings = rows.filter(({ training }) => training)
if (kernels.length > 0) console.log(`\n${kernelPeersTable(kernels)}`)
if (trainings.length > 0) console.log(`\n${trainingPeersTable(trainings)}`)
const results = { machine: about, versions, absent, options, rows }
for (const file of writeResults('peers', results, options)) console.log(`\nwritten: ${file}`)
