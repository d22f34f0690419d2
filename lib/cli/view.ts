/** `npx didr view`: runs in the browser, while they train and after. */
import { parseArgs } from 'node:util'
import { fail } from '../errors.js'
import { defaultPort, ViewServer } from '../view/server.js'
import { numberOf } from './options.js'

const usage = `Usage: didr view [<folder>] [options]

Shows the runs in a folder, at any depth, in the browser: lists them, follows their metrics while they train, compares
them, scrubs their samples over training, and plots what \`compare\` has found.

It listens on 127.0.0.1 only, changes nothing, and reads nothing outside of the folder. From another machine:
ssh -L ${defaultPort}:127.0.0.1:${defaultPort} <host>. Other users of this machine can open the page, too.

Argument: the folder; default runs

Options:
  --port <n>   default ${defaultPort}, or one that is free where that is taken
  --help       this text

Ctrl-C ends it.`

export async function view(args: string[]): Promise<number> {
  const { values, positionals } = parsed(args)
  if (values.help) {
    console.log(usage)
    return 0
  }
  const [folder = 'runs', ...more] = positionals
  if (more.length > 0) fail('ERR_CONFIG', `view: expected one folder, got ${positionals.length}`)
  const port = numberOf('--port', values.port)
  if (port !== undefined && !(Number.isInteger(port) && port >= 0 && port <= 65535))
    fail('ERR_CONFIG', `--port: expected an integer from 0 to 65535, got ${port}`)
  const server = await ViewServer.start(folder, { port })
  console.log(`${server.folder.root}: ${server.url}`)
  await new Promise<void>((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve())
  })
  await server.close()
  return 0
}

function parsed(args: string[]) {
  try {
    return parseArgs({
      args,
      allowPositionals: true,
      options: { port: { type: 'string' }, help: { type: 'boolean' } },
    })
  } catch (error) {
    return fail('ERR_CONFIG', `view: ${(error as Error).message}`)
  }
}
