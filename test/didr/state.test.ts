import { readdir, readFile, truncate, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { type DidrOptions, didrStep, io, memory, rewards, type Tensor } from '../../lib/index.js'
import { temporaryFolder } from '../data/shapes.js'
import { runProgram } from '../fixtures/run-program.js'
import { bitsOf, network, pointGenerator, ringRun } from './problems.js'

const running = () =>
  rewards.weighted([
    { reward: rewards.quadratic({ center: [1.5, 1] }), normalize: 'running' },
    {
      reward: rewards.fromFunction('right', (x) => x.cast('float32').mean(1)),
      normalize: 'running',
    },
  ])

const kinds: readonly [string, () => Partial<DidrOptions>][] = [
  ['drp', () => ({ drs: { estimator: 'drp', particles: 2 }, reward: running() })],
  ['particles', () => ({ drs: { estimator: 'particles', particles: 3 }, reward: running() })],
  ['posterior', () => ({ drs: { estimator: 'particles', sampler: 'posterior' } })],
  ['diff-instruct++', () => ({ objective: 'diff-instruct++', reward: running() })],
  ['dmd2', () => ({ objective: 'dmd2', ema: null })],
  ['reward', () => ({ objective: 'reward', reward: running() })],
  [
    'bfloat16',
    () => ({
      generator: pointGenerator(1, { dtype: 'bfloat16' }),
      teacher: network(3, { dtype: 'bfloat16' }),
      assistant: network(2, { dtype: 'bfloat16' }),
      reward: running(),
    }),
  ],
]
const settings = {
  klWindow: 3,
  noOpAfter: 2,
  optimizer: { generator: { lr: 0.01, warmup: 2, decaySteps: 9 }, assistant: { lr: 0.01 } },
} as const

/** Another run of the same kind whose models and state have nothing in common with the first. */
function strangerOf(make: () => Partial<DidrOptions>) {
  const change = make()
  const dtype = change.generator?.parameters()[0]?.value.dtype ?? 'float32'
  return ringRun({
    ...settings,
    ...change,
    generator: pointGenerator(21, { dtype }),
    // Without stage I the assistant is none of the run's.
    ...(change.objective === 'reward' ? {} : { assistant: network(22, { dtype }) }),
  })
}

describe('save and load', () => {
  it.each(kinds)('go on with the same bits: %s', async (_, make) => {
    const folder = await temporaryFolder()
    using whole = ringRun({ ...settings, ...make() })
    for (let i = 0; i < 4; i++) await didrStep(whole, { batchSize: 5 })
    await whole.save(folder)
    const saved = await bitsOf(whole)
    const expected = []
    for (let i = 0; i < 4; i++) expected.push(await didrStep(whole, { batchSize: 5 }))
    expect(await readdir(folder)).toEqual(['didr.safetensors'])

    using again = strangerOf(make)
    for (let i = 0; i < 2; i++) await didrStep(again, { batchSize: 3 })
    expect(await again.load(folder)).toEqual({ changedSettings: [] })
    expect(await bitsOf(again)).toEqual(saved)
    for (const metrics of expected) expect(await didrStep(again, { batchSize: 5 })).toEqual(metrics)
    expect(await bitsOf(again)).toEqual(await bitsOf(whole))
  })

  it('may be done before the first step and after a failed one', async () => {
    const folder = await temporaryFolder()
    let fails = false
    const reward = rewards.fromFunction('fickle', (x) => x.sum(fails ? 0 : 1) as Tensor)
    using first = ringRun({ reward })
    await first.save(folder)
    using second = ringRun({ reward, generator: pointGenerator(9) })
    await second.load(folder)
    expect(await bitsOf(second)).toEqual(await bitsOf(first))
    await didrStep(first, { batchSize: 3 })
    fails = true
    await expect(didrStep(first, { batchSize: 3 })).rejects.toThrow('fickle')
    await first.save(folder)
    fails = false
    await second.load(folder)
    await didrStep(first, { batchSize: 3 })
    await didrStep(second, { batchSize: 3 })
    expect(await bitsOf(second)).toEqual(await bitsOf(first))
  })

  it('leaves frozen parameters out', async () => {
    const folder = await temporaryFolder()
    const model = network(1)
    const generator = { ...pointGenerator(), parameters: () => model.parameters() }
    for (const parameter of model.parameters())
      parameter.trainable = parameter.name.startsWith('layers.2')
    using didr = ringRun({ generator })
    await didr.save(folder)
    const { tensors } = await io.inspectSafetensors(path.join(folder, 'didr.safetensors'))
    const names = Object.keys(tensors).filter((name) => name.startsWith('generator/'))
    expect(names.sort()).toEqual(['generator/layers.2.bias', 'generator/layers.2.weight'])
  })

  it('overwrites the state of before, and leaves no tensors behind', async () => {
    const folder = await temporaryFolder()
    using didr = ringRun()
    await didrStep(didr, { batchSize: 3 })
    const before = memory()
    for (let i = 0; i < 3; i++) {
      await didr.save(path.join(folder, 'a/b'))
      await didr.load(path.join(folder, 'a/b'))
    }
    expect([memory().tensors, memory().bytes]).toEqual([before.tensors, before.bytes])
    expect(await readdir(path.join(folder, 'a/b'))).toEqual(['didr.safetensors'])
  })

  it('names the settings that differ from the saved ones', async () => {
    const folder = await temporaryFolder()
    using first = ringRun()
    await first.save(folder)
    using second = ringRun({
      beta: 2,
      seed: 8,
      drs: { estimator: 'tweedie' },
      optimizer: { generator: { lr: 1 } },
    })
    const { changedSettings } = await second.load(folder)
    expect(changedSettings.sort()).toEqual(
      [
        'beta',
        'seed',
        ...['estimator', 'steps', 'particles', 'eta', 'logSnrEnd', 'gradientSteps'].map(
          (field) => `drs.${field}`,
        ),
        'optimizer.generator.lr',
      ].sort(),
    )
  })

  it('with a smaller window goes on to forget', async () => {
    const folder = await temporaryFolder()
    using first = ringRun({ klWindow: 50 })
    for (let i = 0; i < 5; i++) await didrStep(first, { batchSize: 3 })
    await first.save(folder)
    using second = ringRun({ klWindow: 2 })
    await second.load(folder)
    for (let i = 0; i < 4; i++) await didrStep(second, { batchSize: 3 })
    const { bins } = await second.kl.read()
    expect(bins.reduce((sum, { count }) => sum + count, 0)).toBeLessThanOrEqual(4 * 3)
  })

  it('with other noise levels starts its KL afresh', async () => {
    const folder = await temporaryFolder()
    using first = ringRun()
    for (let i = 0; i < 3; i++) await didrStep(first, { batchSize: 30 })
    await first.save(folder)
    const times = { kind: 'uniform', range: [0.4, 0.6] } as const
    using second = ringRun({ times })
    expect((await second.load(folder)).changedSettings).toContain('times.range')
    await didrStep(second, { batchSize: 30 })
    const { bins } = await second.kl.read()
    expect(bins.reduce((sum, { count }) => sum + count, 0)).toBe(30)
    expect(second.step).toBe(4)
  })
})

describe('load', () => {
  async function savedRun(change: Partial<DidrOptions> = {}) {
    const folder = await temporaryFolder()
    using didr = ringRun({ reward: running(), ...change })
    await didrStep(didr, { batchSize: 3 })
    await didr.save(folder)
    return { folder, file: path.join(folder, 'didr.safetensors') }
  }

  /** A run with a past of its own that refuses to load, and is as before. */
  async function expectRefused(
    folder: string,
    code: string,
    message: RegExp,
    change: Partial<DidrOptions> = {},
  ) {
    using didr = ringRun({ reward: running(), generator: pointGenerator(5), ...change })
    for (let i = 0; i < 2; i++) await didrStep(didr, { batchSize: 4 })
    const before = await bitsOf(didr)
    const { tensors, bytes } = memory()
    const failure = await didr.load(folder).catch((error) => error)
    expect(`${failure.code}: ${failure.message}`).toMatch(new RegExp(`^(${code}): `))
    expect(failure.message).toMatch(message)
    expect(await bitsOf(didr)).toEqual(before)
    expect([memory().tensors, memory().bytes]).toEqual([tensors, bytes])
    await didrStep(didr, { batchSize: 4 })
  }

  it('refuses a file of other models, and changes nothing', async () => {
    const { folder } = await savedRun()
    await expectRefused(folder, 'ERR_SHAPE', /didr\.safetensors: .*expected \[8, /, {
      generator: pointGenerator(1, { hidden: [8, 16] }),
    })
    await expectRefused(folder, 'ERR_CONFIG|ERR_SHAPE', /didr\.safetensors: state: /, {
      assistant: network(1, { hidden: [16, 16, 16] }),
    })
    await expectRefused(folder, 'ERR_CONFIG', /of nothing here/, { ema: null })
    await expectRefused(folder, 'ERR_DTYPE|ERR_CONFIG', /bfloat16|master/, {
      generator: pointGenerator(1, { dtype: 'bfloat16' }),
      teacher: network(3, { dtype: 'bfloat16' }),
      assistant: network(2, { dtype: 'bfloat16' }),
    })
    await expectRefused(folder, 'ERR_CONFIG', /state: expected that of 1 parts, got 2/, {
      reward: rewards.weighted([
        { reward: rewards.quadratic({ center: [0, 0] }), normalize: 'running' },
      ]),
    })
  })

  it('refuses a missing file, and a folder that is none', async () => {
    await expectRefused(path.join(await temporaryFolder(), 'none'), 'ERR_IO', /didr\.safetensors/)
    using didr = ringRun()
    for (const folder of ['', undefined, 3] as string[]) {
      await expect(didr.load(folder)).rejects.toMatchObject({ code: 'ERR_CONFIG' })
      await expect(didr.save(folder)).rejects.toMatchObject({ code: 'ERR_CONFIG' })
    }
    const file = path.join(await temporaryFolder(), 'file')
    await writeFile(file, 'x')
    await expect(didr.save(file)).rejects.toMatchObject({ code: 'ERR_IO' })
  })

  it('refuses a file that is cut off, anywhere', async () => {
    const { folder, file } = await savedRun()
    const whole = await readFile(file)
    for (const length of [0, 7, 100, Math.floor(whole.length / 2), whole.length - 1]) {
      await writeFile(file, whole)
      await truncate(file, length)
      await expectRefused(folder, 'ERR_FORMAT', /didr\.safetensors/)
    }
  })

  it('refuses other formats, versions and states', async () => {
    const { folder, file } = await savedRun()
    const { tensors, metadata } = await io.loadSafetensors(file)
    const state = JSON.parse(metadata.state as string)
    for (const [change, message] of [
      [{ format: 'pt' }, /expected the state of a run, format didr version 1, got "pt"/],
      [{ version: '2' }, /format didr version 1, got "didr" version "2"/],
      [{ state: '' }, /the header holds no state of a run/],
      [{ state: 'null' }, /the header holds no state of a run/],
      [{ state: '{"step":1' }, /the header holds no state of a run/],
      ...[
        { step: '1' },
        { step: -1 },
        { randomOffset: 0.5 },
        { klFilled: null },
        { noOps: [] },
      ].map(
        (wrong) =>
          [
            { state: JSON.stringify({ ...state, ...wrong }) },
            /the header holds no state of a run/,
          ] as const,
      ),
      [
        { state: JSON.stringify({ ...state, noOps: { generator: 'x' } }) },
        /the header holds no state of a run/,
      ],
      [{ config: '[]' }, /the header holds no state of a run/],
    ] as const) {
      await io.saveSafetensors(file, tensors, { metadata: { ...metadata, ...change } })
      await expectRefused(folder, 'ERR_FORMAT', message)
    }
    await io.saveSafetensors(file, tensors)
    await expectRefused(folder, 'ERR_FORMAT', /expected the state of a run/)
    for (const tensor of Object.values(tensors)) tensor.dispose()
  })
})

describe('a process that is killed', () => {
  it('at any moment goes on from its last save to the same bits', {
    timeout: 240_000,
  }, async () => {
    const steps = '150'
    const run = async (folder: string, seconds?: number) => {
      const args = [folder, steps, ...(seconds === undefined ? [] : [seconds.toFixed(3)])]
      const { signal, stdout, stderr } = await runProgram('didr.mjs', { args })
      expect(stderr).toBe('')
      return {
        killed: signal === 'SIGKILL',
        start: Number(/^from (.*)$/m.exec(stdout)?.[1] ?? 0),
        seconds: Number(/^took (.*)$/m.exec(stdout)?.[1]) / 1000,
        result: /^done (.*)$/m.exec(stdout)?.[1],
      }
    }
    const uninterrupted = await run(await temporaryFolder())
    expect(uninterrupted.result).toMatch(/^[0-9a-f]{64}$/)

    let folder = await temporaryFolder()
    const starts = new Set<number>()
    for (let kills = 0; kills < 20; ) {
      const { killed, start, result } = await run(
        folder,
        (Math.random() * uninterrupted.seconds) / 7,
      )
      starts.add(start)
      if (killed) {
        kills++
        continue
      }
      expect(result).toBe(uninterrupted.result)
      folder = await temporaryFolder()
    }
    await writeFile(path.join(folder, '.didr.safetensors.1-ab.tmp'), 'half')
    expect((await run(folder)).result).toBe(uninterrupted.result)
    expect(await readdir(folder)).toEqual(['didr.safetensors'])
    // It did get on in between.
    expect(starts.size).toBeGreaterThan(3)
  })
})
