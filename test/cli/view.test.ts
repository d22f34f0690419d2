import { spawn } from 'node:child_process'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { ViewServer } from '../../lib/view/server.js'
import { temporaryFolder } from '../data/shapes.js'
import { runCommand } from '../fixtures/run-program.js'
import { writeRun } from '../view/run-folders.js'

const command = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url))

describe('didr view', () => {
  it('--help, and arguments that are refused', async () => {
    const help = await runCommand(['view', '--help'])
    expect(help).toMatchObject({ code: 0, stderr: '' })
    expect(help.stdout).toMatch(/^Usage: didr view/)
    const root = await temporaryFolder()
    for (const [args, message] of [
      [['--prot', '1'], "view: Unknown option '--prot'"],
      [['--port', 'http'], '--port: expected a number'],
      [['--port', '70000'], '--port: expected an integer from 0 to 65535, got 70000'],
      [[root, root], 'view: expected one folder, got 2'],
    ] as const) {
      const refused = await runCommand(['view', ...args])
      expect(refused).toMatchObject({ code: 2, stdout: '' })
      expect(refused.stderr).toContain(message)
    }
    const none = await runCommand(['view', path.join(root, 'none')])
    expect(none).toMatchObject({ code: 1, stdout: '' })
    expect(none.stderr).toContain('[ERR_IO]')
    await using server = {
      view: await ViewServer.start(root, { port: 0 }),
      [Symbol.asyncDispose]: () => server.view.close(),
    }
    const taken = await runCommand(['view', root, '--port', new URL(server.view.url).port])
    expect(taken).toMatchObject({ code: 2, stdout: '' })
    expect(taken.stderr).toContain('is taken by another program')
  })

  it.each(['SIGINT', 'SIGTERM'] as const)(
    'prints its address, serves the page with its scripts, and %s ends it with 0',
    async (signal) => {
      const root = await temporaryFolder()
      await writeRun(path.join(root, 'a'), { metrics: [{ step: 1, loss: 1 }] })
      // An addon that cannot be loaded is nothing to it.
      const child = spawn(process.execPath, [command, 'view', root, '--port', '0'], {
        env: { ...process.env, DIDR_BINARY: '/nowhere/didr.node' },
        stdio: ['ignore', 'pipe', 'pipe'],
      })
      let [output, errors] = ['', '']
      child.stderr.on('data', (data) => {
        errors += data
      })
      const ended = new Promise((resolve) => child.on('close', (...all) => resolve(all)))
      await new Promise<void>((resolve) => {
        child.stdout.on('data', (data) => {
          output += data
          if (output.endsWith('\n')) resolve()
        })
        child.on('close', () => resolve())
      })
      const url = /^(.*): (http:\/\/127\.0\.0\.1:\d+\/)\n$/.exec(output)
      expect(url?.[1]).toBe(root)
      const page = await (await fetch(url?.[2] as string)).text()
      expect(page).toContain('src="/client/main.js"')
      // Every module that any of them imports is there.
      const modules = ['main.js']
      for (const name of modules) {
        const reply = await fetch(`${url?.[2]}client/${name}`)
        expect([name, reply.status]).toEqual([name, 200])
        expect(reply.headers.get('content-type')).toBe('text/javascript; charset=utf-8')
        for (const [, next] of (await reply.text()).matchAll(/from '\.\/([^']+)'/g))
          if (!modules.includes(next as string)) modules.push(next as string)
      }
      expect(modules.length).toBeGreaterThan(5)
      child.kill(signal)
      expect(await ended).toEqual([0, null])
      expect(errors).toBe('')
    },
  )
})
