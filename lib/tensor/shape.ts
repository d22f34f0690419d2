import { fail, show } from '../errors.js'

/** Sizes of a tensor's axes. Literal where TypeScript knows them, `number[]` where it does not. */
export type Shape = readonly number[]

export const maxRank = 8
/** Past this the byte count of a tensor would no longer be exact. */
const maxElements = 2 ** 50

/** The type of two shapes broadcast together, where it can be told. */
export type Broadcast<A extends Shape, B extends Shape> = A extends readonly []
  ? B
  : B extends readonly []
    ? A
    : [A, B] extends [B, A]
      ? A
      : number[]

/** The type of a reshape's result: -1 stands for a size that is worked out when it runs. */
export type Reshaped<S extends Shape> = -1 extends S[number] ? number[] : S

/** The type of a matrix product without transposition or batch axes, where it can be told. */
export type Multiplied<A extends Shape, B extends Shape> = A extends readonly [infer M, infer _K]
  ? B extends readonly [infer _L, infer N]
    ? [M, N]
    : number[]
  : number[]

export function showShape(shape: Shape): string {
  return `[${shape.join(', ')}]`
}

/** The number of elements of a checked shape. */
export function elementCount(shape: Shape): number {
  let count = 1
  for (const size of shape) count *= size
  return count
}

export function checkShape(name: string, shape: unknown): asserts shape is Shape {
  if (!Array.isArray(shape))
    fail('ERR_SHAPE', `${name}: expected an array of sizes, got ${show(shape)}`)
  if (shape.length > maxRank)
    fail('ERR_SHAPE', `${name}: expected at most ${maxRank} axes, got ${shape.length}`)
  let span = 1
  for (const size of shape) {
    if (!Number.isInteger(size) || size < 0)
      fail('ERR_SHAPE', `${name}: expected sizes that are integers from 0 on, got ${show(shape)}`)
    span *= Math.max(size, 1)
  }
  if (span > maxElements)
    fail('ERR_SHAPE', `${name}: expected at most 2^50 elements, got ${showShape(shape)}`)
}

export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((size, axis) => size === b[axis])
}

/** Shapes align at the last axis; a size of 1 stretches. */
export function broadcastShapes(a: Shape, b: Shape): Shape {
  if (sameShape(a, b)) return a
  const rank = Math.max(a.length, b.length)
  const result = new Array<number>(rank)
  for (let i = 1; i <= rank; i++) {
    const sizeA = a[a.length - i] ?? 1
    const sizeB = b[b.length - i] ?? 1
    if (sizeA !== sizeB && sizeA !== 1 && sizeB !== 1)
      fail('ERR_SHAPE', `shapes ${showShape(a)} and ${showShape(b)} do not broadcast`)
    result[rank - i] = sizeA === 1 ? sizeB : sizeA
  }
  return result
}

/** An axis counted from the front; negative ones count from the back. */
export function checkAxis(name: string, axis: unknown, rank: number): number {
  if (!Number.isInteger(axis) || (axis as number) < -rank || (axis as number) >= rank)
    fail(
      'ERR_RANGE',
      rank === 0
        ? `${name}: a scalar has no axes, got ${show(axis)}`
        : `${name}: expected an integer from ${-rank} to ${rank - 1}, got ${show(axis)}`,
    )
  return (axis as number) < 0 ? (axis as number) + rank : (axis as number)
}

/** Distinct axes in ascending order; all of them when none are named. */
export function checkAxes(name: string, axes: unknown, rank: number): number[] {
  if (axes === undefined) return Array.from({ length: rank }, (_, axis) => axis)
  const list = (Array.isArray(axes) ? axes : [axes]).map((axis) => checkAxis(name, axis, rank))
  if (new Set(list).size !== list.length)
    fail('ERR_RANGE', `${name}: expected distinct axes, got ${show(axes)}`)
  return list.sort((a, b) => a - b)
}
