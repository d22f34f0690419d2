/** The compare.json of a folder as a table and plots. */
import { type Comparison, compareChart, compareRows } from '../evaluation/comparison.js'
import type { ComparisonView } from './api.js'
import { joined, type ViewedFolder } from './folder.js'

/** Reads it; what `didr compare` has not written is told as a problem. */
export async function comparisonView(folder: ViewedFolder, path: string): Promise<ComparisonView> {
  const nothing = (problem: string) => ({ path, rows: [], charts: [], problem })
  const text = await folder.readText(joined(path, 'compare.json'))
  if (text === undefined) return nothing('compare.json could not be read')
  let results: unknown
  try {
    results = JSON.parse(text)
  } catch {
    return nothing('compare.json: expected JSON')
  }
  if (!Array.isArray(results)) return nothing('compare.json: expected an array of results')
  if (results.length === 0) return nothing('compare.json: there are no results in it')
  const wrong = results.findIndex((result) => !isComparison(result))
  if (wrong >= 0) return nothing(`compare.json: [${wrong}]: expected a result of didr compare`)
  const sound = results as Comparison[]
  const references = Object.keys(sound[0]?.references ?? {})
  const other = sound.findIndex((result) =>
    references.some((name) => !Object.hasOwn(result.references, name)),
  )
  if (other >= 0)
    return nothing(`compare.json: [${other}]: expected the references of the first result`)
  return {
    path,
    rows: compareRows(sound),
    charts: references.map((reference) => ({
      reference,
      svg: compareChart(sound, reference),
    })),
    problem: null,
  }
}

/** Whether it has, and of the right kind, all that the table and the plots show. */
function isComparison(value: unknown): value is Comparison {
  if (!isRecord(value)) return false
  const { method, beta, calls, reward, rewards, references, diversity, alarms } = value
  const all = isRecord(diversity) ? diversity.all : undefined
  return (
    typeof method === 'string' &&
    (beta === undefined || typeof beta === 'number') &&
    [calls, reward].every((number) => typeof number === 'number') &&
    hasNumbers(rewards, ['mean']) &&
    hasNumbers(references, ['frechet', 'precision', 'recall']) &&
    isRecord(all) &&
    typeof all.euclidean === 'number' &&
    Array.isArray(alarms) &&
    alarms.every((alarm) => typeof alarm === 'string')
  )
}

/** Whether it is a record of records with these fields. */
function hasNumbers(value: unknown, fields: readonly string[]): boolean {
  return (
    isRecord(value) &&
    Object.values(value).every(
      (own) => isRecord(own) && fields.every((field) => typeof own[field] === 'number'),
    )
  )
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
