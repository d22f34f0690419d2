// All cases, by family: a family is a file of this folder.
import { cases as didr } from './didr.mjs'
import { cases as elementwise } from './elementwise.mjs'
import { cases as matmul } from './matmul.mjs'
import { cases as nn } from './nn.mjs'
import { cases as optim } from './optim.mjs'
import { cases as random } from './random.mjs'
import { cases as reduce } from './reduce.mjs'
import { cases as training } from './training.mjs'

const families = { didr, random, elementwise, reduce, nn, matmul, optim, training }

export const cases = Object.entries(families).flatMap(([family, list]) =>
  list.map((entry) => ({ family, ...entry })),
)

export function caseOf(name) {
  const found = cases.find((entry) => entry.name === name)
  if (found === undefined) throw new Error(`${name}: no such case`)
  return found
}
