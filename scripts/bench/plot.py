#!/usr/bin/env python3
"""Draws the ratios against the peers: a bar a case with the spread of its rounds as a whisker and the bar that was set as a tick.

    plot.py build/bench/figures.jsonl > out.svg

An SVG written by hand: no library, and the style sheet in it follows the reader's light or dark scheme. The axis is logarithmic and
counts how many times better ours is: where less is better (time, memory) the ratio is turned over. Only cases of groups named
"against …" are drawn; the others are ratios to ourselves.
"""
import json, math, sys
from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT, ROW, GROUP_GAP, TOP, FOOT = 860, 330, 150, 22, 34, 64, 44
STYLE = """
  text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #24292f }
  .title { font-weight: 600; font-size: 16px } .group { font-weight: 600 } .dim { fill: #57606a; font-size: 12px }
  .bar { fill: #2f7ebb } .missed { fill: #c2621b } .grid { stroke: #d0d7de } .one { stroke: #57606a }
  .whisker { stroke: #12344d; stroke-width: 1.5 } .goal { stroke: #24292f; stroke-width: 2.5 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .dim { fill: #9da7b3 } .bar { fill: #58a6ff } .missed { fill: #f0883e } .grid { stroke: #30363d }
    .one { stroke: #9da7b3 } .whisker { stroke: #cae3ff } .goal { stroke: #e6edf3 }
  }"""


def better(j):
    """median, low, high, bar as `times better`."""
    turn = (lambda x: 1 / x if x else math.inf) if j["less"] else (lambda x: x)
    low, high = sorted((turn(j["low"]), turn(j["high"])))
    return turn(j["median"]), low, high, None if j["bar"] is None else turn(j["bar"])


def short(x):
    return f"{x:.0f}" if x >= 10 else f"{x:.1f}" if x >= 2 else f"{x:.2f}"


def ticks(low, high):
    return [m * 10 ** e for e in range(-2, 4) for m in (1, 2, 5) if low <= m * 10 ** e <= high]


def svg(judgements):
    shown = [j for j in judgements if j["group"].startswith("against") and j["median"] > 0]
    numbers = [x for j in shown for x in better(j) if x is not None and math.isfinite(x)]
    low, high = min([0.8, *numbers]) * 0.95, max([4.0, *numbers]) * 1.1
    span = math.log(high / low)

    def at(v):
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log(min(max(v, low), high) / low) / span

    rows, y, group = [], TOP, None
    for j in shown:
        if j["group"] != group:
            y += GROUP_GAP if group else 22
            group = j["group"]
            rows.append(f'<text class="group" x="16" y="{y}">{escape(group)}</text>')
        y += ROW
        m, lo, hi, goal = better(j)
        x0, x1 = sorted((at(1), at(m)))
        rows.append(f'<text x="{LEFT - 10}" y="{y + 5}" text-anchor="end">{escape(j["case"])}</text>')
        rows.append(f'<rect class="{"missed" if j["met"] is False else "bar"}" x="{x0:.1f}" y="{y - 7}" width="{max(1, x1 - x0):.1f}" height="14" rx="2"/>')
        rows.append(f'<path class="whisker" d="M{at(lo):.1f} {y}H{at(hi):.1f}M{at(lo):.1f} {y - 4}v8M{at(hi):.1f} {y - 4}v8"/>')
        if goal:
            rows.append(f'<path class="goal" d="M{at(goal):.1f} {y - 9}v18"/>')
        rows.append(f'<text x="{max(at(hi), x1, at(goal or low)) + 9:.1f}" y="{y + 5}">{short(m)}x<tspan class="dim"> ({short(lo)}..{short(hi)})</tspan></text>')
    bottom = y + 18
    axis = [f'<path class="{"one" if t == 1 else "grid"}" d="M{at(t):.1f} {TOP}V{bottom}"/><text class="dim" x="{at(t):.1f}" y="{bottom + 16}" '
            f'text-anchor="middle">{t:g}</text>' for t in ticks(low, high)]
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + FOOT}" width="{WIDTH}" height="{bottom + FOOT}" role="img" '
        f'aria-label="Quern against its peers">', f"<style>{STYLE}</style>",
        '<text class="title" x="16" y="26">Times better than the peer on the same machine</text>',
        '<text class="dim" x="16" y="46">bar: median of interleaved rounds · whisker: their spread · tick: the bar that was set, orange where '
        'it was missed · log scale</text>', *axis, *rows, "</svg>"]) + "\n"


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with open(sys.argv[1]) as f:
        print(svg([x for x in map(json.loads, f) if "group" in x]), end="")


if __name__ == "__main__":
    main()
