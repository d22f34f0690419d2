/** The one page of the run viewer. What is in it comes from lib/view/client. */

export const icon: string =
  '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">' +
  '<rect width="16" height="16" rx="3" fill="#0072b2"/>' +
  '<path d="M2.5 4.5C6 4.5 6 11.5 13.5 11.5" fill="none" stroke="#fff" stroke-width="2" stroke-linecap="round"/></svg>\n'

export const page: string = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>didr runs</title>
<link rel="icon" href="/icon.svg">
<link rel="stylesheet" href="/style.css">
<script type="module" src="/client/main.js"></script>
</head>
<body>
<a class="skip" href="#main">Skip to the charts</a>
<header>
<h1>didr</h1>
<p id="folder" class="path"></p>
<nav aria-label="Parts of the page">
<a href="#metrics">Metrics</a>
<a href="#samples">Samples</a>
<a href="#comparisons" id="comparisons-link" hidden>Comparison</a>
<a href="#details">Details</a>
</nav>
<p id="connection" role="status"></p>
</header>
<div id="columns">
<aside aria-labelledby="runs-title">
<h2 id="runs-title">Runs</h2>
<label class="field" for="filter">Filter <input id="filter" type="search" autocomplete="off" spellcheck="false"></label>
<p class="buttons"><button type="button" id="select-all">Select all</button><button type="button" id="select-none">Select none</button><span id="count"></span></p>
<ul id="runs"></ul>
<p id="truncated" class="quiet" hidden>There are more folders than are looked through; view one further down.</p>
</aside>
<main id="main" tabindex="-1">
<section id="metrics" aria-labelledby="metrics-title">
<h2 id="metrics-title">Metrics</h2>
<div class="controls">
<label class="field" for="span">Smoothing <input id="span" type="range" min="0" max="30" step="1"> <output id="span-text" for="span"></output></label>
<label class="check"><input id="log" type="checkbox"> Logarithmic</label>
</div>
<fieldset id="names"><legend>Charts</legend></fieldset>
<div id="charts"></div>
<p id="metrics-none" class="quiet" hidden></p>
</section>
<section id="samples" aria-labelledby="samples-title">
<h2 id="samples-title">Samples</h2>
<div class="controls" id="samples-controls">
<label class="field" for="step">Step <input id="step" type="range" min="0" step="1"> <output id="step-text" for="step"></output></label>
<button type="button" id="play" aria-pressed="false">Play</button>
<span class="quiet">Arrow keys go from picture to picture</span>
</div>
<div id="pictures"></div>
<p id="samples-none" class="quiet" hidden></p>
</section>
<section id="comparisons" aria-labelledby="comparisons-title" hidden>
<h2 id="comparisons-title">Comparison</h2>
<div class="controls">
<label class="field" for="comparison">Folder <select id="comparison"></select></label>
<label class="field" for="reference">Distance to <select id="reference"></select></label>
</div>
<div id="pareto" class="chart"></div>
<p id="comparison-problem" class="problem" hidden></p>
<div class="scroll" role="region" aria-label="Table of the comparison" tabindex="0"><table id="comparison-table"></table></div>
</section>
<section id="details" aria-labelledby="details-title">
<h2 id="details-title">Details</h2>
<div id="details-list"></div>
</section>
</main>
</div>
<noscript>This page needs JavaScript.</noscript>
</body>
</html>
`
