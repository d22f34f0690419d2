/** Training runs on the CUDA device, from files to files, stopped and resumed. */
import { readFile, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { memory, models, train } from '../../lib/index.js'
import { temporaryFolder, writeShapes } from '../data/shapes.js'
import { tinyPrompts, writeTinyNano } from '../models/tiny-nano.js'
import { tinyAutoencoder, tinyClip, tinyTeacher } from '../train/tiny.js'
import { cuda } from './both.js'

type Line = Record<string, number>

async function metricsOf(run: string): Promise<Line[]> {
  const text = await readFile(path.join(run, 'metrics.jsonl'), 'utf8')
  const lines = text.trimEnd().split('\n')
  return lines.map((line) => {
    const { seconds, ...numbers } = JSON.parse(line) as Line
    return numbers
  })
}

/** Options that stop a run after a step. */
function stoppedAfter(last: number) {
  const controller = new AbortController()
  const onProgress = ({ step }: train.Progress) => {
    if (step === last) controller.abort()
  }
  return { signal: controller.signal, onProgress }
}

describe('alignment on the device', () => {
  it('goes on after a stop with the same bits, there; and on the CPU from there', async () => {
    const folder = await temporaryFolder()
    const { teacher, generator, clip } = await writeTinyNano(folder)
    const prompts = path.join(folder, 'prompts.txt')
    await writeFile(prompts, tinyPrompts.join('\n'))
    const config = {
      ...{ teacher, generator, clip, prompts, steps: 2, batchSize: 2, assistantSteps: 1 },
      ...{ device: 'cuda', checkpointEvery: 10, previewEvery: 0 },
      lora: { generator: { rank: 2 }, assistant: { rank: 2 } },
    } satisfies train.Partly<train.AlignConfig>
    const out = (name: string) => path.join(folder, 'runs', name)
    const weightsOf = (name: string) => readFile(path.join(out(name), 'generator.safetensors'))
    const before = [memory().tensors, memory(cuda).bytes]

    expect(await train.align(config, { out: out('whole') })).toBe(true)
    expect(await train.align(config, { out: out('parts'), ...stoppedAfter(1) })).toBe(false)
    expect(await train.align(config, { out: out('parts'), resume: true })).toBe(true)
    expect((await weightsOf('parts')).equals(await weightsOf('whole'))).toBe(true)
    expect(await metricsOf(out('parts'))).toEqual(await metricsOf(out('whole')))
    expect([memory().tensors, memory(cuda).bytes]).toEqual(before)

    const elsewhere = { ...config, device: 'cpu', steps: 3 } as const
    expect(await train.align(elsewhere, { out: out('parts'), resume: true })).toBe(true)
    const [first, , third] = await metricsOf(out('parts'))
    // Each number of the first step is near what the CPU gives for it.
    expect(await train.align({ ...elsewhere, steps: 1 }, { out: out('cpu') })).toBe(true)
    const [onCpu] = await metricsOf(out('cpu'))
    for (const [name, value] of Object.entries(onCpu as Line))
      if (typeof value === 'number')
        expect((first as Line)[name], name).toBeCloseTo(value, value > 100 ? 1 : 3)
    expect(third?.step).toBe(3)
  })
})

describe('pretraining on the device', () => {
  it('gives the losses of the CPU', async () => {
    const folder = await temporaryFolder()
    await writeShapes(folder)
    const file = path.join(folder, 'autoencoder.safetensors')
    using autoencoder = models.autoencoderKL(tinyAutoencoder.model, { seed: 1 })
    await models.saveAutoencoderKL(file, autoencoder)
    const few = { data: folder, imageSize: 8, steps: 2, batchSize: 2 }
    const pretrains = {
      autoencoder: (device: 'cpu' | 'cuda', out: string) =>
        train.pretrainAutoencoder({ ...tinyAutoencoder, ...few, device, previewEvery: 2 }, { out }),
      teacher: (device: 'cpu' | 'cuda', out: string) =>
        train.pretrainTeacher({ ...tinyTeacher, ...few, device, autoencoder: file }, { out }),
      clip: (device: 'cpu' | 'cuda', out: string) =>
        train.pretrainClip({ ...tinyClip, ...few, device }, { out }),
    }
    const before = [memory().tensors, memory(cuda).bytes]
    for (const [name, pretrain] of Object.entries(pretrains)) {
      const runs = { cpu: path.join(folder, `${name}-cpu`), cuda: path.join(folder, name) }
      for (const device of ['cpu', 'cuda'] as const)
        expect(await pretrain(device, runs[device])).toBeTruthy()
      const [expected, got] = [await metricsOf(runs.cpu), await metricsOf(runs.cuda)]
      expect(got.length).toBe(2)
      for (const [i, { loss }] of expected.entries())
        expect(got[i]?.loss, `${name}, step ${i + 1}`).toBeCloseTo(loss as number, 4)
    }
    expect([memory().tensors, memory(cuda).bytes]).toEqual(before)
  })

  it.each([
    ['gpu', 'config.device: expected cpu, cuda, cuda:<index> or auto; got "gpu"'],
    ['cuda:x', 'config.device: expected cpu'],
  ])('%s is refused', async (device, message) => {
    const out = path.join(await temporaryFolder(), 'run')
    for (const run of [
      train.align({ device } as object, { out }),
      train.pretrainClip({ data: 'x', device } as object, { out }),
    ])
      await expect(run).rejects.toMatchObject({
        code: 'ERR_CONFIG',
        message: expect.stringContaining(message),
      })
  })
})
