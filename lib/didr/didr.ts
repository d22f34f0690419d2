/** A DIDR run: what is trained, with its optimisers, averages and random numbers; saved and resumed as one. */
import { mkdir, readdir, rm } from 'node:fs/promises'
import path from 'node:path'
import type { Parameter } from '../autograd/parameter.js'
import { differences } from '../differences.js'
import { DidrError, fail, show } from '../errors.js'
import { loadSafetensors, saveSafetensors } from '../io/safetensors.js'
import { AdamW } from '../optim/adamw.js'
import { Ema } from '../optim/ema.js'
import { type OptimState, restoreTensors } from '../optim/parameters.js'
import { cpuDevice, type Device } from '../tensor/device.js'
import type { FloatDType } from '../tensor/dtype.js'
import type { Tensor } from '../tensor/tensor.js'
import {
  type DidrConfig,
  type DidrOptions,
  learningRateOf,
  resolveConfig,
  termsOf,
} from './config.js'
import { KlWindow } from './kl-window.js'
import { NoOpDetector } from './no-op-detector.js'
import { RandomStream } from './philox.js'
import { Snapshot } from './snapshot.js'

/** The file of a saved run, in its folder. */
const stateFile = 'didr.safetensors'
const formatVersion = 1

/** What is saved of a run besides tensors; plain JSON. */
export interface DidrState {
  step: number
  randomOffset: number
  klFilled: number
  noOps: Record<string, number>
  reward: unknown
}

/** Make one with {@link createDidr}, train it with `didrStep`. */
export class Didr {
  /** As given, functions and models included. */
  readonly options: DidrOptions
  /** All settings, defaults filled in; plain JSON. */
  readonly config: DidrConfig
  readonly device: Device
  /** Averages of the generator's parameters, if they are kept. */
  readonly ema: Ema | undefined
  /** @internal */
  readonly generatorOptimizer: AdamW
  /** @internal */
  readonly assistantOptimizer: AdamW
  /** @internal */
  readonly random: RandomStream
  /** @internal */
  readonly kl: KlWindow
  /** @internal */
  readonly noOps: NoOpDetector
  /** @internal */
  readonly learningRates: {
    generator: (step: number) => number
    assistant: (step: number) => number
  }
  #step = 0
  #busy: string | undefined

  /** Use {@link createDidr}. */
  constructor(options: DidrOptions) {
    this.config = resolveConfig(options)
    this.options = { ...options }
    const { config } = this
    const generator = trainable('generator', options.generator.parameters())
    const assistant =
      config.assistantSteps === 0 || termsOf[config.objective].match === undefined
        ? []
        : trainable('assistant', options.assistant.parameters())
    for (const parameter of assistant)
      if (generator.includes(parameter))
        fail(
          'ERR_CONFIG',
          `options.assistant: trains ${show(parameter.name)}, which the generator trains; give it a copy of its own`,
        )
    for (const parameter of options.teacher.parameters())
      if (generator.includes(parameter) || assistant.includes(parameter))
        fail(
          'ERR_CONFIG',
          `options.teacher: ${show(parameter.name)} is trained by the generator or the assistant; the teacher stays as it is`,
        )
    this.device = generator[0]?.value.device ?? cpuDevice()
    const optimizerOf = (parameters: Parameter[], which: 'generator' | 'assistant') => {
      const { lr, betas, eps, weightDecay, maxNorm } = config.optimizer[which]
      const limit = maxNorm === null ? {} : { maxNorm }
      return new AdamW(parameters, { lr, betas, eps, weightDecay, ...limit })
    }
    this.generatorOptimizer = optimizerOf(generator, 'generator')
    this.assistantOptimizer = optimizerOf(assistant, 'assistant')
    this.learningRates = {
      generator: learningRateOf(config.optimizer.generator),
      assistant: learningRateOf(config.optimizer.assistant),
    }
    this.ema = config.ema === null ? undefined : new Ema(generator, { decay: config.ema })
    this.random = new RandomStream(config.seed)
    const [low, high] =
      config.times.kind === 'log-snr'
        ? config.times.range
        : (config.times.range.map((t) => options.schedule.logSnr(t)).reverse() as [number, number])
    // A range of one time, or one that reaches to no noise at all, still needs bins of some width.
    const [bottom, top] = [Math.max(low, -40), Math.min(high, 40)]
    this.kl = new KlWindow(config.klWindow, [bottom, Math.max(top, bottom + 1e-3)], this.device)
    this.noOps = new NoOpDetector(config.noOpAfter)
  }

  /** Steps done. */
  get step(): number {
    return this.#step
  }

  /** The dtype of the generator's parameters, and so of noise and samples. */
  get dtype(): FloatDType {
    return this.options.generator.parameters()[0]?.value.dtype ?? 'float32'
  }

  /**
   * Runs `work` alone: what it changes is either all done or, if it throws, all as before. Random numbers, the step count,
   * what the reward has learnt and the tensors given are put back.
   * @internal
   */
  async attempt<T>(changed: Iterable<Tensor>, work: () => Promise<T>): Promise<T> {
    return this.#alone('a step', async () => {
      this.#zeroGrad()
      const host = structuredClone(this.#hostState())
      using before = new Snapshot(changed)
      try {
        const result = await work()
        this.#step++
        return result
      } catch (error) {
        // What is still queued may fail in turn; it has nothing to say that the first error has not.
        await this.device.synchronize().catch(() => {})
        before.restore()
        this.#setHostState(host)
        throw error
      } finally {
        this.#zeroGrad()
      }
    })
  }

  #zeroGrad(): void {
    this.generatorOptimizer.zeroGrad()
    this.assistantOptimizer.zeroGrad()
  }

  /**
   * Saves generator, assistant, averages, both optimisers, random numbers, the step and the configuration to
   * `folder/didr.safetensors`. The file appears complete or, whatever happens, not at all. Frozen parameters, such as the
   * base under a LoRA, are not in it.
   *
   * @throws {DidrError} (as a rejection) ERR_IO if it cannot be written; ERR_CONFIG while a step is running
   */
  async save(folder: string): Promise<void> {
    checkFolder(folder)
    await this.#alone('save', async () => {
      try {
        await mkdir(folder, { recursive: true })
        // What saves of processes that were killed left behind.
        for (const name of await readdir(folder))
          if (name.startsWith(`.${stateFile}.`) && name.endsWith('.tmp'))
            await rm(path.join(folder, name), { force: true })
      } catch (error) {
        fail('ERR_IO', `${folder}: could not be made ready: ${(error as Error).message}`, {
          cause: error,
        })
      }
      await saveSafetensors(path.join(folder, stateFile), this.#tensors(), {
        metadata: {
          format: 'didr',
          version: String(formatVersion),
          state: JSON.stringify(this.#hostState()),
          config: JSON.stringify(this.config),
        },
      })
    })
  }

  /**
   * Goes on from a saved run: on the CPU with the same bits as if it had never stopped. The models have to be built as they
   * were; settings are those given to `createDidr`.
   *
   * @returns the paths of settings that differ from those of the saved run
   * @throws {DidrError} (as a rejection) ERR_IO, ERR_FORMAT for a file that is none; ERR_CONFIG, ERR_SHAPE, ERR_DTYPE for
   *   one of other models. Nothing is changed then.
   */
  async load(folder: string): Promise<{ changedSettings: string[] }> {
    checkFolder(folder)
    return this.#alone('load', async () => {
      const file = path.join(folder, stateFile)
      const { tensors, metadata } = await loadSafetensors(file, { device: this.device })
      try {
        if (metadata.format !== 'didr' || metadata.version !== String(formatVersion))
          fail(
            'ERR_FORMAT',
            `${file}: expected the state of a run, format didr version ${formatVersion}, got ` +
              `${show(metadata.format)} version ${show(metadata.version)}`,
          )
        const host = parseState(file, metadata.state, isDidrState)
        const config = parseState(file, metadata.config, isObject)
        const changedSettings = differences(config, this.config)
        try {
          this.#restore({ tensors, settings: host })
        } catch (error) {
          if (!(error instanceof DidrError)) throw error
          fail(error.code, `${file}: ${error.message}`, { cause: error })
        }
        // Sums over the bins of other noise levels say nothing about these.
        if (changedSettings.some((setting) => /^(times|schedule)\b/.test(setting))) this.kl.reset()
        await this.device.synchronize()
        return { changedSettings }
      } finally {
        for (const tensor of Object.values(tensors)) tensor.dispose()
      }
    })
  }

  /**
   * What {@link save} writes, for checkpoints that hold more than the run.
   * @returns living tensors, the run's own, which the next step changes; and plain JSON
   */
  state(): OptimState<DidrState> {
    return { tensors: this.#tensors(), settings: this.#hostState() }
  }

  /**
   * Goes on from what {@link Didr.state} gave in a run of the same settings and models.
   * @throws {DidrError} (as a rejection) ERR_CONFIG, ERR_SHAPE, ERR_DTYPE for a state that does not fit; nothing is changed
   */
  async loadState(state: OptimState<DidrState>): Promise<void> {
    await this.#alone('loadState', async () => {
      if (!isDidrState(state.settings))
        fail('ERR_CONFIG', `state.settings: expected those of a run, got ${show(state.settings)}`)
      this.#restore(state)
    })
  }

  #restore({ tensors, settings }: OptimState<DidrState>): void {
    const before = structuredClone(this.#hostState())
    try {
      if (settings.reward !== null) this.options.reward?.loadState?.(settings.reward)
      restoreTensors(this.#tensors(), tensors)
    } catch (error) {
      this.#setHostState(before)
      throw error
    }
    this.#setHostState(settings)
  }

  /** Releases optimisers, averages and accumulators; the models stay. */
  dispose(): void {
    this.generatorOptimizer.dispose()
    this.assistantOptimizer.dispose()
    this.ema?.dispose()
    this.kl.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }

  async #alone<T>(what: string, work: () => Promise<T>): Promise<T> {
    if (this.#busy !== undefined)
      fail('ERR_CONFIG', `${what}: ${this.#busy} of this run has not ended; await it first`)
    if (this.ema?.swapped)
      fail('ERR_CONFIG', `${what}: the generator holds its averages; ema.swap() back first`)
    this.#busy = what
    try {
      return await work()
    } finally {
      this.#busy = undefined
    }
  }

  /** Everything that a run changes and that lives in tensors, by the name it is saved under. @internal */
  #tensors(): Record<string, Tensor> {
    const { generatorOptimizer, assistantOptimizer, ema, kl } = this
    const values = (parameters: readonly Parameter[]) =>
      Object.fromEntries(parameters.map(({ name, value }) => [name, value as Tensor]))
    const groups: Record<string, Record<string, Tensor>> = {
      generator: values(generatorOptimizer.parameters),
      assistant: values(assistantOptimizer.parameters),
      'generator-optimizer': generatorOptimizer.state().tensors,
      'assistant-optimizer': assistantOptimizer.state().tensors,
      ema: ema?.state().tensors ?? {},
      kl: kl.tensors(),
    }
    return Object.fromEntries(
      Object.entries(groups).flatMap(([group, tensors]) =>
        Object.entries(tensors).map(([name, tensor]) => [`${group}/${name}`, tensor]),
      ),
    )
  }

  #hostState(): DidrState {
    return {
      step: this.#step,
      randomOffset: this.random.offset,
      klFilled: this.kl.filled,
      noOps: this.noOps.state(),
      reward: this.options.reward?.state?.() ?? null,
    }
  }

  #setHostState(state: DidrState): void {
    this.#step = state.step
    this.random.offset = state.randomOffset
    this.kl.filled = state.klFilled
    this.noOps.load(state.noOps)
    if (state.reward !== null) this.options.reward?.loadState?.(state.reward)
  }
}

/**
 * A run of Diff-Instruct with Diffused Reward, or of one of its relatives, over given models.
 *
 * @throws {DidrError} ERR_CONFIG, ERR_RANGE naming the path of an unknown, missing, ill-typed or contradictory field
 * @example
 * const didr = createDidr({ generator, teacher, assistant, reward, schedule: schedules.flow(), beta: 1 })
 * for (let i = 0; i < 1000; i++) await didrStep(didr, { batchSize: 256 })
 * await didr.save('runs/first')
 */
export function createDidr(options: DidrOptions): Didr {
  return new Didr(options)
}

function trainable(name: string, parameters: readonly Parameter[]): Parameter[] {
  const found = parameters.filter((parameter) => parameter.trainable)
  if (found.length === 0)
    fail('ERR_CONFIG', `options.${name}: expected a model with trainable parameters, got none`)
  return found
}

function checkFolder(folder: unknown): asserts folder is string {
  if (typeof folder !== 'string' || folder === '')
    fail('ERR_CONFIG', `folder: expected a path, got ${show(folder)}`)
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isDidrState(value: unknown): value is DidrState {
  const isCount = (count: unknown) => Number.isSafeInteger(count) && (count as number) >= 0
  return (
    isObject(value) &&
    ['step', 'randomOffset', 'klFilled'].every((field) => isCount(value[field])) &&
    isObject(value.noOps) &&
    Object.values(value.noOps).every(isCount)
  )
}

function parseState<T>(
  file: string,
  text: string | undefined,
  isState: (value: unknown) => value is T,
): T {
  let value: unknown
  try {
    value = JSON.parse(text ?? '')
  } catch {
    value = undefined
  }
  return isState(value)
    ? value
    : fail('ERR_FORMAT', `${file}: the header holds no state of a run: ${show(text)}`)
}
