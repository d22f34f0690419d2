/** Run folders as the loop leaves them, of any content. */
import { mkdir, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import sharp from 'sharp'
import { formatHeader } from '../../lib/io/header.js'

export interface Written {
  config?: object | string
  /** Lines of metrics.jsonl, or its bytes. */
  metrics?: readonly object[] | string
  /** Checkpoints of this kind at these steps. */
  kind?: string
  checkpoints?: readonly number[]
  samples?: readonly number[]
  /** Whether this process has the folder. */
  locked?: boolean
  report?: string
}

export function linesOf(lines: readonly object[]): string {
  return lines.map((line) => `${JSON.stringify(line)}\n`).join('')
}

const stepName = (step: number) => `step-${String(step).padStart(6, '0')}`

/** A picture that is of one colour, another for each step. */
export async function samplePng(step: number): Promise<Buffer> {
  const background = { r: (step * 37) % 256, g: (step * 91) % 256, b: 120 }
  return sharp({ create: { width: 64, height: 32, channels: 3, background } })
    .png()
    .toBuffer()
}

export async function writeRun(folder: string, run: Written): Promise<void> {
  const { config = { steps: 10 }, metrics = [], kind = 'train', checkpoints = [] } = run
  await mkdir(path.join(folder, 'checkpoints'), { recursive: true })
  await mkdir(path.join(folder, 'samples'), { recursive: true })
  await writeFile(
    path.join(folder, 'config.json'),
    typeof config === 'string' ? config : `${JSON.stringify(config, null, 2)}\n`,
  )
  const text = typeof metrics === 'string' ? metrics : linesOf(metrics)
  if (text !== '') await writeFile(path.join(folder, 'metrics.jsonl'), text)
  for (const step of checkpoints) {
    const metadata = JSON.stringify({ checkpoint: kind, step, settings: {} })
    const header = formatHeader([['model.w', 'F32', [2]]], [['didr', metadata]])
    const file = path.join(folder, 'checkpoints', `${stepName(step)}.safetensors`)
    await writeFile(file, Buffer.concat([header, Buffer.alloc(8)]))
  }
  for (const step of run.samples ?? [])
    await writeFile(path.join(folder, 'samples', `${stepName(step)}.png`), await samplePng(step))
  if (run.locked) {
    const holder = { pid: process.pid, host: os.hostname(), started: null }
    await writeFile(path.join(folder, 'lock'), JSON.stringify(holder))
  }
  if (run.report !== undefined) await writeFile(path.join(folder, 'report.html'), run.report)
}

/** A result of `compare`, as its JSON has it. */
export function comparisonResult(method: string, frechet: number, reward: number, beta?: number) {
  return {
    method,
    ...(beta === undefined ? {} : { beta }),
    seed: 1,
    calls: 1,
    reward,
    rewards: { clip: { mean: reward, std: 0.1 } },
    references: {
      images: { images: 8, frechet, precision: 0.75, recall: 0.5 },
      teacher: { images: 8, frechet: frechet / 2, precision: 1, recall: 0.25 },
    },
    diversity: { all: { euclidean: 7.25 } },
    alarms: [],
  }
}
