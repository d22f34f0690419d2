import { joined, type ViewedFolder } from './folder.js'

export interface Found {
  /** Paths of runs, sorted. */
  runs: string[]
  /** Paths of folders with a compare.json, sorted. */
  comparisons: string[]
  /** Whether there were more folders than `maxFolders`. */
  truncated: boolean
}

/** Those of a run, which are no runs. */
const ownFolders = ['checkpoints', 'samples']

/**
 * Runs and comparisons at any depth, nearest first where there are too many folders. A run is a folder with a config.json
 * and either checkpoints/ or metrics.jsonl, as `TrainingRun` makes it. Hidden folders, node_modules and symbolic links are
 * passed over.
 * @param maxFolders Default 5000.
 */
export async function findRuns(folder: ViewedFolder, maxFolders = 5000): Promise<Found> {
  const found: Found = { runs: [], comparisons: [], truncated: false }
  const queue = ['']
  for (let looked = 0; queue.length > 0; looked++) {
    if (looked === maxFolders) {
      found.truncated = true
      break
    }
    const at = queue.shift() as string
    const entries = await folder.list(at)
    const hasFile = (name: string) => entries.some((entry) => entry.name === name && entry.isFile())
    const isRun =
      hasFile('config.json') &&
      (hasFile('metrics.jsonl') ||
        entries.some((entry) => entry.name === 'checkpoints' && entry.isDirectory()))
    if (isRun) found.runs.push(at)
    if (hasFile('compare.json')) found.comparisons.push(at)
    for (const entry of entries) {
      const { name } = entry
      if (!entry.isDirectory() || name.startsWith('.') || name === 'node_modules') continue
      if (!(isRun && ownFolders.includes(name))) queue.push(joined(at, name))
    }
  }
  const { compare } = new Intl.Collator('en', { numeric: true })
  found.runs.sort(compare)
  found.comparisons.sort(compare)
  return found
}
