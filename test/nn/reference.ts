/** The functions of lib/nn/functional.ts once more, as plain float64 loops. */
import {
  binaryFunctions,
  count,
  elementwise,
  product,
  sum,
  unaryFunctions,
  type Values,
  values,
} from '../reference.js'

const at = (x: Values | undefined, i: number, otherwise: number) =>
  x === undefined ? otherwise : (x.data[i] as number)

export function linear(x: Values, weight: Values, bias?: Values): Values {
  const inputs = x.shape.at(-1) as number
  const flat = product(
    { shape: [x.data.length / inputs, inputs], data: x.data },
    weight,
    false,
    true,
  )
  const y = bias === undefined ? flat : elementwise(binaryFunctions.add, flat, bias)
  return { shape: [...x.shape.slice(0, -1), weight.shape[0] as number], data: y.data }
}

interface Modulation {
  weight?: Values | undefined
  bias?: Values | undefined
  scale?: Values | undefined
  shift?: Values | undefined
}

/** rmsNorm, or layerNorm where `centred`. */
export function norm(x: Values, eps: number, centred: boolean, of: Modulation): Values {
  const size = x.shape.at(-1) as number
  const rowsPerSample = x.data.length / size / (x.shape[0] as number)
  return values(x.shape, (flat) => {
    const row = Math.floor(flat / size)
    const column = flat % size
    const sample = Math.floor(row / rowsPerSample)
    const elements = [...x.data.subarray(row * size, (row + 1) * size)]
    const mean = centred ? sum(elements) / size : 0
    const square = sum(elements.map((v) => (v - mean) ** 2)) / size
    const normal = ((x.data[flat] as number) - mean) / Math.sqrt(square + eps)
    const affine = normal * at(of.weight, column, 1) + at(of.bias, column, 0)
    return (
      affine * (1 + at(of.scale, sample * size + column, 0)) +
      at(of.shift, sample * size + column, 0)
    )
  })
}

export function groupNorm(
  x: Values,
  weight: Values | undefined,
  bias: Values | undefined,
  groups: number,
  eps: number,
  silu: boolean,
): Values {
  const channels = x.shape[1] as number
  const pixels = count(x.shape.slice(2))
  const span = (channels / groups) * pixels
  return values(x.shape, (flat) => {
    const channel = Math.floor(flat / pixels) % channels
    const first = Math.floor(flat / span) * span
    const elements = [...x.data.subarray(first, first + span)]
    const mean = sum(elements) / span
    const variance = sum(elements.map((v) => (v - mean) ** 2)) / span
    const z =
      (((x.data[flat] as number) - mean) / Math.sqrt(variance + eps)) * at(weight, channel, 1) +
      at(bias, channel, 0)
    return silu ? unaryFunctions.silu(z) : z
  })
}

export function rope(x: Values, cos: Values, sin: Values, sign = 1): Values {
  const [, , heads, size] = x.shape as [number, number, number, number]
  const tableRows = cos.shape[0] as number
  return values(x.shape, (flat) => {
    const column = flat % size
    const row = Math.floor(flat / size / heads) % tableRows
    const angle = row * (size / 2) + Math.floor(column / 2)
    const [c, s] = [cos.data[angle] as number, sign * (sin.data[angle] as number)]
    const [own, other] = [x.data[flat] as number, x.data[flat ^ 1] as number]
    return column % 2 === 0 ? own * c - other * s : own * c + other * s
  })
}

export function attention(
  q: Values,
  k: Values,
  v: Values,
  mask: Values | undefined,
  scale: number,
): Values {
  const [, queries, heads, size] = q.shape as [number, number, number, number]
  const keys = k.shape[1] as number
  const element = (x: Values, length: number, b: number, i: number, h: number, d: number) =>
    x.data[((b * length + i) * heads + h) * size + d] as number
  return values(q.shape, (flat) => {
    const d = flat % size
    const h = Math.floor(flat / size) % heads
    const i = Math.floor(flat / size / heads) % queries
    const b = Math.floor(flat / size / heads / queries)
    let total = 0
    let weighted = 0
    for (let j = 0; j < keys; j++) {
      if (mask !== undefined && mask.data[b * keys + j] === 0) continue
      let score = 0
      for (let e = 0; e < size; e++)
        score += element(q, queries, b, i, h, e) * element(k, keys, b, j, h, e)
      const power = Math.exp(scale * score)
      total += power
      weighted += power * element(v, keys, b, j, h, d)
    }
    return total === 0 ? 0 : weighted / total
  })
}

export function conv2d(
  x: Values,
  weight: Values,
  bias: Values | undefined,
  stride: number,
  [top, bottom, left, right]: readonly [number, number, number, number],
): Values {
  const [batch, inputs, height, width] = x.shape as [number, number, number, number]
  const [outputs, , rows, columns] = weight.shape as [number, number, number, number]
  const outHeight = Math.floor((height + top + bottom - rows) / stride) + 1
  const outWidth = Math.floor((width + left + right - columns) / stride) + 1
  return values([batch, outputs, outHeight, outWidth], (flat) => {
    const j = flat % outWidth
    const i = Math.floor(flat / outWidth) % outHeight
    const o = Math.floor(flat / outWidth / outHeight) % outputs
    const b = Math.floor(flat / outWidth / outHeight / outputs)
    let total = at(bias, o, 0)
    for (let c = 0; c < inputs; c++)
      for (let u = 0; u < rows; u++)
        for (let w = 0; w < columns; w++) {
          const [row, column] = [i * stride + u - top, j * stride + w - left]
          if (row < 0 || row >= height || column < 0 || column >= width) continue
          total +=
            (x.data[((b * inputs + c) * height + row) * width + column] as number) *
            (weight.data[((o * inputs + c) * rows + u) * columns + w] as number)
        }
    return total
  })
}

export function upsampled(x: Values): Values {
  const [height, width] = x.shape.slice(-2) as [number, number]
  const shape = [...x.shape.slice(0, -2), 2 * height, 2 * width]
  return values(shape, (flat) => {
    const column = Math.floor((flat % (2 * width)) / 2)
    const row = Math.floor((Math.floor(flat / (2 * width)) % (2 * height)) / 2)
    const plane = Math.floor(flat / (4 * height * width))
    return x.data[(plane * height + row) * width + column] as number
  })
}
