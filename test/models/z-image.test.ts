import { readFile, rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { io, memory, models, normal, type Tensor, tidy, zeros } from '../../lib/index.js'
import { temporaryFolder } from '../data/shapes.js'
import { expectRejection } from '../expectations.js'
import { expectSame } from './goldens.js'
import {
  autoencoderConfig,
  indexName,
  networks,
  type Sharding,
  shardNames,
  transformerConfig,
  writeFolder,
  writeJson,
} from './z-image-folder.js'

const written = networks()
afterAll(() => {
  written.transformer.dispose()
  written.autoencoder.dispose()
})

/** A folder as published, with what a test changes in its shards. */
async function folderWith(change?: (sharding: Sharding) => void): Promise<string> {
  const folder = await temporaryFolder()
  await writeFolder(folder, written, change)
  return folder
}

/** What both transformers are given. */
function forward(transformer: models.S3DiT): Tensor {
  return tidy(() => {
    const { dtype } = transformer.x_pad_token.value
    const x = normal([2, 4, 4, 8], { seed: 3, dtype })
    const features = normal([5, 6], { seed: 4, dtype })
    return transformer.forward(x, Float32Array.of(0.2, 0.9), {
      features,
      lengths: [2, 3],
    }) as Tensor
  })
}

describe('a folder as Z-Image is published', () => {
  it('gives the networks that were written, bit for bit', async () => {
    const folder = await folderWith()
    using loaded = await models.loadZImage(folder)
    expect(loaded.shift).toBe(6)
    const { siglip_feat_dim, ...known } = transformerConfig
    expect(loaded.transformer.config).toEqual(
      Object.fromEntries(Object.entries(known).filter(([field]) => !field.startsWith('_'))),
    )
    for (const [name, value] of Object.entries(loaded.transformer.state())) {
      expect(value.dtype, name).toBe('bfloat16')
      await expectSame(name, value, written.transformer.state()[name] as Tensor)
    }
    for (const [name, value] of Object.entries(loaded.autoencoder.state()))
      await expectSame(name, value, written.autoencoder.state()[name] as Tensor)

    using a = forward(loaded.transformer)
    using b = forward(written.transformer)
    await expectSame('velocity', a, b)
    expect(await a.cast('float32').abs().max().item()).toBeGreaterThan(0.01)

    const latents = normal(loaded.latentShape(2, { height: 8, width: 12 }), {
      seed: 5,
      dtype: 'bfloat16',
    })
    expect(latents.shape).toEqual([2, 4, 4, 6])
    const images = loaded.decode(latents)
    const wide = latents.cast('float32').div(0.3611).add(0.1159) as Tensor<'float32'>
    const decoded = written.autoencoder.decode(wide).mul(0.5).add(0.5).clip(0, 1)
    await expectSame('images', images as Tensor, decoded as Tensor)
  })

  it('loads as float32 what is stored as bfloat16, and the other way round', async () => {
    const folder = await folderWith()
    using wide = await models.loadZImage(folder, { dtype: 'float32' })
    for (const [name, value] of Object.entries(wide.transformer.state())) {
      using expected = (written.transformer.state()[name] as Tensor).cast('float32')
      await expectSame(name, value, expected as Tensor)
    }
    const stored = Object.fromEntries(
      Object.entries(wide.transformer.state()).map(([name, value]) => {
        using noise = normal(value.shape, { seed: 9 })
        return [name, value.add(noise as Tensor) as Tensor]
      }),
    )
    const whole = path.join(folder, 'transformer', 'diffusion_pytorch_model.safetensors')
    await io.saveSafetensors(whole, stored)
    await rm(path.join(folder, 'transformer', indexName))
    using narrow = await models.loadZImage(folder)
    for (const [name, value] of Object.entries(narrow.transformer.state())) {
      using expected = (stored[name] as Tensor).cast('bfloat16')
      await expectSame(name, value, expected as Tensor)
    }
  })

  it('may be without model_index.json and scheduler', async () => {
    const folder = await folderWith()
    await rm(path.join(folder, 'model_index.json'))
    await rm(path.join(folder, 'scheduler'), { recursive: true })
    using loaded = await models.loadZImage(folder, { checkpointing: true })
    expect(loaded.shift).toBe(3)
    expect(loaded.transformer.checkpointing).toBe(true)
  })

  it('takes the memory of the networks and no more', async () => {
    const folder = await folderWith()
    const before = memory()
    const loaded = await models.loadZImage(folder)
    const count = Object.keys({ ...written.transformer.state(), ...written.autoencoder.state() })
    expect(memory().tensors - before.tensors).toBe(count.length)
    loaded.dispose()
    expect(memory().tensors).toBe(before.tensors)
    expect(memory().bytes).toBe(before.bytes)
  })

  it('refuses sizes that the networks cannot have', async () => {
    using loaded = await models.loadZImage(await folderWith())
    expect(() => loaded.latentShape(1, { height: 8, width: 10 })).toThrow(
      'size.width: expected a multiple of 4, got 10',
    )
    expect(() => loaded.latentShape(0, { height: 8, width: 8 })).toThrow('batch: expected')
  })
})

describe('a folder with other tensors', () => {
  const extra = zeros([3])
  const changes: [what: string, change: (sharding: Sharding) => void, message: string][] = [
    [
      'without a tensor',
      ({ shards, weightMap }) => {
        delete shards[0]['layers.0.attention.to_k.weight']
        delete weightMap['layers.0.attention.to_k.weight']
      },
      'missing layers.0.attention.to_k.weight',
    ],
    [
      'with a tensor that the network does not have',
      ({ shards, weightMap }) => {
        shards[1].siglip_pad_token = extra as Tensor
        weightMap.siglip_pad_token = shardNames[1]
      },
      'unknown siglip_pad_token',
    ],
    [
      'with a tensor of another shape',
      ({ shards }) => {
        shards[1].x_pad_token = extra as Tensor
        delete shards[0].x_pad_token
      },
      'expected x_pad_token [1, 24], got [3]',
    ],
    [
      'with a tensor that is listed but not in its shard',
      ({ shards }) => {
        delete shards[0]['cap_embedder.0.weight']
        delete shards[1]['cap_embedder.0.weight']
      },
      'tensors that are not in their shard: cap_embedder.0.weight of SHARD',
    ],
    [
      'with a tensor in two shards',
      ({ shards, weightMap }) => {
        for (const shard of shards)
          shard.x_pad_token = written.transformer.state().x_pad_token as Tensor
        weightMap.x_pad_token = shardNames[0]
      },
      `tensors in a shard that is not theirs: x_pad_token in ${shardNames[1]}, listed for ${shardNames[0]}`,
    ],
    [
      'with a tensor in the wrong shard',
      ({ shards, weightMap }) => {
        const [first, second] = shards
        const moved = first.x_pad_token ?? second.x_pad_token
        delete first.x_pad_token
        second.x_pad_token = moved as Tensor
        weightMap.x_pad_token = shardNames[0]
      },
      `tensors that are not in their shard: x_pad_token of ${shardNames[0]}; ` +
        `tensors in a shard that is not theirs: x_pad_token in ${shardNames[1]}, listed for ${shardNames[0]}`,
    ],
    [
      'with a tensor that is not in the index',
      ({ shards }) => {
        shards[0].more = extra as Tensor
      },
      `tensors that are not in the index: more of ${shardNames[0]}`,
    ],
  ]

  for (const [what, change, message] of changes)
    it(`${what} is refused`, async () => {
      let shard = ''
      const folder = await folderWith((sharding) => {
        shard = sharding.weightMap['cap_embedder.0.weight'] as string
        change(sharding)
        // Moved tensors are in the index where they are, unless the test says otherwise.
        if (what === 'with a tensor of another shape')
          sharding.weightMap.x_pad_token = shardNames[1]
      })
      const file = path.join(folder, 'transformer', indexName)
      await expectRejection(
        () => models.loadZImage(folder),
        'ERR_FORMAT',
        `${file}: ${message.replace('SHARD', shard)}`,
      )
    })

  it('all at once is refused with the first dozen names', async () => {
    const all = Object.keys(written.transformer.state())
    const folder = await folderWith(({ shards, weightMap }) => {
      for (const name of all) {
        delete shards[0][name]
        delete shards[1][name]
        delete weightMap[name]
      }
      shards[0].a = extra as Tensor
      weightMap.a = shardNames[0]
    })
    const shown = all.slice(0, 12).join(', ')
    await expectRejection(
      () => models.loadZImage(folder),
      'ERR_FORMAT',
      `${path.join(folder, 'transformer', indexName)}: missing ${shown} and ${all.length - 12} more; unknown a`,
    )
  })

  it('of integers is refused', async () => {
    const folder = await folderWith((sharding) => {
      const home = shardNames.indexOf(sharding.weightMap.x_pad_token as string) as 0 | 1
      sharding.shards[home].x_pad_token = zeros([1, 24], { dtype: 'int32' }) as Tensor
    })
    await expectRejection(
      () => models.loadZImage(folder),
      'ERR_FORMAT',
      `${path.join(folder, 'transformer', indexName)}: expected tensors of F32, BF16 or F16, got x_pad_token I32`,
    )
  })

  it('in the vae is refused under its file', async () => {
    const folder = await folderWith()
    const file = path.join(folder, 'vae', 'diffusion_pytorch_model.safetensors')
    const state = { ...written.autoencoder.state() }
    delete state['encoder.conv_in.bias']
    await io.saveSafetensors(file, state)
    await expectRejection(
      () => models.loadZImage(folder),
      'ERR_FORMAT',
      `${file}: missing encoder.conv_in.bias`,
    )
  })
})

describe('a folder with other files', () => {
  it('is refused without a shard, naming it', async () => {
    const folder = await folderWith()
    await rm(path.join(folder, 'transformer', shardNames[1]))
    await expectRejection(
      () => models.loadZImage(folder),
      'ERR_IO',
      `${path.join(folder, 'transformer', indexName)}: missing shards ${shardNames[1]}`,
    )
  })

  it('is refused with a shard that was cut short', async () => {
    const folder = await folderWith()
    const shard = path.join(folder, 'transformer', shardNames[0])
    const bytes = await readFile(shard)
    await writeFile(shard, bytes.subarray(0, bytes.length - 3))
    await expectRejection(() => models.loadZImage(folder), 'ERR_FORMAT', /truncated\?/)
  })

  it('is refused without weights, and with two kinds of them', async () => {
    const folder = await folderWith()
    const vae = path.join(folder, 'vae')
    await writeJson(path.join(vae, indexName), { weight_map: {} })
    const [file, both] = ['diffusion_pytorch_model.safetensors', indexName]
    await expectRejection(
      () => models.loadZImage(folder),
      'ERR_FORMAT',
      `${vae}: expected ${file} or ${both}, got both`,
    )
    await rm(path.join(vae, indexName))
    await rm(path.join(vae, file))
    await expectRejection(
      () => models.loadZImage(folder),
      'ERR_IO',
      `${vae}: expected ${file} or ${both}, got neither`,
    )
  })

  it('is refused where there is no folder, or none of its configs', async () => {
    const folder = await folderWith()
    await expectRejection(
      () => models.loadZImage(path.join(folder, 'none')),
      'ERR_IO',
      /none\/transformer\/config\.json: could not be read/,
    )
    await expectRejection(
      () => models.loadZImage(''),
      'ERR_CONFIG',
      'folder: expected a path, got ""',
    )
  })
})

describe('configs', () => {
  const cases: [file: string, config: object, message: string][] = [
    [
      'model_index.json',
      { transformer: ['diffusers', 'FluxTransformer2DModel'], vae: ['diffusers', 'AutoencoderKL'] },
      'transformer: expected ZImageTransformer2DModel, got "FluxTransformer2DModel"',
    ],
    [
      'model_index.json',
      { transformer: ['diffusers', 'ZImageTransformer2DModel'] },
      'vae: expected AutoencoderKL, got undefined',
    ],
    [
      'transformer/config.json',
      { ...transformerConfig, _class_name: 'ZImageControlTransformer' },
      '_class_name: expected ZImageTransformer2DModel, got "ZImageControlTransformer"',
    ],
    [
      'transformer/config.json',
      { ...transformerConfig, siglip_feat_dim: 1152 },
      'siglip_feat_dim: expected null, got 1152',
    ],
    [
      'transformer/config.json',
      { ...transformerConfig, dim: 25 },
      'config.dim: expected n_heads times the sum of axes_dims, 2 x 12, got 25',
    ],
    [
      'transformer/config.json',
      { ...transformerConfig, norm_eps: -1 },
      'config.norm_eps: expected a number above 0, got -1',
    ],
    [
      'transformer/config.json',
      { ...transformerConfig, in_channels: 5 },
      'in_channels: expected the latent_channels of the vae, 4, got 5',
    ],
    [
      'vae/config.json',
      { ...autoencoderConfig, act_fn: 'relu' },
      'config.act_fn: expected one of silu; got "relu"',
    ],
    [
      'vae/config.json',
      { ...autoencoderConfig, latents_mean: [0] },
      'config.latents_mean: expected null, got [0]',
    ],
    [
      'vae/config.json',
      { ...autoencoderConfig, down_block_types: 'DownEncoderBlock2D' },
      'config.down_block_types: expected DownEncoderBlock2D for each level, got "DownEncoderBlock2D"',
    ],
    [
      'vae/config.json',
      { ...autoencoderConfig, _class_name: 'AutoencoderDC' },
      '_class_name: expected AutoencoderKL, got "AutoencoderDC"',
    ],
    [
      'scheduler/scheduler_config.json',
      { use_dynamic_shifting: true },
      'use_dynamic_shifting: expected false, got true',
    ],
    [
      'scheduler/scheduler_config.json',
      { shift: '3' },
      'shift: expected a number above 0, got "3"',
    ],
    ['scheduler/scheduler_config.json', { sigma_max: 80 }, 'sigma_max: unknown field'],
    [
      'scheduler/scheduler_config.json',
      { _class_name: 'DDIMScheduler' },
      '_class_name: expected FlowMatchEulerDiscreteScheduler, got "DDIMScheduler"',
    ],
  ]
  for (const [name, config, message] of cases)
    it(`${name} is refused: ${message}`, async () => {
      const folder = await folderWith()
      const file = path.join(folder, name)
      await writeJson(file, config)
      await expectRejection(() => models.loadZImage(folder), 'ERR_FORMAT', `${file}: ${message}`)
    })

  for (const [name, config] of [
    ['transformer/config.json', transformerConfig],
    ['vae/config.json', autoencoderConfig],
  ] as const)
    it(`${name} is refused with an unknown field, naming it`, async () => {
      const folder = await folderWith()
      await writeJson(path.join(folder, name), { ...config, attention_bias: false })
      await expectRejection(
        () => models.loadZImage(folder),
        'ERR_FORMAT',
        /config\.json: config\.attention_bias: unknown option/,
      )
    })

  it('of a scheduler may leave out the shift, which is 1 then', async () => {
    const folder = await folderWith()
    await writeJson(path.join(folder, 'scheduler', 'scheduler_config.json'), {
      base_shift: 0.5,
      shift_terminal: null,
    })
    using loaded = await models.loadZImage(folder)
    expect(loaded.shift).toBe(1)
  })
})
