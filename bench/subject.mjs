// This package as a contestant: reads lines "task size", answers each with the seconds of one run.
import { createInterface } from 'node:readline'
import {
  denoisingLoss,
  device,
  diffusedRewardScore,
  integralKL,
  normal,
  ones,
  perturb,
  schedules,
  tidy,
} from 'didr'

const dev = await device('cpu')
const schedule = schedules.flow()
const batch = 64
const t = Float32Array.from({ length: batch }, (_, i) => 0.1 + (0.8 * i) / (batch - 1))

const buffers = new Map()
function buffer(name, shape) {
  const key = `${name} ${shape}`
  if (!buffers.has(key)) buffers.set(key, normal(shape, { seed: buffers.size + 1 }))
  return buffers.get(key)
}

const samples = (name, size) => buffer(name, [batch, size / batch])
const tasks = {
  add: (size) => buffer('a', [size]).add(buffer('b', [size])),
  // x + 3y in one pass over memory: scale and add would be two.
  triad: (size) => buffer('a', [size]).addScaled(buffer('b', [size]), 3),
  matmul: (size) => buffer('a', [size, size]).matmul(buffer('b', [size, size])),
  twoMatmuls: (size) => [
    buffer('a', [size, size]).matmul(buffer('b', [size, size])),
    buffer('b', [size, size]).matmul(buffer('a', [size, size])),
  ],
  perturb: (size) => perturb(samples('x0', size), { t, schedule, seed: 1 }),
  integralKL: (size) =>
    integralKL({
      xt: samples('xt', size),
      t,
      schedule,
      prediction: 'flow',
      assistant: samples('assistant', size),
      teacher: samples('teacher', size),
      teacherUncond: samples('uncond', size),
      guidance: 3,
      drs: samples('drs', size),
    }),
  denoisingLoss: (size) =>
    denoisingLoss({
      x0: samples('x0', size),
      output: samples('output', size),
      prediction: 'flow',
      t,
      schedule,
      seed: 1,
    }),
  diffusedRewardScore: (size) =>
    diffusedRewardScore({
      particles: buffer('particles', [8, batch, size / batch / 8]),
      rewards: buffer('rewards', [8, batch]),
      t,
      schedule,
      beta: 1,
    }),
}

// Seconds per call of a 16-element operation, without and with waiting for nothing: 10,000 calls at a time.
async function callOverhead() {
  const [x, y] = [ones([16]), ones([16])]
  const calls = 10_000
  const start = performance.now()
  for (let i = 0; i < calls; i++) x.add(y).dispose()
  const seconds = (performance.now() - start) / 1000 / calls
  await dev.synchronize()
  return seconds
}

for await (const line of createInterface({ input: process.stdin })) {
  const [task, text] = line.split(' ')
  if (task === 'callOverhead') {
    console.log((await callOverhead()).toFixed(12))
    continue
  }
  const size = Number(text)
  const run = tasks[task]
  // Inputs exist, and the queue is empty, before the clock starts.
  dispose(run(size))
  await dev.synchronize()
  const start = performance.now()
  const result = run(size)
  await dev.synchronize()
  const seconds = (performance.now() - start) / 1000
  dispose(result)
  console.log(seconds.toFixed(9))
}

function dispose(result) {
  tidy(() => undefined)
  if (typeof result?.dispose === 'function') result.dispose()
  else if (typeof result === 'object' && result !== null)
    for (const part of Object.values(result)) dispose(part)
}
