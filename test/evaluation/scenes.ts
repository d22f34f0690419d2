/** Images like emoji: coloured shapes on white, different for every seed. */
import { type Tensor, tensor } from '../../lib/index.js'
import { generator, integer } from '../reference.js'

type Colour = [red: number, green: number, blue: number]
export type Scene = Colour[]

export const edge = 24

const palette: Colour[] = [
  [0.87, 0.18, 0.27],
  [1, 0.8, 0.3],
  [0.33, 0.67, 0.93],
  [0.47, 0.7, 0.35],
  [0.4, 0.29, 0.27],
  [0.16, 0.2, 0.23],
  [0.9, 0.91, 0.93],
  [0.95, 0.56, 0.05],
]

/** A disc with two bars across it, of three colours. */
function scene(draw: () => number): Scene {
  const colour = () => palette[integer(draw, 0, palette.length - 1)] as Colour
  const [disc, upper, lower] = [colour(), colour(), colour()]
  const [cx, cy, radius] = [10 + 4 * draw(), 10 + 4 * draw(), 7 + 3 * draw()]
  const [top, bottom] = [cy - 1 - 3 * draw(), cy + 2 * draw()]
  return Array.from({ length: edge * edge }, (_, i) => {
    const [x, y] = [i % edge, Math.floor(i / edge)]
    if (Math.hypot(x - cx, y - cy) > radius) return [1, 1, 1]
    if (y >= top && y < top + 2) return upper
    return y >= bottom && y < bottom + 3 ? lower : disc
  })
}

export function scenes(count: number, seed: number): Scene[] {
  const draw = generator(seed)
  return Array.from({ length: count }, () => scene(draw))
}

export function place(images: readonly Scene[]): Tensor<'float32'> {
  const values = images.flatMap((pixels) =>
    [0, 1, 2].flatMap((channel) => pixels.map((colour) => colour[channel] as number)),
  )
  return tensor(Float32Array.from(values), { shape: [images.length, 3, edge, edge] })
}

/** Every pixel of every image through `f`. */
export function recoloured(images: readonly Scene[], f: (colour: Colour) => Colour): Scene[] {
  return images.map((pixels) => pixels.map(f))
}

export const lightness = ([r, g, b]: Colour) => 0.299 * r + 0.587 * g + 0.114 * b
