/** What the optimiser and the averages ask of a list of parameters. */
import { Parameter } from '../autograd/parameter.js'
import { DidrError, fail, show } from '../errors.js'
import { sameShape, showShape } from '../tensor/shape.js'
import { checkSameDevice, Tensor } from '../tensor/tensor.js'

/** A saved state: what a checkpoint stores. */
export interface OptimState<Settings> {
  /** Living tensors of the state itself, not copies. */
  tensors: Record<string, Tensor>
  /** Plain JSON. */
  settings: Settings
}

/** Parameters of one device, each once and each with a name of its own: checkpoints go by names. */
export function checkParameters(
  name: string,
  parameters: unknown,
): asserts parameters is readonly Parameter[] {
  if (!Array.isArray(parameters))
    fail('ERR_CONFIG', `${name}: expected an array of parameters, got ${show(parameters)}`)
  for (const [i, parameter] of parameters.entries())
    if (!(parameter instanceof Parameter))
      fail('ERR_CONFIG', `${name}[${i}]: expected a Parameter, got ${show(parameter)}`)
}

export function checkDistinct(parameters: readonly Parameter[]): void {
  const names = new Set<string>()
  for (const parameter of parameters) {
    if (names.has(parameter.name))
      fail(
        'ERR_CONFIG',
        parameters.filter((other) => other === parameter).length > 1
          ? `parameters: ${show(parameter.name)} is listed twice`
          : `parameters: two have the name ${show(parameter.name)}`,
      )
    names.add(parameter.name)
    checkSameDevice(
      `parameter ${parameter.name}`,
      parameter.value as Tensor,
      parameters[0]?.value as Tensor,
    )
  }
}

/** Copies saved tensors over those of a state: all of them, or on any difference in names, shapes or dtypes none. */
export function restoreTensors(
  own: Readonly<Record<string, Tensor>>,
  saved: Readonly<Record<string, Tensor>>,
): void {
  for (const name of Object.keys(saved))
    if (!Object.hasOwn(own, name)) fail('ERR_CONFIG', `state: ${show(name)} is of nothing here`)
  for (const [name, tensor] of Object.entries(own)) {
    const source = Object.hasOwn(saved, name) ? saved[name] : undefined
    if (!(source instanceof Tensor))
      throw new DidrError('ERR_CONFIG', `state: the tensor ${show(name)} is missing`)
    if (source.dtype !== tensor.dtype)
      fail('ERR_DTYPE', `state: ${name}: expected ${tensor.dtype}, got ${source.dtype}`)
    if (!sameShape(source.shape, tensor.shape))
      fail(
        'ERR_SHAPE',
        `state: ${name}: expected ${showShape(tensor.shape)}, got ${showShape(source.shape)}`,
      )
    checkSameDevice(`state: ${name}`, source, tensor)
    if (source.disposed) fail('ERR_DISPOSED', `state: ${name}: the tensor is disposed`)
  }
  for (const [name, tensor] of Object.entries(own)) tensor.copyFrom(saved[name] as Tensor)
}
