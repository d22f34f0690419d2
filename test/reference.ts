/**
 * The tensor operations once more, as plain float64 loops: what the tests compare the package with. Nothing here is
 * shared with lib/.
 */
import type { DType } from '../lib/index.js'

export interface Values {
  shape: readonly number[]
  data: Float64Array
}

/** Uniform numbers in [0, 1): xorshift32 (Marsaglia 2003), so that a failure repeats. */
export function generator(seed: number): () => number {
  let state = (seed * 2654435761 + 88172645) | 0 || 1
  return () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) / 2 ** 32
  }
}

export function integer(draw: () => number, least: number, most: number): number {
  return least + Math.floor(draw() * (most - least + 1))
}

export function count(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1)
}

/** The value that a dtype stores for a number, as `cast` defines it. */
export function stored(dtype: DType, x: number): number {
  switch (dtype) {
    case 'float32':
      return Math.fround(x)
    case 'bfloat16':
      return toSixteenBits(Math.fround(x), 8, -126)
    case 'float16':
      return toSixteenBits(Math.fround(x), 11, -14)
    case 'int32':
      return saturate(x, -(2 ** 31), 2 ** 31 - 1)
    case 'uint8':
      return saturate(x, 0, 255)
  }
}

function saturate(x: number, least: number, most: number): number {
  if (Number.isNaN(x)) return 0
  return Math.min(most, Math.max(least, Math.trunc(x))) + 0
}

/** The power of two at or below |x|. */
function exponentOf(x: number): number {
  let exponent = Math.floor(Math.log2(Math.abs(x)))
  while (2 ** exponent > Math.abs(x)) exponent--
  while (2 ** (exponent + 1) <= Math.abs(x)) exponent++
  return exponent
}

/** Nearest, ties to even, in a binary format of `precision` bits whose normal numbers start at 2^`smallest`. */
function toSixteenBits(x: number, precision: number, smallest: number): number {
  if (x === 0 || !Number.isFinite(x)) return x
  const spacing = 2 ** (Math.max(exponentOf(x), smallest) - precision + 1)
  const scaled = x / spacing
  const low = Math.floor(scaled)
  const rest = scaled - low
  const rounded = rest > 0.5 || (rest === 0.5 && low % 2 !== 0) ? low + 1 : low
  const most = precision === 8 ? 2 ** 128 * (1 - 2 ** -8) : 65504
  const result = rounded * spacing
  if (Math.abs(result) > most) return Math.sign(x) * Number.POSITIVE_INFINITY
  return result === 0 ? 0 * Math.sign(x) : result
}

/** The distance between neighbouring numbers of a dtype at x. */
export function spacing(dtype: DType, x: number): number {
  const [bits, smallest] = { float32: [24, -126], bfloat16: [8, -126], float16: [11, -14] }[
    dtype as string
  ] ?? [1, 0]
  if (dtype === 'int32' || dtype === 'uint8') return 1
  if (x === 0 || !Number.isFinite(x)) return 2 ** ((smallest as number) - (bits as number) + 1)
  return 2 ** (Math.max(exponentOf(x), smallest as number) - (bits as number) + 1)
}

export function values(shape: readonly number[], at: (i: number) => number): Values {
  return { shape, data: Float64Array.from({ length: count(shape) }, (_, i) => at(i)) }
}

/** Random values of a dtype. Floats are spread over a few powers of two, of both signs unless `positive`. */
export function randomValues(
  draw: () => number,
  shape: readonly number[],
  dtype: DType,
  { positive = false, most = 4 } = {},
): Values {
  return values(shape, () => {
    if (dtype === 'uint8') return integer(draw, 0, 255)
    if (dtype === 'int32') return integer(draw, -1000, 1000)
    const magnitude = most * draw() * (draw() < 0.2 ? 2 ** -10 : 1) + (positive ? 1e-3 : 0)
    return stored(dtype, positive || draw() < 0.5 ? magnitude : -magnitude)
  })
}

function position(flat: number, shape: readonly number[]): number[] {
  const result = new Array<number>(shape.length)
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    const size = shape[axis] as number
    result[axis] = flat % size
    flat = Math.floor(flat / size)
  }
  return result
}

function flatIndex(at: readonly number[], shape: readonly number[]): number {
  return shape.reduce((flat, size, axis) => flat * size + (at[axis] as number), 0)
}

/** The shape of operands broadcast together, the last axes aligned. */
export function broadcastShape(...shapes: (readonly number[])[]): number[] {
  const rank = Math.max(...shapes.map((shape) => shape.length))
  return Array.from({ length: rank }, (_, axis) => {
    const sizes = shapes.map((shape) => shape[axis - rank + shape.length] ?? 1)
    return sizes.find((size) => size !== 1) ?? 1
  })
}

/** f of the operands, broadcast. */
export function elementwise(f: (...x: number[]) => number, ...operands: Values[]): Values {
  const shape = broadcastShape(...operands.map((x) => x.shape))
  return values(shape, (flat) => {
    const at = position(flat, shape)
    return f(
      ...operands.map((x) => {
        const own = at
          .slice(at.length - x.shape.length)
          .map((index, axis) => (x.shape[axis] === 1 ? 0 : index))
        return x.data[flatIndex(own, x.shape)] as number
      }),
    )
  })
}

export function permuted(x: Values, axes: readonly number[]): Values {
  const shape = axes.map((axis) => x.shape[axis] as number)
  return values(shape, (flat) => {
    const at = position(flat, shape)
    const from = new Array<number>(axes.length)
    for (const [axis, source] of axes.entries()) from[source] = at[axis] as number
    return x.data[flatIndex(from, x.shape)] as number
  })
}

export function sliced(x: Values, begin: readonly number[], size: readonly number[]): Values {
  return values(size, (flat) => {
    const from = position(flat, size).map((index, axis) => index + (begin[axis] as number))
    return x.data[flatIndex(from, x.shape)] as number
  })
}

export function concatenated(parts: readonly Values[], axis: number): Values {
  const first = parts[0] as Values
  const lengths = parts.map((part) => part.shape[axis] as number)
  const shape = first.shape.with(
    axis,
    lengths.reduce((a, b) => a + b, 0),
  )
  return values(shape, (flat) => {
    const at = position(flat, shape)
    let part = 0
    while ((at[axis] as number) >= (lengths[part] as number)) {
      at[axis] = (at[axis] as number) - (lengths[part] as number)
      part++
    }
    const source = parts[part] as Values
    return source.data[flatIndex(at, source.shape)] as number
  })
}

/** f of the elements along `axes`, which the result lacks or, with `keep`, has with size 1. */
export function reduced(
  x: Values,
  axes: readonly number[],
  f: (elements: number[]) => number,
  keep = false,
): Values {
  const kept = x.shape.map((size, axis) => (axes.includes(axis) ? 1 : size))
  const groups: number[][] = Array.from({ length: count(kept) }, () => [])
  for (let flat = 0; flat < x.data.length; flat++) {
    const to = position(flat, x.shape).map((index, axis) => (axes.includes(axis) ? 0 : index))
    groups[flatIndex(to, kept)]?.push(x.data[flat] as number)
  }
  const shape = keep ? kept : x.shape.filter((_, axis) => !axes.includes(axis))
  return { shape, data: Float64Array.from(groups, f) }
}

export function softmaxed(x: Values, axis: number): Values {
  const largest = reduced(x, [axis], (v) => Math.max(...v), true)
  const powers = elementwise((a, b) => Math.exp(a - b), x, largest)
  return elementwise((a, b) => a / b, powers, reduced(powers, [axis], sum, true))
}

/** The product over the last two axes; batch axes in front are equal or absent in one. */
export function product(a: Values, b: Values, transA = false, transB = false): Values {
  const [rowsA, columnsA] = a.shape.slice(-2) as [number, number]
  const [rowsB, columnsB] = b.shape.slice(-2) as [number, number]
  const [m, k] = transA ? [columnsA, rowsA] : [rowsA, columnsA]
  const n = transB ? rowsB : columnsB
  const batch = a.shape.length > 2 ? a.shape.slice(0, -2) : b.shape.slice(0, -2)
  return values([...batch, m, n], (flat) => {
    const column = flat % n
    const row = Math.floor(flat / n) % m
    const matrix = Math.floor(flat / n / m)
    const [atA, atB] = [
      a.shape.length > 2 ? matrix * m * k : 0,
      b.shape.length > 2 ? matrix * k * n : 0,
    ]
    let total = 0
    for (let i = 0; i < k; i++)
      total +=
        (a.data[atA + (transA ? i * m + row : row * k + i)] as number) *
        (b.data[atB + (transB ? column * k + i : i * n + column)] as number)
    return total
  })
}

export const sum = (elements: readonly number[]) => elements.reduce((a, b) => a + b, 0)

/** max and min that NaN passes through. */
export const largest = (elements: readonly number[]) =>
  elements.reduce((a, b) => (Number.isNaN(a) || a > b ? a : b), -1 / 0)
export const smallest = (elements: readonly number[]) =>
  elements.reduce((a, b) => (Number.isNaN(a) || a < b ? a : b), 1 / 0)

export function logSumExp(elements: readonly number[]): number {
  const most = largest(elements)
  if (!Number.isFinite(most)) return most
  return most + Math.log(sum(elements.map((x) => Math.exp(x - most))))
}

/** The normal distribution's Φ, to about 1e-15 relative: a power series near 0, a continued fraction in the tails. */
export function normalCdf(x: number): number {
  if (Math.abs(x) < 3) {
    // Φ(x) = 1/2 + φ(x) Σ x^(2n+1) / (1·3·5···(2n+1))   (Abramowitz and Stegun 26.2.11)
    let term = x
    let total = x
    for (let n = 1; Math.abs(term) > 1e-18 * Math.abs(total); n++) {
      term *= (x * x) / (2 * n + 1)
      total += term
    }
    return 0.5 + total * Math.exp((-x * x) / 2) * (1 / Math.sqrt(2 * Math.PI))
  }
  // Q(x) = φ(x) / (x + 1/(x + 2/(x + ...)))   (26.2.14)
  let fraction = Math.abs(x)
  for (let n = 200; n >= 1; n--) fraction = Math.abs(x) + n / fraction
  const tail = (Math.exp((-x * x) / 2) * (1 / Math.sqrt(2 * Math.PI))) / fraction
  return x < 0 ? tail : 1 - tail
}

export const unaryFunctions = {
  neg: (x: number) => -x,
  abs: Math.abs,
  sign: Math.sign,
  square: (x: number) => x * x,
  sqrt: Math.sqrt,
  rsqrt: (x: number) => 1 / Math.sqrt(x),
  reciprocal: (x: number) => 1 / x,
  exp: Math.exp,
  log: Math.log,
  sin: Math.sin,
  cos: Math.cos,
  tanh: Math.tanh,
  sigmoid: (x: number) => (x < 0 ? Math.exp(x) / (1 + Math.exp(x)) : 1 / (1 + Math.exp(-x))),
  silu: (x: number) => x * unaryFunctions.sigmoid(x),
  gelu: (x: number) => x * normalCdf(x),
  geluTanh: (x: number) => {
    // x/2 (1 + tanh u) = x · sigmoid(2u), which does not cancel for negative u.
    const u = Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)
    return x * unaryFunctions.sigmoid(2 * u)
  },
  relu: (x: number) => (x > 0 || Number.isNaN(x) ? x : 0),
  floor: Math.floor,
  isFinite: (x: number) => Number(Number.isFinite(x)),
  logicalNot: (x: number) => Number(x === 0),
}

export const binaryFunctions = {
  add: (a: number, b: number) => a + b,
  sub: (a: number, b: number) => a - b,
  mul: (a: number, b: number) => a * b,
  div: (a: number, b: number) => a / b,
  // Where C and JavaScript differ: pow(1, NaN) and pow(-1, ±infinity) are 1 in C.
  pow: (a: number, b: number) =>
    a === 1 || (a === -1 && Math.abs(b) === Number.POSITIVE_INFINITY) ? 1 : a ** b,
  maximum: Math.max,
  minimum: Math.min,
  equal: (a: number, b: number) => Number(a === b),
  notEqual: (a: number, b: number) => Number(a !== b),
  less: (a: number, b: number) => Number(a < b),
  lessEqual: (a: number, b: number) => Number(a <= b),
  greater: (a: number, b: number) => Number(a > b),
  greaterEqual: (a: number, b: number) => Number(a >= b),
}

/** The same on 32-bit integers that wrap. */
export const integerFunctions = {
  neg: (x: number) => -x | 0,
  abs: (x: number) => Math.abs(x) | 0,
  sign: Math.sign,
  square: (x: number) => Math.imul(x, x),
  add: (a: number, b: number) => (a + b) | 0,
  sub: (a: number, b: number) => (a - b) | 0,
  mul: Math.imul,
  div: (a: number, b: number) => (b === 0 ? 0 : (a / b) | 0),
}
