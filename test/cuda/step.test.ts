/** Steps of the method, and a verification, on the CUDA device against the CPU. */
import { describe, expect, it } from 'vitest'
import {
  createDidr,
  type Device,
  type Didr,
  type DidrMetrics,
  type DidrOptions,
  didrStep,
  io,
  memory,
  models,
  nn,
  rewards,
  type Tensor,
  verify,
} from '../../lib/index.js'
import { distil, ringGenerator, ringProblem } from '../../lib/verify/ring.js'
import { temporaryFolder } from '../data/shapes.js'
import { network, pointGenerator, ringOptions } from '../didr/problems.js'
import { tinyNano, tinyPrompts } from '../models/tiny-nano.js'
import { cpu, cuda, expectTensorsAlike } from './both.js'

/** Metrics that are numbers, to this many parts of their size. */
const metricTolerance = 2e-4

function expectMetricsAlike(got: DidrMetrics, expected: DidrMetrics): void {
  let compared = 0
  for (const [name, value] of Object.entries(expected)) {
    if (typeof value !== 'number') continue
    const own = got[name as keyof DidrMetrics]
    expect(own, name).toBeTypeOf('number')
    expect(Math.abs((own as number) - value), name).toBeLessThanOrEqual(
      metricTolerance * Math.max(Math.abs(value), 1e-2),
    )
    compared++
  }
  expect(compared).toBeGreaterThan(5)
}

/** Two steps on each device, and what they made of the generator, the assistant and the averages. */
async function expectStepsAlike(
  make: (device: Device) => { didr: Didr; dispose: () => void },
  step: (didr: Didr, device: Device) => Promise<DidrMetrics>,
): Promise<void> {
  const before = memory().tensors
  const [expected, got] = [make(cpu), make(cuda)]
  try {
    expect(got.didr.device.name).toBe(cuda.name)
    for (let i = 0; i < 2; i++)
      expectMetricsAlike(await step(got.didr, cuda), await step(expected.didr, cpu))
    const wanted = expected.didr.state().tensors
    const found = got.didr.state().tensors
    expect(Object.keys(found)).toEqual(Object.keys(wanted))
    for (const [name, tensor] of Object.entries(found))
      if (/^(generator|assistant|ema)\//.test(name))
        await expectTensorsAlike(name, tensor, wanted[name], { float32: 2e-3 })
  } finally {
    for (const { didr, dispose } of [expected, got]) {
      didr.dispose()
      dispose()
    }
  }
  expect(memory().tensors).toBe(before)
}

describe('steps on the ring', () => {
  const estimators = {
    exact: { drs: { estimator: 'exact' } },
    tweedie: { drs: { estimator: 'tweedie', maxNorm: 2 } },
    damped: { drs: { estimator: 'damped', curvature: 1, dataStd: 1.45 } },
    drp: { drs: { estimator: 'drp', steps: 2, particles: 2, stochastic: true } },
    'particles, rolled out': { drs: { estimator: 'particles', steps: 2, particles: 3 } },
    'particles, exact': { drs: { estimator: 'particles', sampler: 'posterior', particles: 3 } },
    'diff-instruct*': { objective: 'diff-instruct*', weighting: 'x0' },
    dmd2: { objective: 'dmd2', weighting: 'dmd' },
  } as Record<string, Partial<DidrOptions>>
  for (const [name, change] of Object.entries(estimators))
    it(name, () =>
      expectStepsAlike(
        (device) => {
          const generator = pointGenerator(1, { device })
          const assistant = network(2, { device })
          const optimizer = { generator: { lr: 1e-3 }, assistant: { lr: 1e-3 } }
          const options = { assistantSteps: 1, optimizer, ...change, generator, assistant }
          return {
            didr: createDidr(ringOptions(options)),
            dispose: () => {
              for (const model of [generator, assistant])
                for (const parameter of model.parameters()) parameter.dispose()
            },
          }
        },
        (didr) => didrStep(didr, { batchSize: 5 }),
      ),
    )
})

describe('a tiny Z-Image', () => {
  const make = (device: Device) => {
    const teacher = tinyNano(2, { device }).setTrainable(false)
    const generator = models.loraGenerator(teacher, { rank: 2, seed: 3 })
    const assistant = nn.lora(teacher.transformer, { rank: 2, seed: 4 })
    const didr = createDidr({
      ...{ generator, assistant, teacher: teacher.transformer, schedule: teacher.schedule },
      decode: (latents) => teacher.decode(latents),
      reward: rewards.colourfulness(),
      ...{ beta: 0.5, guidance: 2, seed: 6, weighting: 'dmd', assistantSteps: 1 },
      drs: { estimator: 'tweedie' },
      optimizer: { generator: { lr: 1e-3 }, assistant: { lr: 1e-3 } },
    })
    return {
      didr,
      teacher,
      generator,
      dispose: () => {
        for (const part of [assistant, generator, teacher]) part.dispose()
      },
    }
  }

  it('takes the same steps', () => {
    const teachers = new Map<Device, models.NanoZImage>()
    return expectStepsAlike(
      (device) => {
        const made = make(device)
        teachers.set(device, made.teacher)
        return made
      },
      async (didr, device) => {
        const teacher = teachers.get(device) as models.NanoZImage
        const condition = teacher.encodePrompts(tinyPrompts.slice(0, 3))
        const unconditional = teacher.encodePrompts(['', '', ''])
        try {
          return await didrStep(didr, { batchSize: 3, condition, unconditional })
        } finally {
          condition.features.dispose()
          unconditional.features.dispose()
        }
      },
    )
  })

  it('gives the same images, in one step and in several, and keeps its weights in a file', async () => {
    const [own, there] = [make(cpu), make(cuda)]
    const images: Tensor[] = []
    try {
      for (const { generator, teacher } of [own, there]) {
        const captions = teacher.encodePrompts(tinyPrompts.slice(0, 2))
        images.push(generator.generate(captions, { seed: 1 }) as Tensor)
        captions.features.dispose()
        images.push((await teacher.generate(['blue heart'], { steps: 2 })) as Tensor)
      }
      const [oneStep, several, oneStepThere, severalThere] = images
      await expectTensorsAlike('one step', oneStepThere, oneStep, { float32: 1e-4 })
      await expectTensorsAlike('two steps', severalThere, several, { float32: 1e-4 })

      const file = `${await temporaryFolder()}/teacher.safetensors`
      await there.teacher.save(file, { dtype: 'float32' })
      const { tensors } = await io.loadSafetensors(file)
      for (const [name, value] of Object.entries(own.teacher.state()))
        expect(await tensors[name]?.data(), name).toEqual(await value.data())
      images.push(...Object.values(tensors))
    } finally {
      for (const tensor of images) tensor.dispose()
      for (const { didr, dispose } of [own, there]) {
        didr.dispose()
        dispose()
      }
    }
  })
})

describe('verify', () => {
  it('distils the same start', async () => {
    const problem = ringProblem(1)
    const weights = []
    for (const on of [cpu, cuda]) {
      const ring = ringGenerator(0, problem, on)
      await distil(ring, problem, { steps: 2, seed: 0, batch: 5 })
      weights.push(ring.network.state())
    }
    const [expected, got] = weights
    for (const [name, value] of Object.entries(expected ?? {}))
      await expectTensorsAlike(name, got?.[name], value, { float32: 1e-3 })
    for (const value of weights.flatMap((state) => Object.values(state))) value.dispose()
  })

  it('takes a device, and measures what the CPU measures', async () => {
    const before = memory().tensors
    const few = { steps: 2, distilSteps: 0, batchSize: 6, measuredSamples: 200, assistantSteps: 1 }
    const settings = { ...few, estimator: 'exact', keepSamples: true } as const
    const expected = await verify(settings)
    const got = await verify({ ...settings, device: cuda })
    expect(memory().tensors).toBe(before)
    expect(got.target).toEqual(expected.target)
    expect(got.curve[0]?.klFromScores).toBeCloseTo(expected.curve[0]?.klFromScores as number, 2)
    expect(got.samples?.length).toBe(400)
    for (const [i, value] of (got.samples ?? []).entries())
      expect(value).toBeCloseTo(expected.samples?.[i] as number, 2)
    expect(got.meanReward).toBeCloseTo(expected.meanReward, 2)
  })
})
