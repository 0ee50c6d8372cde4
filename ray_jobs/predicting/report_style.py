"""The page that report_page.py fills in: its markup, look and behaviour."""

from string import Template

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --strong: #3578c8; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 1320px; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0.2rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.6rem; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
#settings td { text-align: left; overflow-wrap: anywhere; } #settings th { text-align: left; vertical-align: top; }
#cases { width: 100%; } #cases thead th { position: sticky; top: 0; background: Canvas; vertical-align: bottom; }
button { font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer; text-align: inherit; }
button:focus-visible { outline: 2px solid var(--strong); }
thead button { font-weight: 600; } thead button::after { content: " \\2195"; opacity: 0.35; }
th[aria-sort="ascending"] button::after { content: " \\2191"; opacity: 1; }
th[aria-sort="descending"] button::after { content: " \\2193"; opacity: 1; }
tr.scores:hover { background: var(--soft); }
.unfold { color: var(--strong); white-space: nowrap; } .unfold::before { content: "\\25B8\\00A0"; }
.unfold[aria-expanded="true"]::before { content: "\\25BE\\00A0"; }
tr.figures td { text-align: center; background: #000; } img { max-width: 100%; height: auto; }
.actions { display: flex; gap: 1.2rem; margin: 0.4rem 0 0.6rem; } .actions button { color: var(--strong); }
.wide { overflow-x: auto; }
"""

_SCRIPT = """
"use strict";
const table = document.getElementById("cases");
const heads = [...table.querySelectorAll("thead th")];
const values = (body, column) => body.querySelector("tr.scores").cells[column].dataset.value;
function compare(a, b) {
  if (a === "" || b === "") return (a === "") - (b === "");
  const numbers = [Number(a), Number(b)];
  return numbers.some(Number.isNaN) ? a.localeCompare(b, undefined, { numeric: true }) : numbers[0] - numbers[1];
}
function sortBy(column) {
  const descending = heads[column].getAttribute("aria-sort") === "ascending";
  heads.forEach((head) => head.removeAttribute("aria-sort"));
  heads[column].setAttribute("aria-sort", descending ? "descending" : "ascending");
  const bodies = [...table.tBodies].map((body) => [values(body, column), body]);
  bodies.sort(([a], [b]) => (descending && a !== "" && b !== "" ? compare(b, a) : compare(a, b)));
  table.append(...bodies.map(([, body]) => body));
}
function unfold(button, open) {
  button.setAttribute("aria-expanded", String(open));
  button.closest("tbody").querySelector("tr.figures").hidden = !open;
}
heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => sortBy(column)));
const buttons = [...table.querySelectorAll(".unfold")];
for (const button of buttons) {
  button.addEventListener("click", () => unfold(button, button.getAttribute("aria-expanded") !== "true"));
}
document.getElementById("open-all").addEventListener("click", () => buttons.forEach((each) => unfold(each, true)));
document.getElementById("close-all").addEventListener("click", () => buttons.forEach((each) => unfold(each, false)));
"""

PAGE = Template(
    f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>Segmentations: $title</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>Segmentations: $title</h1>
<p>$said</p>
<div class="wide"><table id="summary">$summary</table></div>
$refused
<h2>Cases</h2>
<p>Sorted $order; a click on a heading sorts by it, a second one turns the order round.</p>
<div class="actions"><button type="button" id="open-all">Show all figures</button>
<button type="button" id="close-all">Hide all figures</button></div>
<table id="cases"><thead><tr>$head</tr></thead>
$cases
</table>
<details><summary><h2 style="display: inline">How they were made</h2></summary>
<table id="settings">$settings</table></details>
<script>{_SCRIPT}</script>
</body>
</html>
"""
)
