// Timing against peers on a noisy machine.
//
// Every contestant is a process that waits for lines "task size" and answers each with the seconds that one run took,
// measured inside it. Turns are interleaved: one of each contestant per round, the order changing, so that a slow moment of
// the machine meets all alike. A turn is runs back to back for a quarter of a second, of which the first does not count: a
// core that has waited for the others takes milliseconds to be at full speed again. Reported are medians over the rounds
// of the turns' medians, and their ratios; the spread is the middle half of the rounds.
import { spawn, spawnSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

export const benchFolder = path.dirname(fileURLToPath(import.meta.url))

/** The environment without settings that would slow a BLAS down. */
function cleanEnvironment(extra) {
  const { OPENBLAS_CORETYPE, OPENBLAS_L2_SIZE, ...rest } = process.env
  return { ...rest, OMP_WAIT_POLICY: 'passive', ...extra }
}

export class Contestant {
  #child
  #answers

  constructor(name, command, args, environment = {}) {
    this.name = name
    this.#child = spawn(command, args, {
      env: cleanEnvironment(environment),
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    this.#answers = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]()
  }

  async ask(line) {
    this.#child.stdin.write(`${line}\n`)
    const { value, done } = await this.#answers.next()
    if (done) throw new Error(`${this.name} ended at: ${line}`)
    return value
  }

  /** Seconds of one run. */
  async run(task, size) {
    const answer = await this.ask(`${task} ${size}`)
    const seconds = Number(answer)
    if (!(seconds > 0)) throw new Error(`${this.name}: ${task} ${size}: ${answer}`)
    return seconds
  }

  close() {
    this.#child.stdin.end()
  }
}

/** This package in a process with the given number of threads. */
export function didr(threads) {
  return new Contestant(
    `didr, ${threads} threads`,
    process.execPath,
    [path.join(benchFolder, 'subject.mjs')],
    {
      DIDR_NUM_THREADS: String(threads),
    },
  )
}

/** Plain C loops and a plain call of the same OpenBLAS, compiled for this machine. */
export function plainC(threads) {
  const binary = path.join(benchFolder, '../out/bench-plain-c')
  mkdirSync(path.dirname(binary), { recursive: true })
  const blas = '/usr/lib/x86_64-linux-gnu/openblas-pthread'
  const built = spawnSync(
    'gcc',
    [
      ...[
        '-O3',
        '-march=native',
        '-fopenmp',
        path.join(benchFolder, 'peers/plain.c'),
        '-o',
        binary,
      ],
      ...[
        '-I/usr/include/x86_64-linux-gnu/openblas-pthread',
        `${blas}/libopenblas.a`,
        '-lm',
        '-lpthread',
      ],
    ],
    { encoding: 'utf8' },
  )
  if (built.status !== 0)
    throw new Error(
      `plain.c: ${built.stderr}\n(Debian: apt-get install gcc libopenblas-pthread-dev)`,
    )
  return new Contestant(`C, ${threads} threads`, binary, [], {
    OMP_NUM_THREADS: String(threads),
    OPENBLAS_NUM_THREADS: String(threads),
  })
}

/** Eager PyTorch of the system's Python, or undefined with a word where it is not installed. */
export function torch(threads) {
  const python = '/usr/bin/python3'
  const found = spawnSync(python, ['-c', 'import torch'], { encoding: 'utf8' })
  if (found.status !== 0) {
    console.error('no PyTorch here (Debian: apt-get install python3-torch libopenblas0-openmp)')
    return undefined
  }
  return new Contestant(
    `PyTorch, ${threads} threads`,
    python,
    [path.join(benchFolder, 'peers/torch_peer.py')],
    {
      OMP_NUM_THREADS: String(threads),
    },
  )
}

export function median(values) {
  return quantile(values, 0.5)
}

function quantile(values, q) {
  const sorted = [...values].sort((a, b) => a - b)
  const at = (sorted.length - 1) * q
  const [low, high] = [sorted[Math.floor(at)], sorted[Math.ceil(at)]]
  return low + (high - low) * (at - Math.floor(at))
}

/** How long a turn is at least, in seconds. */
const turnSeconds = 0.25

/** The median of a turn's runs, two or more beside the first. */
async function turn({ contestant, task, size }) {
  await contestant.run(task, size)
  const times = []
  for (let total = 0; times.length < 2 || total < turnSeconds; total += times.at(-1))
    times.push(await contestant.run(task, size))
  return median(times)
}

/**
 * Medians of interleaved turns.
 * @param entries [{ contestant, task, size }]
 * @returns [{ name, task, size, median, spread }], seconds, in the order of the entries
 */
export async function interleave(entries, rounds) {
  const times = entries.map(() => [])
  for (let round = 0; round < rounds; round++)
    for (let i = 0; i < entries.length; i++) {
      const at = (i + round) % entries.length
      times[at].push(await turn(entries[at]))
    }
  return entries.map(({ contestant, task, size }, i) => ({
    name: contestant.name,
    task,
    size,
    median: median(times[i]),
    spread: (quantile(times[i], 0.75) - quantile(times[i], 0.25)) / median(times[i]),
  }))
}

export function machine() {
  return {
    date: new Date().toISOString(),
    processor: os.cpus()[0]?.model,
    cores: os.cpus().length,
    node: process.version,
  }
}

/** Writes results for machines, if `--json file` was given. */
export function writeJson(results) {
  const at = process.argv.indexOf('--json')
  if (at < 0) return
  writeFileSync(
    process.argv[at + 1],
    `${JSON.stringify({ machine: machine(), ...results }, null, 2)}\n`,
  )
}
