/** The demo on the models that come with the package, with few steps and images. */
import { spawn } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import path from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { temporaryFolder } from '../data/shapes.js'
import { runCommand } from '../fixtures/run-program.js'

const command = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../dist/cli/main.js')
const few = ['--steps', '4', '--count', '16', '--pictures', '4']

describe('the demo', () => {
  it('leaves a report of one file, with pictures, plots and what it was made with', async () => {
    const out = path.join(await temporaryFolder(), 'demo')
    const { code, stdout, stderr } = await runCommand(['demo', '--out', out, ...few], {
      milliseconds: 240_000,
    })
    expect(code, stderr).toBe(0)
    expect(stdout).toBe(`${path.join(out, 'report.html')}\n`)
    const page = await readFile(path.join(out, 'report.html'), 'utf8')
    // Nothing is asked for from elsewhere.
    expect(page).not.toMatch(/(src|href)="(?!data:)/)
    expect(page.match(/data:image\/png/g)).toHaveLength(3 * 4)
    expect(page.match(/data:image\/svg\+xml/g)).toHaveLength(4)
    for (const text of [
      '<td>base</td>',
      '<td>aligned</td>',
      '<td>teacher, 50 steps</td>',
      '&#34;beta&#34;',
    ])
      expect(page).toContain(text)

    // Killed after its first step, and resumed: the same weights.
    const killed = path.join(path.dirname(out), 'killed')
    const child = spawn(process.execPath, [command, 'demo', '--out', killed, ...few], {
      stdio: 'ignore',
    })
    const ended = new Promise((resolve) => child.on('close', resolve))
    const log = path.join(killed, 'metrics.jsonl')
    while (!(existsSync(log) && readFileSync(log, 'utf8').includes('\n'))) await setTimeout(5)
    child.kill('SIGKILL')
    await ended
    const resumed = await runCommand(['demo', '--out', killed, '--resume', ...few], {
      milliseconds: 240_000,
    })
    expect(resumed.code, resumed.stderr).toBe(0)
    const weights = (run: string) => readFile(path.join(run, 'generator.safetensors'))
    expect((await weights(killed)).equals(await weights(out))).toBe(true)
  }, 600_000)
})
