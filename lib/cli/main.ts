#!/usr/bin/env node
/** `npx didr <command>`. */
import { DidrError } from '../errors.js'

const usage = `Usage: didr <command> [options]

Commands:
  inspect [--json]   what was loaded and from where: devices, instruction level, threads, BLAS, memory

Options:
  --help             this text
  --version          the package's version`

async function main(args: string[]): Promise<number> {
  const [command, ...rest] = args
  switch (command) {
    case 'inspect':
      return (await import('./inspect.js')).inspect(rest)
    case '--version':
      console.log((await import('./version.js')).version)
      return 0
    case '--help':
      console.log(usage)
      return 0
    case undefined:
      console.error(usage)
      return 2
    default:
      console.error(`didr: unknown command ${JSON.stringify(command)}\n\n${usage}`)
      return 2
  }
}

try {
  process.exitCode = await main(process.argv.slice(2))
} catch (error) {
  if (!(error instanceof DidrError)) throw error
  console.error(`didr: ${error.message} [${error.code}]`)
  process.exitCode = error.code === 'ERR_CONFIG' ? 2 : 1
}
