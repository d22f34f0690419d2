import { checkFinite, checkInteger, checkOptions } from '../checks.js'
import { fail, show } from '../errors.js'
import { InputFile } from '../io/files.js'
import { tensor } from '../tensor/create.js'
import type { FloatDType } from '../tensor/dtype.js'
import { tidy } from '../tensor/scope.js'
import type { Tensor } from '../tensor/tensor.js'
import { checkImages, inFloat32 } from './images.js'
import { checkName, type Reward } from './reward.js'

/** The model of {@link onnx} and how images are made ready for it. */
export interface OnnxOptions {
  /** The model's file. */
  file: string
  /** For messages and metrics. Default `onnx`. */
  name?: string
  /** Which input takes the images, float32 [B, C, H, W]. Needed only if the model has several. */
  input?: string
  /** Which output holds the scores: one number for each image, [B] or [B, 1]. Needed only if the model has several. */
  output?: string
  /** The height and width, or the side, that images are resized to. Default: they stay as they are. */
  size?: number | readonly [height: number, width: number]
  /** For each channel, subtracted from the images. Default 0. */
  mean?: readonly number[]
  /** For each channel, what the images are divided by then; above 0. Default 1. */
  std?: readonly number[]
  /** Imports the runtime. Default: onnxruntime-node. @internal */
  importRuntime?: () => Promise<unknown>
}

/** A reward that runs an ONNX model. */
export interface OnnxReward extends Reward {
  /** Releases the model's memory. Nothing can be scored afterwards. */
  release(): Promise<void>
}

/** As much of onnxruntime's interface as is used here (onnxruntime-common 1.x). */
interface Runtime {
  InferenceSession: { create(file: string): Promise<Session> }
  Tensor: new (type: 'float32', data: Float32Array, dims: readonly number[]) => RuntimeTensor
}
interface Session {
  readonly inputNames: readonly string[]
  readonly outputNames: readonly string[]
  run(
    feeds: Record<string, RuntimeTensor>,
    fetches: readonly string[],
  ): Promise<Record<string, RuntimeTensor>>
  release(): Promise<void>
}
interface RuntimeTensor {
  readonly type: string
  readonly data: unknown
}

/**
 * A reward from an ONNX model that scores images, run on the CPU by the package onnxruntime-node, which is installed
 * apart: `npm install onnxruntime-node`. It gives numbers and no gradients.
 *
 * Scores images [B, C, H, W]: resized if `size` is given, by a triangular filter that widens with the reduction (bilinear
 * with antialiasing, as Pillow's), then normalised as (x - mean)/std. The condition does not reach the model.
 *
 * @throws {DidrError} (as a rejection) ERR_BACKEND without onnxruntime-node; ERR_IO for a file that cannot be read;
 *   ERR_FORMAT for one that the runtime refuses; ERR_CONFIG for unknown inputs and outputs. When scoring, ERR_SHAPE or
 *   ERR_DTYPE for outputs that are not one float32 for each image, ERR_CONFIG for what the runtime throws.
 * @example
 * const aesthetic = await rewards.onnx({
 *   file: 'aesthetic.onnx',
 *   size: 224,
 *   mean: [0.481, 0.458, 0.408],
 *   std: [0.269, 0.261, 0.276],
 * })
 */
export async function onnx(options: OnnxOptions): Promise<OnnxReward> {
  const { file, name, size, normalisation, importRuntime } = checkedOptions(options)
  const runtime = await loadRuntime(importRuntime)
  await (await InputFile.open(file)).close()
  const session = await open(runtime, file)
  let input: string
  let output: string
  try {
    input = chosen('input', options.input, session.inputNames)
    output = chosen('output', options.output, session.outputNames)
  } catch (error) {
    await session.release()
    throw error
  }
  return {
    name,
    differentiable: false,
    async score(images) {
      using prepared = prepare(images, size, normalisation)
      const { device, shape } = prepared
      const batch = shape[0] as number
      const feed = new runtime.Tensor('float32', await prepared.data(), shape)
      const scores = (await session.run({ [input]: feed }, [output]))[output]
      if (!(scores?.data instanceof Float32Array))
        return fail('ERR_DTYPE', `output ${show(output)}: expected float32, got ${scores?.type}`)
      if (scores.data.length !== batch)
        fail(
          'ERR_SHAPE',
          `output ${show(output)}: expected one number for each of ${batch} images, got ${scores.data.length} numbers`,
        )
      return tensor(scores.data, { device })
    },
    release: () => session.release(),
  }
}

interface Normalisation {
  readonly mean: readonly number[] | undefined
  readonly std: readonly number[] | undefined
}

function checkedOptions(options: OnnxOptions) {
  const known = ['file', 'name', 'input', 'output', 'size', 'mean', 'std', 'importRuntime']
  checkOptions('options', options, known)
  const { file, name = 'onnx', size, mean, std } = options
  const { importRuntime = () => import(packageName) } = options
  if (typeof file !== 'string')
    fail('ERR_CONFIG', `options.file: expected a path, got ${show(file)}`)
  checkName('options.name', name)
  const sides = typeof size === 'number' ? [size, size] : size
  if (sides !== undefined) {
    if (!Array.isArray(sides) || sides.length !== 2)
      fail('ERR_CONFIG', `options.size: expected a number or [height, width], got ${show(size)}`)
    for (const side of sides) checkInteger('options.size', side, 1, 65_536)
  }
  for (const [what, list] of Object.entries({ mean, std })) {
    if (list === undefined) continue
    if (!Array.isArray(list) || list.length === 0)
      fail('ERR_CONFIG', `options.${what}: expected an array of numbers, got ${show(list)}`)
    for (const value of list) checkFinite(`options.${what}`, value)
  }
  if (std?.some((value) => value <= 0))
    fail('ERR_RANGE', `options.std: expected numbers above 0, got ${show(std)}`)
  if (mean !== undefined && std !== undefined && mean.length !== std.length)
    fail('ERR_SHAPE', `options.std: expected ${mean.length} numbers, as in mean, got ${std.length}`)
  return {
    file,
    name,
    size: sides as readonly [number, number] | undefined,
    normalisation: { mean, std },
    importRuntime,
  }
}

/** A variable, so that the compiler does not look for the types of a package that need not be there. */
const packageName: string = 'onnxruntime-node'

async function loadRuntime(importRuntime: () => Promise<unknown>): Promise<Runtime> {
  let loaded: Partial<Runtime> & { default?: Partial<Runtime> }
  try {
    loaded = (await importRuntime()) as typeof loaded
  } catch (error) {
    const reason = error instanceof Error ? error.message.split('\n')[0] : show(error)
    return fail(
      'ERR_BACKEND',
      `${packageName} could not be loaded (${reason}). To install it: npm install ${packageName}`,
      { cause: error },
    )
  }
  // A CommonJS module comes as the default export.
  const runtime = loaded.InferenceSession === undefined ? loaded.default : loaded
  if (runtime?.InferenceSession === undefined || runtime.Tensor === undefined)
    return fail('ERR_BACKEND', `${packageName}: expected InferenceSession and Tensor in it`)
  return runtime as Runtime
}

async function open(runtime: Runtime, file: string): Promise<Session> {
  try {
    return await runtime.InferenceSession.create(file)
  } catch (error) {
    const reason = error instanceof Error ? error.message : show(error)
    return fail('ERR_FORMAT', `${file}: could not be loaded: ${reason}`, { cause: error })
  }
}

function chosen(
  what: 'input' | 'output',
  asked: string | undefined,
  names: readonly string[],
): string {
  if (asked === undefined) {
    if (names.length !== 1)
      fail(
        'ERR_CONFIG',
        `options.${what}: the model has ${names.length}: ${names.join(', ')}; name one`,
      )
    return names[0] as string
  }
  if (!names.includes(asked))
    fail('ERR_CONFIG', `options.${what}: expected one of ${names.join(', ')}; got ${show(asked)}`)
  return asked
}

/** The images as the model takes them: a new float32 tensor. */
function prepare(
  images: Tensor<FloatDType>,
  size: readonly [number, number] | undefined,
  { mean, std }: Normalisation,
): Tensor<'float32'> {
  const shape = checkImages(images, (mean ?? std)?.length)
  const { device } = images
  const column = (values: readonly number[]) =>
    tensor(Float32Array.from(values), { shape: [1, values.length, 1, 1], device })
  return tidy(() => {
    // A handle, for what is prepared is released and the images are the caller's.
    let x: Tensor<'float32', number[]> = inFloat32(images).reshape([...shape])
    if (size !== undefined) x = resize(x, shape, size)
    if (mean !== undefined) x = x.sub(column(mean))
    if (std !== undefined) x = x.div(column(std))
    return x
  })
}

/** Both axes are filtered as matrix products: rows · image · columns. */
function resize(
  x: Tensor<'float32', number[]>,
  [batch, channels, height, width]: readonly [number, number, number, number],
  [rows, columns]: readonly [number, number],
): Tensor<'float32', number[]> {
  const { device } = x
  const filter = (to: number, from: number) =>
    tensor<'float32', number[]>(triangularFilter(to, from), { shape: [to, from], device })
  return filter(rows, height)
    .matmul<number[]>(x.reshape([batch * channels, height, width]))
    .matmul<number[], { transB: true }>(filter(columns, width), { transB: true })
    .reshape([batch, channels, rows, columns])
}

/** [to, from]: how much of each pixel goes into each resampled one. Rows sum to 1. */
function triangularFilter(to: number, from: number): Float32Array {
  const filter = new Float32Array(to * from)
  const step = from / to
  const reach = Math.max(step, 1)
  for (let i = 0; i < to; i++) {
    const centre = (i + 0.5) * step
    const row = Float64Array.from({ length: from }, (_, j) =>
      Math.max(0, 1 - Math.abs(j + 0.5 - centre) / reach),
    )
    const total = row.reduce((sum, weight) => sum + weight, 0)
    for (const [j, weight] of row.entries()) filter[i * from + j] = weight / total
  }
  return filter
}
