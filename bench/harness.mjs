// Timing on a noisy machine: the one way in which anything here is timed.
//
// Every contestant is a process that waits for lines "run TASK SIZE DTYPE REPEATS" and answers each with the seconds that
// one run took, measured inside it over as many repeats back to back. Turns are interleaved: one of each contestant per
// round, the order changing, so that a slow moment of the machine meets all alike. A turn is runs back to back for a
// quarter of a second, of which the first does not count: a core that has waited for the others takes milliseconds to be
// at full speed again. Turns during which other programs ran, or which are far slower than the rest, are run again at the
// end, at most as many as there were rounds. Reported are medians over the turns' medians; the spread is the middle half
// of the turns.
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { account, foreignBetween } from './foreign-load.mjs'
import { counted, disturbed, median, summarize } from './statistics.mjs'

export const benchFolder = path.dirname(fileURLToPath(import.meta.url))

/** The environment without settings that would slow a BLAS down. */
function cleanEnvironment(extra) {
  const { OPENBLAS_CORETYPE, OPENBLAS_L2_SIZE, ...rest } = process.env
  return { ...rest, OMP_WAIT_POLICY: 'passive', ...extra }
}

/** The processes that are running, whose time is not foreign. */
const running = new Set()

export class Contestant {
  #child
  #answers

  constructor(name, command, args, environment = {}) {
    this.name = name
    this.#child = spawn(command, args, {
      env: cleanEnvironment(environment),
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    running.add(this.#child.pid)
    this.#child.on('exit', () => running.delete(this.#child.pid))
    // A contestant that has died is told by the answer that does not come.
    this.#child.stdin.on('error', () => undefined)
    this.#answers = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]()
  }

  /** The answer to a line. @throws {Error} if it is "error: ...", or the process has ended */
  async ask(line) {
    this.#child.stdin.write(`${line}\n`)
    const { value, done } = await this.#answers.next()
    if (done) throw new Error(`${this.name} ended at: ${line}`)
    if (value.startsWith('error: ')) throw new Error(`${this.name}: ${line}: ${value.slice(7)}`)
    return value
  }

  /** Seconds of one run, averaged over repeats back to back. */
  async run({ task, size, dtype = 'float32' }, repeats = 1) {
    const answer = await this.ask(`run ${task} ${size} ${dtype} ${repeats}`)
    const seconds = Number(answer)
    if (!(seconds > 0)) throw new Error(`${this.name}: ${task} ${size}: ${answer}`)
    return seconds
  }

  close() {
    this.#child.stdin.end()
  }
}

/**
 * This package in a process with the given number of threads.
 * @param options `folder` of another checkout's bench/; `device` as `device()` takes it; `name`
 */
export function didr(threads, { folder = benchFolder, device = 'cpu', name = 'didr' } = {}) {
  return new Contestant(name, process.execPath, [path.join(folder, 'subject.mjs'), device], {
    DIDR_NUM_THREADS: String(threads),
  })
}

/** Plain C loops and a plain call of the same OpenBLAS, compiled for this machine. */
export function plainC(threads) {
  const binary = path.join(benchFolder, '../out/bench-plain-c')
  mkdirSync(path.dirname(binary), { recursive: true })
  const blas = '/usr/lib/x86_64-linux-gnu/openblas-pthread'
  const built = spawnSync(
    'gcc',
    [
      ...['-O3', '-march=native', '-fopenmp'],
      ...[path.join(benchFolder, 'peers/plain.c'), '-o', binary],
      ...['-I/usr/include/x86_64-linux-gnu/openblas-pthread', `${blas}/libopenblas.a`],
      ...['-lm', '-lpthread'],
    ],
    { encoding: 'utf8' },
  )
  if (built.status !== 0)
    throw new Error(
      `plain.c: ${built.stderr}\n(Debian: apt-get install gcc libopenblas-pthread-dev)`,
    )
  return new Contestant('C', binary, [], {
    OMP_NUM_THREADS: String(threads),
    OPENBLAS_NUM_THREADS: String(threads),
  })
}

/**
 * What can be compared with: how each is started, and what is missing where it cannot be. Debian's Python has the PyTorch
 * that is compared with; it runs with the openmp OpenBLAS, whose threads are PyTorch's own (with Debian's default, the
 * pthread build, two thread pools compete).
 */
const python = '/usr/bin/python3'
const openmpBlas = '/usr/lib/x86_64-linux-gnu/openblas-openmp'
const peerFolder = path.join(benchFolder, 'peers')

function pythonPeer(name, module, packages, file) {
  return {
    name,
    missing() {
      if (spawnSync(python, ['-c', `import ${module}`]).status !== 0)
        return `${python} has no ${module} (Debian: apt-get install ${packages})`
      if (!existsSync(openmpBlas))
        return `${openmpBlas} is not there (Debian: apt-get install libopenblas0-openmp)`
      return undefined
    },
    start: (threads) =>
      new Contestant(name, python, [path.join(peerFolder, file)], {
        OMP_NUM_THREADS: String(threads),
        LD_LIBRARY_PATH: openmpBlas,
        // Unset: as a user runs it. Its waiting threads are quicker to wake and sleep before the next round.
        OMP_WAIT_POLICY: undefined,
      }),
  }
}

function nodePeer(name, packageName, file) {
  return {
    name,
    missing: () =>
      existsSync(path.join(peerFolder, 'node_modules', packageName))
        ? undefined
        : `${packageName} is not installed (npm run bench:peers -- --install)`,
    start: (threads) =>
      new Contestant(name, process.execPath, [path.join(peerFolder, file), String(threads)]),
  }
}

export const peers = {
  torch: pythonPeer('PyTorch', 'torch', 'python3-torch libopenblas0-openmp', 'torch_peer.py'),
  numpy: pythonPeer('NumPy', 'numpy', 'python3-numpy libopenblas0-openmp', 'numpy_peer.py'),
  jax: nodePeer('jax-js', '@jax-js/jax', 'jax-peer.mjs'),
  tfjs: nodePeer('tfjs-wasm', '@tensorflow/tfjs-backend-wasm', 'tfjs-peer.mjs'),
}

/** How long a turn is at least, in seconds. */
const defaultTurnSeconds = 0.25

/** How long a run is at least, in seconds: short ones are repeated, so that asking for them is not what is timed. */
const runSeconds = 0.005
const mostRepeats = 20_000

/** How often an entry is repeated in a run. */
async function calibrate(entry) {
  let repeats = 1
  for (;;) {
    const seconds = repeats * (await entry.contestant.run(entry, repeats))
    if (seconds >= runSeconds || repeats >= mostRepeats) return repeats
    const factor = Math.min(Math.max((1.2 * runSeconds) / seconds, 2), 100)
    repeats = Math.min(Math.ceil(repeats * factor), mostRepeats)
  }
}

/** The median of a turn's runs, two or more beside the first, and what else ran on the machine. */
async function turn(entry, turnSeconds, accounts) {
  const { contestant } = entry
  entry.repeats ??= await calibrate(entry)
  await contestant.run(entry, entry.repeats)
  const times = []
  const before = accounts()
  for (let total = 0; times.length < 2 || total < turnSeconds; ) {
    times.push(await contestant.run(entry, entry.repeats))
    total += entry.repeats * times.at(-1)
  }
  const foreign = foreignBetween(before, accounts(), os.cpus().length)
  return { seconds: median(times), foreign }
}

/**
 * Medians of interleaved turns; times in seconds, in the order of the entries.
 * @param {{ contestant: Contestant, task: string, size: number, dtype?: string, repeats?: number }[]} entries
 * @param {number} rounds
 * @param {{ turnSeconds?: number, accounts?: () => import('./foreign-load.mjs').Account | undefined }} [options]
 *   `turnSeconds`: the least length of a turn, default 0.25; `accounts`: where foreign load is read, default the system
 * @returns {Promise<(import('./statistics.mjs').Summary &
 *   { name: string, task: string, size: number, seconds: number[] })[]>} with the turns that count
 */
export async function interleave(
  entries,
  rounds,
  { turnSeconds = defaultTurnSeconds, accounts = () => account([...running]) } = {},
) {
  const given = entries.map((entry) => ({ ...entry }))
  const turns = given.map(() => [])
  for (let round = 0; round < 2 * rounds; round++) {
    let ran = false
    for (let i = 0; i < given.length; i++) {
      const at = (i + round) % given.length
      const good = disturbed(turns[at]).filter((bad) => !bad).length
      if (round >= rounds && good >= rounds) continue
      turns[at].push(await turn(given[at], turnSeconds, accounts))
      ran = true
    }
    if (!ran) break
  }
  return given.map(({ contestant, task, size }, i) => ({
    name: contestant.name,
    task,
    size,
    ...summarize(turns[i], rounds),
    seconds: counted(turns[i], rounds).map(({ seconds }) => seconds),
  }))
}
