#!/usr/bin/env node
/** `npx didr <command>`. */
import { DidrError } from '../errors.js'

const usage = `Usage: didr <command> [options]

Commands:
  inspect [--json]   what was loaded and from where: devices, instruction level, threads, BLAS, memory
  demo               the whole job in a few minutes, with a report
  train              align a one-step generator with a reward
  sample             images from prompts
  eval               rewards, distances and alarms of generators' images
  compare            every method of the family at equal budget
  pretrain <model>   train autoencoder, teacher or clip on a folder of images and prompts
  distill            make a one-step generator from a teacher
  references         what eval compares with
  verify             train on a problem with a known answer and compare

Options:
  --help             this text; after a command, that command's
  --version          the package's version`

async function main(args: string[]): Promise<number> {
  const [command, ...rest] = args
  switch (command) {
    case 'inspect':
      return (await import('./inspect.js')).inspect(rest)
    case 'pretrain':
      return (await import('./pretrain.js')).pretrain(rest)
    case 'demo':
      return (await import('./demo.js')).demo(rest)
    case 'eval':
      return (await import('./eval.js')).evaluate(rest)
    case 'compare':
      return (await import('./compare.js')).compare(rest)
    case 'references':
      return (await import('./eval.js')).references(rest)
    case 'train':
    case 'distill':
      return (await import('./train.js')).train(command, rest)
    case 'sample':
      return (await import('./sample.js')).sample(rest)
    case 'verify':
      return (await import('./verify.js')).verify(rest)
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
