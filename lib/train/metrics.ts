import { fail, show } from '../errors.js'
import { Tensor } from '../tensor/tensor.js'

/**
 * What a step tells, by name:
 *
 * - a number, or a tensor of one element, which the run reads and disposes
 * - numbers by name, which become `name/key`
 * - texts, which go to `metrics.jsonl` alone, if there are any
 * - undefined for what this step has not measured
 */
export type Metrics = Readonly<
  Record<string, number | Tensor | undefined | readonly string[] | Readonly<Record<string, number>>>
>

/** Names of the run's own in a line of `metrics.jsonl`. */
const reserved = ['step', 'seconds']

/**
 * The numbers of a step, flat, and its texts. All tensors are disposed, whatever happens.
 * @throws {DidrError} (as a rejection) ERR_NONFINITE; ERR_CONFIG for a name that is reserved or twice there, and for values
 *   of other kinds; what reading the tensors throws
 */
export async function readMetrics(metrics: Metrics): Promise<{
  numbers: Record<string, number>
  texts: Record<string, readonly string[]>
}> {
  const numbers = new Map<string, number>()
  const texts = new Map<string, readonly string[]>()
  const check = (name: string) => {
    if (reserved.includes(name))
      fail('ERR_CONFIG', `metrics.${name}: the run writes that itself; choose another name`)
    if (numbers.has(name) || texts.has(name))
      fail('ERR_CONFIG', `metrics: two have the name ${show(name)}`)
  }
  const add = (name: string, value: unknown) => {
    check(name)
    if (typeof value !== 'number')
      fail('ERR_CONFIG', `metrics.${name}: expected a number, got ${show(value)}`)
    if (!Number.isFinite(value))
      fail('ERR_NONFINITE', `${name}: expected a finite number, got ${value}`)
    numbers.set(name, value)
  }
  try {
    for (const [name, value] of Object.entries(metrics)) {
      if (value === undefined) continue
      if (value instanceof Tensor) add(name, await value.item())
      else if (Array.isArray(value)) {
        check(name)
        if (!value.every((text) => typeof text === 'string'))
          fail('ERR_CONFIG', `metrics.${name}: expected strings, got ${show(value)}`)
        if (value.length > 0) texts.set(name, value)
      } else if (typeof value === 'object' && value !== null)
        for (const [part, number] of Object.entries(value)) add(`${name}/${part}`, number)
      else add(name, value)
    }
  } finally {
    for (const value of Object.values(metrics)) if (value instanceof Tensor) value.dispose()
  }
  return { numbers: Object.fromEntries(numbers), texts: Object.fromEntries(texts) }
}
