import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import os from 'node:os'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { runCommand } from '../fixtures/run-program.js'

const { version } = createRequire(import.meta.url)('../../package.json')

describe('didr', () => {
  it('--version', async () => {
    expect(await runCommand(['--version'])).toEqual({
      code: 0,
      signal: null,
      stdout: `${version}\n`,
      stderr: '',
    })
  })

  it('--help goes to standard output; no command, to standard error with code 2', async () => {
    const help = await runCommand(['--help'])
    expect(help).toMatchObject({ code: 0, stderr: '' })
    expect(help.stdout).toMatch(/^Usage: didr <command>/)
    const none = await runCommand([])
    expect(none).toMatchObject({ code: 2, stdout: '' })
    expect(none.stderr).toBe(help.stdout)
  })

  it('every command has a help text of its own', async () => {
    const { stdout } = await runCommand(['--help'])
    const commands = Array.from(stdout.matchAll(/^ {2}([a-z]+) /gm), ([, name]) => name as string)
    expect(commands).toContain('inspect')
    for (const command of commands) {
      const help = await runCommand([command, '--help'])
      expect(help, command).toMatchObject({ code: 0, stderr: '' })
      expect(help.stdout).toMatch(new RegExp(`^Usage: didr ${command}\\b[^]* --help +this text`))
    }
  })

  it('an unknown command or option', async () => {
    const command = await runCommand(['inspekt'])
    expect(command).toMatchObject({ code: 2, stdout: '' })
    expect(command.stderr).toMatch(/^didr: unknown command "inspekt"\n\nUsage: didr/)
    const option = await runCommand(['inspect', '--jsn'])
    expect(option).toMatchObject({ code: 2, stdout: '' })
    expect(option.stderr).toMatch(/^didr: inspect: Unknown option '--jsn'.*\[ERR_CONFIG\]\n$/)
    expect(await runCommand(['inspect', 'more'])).toMatchObject({ code: 2, stdout: '' })
    expect(await runCommand(['--verbose'])).toMatchObject({ code: 2, stdout: '' })
  })
})

describe('didr inspect', () => {
  it('--json', async () => {
    const { code, stdout, stderr } = await runCommand(['inspect', '--json'], {
      env: { DIDR_NUM_THREADS: '3' },
    })
    expect([code, stderr]).toEqual([0, ''])
    const report = JSON.parse(stdout)
    expect(report).toMatchObject({
      didr: version,
      node: process.version,
      platform: `${process.platform}-${process.arch}`,
      processor: expect.any(String),
    })
    expect(report.addon.file).toMatch(/didr\.node$/)
    expect(report.addon.refused).toBeInstanceOf(Array)
    const cpu = report.devices[0]
    expect(cpu).toMatchObject({
      name: 'cpu',
      threads: '3',
      instructionLevel: expect.stringMatching(/^(v2|v3|v4|base)$/),
    })
    expect(cpu.blas.length).toBeGreaterThan(0)
    expect(Number(cpu.memoryLimitBytes)).toBeGreaterThan(2 ** 20)
    // CUDA is either there or was refused with a reason.
    const names = [...report.devices, ...report.refusedDevices].map(
      ({ name }: { name: string }) => name,
    )
    expect(names.some((name) => name.startsWith('cuda'))).toBe(true)
    for (const { reason } of report.refusedDevices) expect(reason.length).toBeGreaterThan(10)
    for (const field of ['tensors', 'bytes', 'pooledBytes', 'peakBytes', 'systemBytes'])
      expect(report.memory[field]).toBeGreaterThanOrEqual(0)
  })

  it('for people', async () => {
    const { code, stdout, stderr } = await runCommand(['inspect'])
    expect([code, stderr]).toEqual([0, ''])
    for (const fact of [
      `didr                ${version}`,
      'processor',
      'addon',
      'device              cpu',
      '  instructionLevel',
      '  threads',
      '  blas',
      'memory in use',
    ])
      expect(stdout).toContain(fact)
  })

  it('obeys DIDR_SIMD and shows it', async () => {
    const { stdout } = await runCommand(['inspect', '--json'], { env: { DIDR_SIMD: 'v2' } })
    expect(JSON.parse(stdout).devices[0].instructionLevel).toMatch(
      process.arch === 'x64' ? /^v2$/ : /^base$/,
    )
  })

  it('says what was tried when the addon in DIDR_BINARY is missing or broken', async () => {
    const { code, stdout } = await runCommand(['inspect', '--json'], {
      env: { DIDR_BINARY: '/nowhere/didr.node' },
    })
    // Another build may have been found; the report tells of the first attempt either way.
    if (code === 0)
      expect(JSON.parse(stdout).addon.refused[0]).toEqual({
        candidate: 'DIDR_BINARY (/nowhere/didr.node)',
        reason: 'no such file',
      })
    const broken = await runCommand(['inspect', '--json'], { env: { DIDR_BINARY: 'package.json' } })
    if (broken.code === 0)
      expect(JSON.parse(broken.stdout).addon.refused[0].candidate).toContain('package.json')
  })
})

describe('didr verify', () => {
  it('--help, and options that are refused before anything is trained', async () => {
    const help = await runCommand(['verify', '--help'])
    expect(help).toMatchObject({ code: 0, stderr: '' })
    expect(help.stdout).toMatch(/^Usage: didr verify/)
    for (const [args, path] of [
      [['--objective', 'dpo'], 'options.objective'],
      [['--estimator', 'guess'], 'options.estimator'],
      [['--steps', 'many'], '--steps'],
      [['--all', '--seeds', '0'], '--seeds'],
    ] as const) {
      const refused = await runCommand(['verify', ...args])
      expect(refused.stdout).toBe('')
      expect(refused.code).toBeGreaterThan(0)
      expect(refused.stderr).toContain(path)
    }
  })

  it('trains, and prints and writes what it found', async () => {
    const folder = mkdtempSync(path.join(os.tmpdir(), 'didr-verify-'))
    try {
      const args = ['verify', '--json', '--steps', '2', '--batch', '32', '--out', folder]
      const { code, stdout } = await runCommand(args)
      expect(code).toBe(0)
      const report = JSON.parse(stdout)
      expect(report.settings).toMatchObject({ objective: 'didr', estimator: 'exact', steps: 2 })
      expect(report.klToTarget).toBeGreaterThan(0)
      expect(readdirSync(folder).sort()).toEqual(['samples.svg', 'tracking.svg', 'verify.json'])
    } finally {
      rmSync(folder, { recursive: true })
    }
  })
})
