/**
 * Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011) on the host, for the few numbers that
 * decide what is enqueued, such as times: reading them from a device would wait for its queue. The same bits as
 * `uniform` gives for the seed and offset.
 */

const rounds = 10
const multipliers = [0xd2511f53, 0xcd9e8d57] as const
const keySteps = [0x9e3779b9, 0xbb67ae85] as const

/** The upper 32 bits of a product of two 32-bit integers, as an unsigned number. */
function multiplyHigh(a: number, b: number): number {
  const [aHigh, aLow, bHigh, bLow] = [a >>> 16, a & 0xffff, b >>> 16, b & 0xffff]
  const low = aLow * bLow
  // Each sum is below 2^53: no bit is lost.
  const middle = aHigh * bLow + Math.floor(low / 0x10000)
  const cross = aLow * bHigh + (middle % 0x10000)
  return (aHigh * bHigh + Math.floor(middle / 0x10000) + Math.floor(cross / 0x10000)) >>> 0
}

/** The four words of a block. Seeds and offsets are integers from 0 to 2^53 - 1. */
function philoxBlock(
  seed: number,
  offset: number,
  block: number,
): [number, number, number, number] {
  let [x0, x1] = [block >>> 0, Math.floor(block / 2 ** 32) >>> 0]
  let [x2, x3] = [offset >>> 0, Math.floor(offset / 2 ** 32) >>> 0]
  let [key0, key1] = [seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0]
  for (let round = 0; round < rounds; round++) {
    const high0 = multiplyHigh(multipliers[0], x0)
    const high1 = multiplyHigh(multipliers[1], x2)
    const low0 = Math.imul(multipliers[0], x0) >>> 0
    const low1 = Math.imul(multipliers[1], x2) >>> 0
    ;[x0, x1, x2, x3] = [(high1 ^ x1 ^ key0) >>> 0, low1, (high0 ^ x3 ^ key1) >>> 0, low0]
    key0 = (key0 + keySteps[0]) >>> 0
    key1 = (key1 + keySteps[1]) >>> 0
  }
  return [x0, x1, x2, x3]
}

/** `count` numbers in [0, 1): those of `uniform([count], { seed, offset })`. */
export function hostUniform(count: number, seed: number, offset: number): Float32Array {
  const numbers = new Float32Array(count)
  for (let i = 0; i < count; i += 4)
    for (const [word, bits] of philoxBlock(seed, offset, i / 4).entries())
      if (i + word < count) numbers[i + word] = (bits >>> 8) * 2 ** -24
  return numbers
}

/** Where a training run is among the draws of its seed: every draw takes an offset of its own. */
export class RandomStream {
  readonly seed: number
  /** The offset of the next draw. */
  offset: number

  constructor(seed: number, offset = 0) {
    this.seed = seed
    this.offset = offset
  }

  /** Seed and offset of a draw that nobody else gets. */
  next(): { seed: number; offset: number } {
    return { seed: this.seed, offset: this.offset++ }
  }

  /** The same for draws that take the offsets 2 · offset and 2 · offset + 1, as those of a Gaussian mixture do. */
  nextPair(): { seed: number; offset: number } {
    const offset = Math.ceil(this.offset / 2)
    this.offset = 2 * offset + 2
    return { seed: this.seed, offset }
  }
}
