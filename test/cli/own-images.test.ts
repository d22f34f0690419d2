/** A user's own pictures and prompts, from a folder to an aligned one-step generator, by the commands alone. */
import { mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import sharp from 'sharp'
import { describe, expect, it } from 'vitest'
import { shapePrompts, temporaryFolder, writeShapes } from '../data/shapes.js'
import { runCommand } from '../fixtures/run-program.js'
import { tinyAutoencoder, tinyClip, tinyTeacher } from '../train/tiny.js'

const packageFolder = fileURLToPath(new URL('../..', import.meta.url))

describe('own images', () => {
  it('get through pretrain, distill, train, sample, references, eval and compare', async () => {
    const folder = await temporaryFolder()
    const at = (...parts: string[]) => path.join(folder, ...parts)
    await writeShapes(folder)
    /** Runs a command with a configuration, and gives what it prints. */
    const didr = async (args: string[], config?: object) => {
      if (config !== undefined) await writeFile(at('config.json'), JSON.stringify(config))
      const given = config === undefined ? [] : ['--config', at('config.json')]
      const { code, stdout, stderr } = await runCommand([...args, ...given])
      expect(code, `${args.join(' ')}: ${stderr}`).toBe(0)
      return stdout
    }

    const data = ['--data', folder]
    const autoencoder = ['pretrain', 'autoencoder', ...data, '--out', at('autoencoder')]
    expect(await didr(autoencoder, { ...tinyAutoencoder, steps: 120 })).toBe(
      `${at('autoencoder', 'autoencoder.safetensors')}\n`,
    )
    await didr(
      [
        ...['pretrain', 'teacher', ...data, '--out', at('teacher')],
        ...['--autoencoder', at('autoencoder', 'autoencoder.safetensors')],
      ],
      { ...tinyTeacher, steps: 200 },
    )
    const lines = async (name: string) =>
      (await readFile(at('teacher', name), 'utf8')).trimEnd().split('\n')
    const trainedOn = [...(await lines('prompts.txt')), ...(await lines('held-out-prompts.txt'))]
    expect(trainedOn.sort()).toEqual(shapePrompts.toSorted())
    for (const [run, seed] of [
      ['clip', '1'],
      ['features', '2'],
    ] as const)
      await didr(['pretrain', 'clip', ...data, '--out', at(run), '--seed', seed], tinyClip)

    const models = [
      ...['--teacher', at('teacher', 'teacher.safetensors')],
      ...['--prompts', at('teacher', 'prompts.txt')],
    ]
    const small = {
      ...{ batchSize: 12, checkpointEvery: 50, previewEvery: 0, guidance: 1 },
      lora: { generator: { rank: 4 }, assistant: { rank: 4 } },
      optimizer: { generator: { lr: 5e-3, warmup: 0 }, assistant: { lr: 5e-3 } },
    }
    await didr(['distill', ...models, '--out', at('base'), '--steps', '40'], small)
    const base = ['--generator', at('base', 'generator.safetensors')]

    // A reward with gradients, and one that is numbers alone, in a project that the package is installed in.
    await mkdir(at('node_modules'))
    await symlink(packageFolder, at('node_modules', 'didr'))
    await writeFile(
      at('red.ts'),
      `import { rewards, type Tensor } from 'didr'
       const red = (images: Tensor<'float32'>) => {
         const [batch, , height, width] = images.shape as [number, number, number, number]
         return images.slice([0, 0, 0, 0], [batch, 1, height, width]).mean([1, 2, 3])
       }
       export default async () => rewards.blackBox('red', async (images) => {
         using means = red(images as Tensor<'float32'>)
         return [...(await means.data())]
       })`,
    )
    for (const [name, args] of [
      ['colourful', ['--reward', 'colourfulness', '--estimator', 'tweedie']],
      ['red', ['--reward', at('red.ts'), '--estimator', 'particles']],
    ] as const) {
      await didr(
        [
          ...['train', ...models, ...base, '--out', at(name), '--beta', '0.002'],
          ...['--steps', '80', ...args],
        ],
        small,
      )
    }

    const aligned = at('colourful', 'generator.safetensors')
    const sampled = ['sample', ...models.slice(0, 2), '--prompt', 'red circle', '--count', '3']
    await didr([...sampled, '--generator', aligned, '--out', at('one.png')])
    await didr([...sampled, '--steps', '4', '--out', at('four.jpg'), '--scale', '2'])
    expect(await sharp(at('one.png')).metadata()).toMatchObject({ format: 'png', width: 34 })
    expect(await sharp(at('four.jpg')).metadata()).toMatchObject({ format: 'jpeg', width: 66 })

    const features = ['--features', at('features', 'clip.safetensors')]
    const references = ['--references', at('references.safetensors')]
    await didr([
      ...['references', ...data, ...models, ...features, '--out', at('references.safetensors')],
      ...['--steps', '4', '--guidance', '1', '--count', '24'],
    ])
    const table = await didr([
      ...['eval', aligned, at('red', 'generator.safetensors'), ...models, ...features],
      ...['--base', at('base', 'generator.safetensors'), '--teacher-steps', '4', '--count', '48'],
      ...[...references, '--clip', at('clip', 'clip.safetensors'), '--reward', 'clip'],
      ...['--reward', 'colourfulness', '--reward', at('red.ts')],
      ...['--out', at('evaluation')],
    ])
    expect(table.split('\n').filter((line) => line.startsWith('| '))).toHaveLength(6)
    expect((await readdir(at('evaluation'))).sort()).toEqual(['eval.json', 'eval.md'])
    const judged = JSON.parse(await readFile(at('evaluation', 'eval.json'), 'utf8'))
    const [start, colourful, red, teacher] = judged
    expect(judged.map(({ calls }: { calls: number }) => calls)).toEqual([1, 1, 1, 8])
    for (const { references: of } of judged)
      for (const name of ['images', 'teacher']) expect(of[name].frechet).toBeGreaterThan(0)
    // The same prompts and noise: each reward has gone up for the generator that was aligned with it.
    const gain = (of: typeof start, reward: string) =>
      of.rewards[reward].mean - start.rewards[reward].mean
    expect(gain(colourful, 'colourfulness')).toBeGreaterThan(0.01)
    expect(gain(red, 'red')).toBeGreaterThan(0.005)
    expect(teacher.rewards.red.std).toBeGreaterThan(0)
  }, 240_000)
})
