/** The page's style, light and dark. */
export const style: string = `
:root {
  color-scheme: light dark;
  --ground: #f6f7f9; --card: #fff; --ink: #1b1f24; --quiet: #5b6470; --line: #dfe3e8; --accent: #0067a6;
  --good: #14733c; --good-ground: #def3e4; --halt: #8a4b00; --halt-ground: #fcebd3; --bad: #b3261e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #14171b; --card: #1d2126; --ink: #e6e9ed; --quiet: #9aa4b0; --line: #333a42; --accent: #6db8ee;
    --good: #7fd6a0; --good-ground: #17382a; --halt: #f0bd7d; --halt-ground: #402d14; --bad: #ff8a80;
  }
}
* { box-sizing: border-box }
[hidden] { display: none !important }
html { scroll-padding-top: 4rem }
body { margin: 0; font: 14px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--ground) }
h1, h2, h3, p { margin: 0 }
h1 { font-size: 1.15rem; letter-spacing: .01em }
h2 { font-size: 1.05rem }
h3 { font-size: .95rem; overflow-wrap: anywhere }
a { color: var(--accent) }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; border-radius: 4px }
main:focus { outline: none }
.quiet { color: var(--quiet) }
.problem { color: var(--bad) }
.skip { position: absolute; left: -100vw; top: 0; background: var(--card); padding: .5rem 1rem; z-index: 3 }
.skip:focus { left: 0 }

header {
  position: sticky; top: 0; z-index: 2; display: flex; flex-wrap: wrap; align-items: baseline; gap: .2rem 1.2rem;
  padding: .6rem 1.2rem; background: var(--card); border-bottom: 1px solid var(--line);
}
header nav { display: flex; gap: 1rem }
header nav a { text-decoration: none }
header nav a:hover { text-decoration: underline }
.path { color: var(--quiet); font-family: ui-monospace, monospace; font-size: .85rem; overflow-wrap: anywhere }
#connection { margin-left: auto; color: var(--quiet) }
#connection.lost { color: var(--bad); font-weight: 600 }

#columns { display: grid; grid-template-columns: 21rem minmax(0, 1fr); align-items: start }
aside {
  position: sticky; top: 2.9rem; height: calc(100vh - 2.9rem); overflow-y: auto; padding: 1rem; display: flex;
  flex-direction: column; gap: .7rem; border-right: 1px solid var(--line);
}
main { padding: 1rem 1.2rem 3rem; display: grid; grid-template-columns: minmax(0, 1fr); gap: 1.2rem }
section { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 1rem 1.2rem; display: grid; grid-template-columns: minmax(0, 1fr); gap: .8rem }
@media (max-width: 50rem) {
  #columns { grid-template-columns: minmax(0, 1fr) }
  main { padding: .6rem }
  section { padding: .8rem }
  aside { position: static; height: auto; max-height: 22rem; border-right: 0; border-bottom: 1px solid var(--line) }
}

button, select, input[type=search] {
  font: inherit; color: inherit; background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .2rem .6rem;
}
button { cursor: pointer }
button:hover { border-color: var(--accent) }
button[aria-pressed=true] { background: var(--accent); border-color: var(--accent); color: var(--card) }
input[type=range], input[type=checkbox] { accent-color: var(--accent) }
.field { display: inline-flex; flex-wrap: wrap; align-items: center; gap: .1rem .5rem; max-width: 100% }
label[for=filter] { flex-wrap: nowrap }
#filter { flex: 1; min-width: 0 }
.buttons { display: flex; gap: .5rem; align-items: center }
#count { margin-left: auto; color: var(--quiet) }
.check { display: inline-flex; align-items: center; gap: .35rem; cursor: pointer }
.controls { display: flex; flex-wrap: wrap; align-items: center; gap: .5rem 1.4rem }
.controls output { font-variant-numeric: tabular-nums; min-width: 8.5rem }
#span { width: 10rem }
#step { width: min(26rem, 50vw) }
fieldset { border: 0; margin: 0; padding: 0; display: flex; flex-wrap: wrap; gap: .35rem .5rem }
legend { float: left; padding: .2rem .4rem .2rem 0; color: var(--quiet) }
#names .check { border: 1px solid var(--line); border-radius: 999px; padding: .12rem .7rem .12rem .5rem; font-size: .88rem }
#names .check:hover { border-color: var(--accent) }

#runs { list-style: none; margin: 0; padding: 0; display: grid; gap: .45rem }
#runs li { border: 1px solid var(--line); border-radius: 8px; background: var(--card); padding: .5rem .65rem; display: grid; gap: .25rem }
#runs li.selected { border-color: var(--mark, var(--line)); box-shadow: inset 3px 0 0 var(--mark, var(--line)) }
#runs .head { display: flex; align-items: baseline; gap: .5rem }
#runs .name { display: flex; align-items: baseline; gap: .45rem; cursor: pointer; flex: 1; min-width: 0 }
#runs .text { font-weight: 600; overflow-wrap: anywhere; min-width: 0 }
#runs .text small { display: block; font-weight: 400 }
#runs .name input, #runs .name .swatch { position: relative; top: .1em; flex: none; margin: 0 }
#runs small { color: var(--quiet); font-size: .82rem; font-variant-numeric: tabular-nums }
.state { font-size: .75rem; border-radius: 999px; padding: 0 .5rem; background: var(--line); white-space: nowrap }
.state.training { color: var(--good); background: var(--good-ground) }
.state.training::before { content: ""; display: inline-block; width: .45rem; height: .45rem; margin-right: .3rem; border-radius: 50%; background: currentColor; animation: pulse 1.6s infinite }
.state.stopped { color: var(--halt); background: var(--halt-ground) }
@keyframes pulse { 50% { opacity: .25 } }
@media (prefers-reduced-motion: reduce) { .state.training::before { animation: none } }
progress { appearance: none; display: block; width: 100%; height: 4px; border: 0; border-radius: 2px; background: var(--line); overflow: hidden }
progress::-webkit-progress-bar { background: var(--line) }
progress::-webkit-progress-value { background: var(--accent) }
progress::-moz-progress-bar { background: var(--accent) }
.swatch { display: inline-block; width: .8em; height: .8em; border-radius: 2px; flex: none; border: 2px solid var(--mark); background: var(--mark) }
.swatch.hollow { background: transparent }

#charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(24rem, 100%), 1fr)); gap: 1rem }
.chart { position: relative; min-width: 0 }
.chart svg { display: block; max-width: 100%; height: auto }
.chart > svg { overflow: visible }
.chart .ground { fill: none }
.chart text { fill: var(--ink) }
.chart .cursor { stroke: var(--quiet); stroke-dasharray: 3 3; pointer-events: none }
figure { margin: 0 }
.readout { min-height: 1.4em; font-size: .82rem; color: var(--quiet); display: flex; flex-wrap: wrap; gap: 0 .9rem; font-variant-numeric: tabular-nums }
.readout span { display: inline-flex; align-items: center; gap: .35rem }
@media (prefers-color-scheme: dark) {
  .chart [stroke="#0072b2"] { stroke: #6f9bff } .chart [fill="#0072b2"] { fill: #6f9bff }
  .chart [stroke="#d55e00"] { stroke: #f0813a } .chart [fill="#d55e00"] { fill: #f0813a }
  .chart [stroke="#009e73"] { stroke: #35c79c } .chart [fill="#009e73"] { fill: #35c79c }
  .chart [stroke="#000000"] { stroke: #fff } .chart [fill="#000000"] { fill: #fff }
}
.slot-0 { --mark: #0072b2 } .slot-1 { --mark: #d55e00 } .slot-2 { --mark: #009e73 } .slot-3 { --mark: #cc79a7 }
.slot-4 { --mark: #e69f00 } .slot-5 { --mark: #56b4e9 } .slot-6 { --mark: #000 } .slot-7 { --mark: #999 }
@media (prefers-color-scheme: dark) {
  .slot-0 { --mark: #6f9bff } .slot-1 { --mark: #f0813a } .slot-2 { --mark: #35c79c } .slot-6 { --mark: #fff }
}

#pictures { display: flex; flex-wrap: wrap; gap: 1.2rem }
#pictures figure { display: grid; gap: .35rem; min-width: 0 }
#pictures figcaption { display: flex; align-items: center; gap: .45rem; overflow-wrap: anywhere }
#pictures img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: 4px; outline: 1px solid var(--line); cursor: ew-resize }

.scroll { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .88rem }
th, td { padding: .25rem .7rem .25rem 0; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap }
th { color: var(--quiet); font-weight: 500 }
#details-list { display: grid; gap: .6rem }
details { border: 1px solid var(--line); border-radius: 6px; padding: .4rem .8rem }
summary { cursor: pointer; overflow-wrap: anywhere }
details > div { display: grid; grid-template-columns: minmax(0, 1fr); gap: .7rem; padding: .5rem 0 }
pre { margin: 0; padding: .7rem; background: var(--ground); border-radius: 6px; overflow: auto; max-height: 24rem; font: .82rem/1.4 ui-monospace, monospace }
`
