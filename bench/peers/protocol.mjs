// How a JavaScript peer answers; the lines are those of protocol.py.
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'

/** @typedef {{ shape: number[], data: Float32Array | Int32Array }} StoredArray */

/**
 * Metadata and float32 or int32 arrays of a safetensors file.
 * @param {string} file
 * @returns {{ metadata: Record<string, string>, arrays: Record<string, StoredArray> }} arrays by name
 */
export function loadSafetensors(file) {
  const bytes = readFileSync(file)
  const length = Number(bytes.readBigUInt64LE(0))
  const { __metadata__: metadata = {}, ...entries } = JSON.parse(
    bytes.subarray(8, 8 + length).toString('utf8'),
  )
  const kinds = { F32: Float32Array, I32: Int32Array }
  const arrays = {}
  for (const [name, { dtype, shape, data_offsets: offsets }] of Object.entries(entries)) {
    const [begin, end] = offsets.map((offset) => 8 + length + offset)
    // Copied: the file's parts need not be aligned.
    const { buffer } = Uint8Array.prototype.slice.call(bytes, begin, end)
    arrays[name] = { shape, data: new kinds[dtype](buffer) }
  }
  return { metadata, arrays }
}

/**
 * The entries whose names begin with the prefix, without it.
 * @param {string} prefix
 * @param {Record<string, StoredArray>} arrays
 * @returns {Record<string, StoredArray>}
 */
export function within(prefix, arrays) {
  return Object.fromEntries(
    Object.entries(arrays)
      .filter(([name]) => name.startsWith(prefix))
      .map(([name, value]) => [name.slice(prefix.length), value]),
  )
}

function worstError(results, expected) {
  let worst = 0
  for (const [name, { data }] of Object.entries(expected)) {
    const got = results[name]
    if (got.length !== data.length)
      throw new Error(`${name}: expected ${data.length} elements, got ${got.length}`)
    let [error, largest] = [0, 0]
    for (let i = 0; i < data.length; i++) {
      error = Math.max(error, Math.abs(got[i] - data[i]))
      largest = Math.max(largest, Math.abs(data[i]))
    }
    // A NaN is no small error.
    worst = Number.isNaN(error) ? Infinity : Math.max(worst, error / largest)
  }
  return worst
}

const batch = 64

/** The shapes of a task's inputs. */
function shapesOf(task, size) {
  const samples = [batch, size / batch]
  switch (task) {
    case 'matmul':
      return { a: [size, size], b: [size, size] }
    case 'perturb':
      return { x0: samples }
    case 'integralKL':
      return { xt: samples, assistant: samples, teacher: samples, uncond: samples, drs: samples }
    case 'denoisingLoss':
      return { x0: samples, output: samples, noise: samples }
    default:
      throw new Error(`${task}: no such task here`)
  }
}

/** α and σ of each sample, [batch, 1]. */
export function levels() {
  const sigma = Float32Array.from({ length: batch }, (_, i) => 0.1 + (0.8 * i) / (batch - 1))
  return { alpha: sigma.map((value) => 1 - value), sigma, shape: [batch, 1] }
}

/**
 * @param peer
 *   `make({ shape, data })` an array of the library; `draw(shape)` normal numbers;
 *   `compute(task, inputs)` starts a formula and returns its results; `settle(results)` waits for and releases them;
 *   `read(array)` its numbers, as a promise; `release(inputs)`;
 *   `trainings[task](file)` an object with restart() and step(), which gives a number, as a promise;
 *   `about` versions
 */
export async function serve({ make, draw, compute, settle, read, release, trainings, about }) {
  const opened = {}
  let kept = { key: '', inputs: {} }

  const map = (entries, of) =>
    Object.fromEntries(Object.entries(entries).map(([name, value]) => [name, of(value)]))

  const timed = async (repeats, once) => {
    const start = performance.now()
    for (let i = 0; i < repeats; i++) await once()
    return ((performance.now() - start) / 1000 / repeats).toFixed(12)
  }

  const commands = {
    about: () => JSON.stringify({ ...about, node: process.version }),
    open([task, file]) {
      const start = trainings[task]
      if (start === undefined) throw new Error(`${task}: no such task here`)
      opened[task] = start(file)
      return 'ok'
    },
    async check([task, file]) {
      const { arrays } = loadSafetensors(file)
      const inputs = map(within('in.', arrays), make)
      const results = await compute(task, inputs)
      const numbers = {}
      for (const [name, array] of Object.entries(results)) numbers[name] = await read(array)
      release(inputs)
      return String(worstError(numbers, within('out.', arrays)))
    },
    async losses([task, count]) {
      await opened[task].restart()
      const numbers = []
      for (let i = 0; i < Number(count); i++) numbers.push(await opened[task].step())
      return JSON.stringify(numbers)
    },
    async run([task, size, , repeats]) {
      if (opened[task] !== undefined) return timed(Number(repeats), () => opened[task].step())
      const key = `${task} ${size}`
      if (kept.key !== key) {
        release(kept.inputs)
        kept = { key, inputs: map(shapesOf(task, Number(size)), draw) }
      }
      return timed(Number(repeats), async () => settle(await compute(task, kept.inputs)))
    },
  }

  for await (const line of createInterface({ input: process.stdin })) {
    const [command, ...words] = line.split(' ')
    try {
      console.log(await commands[command](words))
    } catch (error) {
      console.log(`error: ${String(error?.message ?? error).replaceAll('\n', ' ')}`)
    }
  }
}
