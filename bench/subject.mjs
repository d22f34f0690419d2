// This package as a contestant: node subject.mjs [DEVICE]. Reads lines, answers each with one:
//
//   run CASE SIZE DTYPE REPEATS    seconds of one run
//   write CASE SIZE FILE           a case's inputs and results, or a training's weights, inputs and configuration, for a
//                                  peer to begin with; answers "ok"
//   losses TASK N                  what N steps of a training give, from its first weights on, as JSON
//   forget                         releases all inputs; answers "ok"
//   about                          versions, as JSON
//
// and, where something is wrong, with "error: ...".
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { device, io, normal } from 'didr'
import { caseOf } from './cases/index.mjs'
import { taskOf } from './cases/training.mjs'

const dev = await device(process.argv[2] ?? 'cpu')

/** Cases' inputs, and the arrays of normal numbers that they are views of: the i-th that a case draws is that of all. */
const inputs = new Map()
const drawn = new Map()

function inputsOf(entry, size, dtype) {
  const key = `${entry.name} ${size} ${dtype}`
  if (!inputs.has(key)) inputs.set(key, entry.make(drawing(dtype), size))
  return inputs.get(key)
}

function drawing(dtype) {
  let index = 0
  return (shape, own = dtype) => {
    const size = shape.reduce((product, length) => product * length, 1)
    const key = `${index} ${size} ${own}`
    if (!drawn.has(key))
      drawn.set(key, normal([size], { seed: 1 + index, dtype: own, device: dev }))
    index++
    return drawn.get(key).reshape(shape)
  }
}

function forget() {
  for (const kept of [inputs, drawn]) {
    for (const value of kept.values()) release(value)
    kept.clear()
  }
  dev.releaseCached()
  return 'ok'
}

function release(value) {
  if (typeof value?.dispose === 'function') value.dispose()
  else for (const part of Object.values(value ?? {})) if (typeof part === 'object') release(part)
}

async function run(name, size, dtype, repeats) {
  const entry = caseOf(name)
  const given = inputsOf(entry, size, dtype)
  // Inputs exist, and the queue is empty, before the clock starts.
  await dev.synchronize()
  const start = performance.now()
  for (let i = 0; i < repeats; i++) {
    const results = entry.run(given, size)
    for (const result of results instanceof Promise ? await results : results) result.dispose()
  }
  const called = performance.now()
  await dev.synchronize()
  const end = entry.measures === 'call' ? called : performance.now()
  return ((end - start) / 1000 / repeats).toFixed(12)
}

async function write(name, size, file) {
  const entry = caseOf(name)
  const prefixed = (prefix, tensors) =>
    Object.entries(tensors).map(([key, x]) => [`${prefix}.${key}`, x])
  if (entry.family === 'training') {
    const task = taskOf(name)
    const training = task.start()
    await io.saveSafetensors(
      file,
      Object.fromEntries([...prefixed('model', training.state()), ...prefixed('in', task.inputs)]),
      { metadata: { config: JSON.stringify(task.config) } },
    )
    training.dispose()
  } else {
    const { given, results } = entry.check(inputsOf(entry, size, 'float32'))
    await io.saveSafetensors(
      file,
      Object.fromEntries([...prefixed('in', given), ...prefixed('out', results)]),
    )
    release(results)
    // What was made for the comparison; the rest of what was given are the case's inputs.
    given.noise?.dispose()
  }
  return 'ok'
}

async function losses(name, count) {
  const training = taskOf(name).start()
  const numbers = []
  for (let i = 0; i < count; i++) {
    const value = await training.step()
    if (Array.isArray(value)) numbers.push(...value)
    else {
      numbers.push(await value.item())
      value.dispose()
    }
  }
  training.dispose()
  return JSON.stringify(numbers)
}

function about() {
  const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'))
  return JSON.stringify({ didr: version, ...dev.info })
}

const commands = {
  run: ([name, size, dtype, repeats]) => run(name, Number(size), dtype, Number(repeats)),
  write: ([name, size, file]) => write(name, Number(size), file),
  losses: ([name, count]) => losses(name, Number(count)),
  forget,
  about,
}

for await (const line of createInterface({ input: process.stdin })) {
  const [command, ...words] = line.split(' ')
  try {
    console.log(await commands[command](words))
  } catch (error) {
    console.log(`error: ${error.message.replaceAll('\n', ' ')}`)
  }
}
