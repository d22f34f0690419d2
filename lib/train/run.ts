/** A training run's folder, its checkpoints and the loop around a step. */
import { appendFile, readdir, readFile, unlink } from 'node:fs/promises'
import path from 'node:path'
import { checkBoolean, checkInteger, checkOptions } from '../checks.js'
import { differences } from '../differences.js'
import { DidrError, fail, show } from '../errors.js'
import { failIO, linkAtomically, makeFolder, writeAtomically } from '../io/files.js'
import { inspectSafetensors, loadSafetensors, saveSafetensors } from '../io/safetensors.js'
import type { Module } from '../nn/module.js'
import type { OptimState } from '../optim/parameters.js'
import type { Tensor } from '../tensor/tensor.js'
import { type BestOptions, BestTracker } from './best.js'
import { readConfig } from './config.js'
import { FolderLock } from './lock.js'
import { type Metrics, readMetrics } from './metrics.js'
import { EventWriter } from './tensorboard.js'

/** Something a checkpoint holds: an optimiser, averages, or a module through {@link moduleState}. */
export interface Checkpointed {
  /** Living tensors, all of one device, which do not change before they are written, and plain JSON. */
  state(): OptimState<unknown>
  /** Goes on from a state, whose tensors are on the device that those of {@link state} are on. */
  load(state: OptimState<never>): void | Promise<void>
}

/** A module as a part of a checkpoint. */
export function moduleState(module: Module): Checkpointed {
  return {
    state: () => ({ tensors: module.state(), settings: null }),
    load: ({ tensors }) => module.loadState(tensors),
  }
}

/** What is known after each step. */
export interface Progress {
  /** Steps that are done, those of earlier sessions too. */
  step: number
  steps: number
  /** The step's numbers; those of a record as `name/key`. */
  metrics: Readonly<Record<string, number>>
  /** Steps per second in this session. */
  rate: number
  /** Until the last step, at that rate. */
  secondsLeft: number
}

/** What a {@link TrainingRun} is made of. */
export interface TrainingRunOptions {
  /** What is trained, for messages: a folder of another kind is refused. */
  kind: string
  /** The resolved configuration, plain JSON. */
  config: {
    steps: number
    checkpointEvery: number
    keepCheckpoints: number
    previewEvery: number
    /** Where the parts are, for those who read the folder. */
    device?: string
  }
  /** By name, without dots. */
  parts: Readonly<Record<string, Checkpointed>>
  /** Go on from the last checkpoint if there is one. Without it a folder that has a run is refused. Default false. */
  resume?: boolean
  /**
   * Keep the checkpoint at which a metric's average was best, as `checkpoints/best.safetensors`. Asked at every
   * `checkpointEvery` steps and after the last one. With other options than those of the run that is resumed, it begins
   * anew. Default: no such checkpoint.
   */
  best?: BestOptions | undefined
  /** Once it is aborted, {@link TrainingRun.train} saves a checkpoint after the running step and returns. */
  signal?: AbortSignal | undefined
  onProgress?: ((progress: Progress) => void) | undefined
}

/** What a {@link TrainingRun} calls besides its step. */
export interface StepHooks {
  /**
   * Writes pictures to `file`, `samples/step-000500.png`, which TensorBoard shows as `samples`; or nothing. Called every
   * `previewEvery` steps and after the last one.
   */
  preview?: (file: string) => Promise<void>
}

const checkpointName = /^step-(\d+)\.safetensors$/

/**
 * A run in a folder:
 *
 * - `config.json`: the configuration it started with
 * - `metrics.jsonl`: a line for each step, `{"step": 1, "seconds": 0.3, ...}`
 * - `events.out.tfevents.*`: the same numbers and the samples for TensorBoard, a file for each session
 * - `checkpoints/step-000200.safetensors`: the last few, tensors and settings of all parts in one file
 * - `checkpoints/best.safetensors`: the best of all, where that is asked for; it stays when its step's goes
 * - `samples/step-000500.png`: what the step's hook draws
 * - `lock`: the process that has the folder, from {@link TrainingRun.open} until {@link TrainingRun.train} has ended
 *
 * Each file appears complete or not at all, and a step's draws are to depend on its number alone; so a run that is killed
 * at any moment and resumed gives the bits of one that was not.
 *
 * @example
 * await using run = await TrainingRun.open('runs/a', { kind: 'mine', config, parts: { model, optimizer } })
 * await run.train(async (step) => ({ loss: await trainStep(step) }))
 */
export class TrainingRun {
  readonly folder: string
  /** Steps that are done. */
  step = 0
  readonly #options: TrainingRunOptions
  readonly #tracker: BestTracker | undefined
  #lock: FolderLock | undefined
  /** The step that the latest checkpoint holds; 0 if there is none. */
  #savedStep = 0

  private constructor(folder: string, options: TrainingRunOptions) {
    this.folder = folder
    this.#options = options
    this.#tracker = options.best === undefined ? undefined : new BestTracker(options.best)
  }

  /**
   * Makes the folder, or resumes what is in it. The folder is this run's until {@link train} or {@link close} ends.
   * @throws {DidrError} (as a rejection) ERR_CONFIG if there is a run and it is not to be resumed, or it has another
   *   configuration (in other fields than `steps`, `device` and the intervals), or a process has the folder; ERR_IO; ERR_FORMAT for
   *   a checkpoint that is none
   */
  static async open(folder: string, options: TrainingRunOptions): Promise<TrainingRun> {
    checkOptions('options', options, [
      ...['kind', 'config', 'parts', 'resume', 'best', 'signal', 'onProgress'],
    ])
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
    run.#lock = await FolderLock.acquire(folder)
    try {
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
    } catch (error) {
      await run.close()
      throw error
    }
    return run
  }

  /** The step whose checkpoint is the best one so far, and the metric's average there. */
  get best(): { step: number; value: number } | undefined {
    return this.#tracker?.best ?? undefined
  }

  /**
   * Runs `body` for each step that is not done, saves, and gives the folder free. `body` is to have enqueued everything by
   * the time it returns or resolves.
   * @returns whether all steps are done; false if the signal stopped it
   * @throws {DidrError} (as a rejection) what `body` throws, and failures of its ops, with the step in the message; ERR_IO;
   *   ERR_CONFIG for metrics that are none, for a best one that no step has, and where it has been called before. The
   *   last checkpoint stays as it is then, and other errors of `body` are passed on
   */
  async train(
    body: (step: number) => Metrics | Promise<Metrics>,
    hooks: StepHooks = {},
  ): Promise<boolean> {
    this.#checkOpen()
    let events: EventWriter | undefined
    const first = this.step
    try {
      if (first < this.#options.config.steps)
        events = await EventWriter.open(this.folder, { step: first + 1 })
      return await this.#steps(body, hooks, events)
    } finally {
      try {
        await events?.close()
      } finally {
        await this.close()
      }
    }
  }

  async #steps(
    body: (step: number) => Metrics | Promise<Metrics>,
    { preview }: StepHooks,
    events: EventWriter | undefined,
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
      const step = this.step + 1
      try {
        const begun = performance.now()
        const { numbers, texts } = await readMetrics(await body(this.step))
        const seconds = Number(((performance.now() - begun) / 1000).toFixed(4))
        this.step = step
        this.#tracker?.update(numbers)
        await this.#log({ step, seconds, ...numbers, ...texts })
        await events?.scalars(step, { seconds, ...numbers })
        const isLast = step === steps
        if (isLast || step % checkpointEvery === 0) await this.#saveAndCompare(numbers)
        if (preview !== undefined && previewEvery > 0 && (isLast || step % previewEvery === 0))
          await this.#draw(preview, events)
        const rate = (step - first) / ((performance.now() - started) / 1000)
        onProgress?.({ step, steps, metrics: numbers, rate, secondsLeft: (steps - step) / rate })
      } catch (error) {
        if (!(error instanceof DidrError)) throw error
        const last = this.#savedStep
        const saved =
          last === 0 ? 'there is no checkpoint yet' : `the last checkpoint is of step ${last}`
        fail(error.code, `${error.message} (at step ${step}; ${saved})`, { cause: error })
      }
    }
    return true
  }

  /** Gives the folder free; {@link train} does so, too. A run that is closed can be opened again, to be resumed. */
  async close(): Promise<void> {
    const lock = this.#lock
    this.#lock = undefined
    await lock?.release()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #checkOpen(): void {
    if (this.#lock === undefined)
      fail('ERR_CONFIG', `${this.folder}: the run is closed; open it again to go on`)
  }

  /** Saves, and gives the checkpoint its second name if it is the best. */
  async #saveAndCompare(numbers: Readonly<Record<string, number>>): Promise<void> {
    // Compared first, so that the checkpoint knows: a run that is killed after it gives the name when it is resumed.
    const isBest = this.#tracker?.compare(this.step)
    await this.save()
    if (isBest) await this.#markBest()
    if (this.#tracker?.empty)
      fail(
        'ERR_CONFIG',
        `options.best.metric: no step has had ${show(this.#options.best?.metric)}; this one has ${Object.keys(numbers).join(', ')}`,
      )
  }

  async #markBest(): Promise<void> {
    await linkAtomically(
      this.#checkpointFile(this.step),
      path.join(this.#checkpoints, 'best.safetensors'),
    )
  }

  async #draw(preview: (file: string) => Promise<void>, events?: EventWriter): Promise<void> {
    const file = path.join(this.#samples, `${stepName(this.step)}.png`)
    await preview(file)
    let png: Uint8Array
    try {
      png = await readFile(file)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return
      return failIO('read', file, error)
    }
    await events?.image(this.step, 'samples', png)
  }

  /** Writes a checkpoint, then removes the oldest ones over `keepCheckpoints`. */
  async save(): Promise<void> {
    this.#checkOpen()
    const { kind, parts } = this.#options
    const tensors: Record<string, Tensor> = {}
    const settings: Record<string, unknown> = {}
    for (const [part, held] of Object.entries(parts)) {
      const state = held.state()
      settings[part] = state.settings
      for (const [name, tensor] of Object.entries(state.tensors))
        tensors[`${part}.${name}`] = tensor
    }
    const { step } = this
    const best = this.#tracker?.state()
    const didr = JSON.stringify({ checkpoint: kind, step, settings, best })
    await saveSafetensors(this.#checkpointFile(step), tensors, { metadata: { didr } })
    this.#savedStep = step
    await this.#removeOld()
  }

  async #removeOld(): Promise<void> {
    const { keepCheckpoints } = this.#options.config
    for (const old of (await this.#saved()).slice(keepCheckpoints)) await removed(old.file)
  }

  get #checkpoints(): string {
    return path.join(this.folder, 'checkpoints')
  }

  #checkpointFile(step: number): string {
    return path.join(this.#checkpoints, `${stepName(step)}.safetensors`)
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
    // How long a run goes on, where, and what it leaves behind may change; what it computes may not.
    const fixed = (config: object) => {
      const { steps, checkpointEvery, keepCheckpoints, previewEvery, device, ...rest } =
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
    // What a process that was killed after a checkpoint has not done.
    if (this.step > 0 && this.best?.step === this.step) await this.#markBest()
    await this.#removeOld()
    await this.#cutMetrics()
  }

  async #load(file: string): Promise<void> {
    const { kind, parts } = this.#options
    const { tensors: stored, metadata } = await inspectSafetensors(file)
    try {
      const { checkpoint, step, settings, best } = JSON.parse(metadata.didr ?? '{}')
      if (checkpoint !== kind)
        fail('ERR_FORMAT', `${file}: expected a checkpoint of ${kind}, got ${show(checkpoint)}`)
      const byPart = new Map<string, string[]>(Object.keys(parts).map((part) => [part, []]))
      for (const name of Object.keys(stored)) {
        const names = byPart.get(name.slice(0, name.indexOf('.')))
        if (names === undefined) return fail('ERR_FORMAT', `${file}: ${name}: of no part here`)
        names.push(name)
      }
      for (const [part, names] of byPart)
        await loadPart(file, part, names, parts[part] as Checkpointed, settings[part])
      if (best !== undefined) this.#tracker?.load(best)
      this.step = step
      this.#savedStep = step
    } catch (error) {
      if (error instanceof DidrError) throw error
      fail('ERR_FORMAT', `${file}: not a checkpoint: ${(error as Error).message}`, { cause: error })
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

  async #log(line: Record<string, number | readonly string[]>): Promise<void> {
    try {
      await appendFile(this.#metricsFile, `${JSON.stringify(line)}\n`)
    } catch (error) {
      failIO('written', this.#metricsFile, error)
    }
  }
}

/** Gives a part what a checkpoint has of it, on the part's own device. */
async function loadPart(
  file: string,
  part: string,
  names: readonly string[],
  held: Checkpointed,
  settings: unknown,
): Promise<void> {
  const [own] = Object.values(held.state().tensors)
  const place = own === undefined ? {} : { device: own.device }
  const { tensors } = await loadSafetensors(file, { names, ...place })
  try {
    const state = {
      tensors: Object.fromEntries(
        Object.entries(tensors).map(([name, tensor]) => [name.slice(part.length + 1), tensor]),
      ),
      settings,
    }
    await held.load(state as OptimState<never>)
  } finally {
    for (const tensor of Object.values(tensors)) tensor.dispose()
  }
}

function stepName(step: number): string {
  return `step-${String(step).padStart(6, '0')}`
}

async function removed(file: string): Promise<void> {
  try {
    await unlink(file)
  } catch (error) {
    failIO('removed', file, error)
  }
}
