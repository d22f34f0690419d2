import type { Parameter } from '../autograd/parameter.js'
import { checkFinite, checkOptions } from '../checks.js'
import { fail, show } from '../errors.js'
import { binding, type TensorId } from '../native/binding.js'
import { zeros } from '../tensor/create.js'
import { cpuDevice, type Device } from '../tensor/device.js'
import { keep } from '../tensor/scope.js'
import { checkFloat, checkSameDevice, checkTensorShape, idOf, Tensor } from '../tensor/tensor.js'
import { checkDistinct, checkParameters, type OptimState, restoreTensors } from './parameters.js'

/** How a group's parameters are trained. */
export interface AdamWSettings {
  /** The learning rate. Default 1e-3. */
  lr: number
  /** How much of the first and second moments each step keeps, in [0, 1). Default [0.9, 0.999]. */
  betas: readonly [number, number]
  /** Added to the root of the second moment, outside it. Default 1e-8. */
  eps: number
  /** What each step takes off a parameter, in learning rates. Default 0.01. */
  weightDecay: number
}

/** Parameters with settings of their own; what is not set is as in the options of the optimiser. */
export interface ParameterGroup extends Partial<AdamWSettings> {
  parameters: readonly Parameter[]
}

/** Settings of {@link AdamW} for all groups that do not say otherwise. */
export interface AdamWOptions extends Partial<AdamWSettings> {
  /** The gradients of all parameters together are scaled down to this norm. Default: no limit. */
  maxNorm?: number
}

/** What one step of {@link AdamW} is made with. */
export interface StepOptions {
  /** One gradient per parameter of {@link AdamW.parameters}, in that order. Default: what their `grad` holds. */
  gradients?: readonly (Tensor | undefined)[]
  /** All learning rates are scaled by this: the value of a schedule. Default 1. */
  lrScale?: number
}

/** What a checkpoint stores of the optimiser besides tensors. */
export interface AdamWStateSettings {
  optimizer: 'adamw'
  groups: (AdamWSettings & { parameters: string[] })[]
}

interface Slot {
  parameter: Parameter
  group: AdamWSettings
  firstMoment: Tensor
  secondMoment: Tensor
  steps: Tensor
  master: Tensor | undefined
}

const settingNames = ['lr', 'betas', 'eps', 'weightDecay'] as const

/**
 * AdamW (Loshchilov and Hutter, arXiv 1711.05101) as torch.optim.AdamW computes it, in one pass over all parameters.
 *
 * Moments are float32. A bfloat16 parameter has a float32 master copy that holds it between steps; it is taken from the
 * parameter at the first step, and what is written to the parameter later is overwritten by the step after.
 *
 * @example
 * const optimizer = new optim.AdamW(model.parameters(), { lr: 3e-4, maxNorm: 1 })
 * using norm = optimizer.step({ lrScale: schedule(i) })
 * optimizer.zeroGrad()
 */
export class AdamW {
  /** The parameters in the order of the groups. Those that are not trainable when the optimiser is made are left out. */
  readonly parameters: readonly Parameter[]
  readonly device: Device
  readonly #slots: Slot[]
  readonly #groups: { settings: AdamWSettings; parameters: readonly Parameter[] }[]
  readonly #maxNorm: number

  /**
   * @param parameters one list, or groups
   * @throws {DidrError} ERR_CONFIG for parameters listed twice or with one name, ERR_RANGE for settings out of range,
   *   ERR_DEVICE for parameters of several devices
   */
  constructor(
    parameters: readonly Parameter[] | readonly ParameterGroup[],
    options: AdamWOptions = {},
  ) {
    checkOptions('options', options, [...settingNames, 'maxNorm'])
    const { maxNorm = Infinity, ...common } = options
    if (!(maxNorm > 0))
      fail('ERR_RANGE', `options.maxNorm: expected a positive number, got ${show(maxNorm)}`)
    this.#maxNorm = maxNorm
    this.#groups = groupsOf(parameters).map(({ parameters, ...own }, i) => ({
      settings: checkSettings(`parameters[${i}]`, { ...common, ...own }),
      parameters: parameters.filter((parameter) => parameter.trainable),
    }))
    this.parameters = this.#groups.flatMap((group) => group.parameters)
    checkDistinct(this.parameters)
    this.device = this.parameters[0]?.value.device ?? cpuDevice()
    this.#slots = this.#groups.flatMap(({ settings, parameters }) =>
      parameters.map((parameter) => ({
        parameter,
        group: settings,
        firstMoment: keep(zeros(parameter.shape, { device: this.device })) as Tensor,
        secondMoment: keep(zeros(parameter.shape, { device: this.device })) as Tensor,
        steps: keep(zeros([1], { dtype: 'int32', device: this.device })) as Tensor,
        master: undefined,
      })),
    )
  }

  /**
   * Enqueues one step. Parameters without a gradient are left alone; gradients stay as they are.
   *
   * @returns the norm of all gradients before clipping, a tensor of one element
   * @throws {DidrError} ERR_NONFINITE at the next wait if the norm is not finite: nothing was changed by this step then.
   *   At the call, before anything is enqueued: ERR_SHAPE, ERR_DTYPE, ERR_DEVICE, ERR_DISPOSED, ERR_RANGE, ERR_CONFIG.
   */
  step(options: StepOptions = {}): Tensor<'float32', []> {
    checkOptions('options', options, ['gradients', 'lrScale'])
    const { gradients, lrScale = 1 } = options
    checkFinite('options.lrScale', lrScale)
    if (lrScale < 0)
      fail('ERR_RANGE', `options.lrScale: expected a number from 0 on, got ${lrScale}`)
    if (gradients !== undefined) checkGradients(gradients, this.#slots.length)

    const moving: (Slot & { value: TensorId; gradient: TensorId })[] = []
    for (const [i, slot] of this.#slots.entries()) {
      const { parameter } = slot
      const gradient = (gradients === undefined ? parameter.grad : gradients[i]) as
        | Tensor
        | undefined
      if (gradient === undefined) continue
      const name = `gradient of ${parameter.name}`
      const ids = { value: idOf(parameter.name, parameter.value), gradient: idOf(name, gradient) }
      checkFloat(name, gradient)
      checkTensorShape(name, gradient, parameter.shape)
      checkSameDevice(name, gradient, slot.firstMoment)
      slot.master ??= masterOf(parameter)
      moving.push({ ...slot, ...ids })
    }

    const settings = new Float64Array(5 * moving.length)
    for (const [i, { group }] of moving.entries())
      settings.set([group.lr * lrScale, ...group.betas, group.eps, group.weightDecay], 5 * i)
    const ids = (of: (slot: Slot) => Tensor) => moving.map((slot) => idOf('state', of(slot)))
    const [norm, clip] = binding.gradientNorm(
      this.device.id,
      moving.map(({ gradient }) => gradient),
      this.#maxNorm,
    )
    try {
      binding.adamw(
        moving.map(({ value }) => value),
        moving.map(({ gradient }) => gradient),
        ids((slot) => slot.firstMoment),
        ids((slot) => slot.secondMoment),
        moving.map(({ master }) => (master === undefined ? null : idOf('state', master))),
        ids((slot) => slot.steps),
        clip,
        settings,
      )
    } catch (error) {
      binding.dispose(norm)
      throw error
    } finally {
      binding.dispose(clip)
    }
    return new Tensor(norm, [], 'float32', this.device)
  }

  /** Forgets the gradients of all parameters and releases their memory. */
  zeroGrad(): void {
    for (const { parameter } of this.#slots) parameter.zeroGrad()
  }

  /**
   * Everything a later {@link load} needs to go on bit by bit. The tensors are the optimiser's own: store or copy them
   * before the next step.
   */
  state(): OptimState<AdamWStateSettings> {
    return {
      tensors: this.#tensors(),
      settings: {
        optimizer: 'adamw',
        groups: this.#groups.map(({ settings, parameters }) => ({
          ...settings,
          parameters: parameters.map(({ name }) => name),
        })),
      },
    }
  }

  /**
   * Restores a state of an optimiser of the same parameters in the same groups; settings become the saved ones.
   * @throws {DidrError} ERR_CONFIG, ERR_SHAPE, ERR_DTYPE, ERR_DEVICE if it does not fit; nothing is changed then
   */
  load(state: OptimState<AdamWStateSettings>): void {
    const { optimizer, groups } = state.settings
    if (optimizer !== 'adamw')
      fail('ERR_CONFIG', `state: expected a state of adamw, got ${show(optimizer)}`)
    if (!Array.isArray(groups) || groups.length !== this.#groups.length)
      fail('ERR_CONFIG', `state: expected ${this.#groups.length} groups, got ${show(groups)}`)
    const restored = groups.map(({ parameters: names, ...settings }, i) => {
      const own = this.#groups[i]?.parameters.map(({ name }) => name)
      if (JSON.stringify(names) !== JSON.stringify(own))
        fail('ERR_CONFIG', `state: group ${i} is of other parameters: ${show(names)}`)
      return checkSettings(`state: group ${i}`, settings)
    })
    restoreTensors(this.#tensors(), state.tensors)
    for (const [i, settings] of restored.entries())
      Object.assign(this.#groups[i]?.settings as AdamWSettings, settings)
  }

  #tensors(): Record<string, Tensor> {
    const tensors = new Map<string, Tensor>()
    for (const slot of this.#slots) {
      const { name } = slot.parameter
      tensors.set(`${name}.exp_avg`, slot.firstMoment)
      tensors.set(`${name}.exp_avg_sq`, slot.secondMoment)
      tensors.set(`${name}.step`, slot.steps)
      slot.master ??= masterOf(slot.parameter)
      if (slot.master !== undefined) tensors.set(`${name}.master`, slot.master)
    }
    return Object.fromEntries(tensors)
  }

  /** Releases moments, counts and master copies; the parameters stay. */
  dispose(): void {
    for (const { firstMoment, secondMoment, steps, master } of this.#slots)
      for (const tensor of [firstMoment, secondMoment, steps, master]) tensor?.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

function masterOf(parameter: Parameter): Tensor | undefined {
  return parameter.value.dtype === 'bfloat16'
    ? (keep(parameter.value.cast('float32')) as Tensor)
    : undefined
}

function groupsOf(
  parameters: readonly Parameter[] | readonly ParameterGroup[],
): readonly ParameterGroup[] {
  if (!Array.isArray(parameters))
    fail('ERR_CONFIG', `parameters: expected an array, got ${show(parameters)}`)
  const isGroup = (item: unknown): item is ParameterGroup =>
    typeof item === 'object' && item !== null && Object.hasOwn(item, 'parameters')
  if (parameters.length === 0 || !parameters.some(isGroup)) {
    checkParameters('parameters', parameters)
    return [{ parameters }]
  }
  for (const [i, group] of parameters.entries()) {
    checkOptions(`parameters[${i}]`, group, ['parameters', ...settingNames])
    checkParameters(`parameters[${i}].parameters`, (group as ParameterGroup).parameters)
  }
  return parameters as readonly ParameterGroup[]
}

function checkSettings(name: string, given: Partial<AdamWSettings>): AdamWSettings {
  checkOptions(name, given, settingNames)
  const { lr = 1e-3, betas = [0.9, 0.999], eps = 1e-8, weightDecay = 0.01 } = given
  if (!Array.isArray(betas) || betas.length !== 2)
    fail('ERR_CONFIG', `${name}.betas: expected two numbers, got ${show(betas)}`)
  for (const [what, value] of Object.entries({ lr, eps, weightDecay })) {
    checkFinite(`${name}.${what}`, value)
    if (value < 0) fail('ERR_RANGE', `${name}.${what}: expected a number from 0 on, got ${value}`)
  }
  for (const [i, beta] of betas.entries()) {
    checkFinite(`${name}.betas[${i}]`, beta)
    if (!(beta >= 0 && beta < 1))
      fail('ERR_RANGE', `${name}.betas[${i}]: expected a number in [0, 1), got ${beta}`)
  }
  return { lr, betas: [betas[0] as number, betas[1] as number], eps, weightDecay }
}

function checkGradients(gradients: unknown, count: number): void {
  if (!Array.isArray(gradients))
    fail('ERR_CONFIG', `options.gradients: expected an array of tensors, got ${show(gradients)}`)
  if (gradients.length !== count)
    fail(
      'ERR_SHAPE',
      `options.gradients: expected ${count}, one per parameter, got ${gradients.length}`,
    )
}
