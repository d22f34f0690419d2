import { writeFile } from 'node:fs/promises'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { train } from '../../lib/index.js'
import { temporaryFolder } from '../data/shapes.js'
import { runCommand } from '../fixtures/run-program.js'

const config = {
  transformer: {
    ...{ dim: 24, n_layers: 2, n_refiner_layers: 1, n_heads: 2, in_channels: 4 },
    ...{ cap_feat_dim: 6, axes_dims: [4, 4, 4], axes_lens: [32, 16, 16], pad_multiple: 4 },
  },
  autoencoder: { block_out_channels: [4, 8], norm_num_groups: 2 },
  captionTokens: 3,
  didr: { guidance: 2, drs: { estimator: 'particles', particles: 2 } },
} as const

async function written(value: unknown): Promise<string> {
  const file = path.join(await temporaryFolder(), 'plan.json')
  await writeFile(file, JSON.stringify(value))
  return file
}

describe('didr plan', () => {
  it('--json says what planMemory does', async () => {
    const file = await written(config)
    const args = ['plan', '--config', file, '--batch', '3', '--size', '16', '--json']
    const { code, stdout, stderr } = await runCommand([...args, '--gpu', '1GB'])
    expect([code, stderr]).toEqual([0, ''])
    const of = (checkpointing: boolean) =>
      train.planMemory(config, { batchSize: 3, size: 16, checkpointing })
    expect(JSON.parse(stdout)).toEqual({
      batchSize: 3,
      size: 16,
      available: 1e9,
      checkpointing: await of(true),
      noCheckpointing: await of(false),
    })
  })

  it('prints both ways and whether the one asked about fits', async () => {
    const file = await written(config)
    const args = ['plan', '--config', file, '--size', '8', '--gpu']
    const fits = await runCommand([...args, '0.5 GiB'])
    expect(fits).toMatchObject({ code: 0, stderr: '' })
    expect(fits.stdout).toMatch(/^batch 1, 8 x 8 pixels\n\n +with checkpointing +without\n/)
    expect(fits.stdout).toMatch(/\npeak +0\.00 GiB +0\.00 GiB\n/)
    expect(fits.stdout).toMatch(
      /\nfits 0\.5 GiB with checkpointing: 0\.00 GiB of 0\.50 GiB, which leaves 0\.50 GiB for/,
    )
    const full = await runCommand([...args, '0.00001GB', '--no-checkpointing'])
    expect(full).toMatchObject({ code: 1, stderr: '' })
    expect(full.stdout).toMatch(/\ndoes not fit 0\.00001GB without checkpointing: /)
  })

  it('refuses options and configs that cannot be', async () => {
    const refused = async (args: string[], message: string | RegExp) => {
      const { code, stdout, stderr } = await runCommand(['plan', ...args])
      expect([code, stdout]).toEqual([2, ''])
      expect(stderr).toMatch(message)
    }
    await refused(['--gpu', '80'], 'didr: --gpu: expected a number of GB or GiB, got "80"')
    await refused(['--batch', 'four'], 'didr: --batch: expected a number, got "four"')
    await refused(['--bacth', '4'], /^didr: plan: Unknown option '--bacth'/)
    await refused(['--config', await written({ unet: {} })], 'config.unet: unknown option')
    await refused(
      ['--config', await written({ transformer: { dim: 100 } })],
      'config.dim: expected n_heads times the sum of axes_dims',
    )
    const drs = { didr: { drs: { estimator: 'drp', particle: 4 } } }
    await refused(['--config', await written(drs)], 'particle')
    const absent = await runCommand(['plan', '--config', 'no-such.json'])
    expect(absent).toMatchObject({ code: 1, stdout: '' })
  })

  it('--help', async () => {
    const { code, stdout } = await runCommand(['plan', '--help'])
    expect(code).toBe(0)
    expect(stdout).toMatch(/^Usage: didr plan/)
    expect((await runCommand(['--help'])).stdout).toContain('plan ')
  })
})
