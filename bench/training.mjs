// Training steps (forward, backward, AdamW) against the same networks in PyTorch, at 2 threads, interleaved.
//
//   npm run build && node bench/training.mjs [--rounds N] [--task mlp|s3dit|autoencoder|ring] [--json FILE]
//
// Both start from the same file of weights and inputs; that their first losses agree is checked before anything is
// timed. PyTorch runs with the openmp OpenBLAS, whose threads are PyTorch's own: with Debian's default, the pthread
// build, two thread pools compete. (apt-get install python3-torch libopenblas0-openmp)
import { mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { benchFolder, Contestant, interleave, machine, writeJson } from './harness.mjs'

const threads = 2
const steps = { mlp: 20, s3dit: 1, autoencoder: 2, ring: 20 }
/** The two accumulate rounding differently, which AdamW's first steps, ±lr for any gradient, do not hide. */
const agreement = 1e-3

function option(name, otherwise) {
  const at = process.argv.indexOf(name)
  return at < 0 ? otherwise : process.argv[at + 1]
}
const rounds = Number(option('--rounds', 7))
const tasks = option('--task') === undefined ? Object.keys(steps) : [option('--task')]

const ours = new Contestant(
  'didr',
  process.execPath,
  [path.join(benchFolder, 'training-subject.mjs')],
  { DIDR_NUM_THREADS: String(threads) },
)
const theirs = new Contestant(
  'PyTorch',
  '/usr/bin/python3',
  [path.join(benchFolder, 'peers/training_peer.py')],
  {
    OMP_NUM_THREADS: String(threads),
    LD_LIBRARY_PATH: '/usr/lib/x86_64-linux-gnu/openblas-openmp',
    // Unset: as a user runs it. Its waiting threads are quicker to wake and sleep before the next round.
    OMP_WAIT_POLICY: undefined,
  },
)

const folder = mkdtempSync(path.join(os.tmpdir(), 'didr-training-'))
const results = []
try {
  for (const task of tasks) {
    const file = path.join(folder, `${task}.safetensors`)
    await ours.ask(`write ${task} ${file}`)
    const opened = await theirs.ask(`open ${task} ${file}`)
    if (!opened.includes('openblas-openmp'))
      throw new Error(`PyTorch: expected the openmp OpenBLAS, got ${opened}`)
    const [a, b] = [ours, theirs].map((contestant) => contestant.ask(`losses ${task} 3`))
    const [losses, expected] = [JSON.parse(await a), JSON.parse(await b)]
    for (const [i, loss] of losses.entries())
      if (!(Math.abs(loss / expected[i] - 1) < agreement))
        throw new Error(`${task}: losses ${losses} are not PyTorch's ${expected}`)

    const entries = [ours, theirs].map((contestant) => ({ contestant, task, size: steps[task] }))
    const [mine, peer] = await interleave(entries, rounds)
    results.push({
      task,
      losses,
      expected,
      didr: mine.median,
      torch: peer.median,
      ratio: mine.median / peer.median,
      spreads: [mine.spread, peer.spread],
    })
  }
} finally {
  ours.close()
  theirs.close()
  rmSync(folder, { recursive: true })
}

const { processor, cores } = machine()
console.log(
  `${processor}, ${cores} cores; ${threads} threads, medians of ${rounds} interleaved rounds`,
)
const milliseconds = (seconds) => `${(seconds * 1000).toFixed(1)} ms`.padStart(10)
for (const { task, didr, torch, ratio, spreads } of results)
  console.log(
    `${task.padEnd(12)} didr ${milliseconds(didr)}   PyTorch ${milliseconds(torch)}   ratio ${ratio.toFixed(2)}` +
      `   middle half within ${spreads.map((spread) => `${Math.round(spread * 100)}%`).join(', ')}`,
  )
writeJson({ threads, rounds, results })
