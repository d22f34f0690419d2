/**
 * Where the tokens of a batch are: sequences, masks, gathering indices and rotary tables. Depends on sizes alone, so it
 * is worked out once for each combination of sizes.
 */
import { fail } from '../errors.js'
import { tensor } from '../tensor/create.js'
import type { Device } from '../tensor/device.js'
import { keep } from '../tensor/scope.js'
import type { Tensor } from '../tensor/tensor.js'
import type { S3DiTConfig } from './s3dit-config.js'

/** Sequences of a batch, padded to the longest. */
export interface Sequences {
  /** Tokens of the longest. */
  length: number
  /** [B, length], 1 where there is a token; undefined if all are equally long. */
  mask: Tensor<'uint8'> | undefined
  /** Rotary angles, [length or B · length, head size / 2]. */
  cos: Tensor<'float32'>
  sin: Tensor<'float32'>
  /** Which row of the table that is gathered from each token is; undefined if they are all rows in order. */
  rows: Tensor<'int32'> | undefined
}

export interface Layout {
  /** Gathered from the rows of all images one after another and then the pad token. */
  image: Sequences
  /** Gathered from the rows of all captions one after another and then the pad token. */
  caption: Sequences
  /** Gathered from the images' padded tokens and then the captions'; without rows, joined along the tokens. */
  joint: Sequences
  /** Image tokens of the largest image, without pads. */
  imageTokens: number
  /** Rows and columns of patches for each image. */
  grids: readonly Grid[]
}

export type Grid = readonly [rows: number, columns: number]

/** A token: its row in the table, and its position along the three rotary axes. */
interface Token {
  row: number
  position: readonly [number, number, number]
}

const unplaced = [0, 0, 0] as const

export function layoutOf(
  config: Required<S3DiTConfig>,
  grids: readonly Grid[],
  captionLengths: readonly number[],
  device: Device,
): Layout {
  const multiple = config.pad_multiple
  const padded = (length: number) => Math.ceil(length / multiple) * multiple

  // Captions sit along the first axis, counted from 1; their pads go on counting. An image has the next number, and its
  // rows and columns along the other two; its pads have no place.
  let nextRow = 0
  const captionPad = captionLengths.reduce((sum, length) => sum + length, 0)
  const captions = captionLengths.map((length) =>
    Array.from(
      { length: padded(length) },
      (_, i): Token => ({
        row: i < length ? nextRow++ : captionPad,
        position: [1 + i, 0, 0],
      }),
    ),
  )
  nextRow = 0
  const imagePad = grids.reduce((sum, [rows, columns]) => sum + rows * columns, 0)
  const images = grids.map(([rows, columns], sample) => {
    const first = (captions[sample]?.length ?? 0) + 1
    return Array.from(
      { length: padded(rows * columns) },
      (_, i): Token =>
        i < rows * columns
          ? { row: nextRow++, position: [first, Math.floor(i / columns), i % columns] }
          : { row: imagePad, position: unplaced },
    )
  })

  const longestImage = longest(images)
  const longestCaption = longest(captions)
  const captionsStart = images.length * longestImage
  const joint = images.map((image, sample) => [
    ...image.map(({ position }, i) => ({ row: sample * longestImage + i, position })),
    ...(captions[sample] as Token[]).map(({ position }, i) => ({
      row: captionsStart + sample * longestCaption + i,
      position,
    })),
  ])
  const even = (sequences: Token[][], length: number) =>
    sequences.every((tokens) => tokens.length === length)
  return {
    image: sequencesOf(config, images, device, imagePad === images.length * longestImage),
    caption: sequencesOf(config, captions, device, captionPad === captions.length * longestCaption),
    joint: sequencesOf(
      config,
      joint,
      device,
      even(images, longestImage) && even(captions, longestCaption),
    ),
    imageTokens: Math.max(...grids.map(([rows, columns]) => rows * columns)),
    grids,
  }
}

function longest(sequences: readonly Token[][]): number {
  return Math.max(...sequences.map((tokens) => tokens.length))
}

/** @param inOrder whether the sequences are the table's rows as they are: then nothing is gathered */
function sequencesOf(
  config: Required<S3DiTConfig>,
  sequences: readonly Token[][],
  device: Device,
  inOrder: boolean,
): Sequences {
  const length = longest(sequences)
  const batch = sequences.length
  const at = (sample: number, i: number) => sequences[sample]?.[i]

  const mask = new Uint8Array(batch * length)
  // A masked place repeats some row: nothing reads what is computed there.
  const rows = new Int32Array(batch * length)
  for (let sample = 0; sample < batch; sample++)
    for (let i = 0; i < length; i++) {
      const token = at(sample, i)
      mask[sample * length + i] = token === undefined ? 0 : 1
      rows[sample * length + i] = token?.row ?? 0
    }

  const same = sequences.every(
    (tokens) =>
      tokens.length === length &&
      tokens.every(({ position }, i) =>
        position.every((value, axis) => value === at(0, i)?.position[axis]),
      ),
  )
  const tables = rotaryTables(
    config,
    Array.from({ length: same ? 1 : batch }, (_, sample) =>
      Array.from({ length }, (_, i) => at(sample, i)?.position ?? unplaced),
    ).flat(),
  )
  const half = config.dim / config.n_heads / 2
  const upload = <T extends Int32Array | Uint8Array | Float32Array>(values: T, shape: number[]) =>
    keep(tensor(values, { shape, device }) as Tensor)
  return {
    length,
    mask: mask.includes(0) ? (upload(mask, [batch, length]) as Tensor<'uint8'>) : undefined,
    cos: upload(tables.cos, [tables.cos.length / half, half]) as Tensor<'float32'>,
    sin: upload(tables.sin, [tables.sin.length / half, half]) as Tensor<'float32'>,
    rows: inOrder ? undefined : (upload(rows, [batch, length]) as Tensor<'int32'>),
  }
}

/**
 * Angles position / theta^(2j / size) for j < size / 2 of each axis, side by side (arXiv 2104.09864, by axes as in
 * Lumina-Image 2.0 and Z-Image).
 */
function rotaryTables(
  config: Required<S3DiTConfig>,
  positions: readonly (readonly [number, number, number])[],
): { cos: Float32Array; sin: Float32Array } {
  const half = config.dim / config.n_heads / 2
  const cos = new Float32Array(positions.length * half)
  const sin = new Float32Array(positions.length * half)
  let next = 0
  for (const position of positions)
    for (const [axis, size] of config.axes_dims.entries()) {
      const place = position[axis] as number
      const end = config.axes_lens[axis] as number
      if (place >= end)
        fail(
          'ERR_RANGE',
          `${axis === 0 ? 'captions' : 'images'}: position ${place} along axis ${axis} is past config.axes_lens[${axis}], ${end}`,
        )
      for (let j = 0; j < size / 2; j++) {
        const angle = place / config.rope_theta ** ((2 * j) / size)
        cos[next] = Math.cos(angle)
        sin[next] = Math.sin(angle)
        next++
      }
    }
  return { cos, sin }
}
