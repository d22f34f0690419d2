import { readdir, readFile } from 'node:fs/promises'
import path from 'node:path'
import sharp from 'sharp'
import { describe, expect, it } from 'vitest'
import { data, memory, models, train } from '../../lib/index.js'
import { temporaryFolder, writeShapes } from '../data/shapes.js'
import { tinyAutoencoder, tinyClip, tinyTeacher } from './tiny.js'

async function losses(run: string): Promise<number[]> {
  const text = await readFile(path.join(run, 'metrics.jsonl'), 'utf8')
  return text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line).loss)
}

const mean = (values: readonly number[]) => values.reduce((sum, x) => sum + x, 0) / values.length

describe('from pictures to samples', () => {
  it('trains the three models on a small folder, leaving no tensors', async () => {
    const folder = await temporaryFolder()
    await writeShapes(folder)
    const out = (name: string) => path.join(folder, 'runs', name)
    const before = memory().tensors

    const autoencoder = { ...tinyAutoencoder, data: folder, previewEvery: 20 }
    expect(await train.pretrainAutoencoder(autoencoder, { out: out('autoencoder') })).toBe(true)
    const first = await losses(out('autoencoder'))
    expect(first).toHaveLength(40)
    expect(mean(first.slice(-5))).toBeLessThan(0.6 * mean(first.slice(0, 5)))
    expect((await readdir(path.join(out('autoencoder'), 'samples'))).sort()).toEqual([
      'step-000020.png',
      'step-000040.png',
    ])

    // Its latents have mean 0 and standard deviation 1 over the images for training.
    const file = path.join(out('autoencoder'), 'autoencoder.safetensors')
    const images = await data.loadCaptionedImages(folder, { size: 16 })
    const trained = await models.loadAutoencoderKL(file)
    const batch = images.batch(images.split.kept)
    const { mean: posterior, logVariance } = trained.encode(batch)
    const latents = trained.toDenoiser(posterior)
    const values = [...(await latents.data())]
    expect(mean(values)).toBeCloseTo(0, 1)
    expect(mean(values.map((x) => x * x))).toBeCloseTo(1, 1)
    for (const x of [trained, batch, posterior, logVariance, latents]) x.dispose()

    const teacher = { ...tinyTeacher, data: folder, autoencoder: file, previewEvery: 40 }
    expect(await train.pretrainTeacher(teacher, { out: out('teacher') })).toBe(true)
    const second = await losses(out('teacher'))
    expect(mean(second.slice(-10))).toBeLessThan(0.8 * mean(second.slice(0, 5)))
    const model = await models.loadNanoZImage(path.join(out('teacher'), 'teacher.safetensors'))
    const samples = await model.generate(['red circle', 'blue square'], { steps: 3 })
    expect(samples.shape).toEqual([2, 3, 16, 16])
    for (const x of [model, samples]) x.dispose()
    const preview = path.join(out('teacher'), 'samples/step-000040.png')
    const { width, height } = await sharp(preview).metadata()
    expect([width, height]).toEqual([8 * 16 + 7 * 2, 2 * 16 + 2])

    const accuracy = await train.pretrainClip({ ...tinyClip, data: folder }, { out: out('clip') })
    const third = await losses(out('clip'))
    expect(mean(third.slice(-10))).toBeLessThan(0.7 * mean(third.slice(0, 5)))
    expect(accuracy?.kept).toBeGreaterThan(0.5)
    const clip = await models.loadClip(path.join(out('clip'), 'clip.safetensors'))
    clip.dispose()

    expect(memory().tensors).toBe(before)
  })
})

describe('stopped and resumed', () => {
  const signalAfter = (steps: number) => {
    const controller = new AbortController()
    const onProgress = ({ step }: train.Progress) => {
      if (step === steps) controller.abort()
    }
    return { signal: controller.signal, onProgress }
  }

  it('teacher and CLIP end with the same bits', async () => {
    const folder = await temporaryFolder()
    await writeShapes(folder)
    const file = path.join(folder, 'autoencoder.safetensors')
    using autoencoder = models.autoencoderKL(tinyAutoencoder.model, { seed: 1 })
    await models.saveAutoencoderKL(file, autoencoder)
    const few = { data: folder, steps: 9, checkpointEvery: 100 }
    const pretrains = {
      teacher: (options: train.PretrainOptions) =>
        train.pretrainTeacher({ ...tinyTeacher, ...few, autoencoder: file }, options),
      clip: (options: train.PretrainOptions) =>
        train.pretrainClip({ ...tinyClip, ...few }, options),
    }
    for (const [name, pretrain] of Object.entries(pretrains)) {
      const [whole, parts] = [path.join(folder, `${name}-whole`), path.join(folder, name)]
      await pretrain({ out: whole })
      for (const steps of [2, 7])
        expect(await pretrain({ out: parts, resume: true, ...signalAfter(steps) })).toBeFalsy()
      await pretrain({ out: parts, resume: true })
      const bytes = (run: string) => readFile(path.join(run, `${name}.safetensors`))
      expect((await bytes(parts)).equals(await bytes(whole)), name).toBe(true)
      expect(await losses(parts)).toEqual(await losses(whole))
    }
  })
})

describe('a configuration', () => {
  it.each([
    [{}, 'config.data: expected the path of a folder'],
    [{ dat: 'x' }, 'config.dat: unknown field'],
    [{ data: 'x', steps: 0 }, 'config.steps: expected an integer from 1'],
    [{ data: 'x', batchSize: 0 }, 'config.batchSize: expected an integer from 1'],
    [{ data: 'x', seed: -1 }, 'config.seed: expected an integer from 0'],
    [{ data: 'x', optimizer: { lrr: 1 } }, 'config.optimizer.lrr: unknown field'],
  ])('%j is refused by every model', async (given, message) => {
    const out = path.join(await temporaryFolder(), 'run')
    for (const pretrain of [train.pretrainAutoencoder, train.pretrainTeacher, train.pretrainClip])
      await expect(pretrain(given as { data: string }, { out })).rejects.toThrow(message)
    await expect(readdir(out)).rejects.toThrow('ENOENT')
  })

  it('of a teacher names an autoencoder that there is', async () => {
    const folder = await temporaryFolder()
    await writeShapes(folder)
    const out = path.join(folder, 'run')
    const given = { ...tinyTeacher, data: folder }
    await expect(train.pretrainTeacher(given, { out })).rejects.toThrow(
      'config.autoencoder: expected the path of a file',
    )
    const missing = { ...given, autoencoder: path.join(folder, 'none.safetensors') }
    await expect(train.pretrainTeacher(missing, { out })).rejects.toMatchObject({ code: 'ERR_IO' })
    const wrong = { ...given, autoencoder: path.join(folder, 'prompts.jsonl') }
    await expect(train.pretrainTeacher(wrong, { out })).rejects.toMatchObject({
      code: 'ERR_FORMAT',
    })
    await expect(train.pretrainTeacher({ ...missing, captionDropout: 2 }, { out })).rejects.toThrow(
      'config.captionDropout: expected a number from 0 to 1, got 2',
    )
  })
})
