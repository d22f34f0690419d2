/** A folder of small pictures and prompts, made on the spot: colours times shapes. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import sharp from 'sharp'
import { onTestFinished } from 'vitest'

const colours = { red: '#e02020', green: '#20a020', blue: '#2040e0', yellow: '#f0d020' }
const shapes = {
  circle: '<circle cx="8" cy="8" r="6"/>',
  square: '<rect x="3" y="3" width="10" height="10"/>',
  triangle: '<path d="M8 2 L14 14 L2 14 Z"/>',
}

export const shapePrompts = Object.keys(colours).flatMap((colour) =>
  Object.keys(shapes).map((shape) => `${colour} ${shape}`),
)

/** An empty folder that is removed after the test. */
export async function temporaryFolder(): Promise<string> {
  const folder = await mkdtemp(path.join(os.tmpdir(), 'didr-test-'))
  onTestFinished(() => rm(folder, { recursive: true, force: true }))
  return folder
}

/** Twelve pictures of 16 by 16 pixels on a transparent ground. */
export async function writeShapes(folder: string): Promise<void> {
  const lines: string[] = []
  for (const [colour, fill] of Object.entries(colours))
    for (const [shape, drawing] of Object.entries(shapes)) {
      const image = `${colour}-${shape}.png`
      const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="16" height="16" fill="${fill}">${drawing}</svg>`
      await sharp(Buffer.from(svg)).png().toFile(path.join(folder, image))
      lines.push(JSON.stringify({ image, prompt: `${colour} ${shape}` }))
    }
  await writeFile(path.join(folder, 'prompts.jsonl'), `${lines.join('\n')}\n`)
}
