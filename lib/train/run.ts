/** A training run's folder, its checkpoints and the loop around a step. */
import { appendFile, readdir, readFile, unlink } from 'node:fs/promises'
import path from 'node:path'
import { checkBoolean, checkInteger, checkOptions } from '../checks.js'
import { differences } from '../differences.js'
import { DidrError, fail, show } from '../errors.js'
import { makeFolder, writeAtomically } from '../io/files.js'
import { loadSafetensors, saveSafetensors } from '../io/safetensors.js'
import type { Module } from '../nn/module.js'
import type { OptimState } from '../optim/parameters.js'
import { Tensor } from '../tensor/tensor.js'
import { readConfig } from './config.js'

/** Something a checkpoint holds: an optimiser, averages, or a module through {@link moduleState}. */
export interface Checkpointed {
  /** Living tensors, which do not change before they are written, and plain JSON. */
  state(): OptimState<unknown>
  load(state: OptimState<never>): void | Promise<void>
}

/** A module as a part of a checkpoint. */
export function moduleState(module: Module): Checkpointed {
  return {
    state: () => ({ tensors: module.state(), settings: null }),
    load: ({ tensors }) => module.loadState(tensors),
  }
}

/** What a step tells: numbers, or tensors of one element, which the run reads and disposes. */
export type Metrics = Readonly<Record<string, number | Tensor>>

/** What is known after each step. */
export interface Progress {
  /** Steps that are done, those of earlier sessions too. */
  step: number
  steps: number
  metrics: Readonly<Record<string, number>>
  /** Steps per second in this session. */
  rate: number
  /** Until the last step, at that rate. */
  secondsLeft: number
}

export interface TrainingRunOptions {
  /** What is trained, for messages: a folder of another kind is refused. */
  kind: string
  /** The resolved configuration, plain JSON. */
  config: { steps: number; checkpointEvery: number; keepCheckpoints: number; previewEvery: number }
  /** By name, without dots. */
  parts: Readonly<Record<string, Checkpointed>>
  /** Go on from the last checkpoint if there is one. Without it a folder that has a run is refused. Default false. */
  resume?: boolean
  /** Once it is aborted, {@link TrainingRun.train} saves a checkpoint after the running step and returns. */
  signal?: AbortSignal | undefined
  onProgress?: ((progress: Progress) => void) | undefined
}

export interface StepHooks {
  /** Writes pictures to `file`: `samples/step-000500.png`. Called every `previewEvery` steps and after the last one. */
  preview?: (file: string) => Promise<void>
}

const checkpointName = /^step-(\d+)\.safetensors$/

/**
 * A run in a folder:
 *
 * - `config.json`: the configuration it started with
 * - `metrics.jsonl`: a line for each step, `{"step": 1, "seconds": 0.3, ...}`
 * - `checkpoints/step-000200.safetensors`: the last few, tensors and settings of all parts in one file
 * - `samples/step-000500.png`: what the step's hook draws
 *
 * Each file appears complete or not at all, and a step's draws are to depend on its number alone; so a run that is killed
 * at any moment and resumed gives the bits of one that was not.
 */
export class TrainingRun {
  readonly folder: string
  /** Steps that are done. */
  step = 0
  readonly #options: TrainingRunOptions
  /** The step that the latest checkpoint holds. */
  #savedStep = 0

  private constructor(folder: string, options: TrainingRunOptions) {
    this.folder = folder
    this.#options = options
  }

  /**
   * Makes the folder, or resumes what is in it.
   * @throws {DidrError} (as a rejection) ERR_CONFIG if there is a run and it is not to be resumed, or it has another
   *   configuration (in other fields than `steps` and the intervals); ERR_IO; ERR_FORMAT for a checkpoint that is none
   */
  static async open(folder: string, options: TrainingRunOptions): Promise<TrainingRun> {
    checkOptions('options', options, ['kind', 'config', 'parts', 'resume', 'signal', 'onProgress'])
    const { config, resume = false } = options
    checkBoolean('options.resume', resume)
    for (const [field, least] of [
      ['steps', 1],
      ['checkpointEvery', 1],
      ['keepCheckpoints', 1],
      ['previewEvery', 0],
    ] as const)
      checkInteger(`config.${field}`, config[field], least)

    const run = new TrainingRun(folder, options)
    await makeFolder(run.#checkpoints)
    await makeFolder(run.#samples)
    if ((await readdir(folder)).includes('config.json')) {
      if (!resume)
        fail(
          'ERR_CONFIG',
          `${folder}: there is a run already; resume it (--resume) or choose another folder`,
        )
      await run.#checkConfig()
    }
    await writeAtomically(run.#configFile, (write) =>
      write(Buffer.from(`${JSON.stringify(config, null, 2)}\n`)),
    )
    await run.#restore()
    return run
  }

  /**
   * Runs `body` for each step that is not done, and saves. `body` is to have enqueued everything by the time it returns
   * or resolves.
   * @returns whether all steps are done; false if the signal stopped it
   * @throws {DidrError} what `body` throws, and failures of its ops; checkpoints stay as they are then
   */
  async train(
    body: (step: number) => Metrics | Promise<Metrics>,
    { preview }: StepHooks = {},
  ): Promise<boolean> {
    const { config, signal, onProgress } = this.#options
    const { steps, checkpointEvery, previewEvery } = config
    const first = this.step
    const started = performance.now()
    while (this.step < steps) {
      if (signal?.aborted) {
        if (this.#savedStep !== this.step) await this.save()
        return false
      }
      const begun = performance.now()
      const metrics = await numbersOf(await body(this.step))
      const seconds = (performance.now() - begun) / 1000
      this.step++
      const { step } = this
      await this.#log({ step, seconds: Number(seconds.toFixed(4)), ...metrics })
      const isLast = step === steps
      if (isLast || step % checkpointEvery === 0) await this.save()
      if (preview !== undefined && previewEvery > 0 && (isLast || step % previewEvery === 0))
        await preview(path.join(this.#samples, `${stepName(step)}.png`))
      const rate = (step - first) / ((performance.now() - started) / 1000)
      onProgress?.({ step, steps, metrics, rate, secondsLeft: (steps - step) / rate })
    }
    return true
  }

  /** Writes a checkpoint, then removes the oldest ones over `keepCheckpoints`. */
  async save(): Promise<void> {
    const { kind, parts, config } = this.#options
    const tensors: Record<string, Tensor> = {}
    const settings: Record<string, unknown> = {}
    for (const [part, held] of Object.entries(parts)) {
      const state = held.state()
      settings[part] = state.settings
      for (const [name, tensor] of Object.entries(state.tensors))
        tensors[`${part}.${name}`] = tensor
    }
    const { step } = this
    const file = path.join(this.#checkpoints, `${stepName(step)}.safetensors`)
    const didr = JSON.stringify({ checkpoint: kind, step, settings })
    await saveSafetensors(file, tensors, { metadata: { didr } })
    this.#savedStep = step
    for (const old of (await this.#saved()).slice(config.keepCheckpoints)) await removed(old.file)
  }

  get #checkpoints(): string {
    return path.join(this.folder, 'checkpoints')
  }

  get #samples(): string {
    return path.join(this.folder, 'samples')
  }

  get #configFile(): string {
    return path.join(this.folder, 'config.json')
  }

  get #metricsFile(): string {
    return path.join(this.folder, 'metrics.jsonl')
  }

  async #checkConfig(): Promise<void> {
    // How long a run goes on and what it leaves behind may change; what it computes may not.
    const fixed = (config: object) => {
      const { steps, checkpointEvery, keepCheckpoints, previewEvery, ...rest } =
        config as TrainingRunOptions['config']
      return rest
    }
    const saved = await readConfig(this.#configFile)
    const difference = differences(fixed(this.#options.config), fixed(saved), 'config')[0]
    if (difference !== undefined)
      fail(
        'ERR_CONFIG',
        `${difference}: differs from that of the run to be resumed, in ${this.#configFile}`,
      )
  }

  /** Complete checkpoints, the latest first. */
  async #saved(): Promise<{ file: string; step: number }[]> {
    return (await readdir(this.#checkpoints))
      .flatMap((name) => {
        const step = checkpointName.exec(name)?.[1]
        if (step === undefined) return []
        return [{ file: path.join(this.#checkpoints, name), step: Number(step) }]
      })
      .sort((a, b) => b.step - a.step)
  }

  async #restore(): Promise<void> {
    // What a write that was killed left behind.
    for (const folder of [this.folder, this.#checkpoints])
      for (const name of await readdir(folder))
        if (/^\..*\.tmp$/.test(name)) await removed(path.join(folder, name))
    const [latest] = await this.#saved()
    if (latest !== undefined) await this.#load(latest.file)
    await this.#cutMetrics()
  }

  async #load(file: string): Promise<void> {
    const { kind, parts } = this.#options
    const { tensors, metadata } = await loadSafetensors(file)
    try {
      const { checkpoint, step, settings } = JSON.parse(metadata.didr ?? '{}')
      if (checkpoint !== kind)
        fail('ERR_FORMAT', `${file}: expected a checkpoint of ${kind}, got ${show(checkpoint)}`)
      const byPart = new Map<string, Record<string, Tensor>>(
        Object.keys(parts).map((part) => [part, {}]),
      )
      for (const [name, tensor] of Object.entries(tensors)) {
        const [part, ...rest] = name.split('.')
        const state = byPart.get(part as string)
        if (state === undefined) return fail('ERR_FORMAT', `${file}: ${name}: of no part here`)
        state[rest.join('.')] = tensor
      }
      for (const [part, held] of Object.entries(parts)) {
        const state = { tensors: byPart.get(part) ?? {}, settings: settings[part] }
        await held.load(state as OptimState<never>)
      }
      this.step = step
      this.#savedStep = step
    } catch (error) {
      if (error instanceof DidrError) throw error
      fail('ERR_FORMAT', `${file}: not a checkpoint: ${(error as Error).message}`, { cause: error })
    } finally {
      for (const tensor of Object.values(tensors)) tensor.dispose()
    }
  }

  /** Drops the lines of steps that will be done again. */
  async #cutMetrics(): Promise<void> {
    let text: string
    try {
      text = await readFile(this.#metricsFile, 'utf8')
    } catch {
      return
    }
    const lines = text.split('\n').slice(0, this.step)
    const kept = lines.map((line) => `${line}\n`).join('')
    if (kept !== text) await writeAtomically(this.#metricsFile, (write) => write(Buffer.from(kept)))
  }

  async #log(line: Record<string, number>): Promise<void> {
    try {
      await appendFile(this.#metricsFile, `${JSON.stringify(line)}\n`)
    } catch (error) {
      fail('ERR_IO', `${this.#metricsFile}: could not be written: ${(error as Error).message}`, {
        cause: error,
      })
    }
  }
}

function stepName(step: number): string {
  return `step-${String(step).padStart(6, '0')}`
}

async function removed(file: string): Promise<void> {
  try {
    await unlink(file)
  } catch (error) {
    fail('ERR_IO', `${file}: could not be removed: ${(error as Error).message}`, { cause: error })
  }
}

async function numbersOf(metrics: Metrics): Promise<Record<string, number>> {
  const numbers: Record<string, number> = {}
  for (const [name, value] of Object.entries(metrics)) {
    numbers[name] = value instanceof Tensor ? await value.item() : value
    if (value instanceof Tensor) value.dispose()
    if (!Number.isFinite(numbers[name]))
      fail('ERR_NONFINITE', `${name}: expected a finite number, got ${numbers[name]}`)
  }
  return numbers
}
