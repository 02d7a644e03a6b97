"""How the page of an evaluation looks, and what a browser may load for it: nothing."""

CONTENT_SECURITY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:"

STYLE = """
:root { color-scheme: light dark; --line: #8886; --quiet: #8883; --model: #3b82f6; }
body { font: 14px/1.45 system-ui, sans-serif; max-width: 1240px; margin: 1.5em auto;
  padding: 0 1em; background: Canvas; color: CanvasText; }
h1, h2, h3 { line-height: 1.2; margin: 1.4em 0 .3em; }
h1 { margin-top: 0; }
p { margin: .3em 0 .7em; max-width: 90ch; opacity: .8; }
small { display: block; opacity: .75; }
.tiles { display: flex; flex-wrap: wrap; gap: .8em; }
.tiles div { border: 1px solid var(--line); border-radius: 8px; padding: .5em .9em; }
.tiles b { font-size: 1.35em; font-variant-numeric: tabular-nums; }
.missed { border-left: 4px solid #dc2626; }
.notes { opacity: .8; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: .25em .6em; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--quiet); }
th { font-weight: 600; border-bottom-color: var(--line); }
th:first-child, td:first-child { text-align: left; }
svg text { font-size: 11px; fill: currentColor; }
svg .title { font-weight: 600; font-size: 13px; }
svg .end { text-anchor: end; }
svg .middle { text-anchor: middle; }
svg .grid { stroke: var(--line); fill: none; stroke-width: .6; }
svg.bar { width: 110px; height: 14px; vertical-align: middle; }
svg.bar .interval { stroke: var(--model); stroke-width: 3; }
svg.bar circle { fill: var(--model); }
svg.bar .mark { stroke: currentColor; stroke-width: 1.5; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 1em; }
.legend { display: flex; flex-wrap: wrap; gap: 1.2em; margin-bottom: .4em; }
.legend i { display: inline-block; width: 18px; height: 4px; margin-right: .4em;
  vertical-align: middle; }
details { margin: 1em 0; }
summary { cursor: pointer; font-weight: 600; }
.sheet { display: flex; gap: .6em; align-items: flex-start; overflow-x: auto;
  padding: .6em 0; border-top: 1px solid var(--quiet); }
.query { flex: 0 0 150px; overflow-wrap: anywhere; }
.query b { display: block; }
.query audio { width: 145px; height: 32px; }
.past { display: flex; flex-wrap: wrap; gap: 2px; }
.past img, .past .blank { width: 44px; height: 44px; }
figure { flex: 0 0 104px; margin: 0; padding: 4px; border: 1px solid var(--quiet);
  border-radius: 6px; }
figure.relevant { border: 2px solid #16a34a; padding: 3px; }
img, .blank { width: 96px; height: 96px; object-fit: contain; display: block; }
.blank { background: var(--quiet); font-size: 11px; text-align: center; line-height: 96px; }
.past .blank { line-height: 44px; font-size: 8px; }
figcaption { font-size: 12px; line-height: 1.3; overflow-wrap: anywhere; }
footer { margin: 2em 0; opacity: .7; font-size: 12px; }
"""
