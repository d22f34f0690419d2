/**
 * The reverse-mode tape: what was computed from what, and how cotangents go back.
 *
 * While a `vjp` runs its function, each differentiable operation appends an entry: the tracked inputs, the outputs and
 * a rule. Tracked are the inputs of the running `vjp`, the values of trainable parameters, and what is computed from
 * those. The backward pass walks the entries from the last to the first, adds up the cotangents of each tensor and
 * releases what an entry has kept as soon as the entry has run.
 *
 * A tape keeps handles of its own on the memory that its rules need, so a `tidy` or a `dispose()` in the function takes
 * nothing from it; and it keeps nothing for inputs that need no gradient (a frozen weight's input, say).
 */
import { fail } from '../errors.js'
import { binding } from '../native/binding.js'
import type { Device } from '../tensor/device.js'
import { type DType, dtypeIndex } from '../tensor/dtype.js'
import { keep, tidy } from '../tensor/scope.js'
import { type Shape, sameShape, showShape } from '../tensor/shape.js'
import { idOf, Tensor } from '../tensor/tensor.js'
import { handleOn, type Parameter, trainableParameterOf } from './parameter.js'

/** What a rule sees when it is recorded. */
export interface Recorder {
  /** For each input, whether its gradient will be asked for. */
  readonly needs: readonly boolean[]
  /** A handle on `x` that lives until the rule's backward pass has run. */
  save<T extends Tensor>(x: T): T
  /** The tape, and the nodes of the inputs on it: for rules that run a tape of their own. */
  readonly tape: Tape
  readonly nodes: readonly (Node | undefined)[]
}

/**
 * From the cotangents of the outputs (zeros where none arrived) to those of the inputs, in their order; undefined where
 * none is needed. New tensors are handed over; what was given or saved may be returned, too.
 */
export type Backward = (...cotangents: Tensor[]) => readonly (Tensor | undefined)[]

/** Chooses what to save and returns the backward function. Called once for each tape that records the operation. */
export type Rule = (recorder: Recorder) => Backward

/** A tracked tensor on one tape. */
export class Node {
  readonly shape: Shape
  readonly dtype: DType
  readonly device: Device
  /** Where cotangents go instead, if this node stands for one of another tape (see `checkpoint`). */
  readonly standsFor: Node | undefined
  #gradient: Tensor | undefined

  constructor(x: Tensor, standsFor?: Node) {
    this.shape = x.shape
    this.dtype = x.dtype
    this.device = x.device
    this.standsFor = standsFor
  }

  get hasGradient(): boolean {
    return this.#gradient !== undefined
  }

  /** Refuses what is no cotangent of the tensor. */
  check(gradient: Tensor): void {
    if (!sameShape(gradient.shape, this.shape))
      fail(
        'ERR_SHAPE',
        `gradient: expected the shape of its tensor, ${showShape(this.shape)}, got ${showShape(gradient.shape)}`,
      )
    if (gradient.dtype !== this.dtype)
      fail(
        'ERR_DTYPE',
        `gradient: expected the dtype of its tensor, ${this.dtype}, got ${gradient.dtype}`,
      )
  }

  /** Adds a cotangent and takes its handle over. */
  add(gradient: Tensor): void {
    if (this.standsFor !== undefined) {
      this.standsFor.add(gradient)
      return
    }
    const sum = this.#gradient
    if (sum === undefined) {
      this.#gradient = gradient
      return
    }
    // In place only where nobody else holds the memory: a cotangent may be that of several tensors at once.
    if (binding.isShared(idOf('gradient', sum))) {
      this.#gradient = keep(sum.add(gradient) as Tensor)
      sum.dispose()
    } else {
      binding.accumulate(idOf('gradient', sum), idOf('gradient', gradient))
    }
    gradient.dispose()
  }

  /** Hands the sum over; undefined if nothing arrived. */
  take(): Tensor | undefined {
    const gradient = this.#gradient
    this.#gradient = undefined
    return gradient
  }

  zeros(): Tensor {
    const id = binding.fill(this.device.id, dtypeIndex(this.dtype), this.shape, 0)
    return new Tensor(id, this.shape, this.dtype, this.device)
  }
}

interface Entry {
  readonly inputs: readonly (Node | undefined)[]
  readonly outputs: readonly Node[]
  readonly backward: Backward
  readonly saved: readonly Tensor[]
}

/** The innermost tape that is recording; undefined outside every `vjp` and within `noGrad`. */
export let recording: Tape | undefined

/** Runs `fn` with `tape` as the innermost one (undefined: with none) and restores what was. */
export function recordingOn<T>(tape: Tape | undefined, fn: () => T): T {
  const outer = recording
  recording = tape
  try {
    return fn()
  } finally {
    recording = outer
  }
}

/**
 * Records an operation on every running tape that tracks one of its inputs. Call it when the outputs exist, guarded by
 * `if (recording !== undefined)`: that comparison is all an operation costs where nothing is recorded.
 */
export function record(
  outputs: readonly Tensor[],
  inputs: readonly (Tensor | undefined)[],
  rule: Rule,
): void {
  const recorded: Tape[] = []
  for (let tape = recording; tape !== undefined; tape = tape.outer)
    if (tape.append(outputs, inputs, rule)) recorded.push(tape)
  if (recorded.length > 1) for (const tape of recorded.slice(0, -1)) tape.dependsOnOuter = true
}

/** Whether one of the running tapes, or of those around `innermost`, tracks `x`. */
export function isTracked(x: Tensor, innermost = recording): boolean {
  for (let tape = innermost; tape !== undefined; tape = tape.enclosing)
    if (tape.nodeOf(x) !== undefined) return true
  return false
}

export class Tape {
  /** The tape that records what this one records, too. */
  readonly outer: Tape | undefined
  /** The tape that was recording when this one started. */
  readonly enclosing: Tape | undefined
  /** Whether something on this tape is also tracked by an outer one. */
  dependsOnOuter = false
  // Dropped when the forward pass ends: nothing is looked up afterwards.
  #nodes: WeakMap<Tensor, Node> | undefined = new WeakMap()
  readonly #parameters = new Map<Parameter, Node>()
  #entries: Entry[] = []
  /** Where the gradients of this tape's parameters go instead of into the parameters. */
  readonly #standsFor: Tape | undefined

  constructor(outer: Tape | undefined, enclosing = outer, standsFor?: Tape) {
    this.outer = outer
    this.enclosing = enclosing
    this.#standsFor = standsFor
  }

  /** Starts to track `x`; its cotangents go to `standsFor` if given. */
  watch(x: Tensor, standsFor?: Node): Node {
    const node = new Node(x, standsFor)
    this.#nodes?.set(x, node)
    return node
  }

  /** The node of a tracked tensor. */
  nodeOf(x: Tensor): Node | undefined {
    const node = this.#nodes?.get(x)
    if (node !== undefined) return node
    const parameter = trainableParameterOf(x)
    if (parameter === undefined) return undefined
    const leaf = this.#parameterNode(parameter)
    this.#nodes?.set(x, leaf)
    return leaf
  }

  /** The trainable parameters met so far. */
  get parameters(): Iterable<Parameter> {
    return this.#parameters.keys()
  }

  #parameterNode(parameter: Parameter): Node {
    let node = this.#parameters.get(parameter)
    if (node === undefined) {
      const outer = this.#standsFor
      node = new Node(
        parameter.value,
        outer === undefined ? undefined : outer.#parameterNode(parameter),
      )
      this.#parameters.set(parameter, node)
    }
    return node
  }

  /** Records the operation if one of its inputs is tracked. */
  append(outputs: readonly Tensor[], inputs: readonly (Tensor | undefined)[], rule: Rule): boolean {
    const nodes = inputs.map((x) => (x === undefined ? undefined : this.nodeOf(x)))
    const needs = nodes.map((node) => node !== undefined)
    if (!needs.includes(true)) return false
    const saved: Tensor[] = []
    const save = <T extends Tensor>(x: T): T => {
      const handle = handleOn(x)
      saved.push(handle)
      return handle
    }
    try {
      const backward = rule({ needs, save, tape: this, nodes })
      this.#entries.push({
        inputs: nodes,
        outputs: outputs.map((output) => this.watch(output)),
        backward,
        saved,
      })
    } catch (error) {
      for (const handle of saved) handle.dispose()
      throw error
    }
    return true
  }

  /** Ends the forward pass: from here on nothing is tracked. */
  close(): void {
    this.#nodes = undefined
  }

  /**
   * Sends the cotangents that the nodes have received back through the entries. Leaves (watched inputs) keep theirs
   * for the caller to take; those of parameters are added to `Parameter.grad`. Each entry's memory is released when it
   * has run.
   */
  backward(): void {
    try {
      recordingOn(undefined, () => {
        for (let entry = this.#entries.pop(); entry !== undefined; entry = this.#entries.pop()) {
          try {
            runEntry(entry)
          } finally {
            for (const handle of entry.saved) handle.dispose()
          }
        }
        for (const [parameter, node] of this.#parameters) {
          const gradient = node.take()
          if (gradient !== undefined) parameter.addGradient(gradient)
        }
      })
    } finally {
      this.release()
    }
  }

  /** Releases everything that is kept. */
  release(): void {
    this.#nodes = undefined
    for (const entry of this.#entries) {
      for (const handle of entry.saved) handle.dispose()
      for (const node of [...entry.inputs, ...entry.outputs]) node?.take()?.dispose()
    }
    this.#entries = []
    for (const node of this.#parameters.values()) node.take()?.dispose()
    this.#parameters.clear()
  }
}

function runEntry({ inputs, outputs, backward, saved }: Entry): void {
  if (!outputs.some((node) => node.hasGradient)) return
  const cotangents = outputs.map((node) => node.take() ?? keep(node.zeros()))
  try {
    const gradients = tidy(() => backward(...cotangents))
    const borrowed = new Set<Tensor>([...cotangents, ...saved])
    for (const [i, gradient] of gradients.entries()) {
      const node = inputs[i]
      if (gradient === undefined) continue
      node?.check(gradient)
      // A tensor that was given, saved or already handed to another input gets a handle for each further taker.
      const owned = borrowed.has(gradient) ? handleOn(gradient) : keep(gradient)
      borrowed.add(gradient)
      if (node === undefined) owned.dispose()
      else node.add(owned)
    }
  } finally {
    for (const cotangent of cotangents) cotangent.dispose()
  }
}
