/** Gradients of functions of tensors: what users call. */
import { checkOptions } from '../checks.js'
import { fail, show } from '../errors.js'
import { binding } from '../native/binding.js'
import { dtypeIndex } from '../tensor/dtype.js'
import { enterScope, tidy } from '../tensor/scope.js'
import { showShape } from '../tensor/shape.js'
import {
  checkFloat,
  checkSameDevice,
  checkSameDType,
  checkTensorShape,
  idOf,
  Tensor,
} from '../tensor/tensor.js'
import { handleOn } from './parameter.js'
import { isTracked, type Node, record, recording, recordingOn, Tape } from './tape.js'

type Tensors = readonly Tensor[]

/** The cotangents of a function's value: one like the value, or an array with undefined where there is none. */
export type Cotangents<V> = V extends Tensor ? V : { readonly [K in keyof V]: V[K] | undefined }

/** Sends cotangents back, once. */
export interface Pullback<I extends Tensors, V extends Tensor | Tensors> {
  /**
   * @param cotangents of the value: a tensor like it, or for an array one each (undefined counts as zeros)
   * @returns the gradients of the inputs, zeros where the value does not depend on one. Those of parameters are added
   *   to `Parameter.grad`.
   * @throws {DidrError} ERR_CONFIG on a second call, after `dispose()`, and inside another `vjp` whose tensors the
   *   function depends on: gradients of gradients are not computed (`noGrad` makes them constants).
   */
  (cotangents: Cotangents<V>): { -readonly [K in keyof I]: I[K] }
  /** Releases what the backward pass would need, if it is not to run. */
  dispose(): void
  [Symbol.dispose](): void
}

/**
 * Runs `fn` and keeps what its gradient needs.
 *
 * `fn` is run as in {@link tidy}: tensors that it makes and does not return are disposed (`keep` spares them). Inside,
 * `inputs` and the values of trainable parameters are tracked, wherever `fn` gets them from. Operations without a
 * derivative (comparisons, argMax, floor, sign, casts to integers) give constants.
 *
 * A `vjp` inside `fn` is allowed, and its value is tracked by both. Its pullback gives constants where it does not
 * depend on what the outer one tracks, and is refused where it does (see {@link Pullback}).
 *
 * @param fn a synchronous function of the inputs that returns a tensor or an array of tensors, float32 or bfloat16
 * @param inputs distinct tensors, float32 or bfloat16
 * @example
 * const { value, pullback } = vjp((a, b) => a.matmul(b), [x, w])
 * const [dx, dw] = pullback(ones([2, 4]))
 */
export function vjp<I extends Tensors, V extends Tensor | Tensors>(
  fn: (...inputs: I) => V,
  inputs: readonly [...I],
): { value: V; pullback: Pullback<I, V> }
export function vjp<I extends Tensors, V extends Tensor | Tensors>(
  fn: () => V,
  inputs: readonly [...I],
): { value: V; pullback: Pullback<I, V> }
export function vjp<I extends Tensors, V extends Tensor | Tensors>(
  fn: (...inputs: I) => V,
  inputs: readonly [...I],
): { value: V; pullback: Pullback<I, V> } {
  checkFunction('fn', fn)
  checkInputs(inputs)
  for (const [i, x] of inputs.entries()) checkFloat(`inputs[${i}]`, x)
  const tape = new Tape(recording)
  try {
    const leaves = inputs.map((x) => tape.watch(x))
    const value = recordingOn(tape, () => tidy(() => fn(...inputs)))
    checkValue(value)
    const outputs = listOf(value).map((x) => ({ model: modelOf(x), node: tape.nodeOf(x) }))
    tape.close()
    return { value, pullback: pullbackOf<I, V>(tape, leaves, outputs, Array.isArray(value)) }
  } catch (error) {
    tape.release()
    throw error
  }
}

/** What the checks of a cotangent need to know of a value, which may be disposed by then. */
type Model = Pick<Tensor, 'shape' | 'dtype' | 'device'>

function modelOf({ shape, dtype, device }: Tensor): Model {
  return { shape, dtype, device }
}

function pullbackOf<I extends Tensors, V extends Tensor | Tensors>(
  tape: Tape,
  leaves: readonly Node[],
  outputs: readonly { model: Model; node: Node | undefined }[],
  severalOutputs: boolean,
): Pullback<I, V> {
  let used: string | undefined
  const pullback = (given: Cotangents<V>) => {
    if (used !== undefined) fail('ERR_CONFIG', `pullback: ${used}`)
    const cotangents = (severalOutputs ? given : [given]) as (Tensor | undefined)[]
    if (!Array.isArray(cotangents) || cotangents.length !== outputs.length)
      fail(
        'ERR_CONFIG',
        `cotangents: expected an array of ${outputs.length}, one for each value, got ${show(given)}`,
      )
    for (const [i, cotangent] of cotangents.entries()) {
      if (severalOutputs && cotangent === undefined) continue
      const name = severalOutputs ? `cotangents[${i}]` : 'cotangent'
      const model = outputs[i]?.model as Tensor
      idOf(name, cotangent as Tensor)
      checkTensorShape(name, cotangent as Tensor, model.shape)
      checkSameDType(name, cotangent as Tensor, model)
      checkSameDevice(name, cotangent as Tensor, model)
    }
    if (
      recording !== undefined &&
      (tape.dependsOnOuter || cotangents.some((x) => x !== undefined && isTracked(x)))
    )
      fail(
        'ERR_CONFIG',
        'pullback: gradients of gradients are not computed, and an enclosing vjp tracks what this one depends on; ' +
          'inside noGrad() the gradients are constants',
      )
    used = 'it has been called already, and a backward pass releases what it has used'
    for (const [i, cotangent] of cotangents.entries())
      if (cotangent !== undefined) outputs[i]?.node?.add(handleOn(cotangent))
    // A leaf's sum survives the backward pass: no entry has it among its outputs.
    tape.backward()
    return leaves.map((leaf) => {
      const gradient = leaf.take() ?? leaf.zeros()
      // Apart from the cotangent's memory, which the caller may go on to overwrite.
      const owned = binding.isShared(idOf('gradient', gradient)) ? gradient.clone() : gradient
      if (owned !== gradient) gradient.dispose()
      enterScope(owned)
      return owned
    }) as unknown as { -readonly [K in keyof I]: I[K] }
  }
  const dispose = () => {
    used ??= 'it is disposed'
    tape.release()
  }
  return Object.assign(pullback, { dispose, [Symbol.dispose]: dispose })
}

/**
 * The value of a scalar function and its gradients: {@link vjp} with cotangent 1.
 *
 * @param fn returns one tensor of one element
 * @returns `gradients` of the inputs; those of parameters are added to `Parameter.grad`
 * @example
 * const { value } = valueAndGrad(() => model.forward(x).sub(y).square().mean())
 * optimizer.step()
 */
export function valueAndGrad<I extends Tensors, V extends Tensor>(
  fn: (...inputs: I) => V,
  inputs: readonly [...I],
): { value: V; gradients: { -readonly [K in keyof I]: I[K] } }
export function valueAndGrad<I extends Tensors, V extends Tensor>(
  fn: () => V,
  inputs?: readonly [...I],
): { value: V; gradients: { -readonly [K in keyof I]: I[K] } }
export function valueAndGrad<I extends Tensors, V extends Tensor>(
  fn: (...inputs: I) => V,
  inputs: readonly [...I] = [] as Tensors as I,
): { value: V; gradients: { -readonly [K in keyof I]: I[K] } } {
  const { value, pullback } = vjp<I, V>(fn, inputs)
  try {
    if (!(value instanceof Tensor) || value.size !== 1)
      fail(
        'ERR_SHAPE',
        `fn: expected a function that returns a tensor of one element, got ${value instanceof Tensor ? showShape(value.shape) : show(value)}`,
      )
  } catch (error) {
    pullback.dispose()
    for (const x of listOf(value)) x.dispose()
    throw error
  }
  const { device, dtype, shape } = value
  const one = new Tensor(binding.fill(device.id, dtypeIndex(dtype), shape, 1), shape, dtype, device)
  try {
    return { value, gradients: pullback(one as Tensor as Cotangents<V>) }
  } finally {
    one.dispose()
  }
}

/** Runs `fn` with nothing tracked: what it computes is constant to every enclosing {@link vjp}. */
export function noGrad<T>(fn: () => T): T {
  checkFunction('fn', fn)
  return recordingOn(undefined, fn)
}

/** The same elements as a constant: a tensor on the memory of `x` that no enclosing {@link vjp} tracks. */
export function stopGradient<T extends Tensor>(x: T): T {
  const handle = handleOn(x)
  enterScope(handle)
  return handle
}

/**
 * Runs `fn` without keeping its intermediates; the backward pass runs it again to have them. Trades a second forward
 * pass for memory (arXiv 1604.06174). Gradients have the same bits as without, provided that `fn` computes the same
 * thing twice: draws by seed do.
 *
 * @param fn a synchronous function of the inputs, run as in {@link tidy}. Trainable parameters may come from anywhere;
 *   other tracked tensors must be among `inputs`.
 * @throws {DidrError} ERR_CONFIG if `fn` uses a tracked tensor that is not among `inputs`.
 * @example
 * for (const layer of layers) x = checkpoint((x) => layer.forward(x), [x])
 */
export function checkpoint<I extends Tensors, V extends Tensor | Tensors>(
  fn: (...inputs: I) => V,
  inputs: readonly [...I],
): V
export function checkpoint<I extends Tensors, V extends Tensor | Tensors>(
  fn: () => V,
  inputs: readonly [...I],
): V
export function checkpoint<I extends Tensors, V extends Tensor | Tensors>(
  fn: (...inputs: I) => V,
  inputs: readonly [...I],
): V {
  checkFunction('fn', fn)
  checkInputs(inputs)
  if (recording === undefined) return tidy(() => fn(...inputs))
  const probe = new Probe(recording)
  for (const x of inputs) if (isTracked(x)) probe.watch(x)
  const value = recordingOn(probe, () => tidy(() => fn(...inputs)))
  checkValue(value)
  const parameters = Array.from(probe.parameters, ({ value }) => value as Tensor)
  record(listOf(value), [...inputs, ...parameters], ({ save, tape, nodes }) => {
    const saved = inputs.map(save)
    return (...cotangents) => {
      const again = new Tape(undefined, undefined, tape)
      try {
        for (const [i, x] of saved.entries()) if (nodes[i] !== undefined) again.watch(x, nodes[i])
        const repeated = listOf(recordingOn(again, () => fn(...(saved as Tensors as I))))
        const outputs = repeated.map((x) => again.nodeOf(x))
        again.close()
        for (const [i, cotangent] of cotangents.entries()) outputs[i]?.add(handleOn(cotangent))
        // Sent straight to the nodes of `tape`, in the order in which they would have arrived without the detour.
        again.backward()
      } finally {
        again.release()
      }
      return []
    }
  })
  return value
}

/** Notes what a checkpointed function depends on, and records nothing. */
class Probe extends Tape {
  constructor(enclosing: Tape) {
    super(undefined, enclosing)
  }

  override append(outputs: Tensors, inputs: readonly (Tensor | undefined)[]): boolean {
    let tracked = false
    for (const x of inputs) {
      if (x === undefined) continue
      if (this.nodeOf(x) !== undefined) tracked = true
      else if (isTracked(x, this.enclosing))
        fail(
          'ERR_CONFIG',
          `checkpoint: fn uses a tracked tensor ${showShape(x.shape)} that is not among its inputs`,
        )
    }
    if (tracked) for (const output of outputs) this.watch(output)
    return tracked
  }
}

/** What {@link customOp} makes an operation of: a forward pass, and the derivative that goes with it. */
export interface CustomOp<I extends Tensors, V extends Tensor> {
  /** Computes the value; nothing inside is tracked. Run as in {@link tidy}. */
  forward(...inputs: I): V
  /** From the cotangent of the value to the gradients of the inputs, in order; undefined counts as zeros. */
  pullback(context: {
    cotangent: V
    inputs: I
    value: V
    /** For each input, whether its gradient is asked for. */
    needs: readonly boolean[]
  }): readonly (Tensor | undefined)[]
}

/**
 * An operation with a derivative of its own.
 *
 * @returns a function of the inputs, differentiable by the pullback that is given. Inputs and value are kept until the
 *   backward pass.
 * @example
 * const sign = customOp({                                // straight-through estimator
 *   forward: (x: Tensor<'float32'>) => x.sign(),
 *   pullback: ({ cotangent }) => [cotangent],
 * })
 */
export function customOp<I extends Tensors, V extends Tensor>(
  op: CustomOp<I, V>,
): (...inputs: I) => V {
  checkOptions('op', op, ['forward', 'pullback'])
  checkFunction('op.forward', op.forward)
  checkFunction('op.pullback', op.pullback)
  return (...inputs) => {
    checkTensors('inputs', inputs)
    const value = noGrad(() => tidy(() => op.forward(...inputs)))
    idOf('value of op.forward', value)
    if (recording !== undefined)
      record([value], inputs, ({ save, needs }) => {
        const saved = inputs.map(save) as Tensors as I
        const savedValue = save(value)
        return (cotangent) => {
          const gradients = op.pullback({
            cotangent: cotangent as V,
            inputs: saved,
            value: savedValue,
            needs,
          })
          if (!Array.isArray(gradients) || gradients.length !== inputs.length)
            fail(
              'ERR_CONFIG',
              `op.pullback: expected an array of ${inputs.length} gradients, one for each input, got ${show(gradients)}`,
            )
          // What the user returns stays the user's; the tape takes handles.
          return gradients.map((gradient) =>
            gradient === undefined ? undefined : stopGradient(gradient as Tensor),
          )
        }
      })
    return value
  }
}

function listOf(value: Tensor | Tensors): Tensors {
  return value instanceof Tensor ? [value] : value
}

function checkFunction(name: string, fn: unknown): void {
  if (typeof fn !== 'function') fail('ERR_CONFIG', `${name}: expected a function, got ${show(fn)}`)
}

function checkTensors(name: string, list: unknown): asserts list is Tensors {
  if (!Array.isArray(list))
    fail('ERR_CONFIG', `${name}: expected an array of tensors, got ${show(list)}`)
  for (const [i, x] of list.entries()) idOf(`${name}[${i}]`, x)
}

function checkInputs(inputs: unknown): void {
  checkTensors('inputs', inputs)
  for (const [i, x] of inputs.entries()) {
    if (inputs.indexOf(x) !== i)
      fail('ERR_CONFIG', `inputs[${i}]: the same tensor as inputs[${inputs.indexOf(x)}]`)
  }
}

function checkValue(value: unknown): void {
  if (!(value instanceof Tensor) && !Array.isArray(value))
    fail(
      'ERR_CONFIG',
      `fn: expected a function that returns a tensor or an array of tensors, got ${show(value)}`,
    )
  for (const x of listOf(value as Tensor | Tensors)) idOf('value of fn', x)
}
