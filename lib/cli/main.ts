#!/usr/bin/env node
/** `npx didr <command>`. */
import { DidrError } from '../errors.js'

interface Command {
  summary: string
  load: () => Promise<(args: string[]) => number | Promise<number>>
}

/** In the order of the usage. Each is loaded when it is asked for. */
const commands: Readonly<Record<string, Command>> = {
  demo: {
    summary: 'the whole job in a few minutes, with a report',
    load: async () => (await import('./demo.js')).demo,
  },
  train: {
    summary: 'align a one-step generator with a reward',
    load: async () => (await import('./train.js')).train.bind(undefined, 'train'),
  },
  sample: {
    summary: 'images from prompts',
    load: async () => (await import('./sample.js')).sample,
  },
  eval: {
    summary: "rewards, distances and alarms of generators' images",
    load: async () => (await import('./eval.js')).evaluate,
  },
  compare: {
    summary: 'every method of the family at equal budget',
    load: async () => (await import('./compare.js')).compare,
  },
  view: {
    summary: 'runs in the browser, while they train and after',
    load: async () => (await import('./view.js')).view,
  },
  pretrain: {
    summary: 'train autoencoder, teacher or CLIP on a folder of images and prompts',
    load: async () => (await import('./pretrain.js')).pretrain,
  },
  distill: {
    summary: 'make a one-step generator from a teacher',
    load: async () => (await import('./train.js')).train.bind(undefined, 'distill'),
  },
  references: {
    summary: 'what eval compares with',
    load: async () => (await import('./eval.js')).references,
  },
  plan: {
    summary: 'the memory that aligning Z-Image takes of a GPU',
    load: async () => (await import('./plan.js')).plan,
  },
  verify: {
    summary: 'train on a problem with a known answer and compare',
    load: async () => (await import('./verify.js')).verify,
  },
  inspect: {
    summary: 'what was loaded and from where: devices, instruction level, threads, BLAS, memory',
    load: async () => (await import('./inspect.js')).inspect,
  },
}

const usage = `Usage: didr <command> [options]

Commands:
${Object.entries(commands)
  .map(([name, { summary }]) => `  ${name.padEnd(12)}${summary}`)
  .join('\n')}

Options:
  --help      this text; after a command, that command's
  --version   the package's version`

async function main([name, ...args]: string[]): Promise<number> {
  if (name === '--version') {
    console.log((await import('./version.js')).version)
    return 0
  }
  if (name === '--help') {
    console.log(usage)
    return 0
  }
  const command = name !== undefined && Object.hasOwn(commands, name) ? commands[name] : undefined
  if (command !== undefined) return (await command.load())(args)
  const complaint = name === undefined ? '' : `didr: unknown command ${JSON.stringify(name)}\n\n`
  console.error(`${complaint}${usage}`)
  return 2
}

try {
  process.exitCode = await main(process.argv.slice(2))
} catch (error) {
  if (!(error instanceof DidrError)) throw error
  console.error(`didr: ${error.message} [${error.code}]`)
  process.exitCode = error.code === 'ERR_CONFIG' ? 2 : 1
}
