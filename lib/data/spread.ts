/** `count` of a list's entries in its order, evenly spread; some several times where there are fewer. */
export function spread<T>(list: readonly T[], count: number): T[] {
  return Array.from({ length: count }, (_, i) => list[Math.floor((i * list.length) / count)] as T)
}
