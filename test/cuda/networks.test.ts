/** The golden networks on the CUDA device: outputs and gradients as they are asked for on the CPU. */
import { describe, it } from 'vitest'
import { models } from '../../lib/index.js'
import {
  expectDecoderGolden,
  expectEncoderGolden,
  expectTransformerGolden,
  golden,
} from '../models/goldens.js'
import { cuda } from './both.js'

describe('the golden networks', () => {
  for (const checkpointing of [false, true])
    it(`s3dit-tiny${checkpointing ? ' with checkpointing' : ''}`, async () => {
      const file = await golden('s3dit-tiny', cuda)
      using model = models.s3dit(file.config, { device: cuda, checkpointing })
      model.loadState(file.weights)
      await expectTransformerGolden(model, file)
    })

  it('autoencoder-tiny', async () => {
    const file = await golden('autoencoder-tiny', cuda)
    const config = file.config as unknown as models.AutoencoderKLConfig
    using model = models.autoencoderKL(config, { device: cuda })
    model.loadState(file.weights)
    await expectEncoderGolden(model, file)
    await expectDecoderGolden(model, file)
  })
})
