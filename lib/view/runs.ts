/** What is known of a run without reading all of its metrics. */
import { parseHeader } from '../io/header.js'
import { isHeld } from '../train/lock.js'
import type { RunDetails, RunSummary } from './api.js'
import { joined, type ViewedFolder } from './folder.js'
import { lastLines, type MetricsFile } from './metrics-file.js'

const checkpointName = /^step-\d+\.safetensors$/
const sampleName = /^step-(\d{6,})\.png$/
/** Of a checkpoint's header: more is passed over. */
const maxHeaderBytes = 2 ** 24
/** So many steps' seconds make the time that is left. */
const timedSteps = 50

/** The picture of a step, from the run's folder. */
export function sampleFile(step: number): string {
  return `samples/step-${String(step).padStart(6, '0')}.png`
}

/** Summaries of runs. What a run's last checkpoint says is kept until there is another one. */
export class RunReader {
  readonly #folder: ViewedFolder
  readonly #kinds = new Map<string, { checkpoint: string; kind: string | null }>()

  constructor(folder: ViewedFolder) {
    this.#folder = folder
  }

  async summary(path: string): Promise<RunSummary> {
    const folder = this.#folder
    const [configText, configState, last, lock, kind, entries] = await Promise.all([
      folder.readText(joined(path, 'config.json'), 2 ** 20),
      folder.stateOf(joined(path, 'config.json')),
      lastLines(folder, joined(path, 'metrics.jsonl')),
      folder.readText(joined(path, 'lock'), 2 ** 12),
      this.#kind(path),
      folder.list(path),
    ])
    const config = parsedObject(configText)
    const steps = Number.isSafeInteger(config?.steps) ? (config?.steps as number) : null
    const lines = last?.lines ?? []
    const step = Math.max(0, lines.at(-1)?.step ?? 0)
    const training = lock !== undefined && isHeld(lock)
    const seconds = meanSeconds(lines.slice(-timedSteps))
    return {
      path,
      kind,
      method: methodOf(config),
      step,
      steps,
      state: training ? 'training' : steps !== null && step >= steps ? 'done' : 'stopped',
      changed: last?.changed ?? configState?.changed ?? 0,
      bytes: last?.bytes ?? 0,
      secondsLeft:
        training && steps !== null && seconds !== null ? Math.max(0, steps - step) * seconds : null,
      samples: await this.#samples(path),
      report: entries.some((entry) => entry.name === 'report.html' && entry.isFile()),
    }
  }

  async details(path: string, metrics: MetricsFile): Promise<RunDetails> {
    const names = (await this.#folder.list(joined(path, 'checkpoints')))
      .filter((entry) => entry.isFile() && entry.name.endsWith('.safetensors'))
      .filter(({ name }) => !name.startsWith('.'))
      .map(({ name }) => name)
      .sort()
    const checkpoints = await Promise.all(
      names.map(async (name) => {
        const state = await this.#folder.stateOf(joined(path, 'checkpoints', name))
        return state === undefined ? [] : [{ name, bytes: state.bytes, changed: state.changed }]
      }),
    )
    return {
      path,
      config: (await this.#folder.readText(joined(path, 'config.json'), 2 ** 20)) ?? null,
      checkpoints: checkpoints.flat(),
      notes: metrics.notes,
      unreadableLines: metrics.unreadableLines,
    }
  }

  async #samples(path: string): Promise<number[]> {
    return (await this.#folder.list(joined(path, 'samples')))
      .flatMap((entry) => {
        const step = entry.isFile() ? sampleName.exec(entry.name)?.[1] : undefined
        return step === undefined ? [] : [Number(step)]
      })
      .sort((a, b) => a - b)
  }

  /** What the last checkpoint says is trained. */
  async #kind(path: string): Promise<string | null> {
    const checkpoint = (await this.#folder.list(joined(path, 'checkpoints')))
      .map(({ name }) => name)
      .filter((name) => checkpointName.test(name))
      .sort()
      .at(-1)
    const known = this.#kinds.get(path)
    // It may have been removed since, when a later one came: what is known holds.
    if (checkpoint === undefined || known?.checkpoint === checkpoint) return known?.kind ?? null
    const kind = await this.#kindOf(joined(path, 'checkpoints', checkpoint))
    this.#kinds.set(path, { checkpoint, kind: kind ?? known?.kind ?? null })
    return kind ?? known?.kind ?? null
  }

  /** `checkpoint` of the metadata that `TrainingRun` writes. */
  async #kindOf(file: string): Promise<string | null> {
    const opened = await this.#folder.openFile(file)
    if (opened === undefined) return null
    const { handle, bytes } = opened
    try {
      const length = Buffer.alloc(8)
      await handle.read(length, 0, 8, 0)
      const headerBytes = Number(length.readBigUInt64LE())
      if (headerBytes > Math.min(maxHeaderBytes, bytes - 8)) return null
      const header = Buffer.alloc(headerBytes)
      await handle.read(header, 0, headerBytes, 8)
      const { metadata } = parseHeader(header.toString('utf8'), file, bytes - 8 - headerBytes)
      const kind = parsedObject(metadata.get('didr'))?.checkpoint
      return typeof kind === 'string' ? kind : null
    } catch {
      return null
    } finally {
      await handle.close()
    }
  }
}

function parsedObject(text: string | undefined): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text ?? 'null')
    if (typeof value === 'object' && value !== null && !Array.isArray(value))
      return value as Record<string, unknown>
  } catch {
    // As if it were not there.
  }
  return undefined
}

/** `didr, drp, β = 0.04` */
function methodOf(config: Record<string, unknown> | undefined): string {
  const objective = config?.objective
  if (typeof objective !== 'string') return ''
  const parts = [objective]
  const drs = config?.drs as { estimator?: unknown } | null | undefined
  if (objective === 'didr' && typeof drs?.estimator === 'string') parts.push(drs.estimator)
  if (typeof config?.beta === 'number') parts.push(`β = ${config.beta}`)
  return parts.join(', ')
}

function meanSeconds(lines: { numbers: [string, number][] }[]): number | null {
  const seconds = lines.flatMap(({ numbers }) =>
    numbers.flatMap(([name, value]) => (name === 'seconds' ? [value] : [])),
  )
  if (seconds.length === 0) return null
  return seconds.reduce((sum, value) => sum + value, 0) / seconds.length
}
