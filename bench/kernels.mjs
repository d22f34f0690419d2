// The kernels beside plain C loops that stream the same bytes, a plain call of the same OpenBLAS, and eager PyTorch.
//
//   npm run bench [-- --rounds 15] [--json bench/results/kernels.json]
//
// 16M float32 elements (64 samples of 262,144), 1 and 2 threads. Prints medians of interleaved runs and their ratios; see
// harness.mjs for how runs are interleaved.
import { didr, interleave, plainC, torch, writeJson } from './harness.mjs'

const at = process.argv.indexOf('--rounds')
const rounds = at < 0 ? 15 : Number(process.argv[at + 1])
const elements = 1 << 24

// streamN reads N arrays and writes one. integralKL with one prediction type, guidance and a diffused reward score reads
// the assistant, both teachers and the score, and writes the gradient; denoisingLoss reads x0 and the output.
const rows = [
  { task: 'perturb', streams: 'stream1', peer: true },
  { task: 'integralKL', streams: 'stream4', peer: true },
  { task: 'denoisingLoss', streams: 'stream2', peer: true },
  { task: 'triad', streams: 'triad', peer: false },
  { task: 'add', streams: 'add', peer: false },
]

const results = []
const show = (seconds) => `${((seconds / elements) * 1e9).toFixed(3)} ns`

for (const threads of [1, 2]) {
  const contestants = { didr: didr(threads), c: plainC(threads), torch: torch(threads) }
  console.log(
    `\n${threads} thread${threads > 1 ? 's' : ''}, per element, ${rounds} interleaved rounds`,
  )
  console.log('| op | didr | C loop over the same bytes | ratio | eager PyTorch | times faster |')
  console.log('|---|---|---|---|---|---|')
  for (const { task, streams, peer } of rows) {
    const entries = [
      { contestant: contestants.didr, task, size: elements },
      { contestant: contestants.c, task: streams, size: elements },
    ]
    if (peer && contestants.torch !== undefined)
      entries.push({ contestant: contestants.torch, task, size: elements })
    const [ours, loop, eager] = await interleave(entries, rounds)
    results.push({ threads, task, elements, ours, loop, eager })
    console.log(
      `| ${task} | ${show(ours.median)} | ${show(loop.median)} | ${(ours.median / loop.median).toFixed(2)} | ` +
        (eager === undefined
          ? '| |'
          : `${show(eager.median)} | ${(eager.median / ours.median).toFixed(1)} |`),
    )
  }
  const [ours, plain] = await interleave(
    [
      { contestant: contestants.didr, task: 'matmul', size: 1024 },
      { contestant: contestants.c, task: 'matmul', size: 1024 },
    ],
    3 * rounds,
  )
  const [pair] = await interleave(
    [{ contestant: contestants.didr, task: 'twoMatmuls', size: 1024 }],
    rounds,
  )
  results.push({ threads, task: 'matmul', size: 1024, ours, plain, pair })
  const rate = (seconds, products = 1) =>
    `${((products * 2 * 1024 ** 3) / seconds / 1e9).toFixed(0)} GFLOP/s`
  console.log(
    `\nmatmul 1024³: didr ${rate(ours.median)}, plain C ${rate(plain.median)}, time ratio ` +
      `${(ours.median / plain.median).toFixed(3)}; two products queued side by side ${rate(pair.median, 2)}`,
  )
  const [call] = await interleave(
    [{ contestant: contestants.didr, task: 'callOverhead', size: 0 }],
    rounds,
  )
  results.push({ threads, task: 'callOverhead', ours: call })
  console.log(`a call on 16 elements, add and dispose: ${(call.median * 1e6).toFixed(2)} µs`)
  for (const contestant of Object.values(contestants)) contestant?.close()
}
writeJson({ results, rounds })
