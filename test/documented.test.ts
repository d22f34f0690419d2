/** That every public name is explained where it is declared. */
import { fileURLToPath } from 'node:url'
import { API, type Checker, SymbolFlags, type Symbol as TypeSymbol } from 'typescript/unstable/sync'
import { expect, it } from 'vitest'

const root = fileURLToPath(new URL('..', import.meta.url))

/** What a module exports, by `name` or, of a namespace, `namespace.name`. */
function* exportsOf(
  module: TypeSymbol,
  checker: Checker,
  path = '',
): Generator<[string, TypeSymbol]> {
  for (const exported of checker.getExportsOfModule(module)) {
    const isAlias = (exported.flags & SymbolFlags.Alias) !== 0
    const symbol = isAlias ? checker.getAliasedSymbol(exported) : exported
    const name = `${path}${exported.name}`
    // A namespace is a module of ours, `export * as io`: what is in it is what has to be documented.
    if ((symbol.flags & SymbolFlags.ValueModule) !== 0)
      yield* exportsOf(symbol, checker, `${name}.`)
    else yield [name, symbol]
  }
}

it('every public name has a docstring', () => {
  const api = new API({ cwd: root })
  try {
    const project = api.updateSnapshot({ openProjects: [`${root}tsconfig.json`] }).getProjects()[0]
    const { program, checker } = project as NonNullable<typeof project>
    const index = program.getSourceFile(`${root}lib/index.ts`)
    const module = checker.getSymbolAtLocation(index as NonNullable<typeof index>)
    const names = [...exportsOf(module as NonNullable<typeof module>, checker)]
    expect(names.map(([name]) => name)).toEqual(
      expect.arrayContaining(['createDidr', 'DidrOptions', 'models.oneStep', 'rewards.Reward']),
    )
    const bare = names.filter(([, symbol]) => symbol.getDocumentationComment(checker).trim() === '')
    expect(bare.map(([name]) => name)).toEqual([])
  } finally {
    api.close()
  }
})
