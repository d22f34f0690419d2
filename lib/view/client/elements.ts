/** Making and finding elements. Text goes in as text: names of runs and metrics are whatever somebody called them. */

type Properties<E> = Partial<Omit<E, 'children'>>

/** A new element with properties and children. */
export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  properties: Properties<HTMLElementTagNameMap[K]> = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag)
  Object.assign(element, properties)
  element.append(...children)
  return element
}

/** The element of the page with an id, which is of a kind. */
export function find<E extends HTMLElement>(id: string, kind: new () => E): E {
  const element = document.getElementById(id)
  if (!(element instanceof kind)) throw new Error(`#${id}: expected a ${kind.name}`)
  return element
}

/** Sets the text if it is another one, so that nothing is read out or redrawn for nothing. */
export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text
}

/** The colour of a slot: of a run in the list, in charts and beside its pictures. */
export function swatch(slot: number): HTMLElement {
  return make('span', {
    className: `swatch slot-${slot % 8}${Math.floor(slot / 8) % 2 === 1 ? ' hollow' : ''}`,
    ariaHidden: 'true',
  })
}

/**
 * Makes the children those of the keys, in their order: kept where there is one already, so that what has the focus keeps
 * it.
 */
export function keyed<E extends HTMLElement>(
  parent: HTMLElement,
  known: Map<string, E>,
  keys: readonly string[],
  create: (key: string) => E,
): void {
  for (const [key, element] of known)
    if (!keys.includes(key)) {
      element.remove()
      known.delete(key)
    }
  let before: Element | null = null
  for (const key of keys) {
    let element = known.get(key)
    if (element === undefined) {
      element = create(key)
      known.set(key, element)
    }
    const next: Element | null =
      before === null ? parent.querySelector(':scope > .keyed') : before.nextElementSibling
    element.classList.add('keyed')
    if (next !== element) parent.insertBefore(element, next)
    before = element
  }
}
