"""A net as SVG: layers from left to right, what lies where, who acts, what a guard asks for, heat and traces.

Names come from whoever wrote the net, so that every text is escaped; nothing in the file is a script or a link.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from xml.sax.saxutils import escape, quoteattr

from circuit.net.layout import Point, layered
from circuit.net.picture import Edge, EdgeKind, Node, Picture

_LAYER, _ROW, _MARGIN = 158, 96, 76
_RADIUS, _WIDTH, _HEIGHT = 17, 126, 34
_LINE = 12
_WIDE, _LINES = 20, 2
_MOST_DOTS = 4
_NOTES = 3
_FORBIDDEN = {code: None for code in range(32) if code not in (9, 10, 13)}

_ICONS = {
    "⚙": '<circle r="2.2"/><circle r="4.2" stroke-width="2" stroke-dasharray="1.65 1.65"/>',
    "✋": '<circle cy="-2.6" r="2.3"/><path d="M-4.2,4.4 a4.2,4.6 0 0 1 8.4,0 z"/>',
    "⏲": '<circle r="4.8"/><path d="M0,-3 V0 L2.4,1.4"/>',
    "✉": '<rect x="-5" y="-3.6" width="10" height="7.2" rx="1"/><path d="M-5,-3.4 L0,0.8 L5,-3.4"/>',
}

_STYLE = """
text { font: 11px Helvetica, Arial, sans-serif; fill: #1f2933; text-anchor: middle; }
.title { font-size: 15px; font-weight: bold; text-anchor: start; }
.note { font-size: 10px; fill: #52606d; }
.count { font-weight: bold; }
text.halo { fill: #ffffff; stroke: #ffffff; stroke-width: 3px; stroke-linejoin: round; }
.place { fill: #ffffff; stroke: #334e68; stroke-width: 1.5; }
.shared { stroke-dasharray: 4 3; }
.marked { fill: #ffe9a8; }
.step { fill: #f5f7fa; stroke: #334e68; stroke-width: 1.5; }
.acting { fill: #dbe9ff; stroke: #1d4ed8; }
.bad { stroke: #b3261e; }
.on { stroke: #d9480f; stroke-width: 3; }
.arc { fill: none; stroke: #627d98; stroke-width: 1.3; }
.read { stroke-dasharray: 5 3; }
.failure { stroke: #b3261e; stroke-dasharray: 2 3; }
.hold { stroke: #829ab1; stroke-dasharray: 1 4; stroke-linecap: round; stroke-width: 2.2; }
.icon { fill: none; stroke: #334e68; stroke-width: 1.2; }
.badge { fill: #d9480f; }
.badge-text { fill: #ffffff; font-size: 9px; font-weight: bold; }
""".strip()

_HEAD = """<defs>
<marker id="arrow" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="#627d98"/></marker>
<marker id="on" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="4.5" markerHeight="4.5" orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="#d9480f"/></marker>
<marker id="ring" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="8" markerHeight="8" orient="auto"><circle cx="4" cy="4" r="3" fill="#ffffff" stroke="#627d98"/></marker>
<marker id="twice" viewBox="0 0 14 8" refX="13.5" refY="4" markerWidth="12" markerHeight="7" orient="auto"><path d="M0,0 L7,4 L0,8 z M6,0 L13,4 L6,8 z" fill="#627d98"/></marker>
</defs>"""  # noqa: E501


def svg(picture: Picture) -> str:
    """The picture as the text of an SVG file."""
    return _Drawing(picture).text()


class _Drawing:
    def __init__(self, picture: Picture) -> None:
        self.picture = picture
        edges = [(edge.source, edge.target) for edge in picture.edges]
        self.layout = layered(len(picture.nodes), edges, picture.first)
        self.most = max(picture.heat.values(), default=0)
        self.order: dict[str, list[int]] = {}
        for place, name in enumerate(picture.trace, 1):
            self.order.setdefault(name, []).append(place)

    def text(self) -> str:
        picture, layout = self.picture, self.layout
        title = " ".join(picture.name.split())
        width = 2 * _MARGIN + max(layout.layers - 1, 0) * _LAYER
        height = 2 * _MARGIN + max(layout.rows - 1, 0) * _ROW
        width = max(width, 2 * _MARGIN + 8 * len(title))
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}"'
            f' viewBox="0 0 {width:g} {height:g}" role="img" aria-label={quoteattr(_clean(title))}>',
            f"<style>{_STYLE}</style>",
            _HEAD,
            f'<rect width="{width:g}" height="{height:g}" fill="#ffffff"/>',
            f'<text class="title" x="16" y="24">{_text(title)}</text>',
            *(line for edge in picture.edges for line in self._edge(edge)),
            *(line for number, node in enumerate(picture.nodes) for line in self._node(number, node)),
            "</svg>",
        ]
        return "\n".join(lines) + "\n"

    def _at(self, point: Point) -> Point:
        return (_MARGIN + point[0] * _LAYER, _MARGIN + point[1] * _ROW)

    # Nodes

    def _node(self, number: int, node: Node) -> Iterator[str]:
        x, y = self._at(self.layout.points[number])
        yield f"<g><title>{_text(chr(10).join((node.label, *node.details)))}</title>"
        yield from self._place(node, x, y) if node.place else self._step(node, x, y)
        yield "</g>"

    def _place(self, node: Node, x: float, y: float) -> Iterator[str]:
        if node.shared:
            label = _short(node.label)
            yield (
                f'<rect class="place shared" x="{x - _WIDTH / 2 + 8:g}" y="{y - _RADIUS:g}" width="{_WIDTH - 16}"'
                f' height="{2 * _RADIUS}" rx="{_RADIUS}"/>'
            )
            yield from _lines(label, x, y + 4 - (len(label) - 1) * _LINE / 2)
            yield from _beside(list(node.notes), x, y + _RADIUS + _LINE, "note")
            return
        marked = " marked" if node.tokens else ""
        bad = " bad" if node.bad else ""
        yield f'<circle class="place{marked}{bad}" cx="{x:g}" cy="{y:g}" r="{_RADIUS}"/>'
        if node.final:
            yield f'<circle class="place{marked}{bad}" cx="{x:g}" cy="{y:g}" r="{_RADIUS - 4}"/>'
        yield from _tokens(node.tokens or 0, x, y)
        notes = [f"at most {node.capacity}"] if node.capacity is not None else []
        yield from _beside(_short(node.label), x, y + _RADIUS + _LINE)
        yield from _beside(notes, x, y + _RADIUS + _LINE * (1 + len(_short(node.label))), "note")

    def _step(self, node: Node, x: float, y: float) -> Iterator[str]:
        heat = self.picture.heat.get(node.name)
        kind = " acting" if node.acting else ""
        on = " on" if node.name in self.order else ""
        fill = f' style="fill: {_warm(heat / self.most)}"' if heat is not None and self.most else ""
        label = _short(node.label)
        yield (
            f'<rect class="step{kind}{on}" x="{x - _WIDTH / 2:g}" y="{y - _HEIGHT / 2:g}" width="{_WIDTH}"'
            f' height="{_HEIGHT}" rx="4"{fill}/>'
        )
        yield from _lines(label, x, y + 4 - (len(label) - 1) * _LINE / 2)
        yield from _icon(node.sign, x + _WIDTH / 2 - 3, y - _HEIGHT / 2)
        notes = [_cut(note, _WIDE + 6) for note in node.notes[:_NOTES]]
        if len(node.notes) > _NOTES:
            notes[-1] += " …"
        if heat is not None:
            notes.insert(0, f"{heat:g} firings" if heat != 1 else "1 firing")
        yield from _beside(notes, x, y + _HEIGHT / 2 + _LINE, "note")
        if on:
            places = self.order[node.name]
            shown = ",".join(map(str, places[:3])) + ("…" if len(places) > 3 else "")
            across = 10 + 6 * len(shown)
            yield (
                f'<rect class="badge" x="{x - _WIDTH / 2 - 4:g}" y="{y - _HEIGHT / 2 - 9:g}" width="{across}"'
                ' height="14" rx="7"/>'
            )
            yield (
                f'<text class="badge-text" x="{x - _WIDTH / 2 - 4 + across / 2:g}" y="{y - _HEIGHT / 2 + 1:g}">'
                f"{shown}</text>"
            )

    # Edges

    def _edge(self, edge: Edge) -> Iterator[str]:
        nodes = self.picture.nodes
        way = [self._at(point) for point in self.layout.ways.get((edge.source, edge.target), ())]
        if len(way) < 2:
            return
        way[0] = _border(nodes[edge.source], way[0], way[1])
        way[-1] = _border(nodes[edge.target], way[-1], way[-2])
        step = nodes[edge.target] if nodes[edge.source].place else nodes[edge.source]
        on = step.name in self.order and edge.kind is EdgeKind.PLAIN
        kind = {EdgeKind.READ: " read", EdgeKind.FAILURE: " failure", EdgeKind.HOLD: " hold"}.get(edge.kind, "")
        end = {EdgeKind.INHIBIT: "ring", EdgeKind.RESET: "twice"}.get(edge.kind, "on" if on else "arrow")
        lit = ' style="stroke: #d9480f; stroke-width: 2.4"' if on else ""
        ends = f'marker-end="url(#{end})"' if edge.kind is not EdgeKind.HOLD else ""
        yield f'<path class="arc{kind}" d="{_curve(way)}" {ends}{lit}/>'
        if edge.note:
            x, y = _middle(way)
            yield from _beside([_cut(edge.note, _WIDE)], x, y - 4, "count")


def _curve(way: list[Point]) -> str:
    """A line through the points that leaves and enters each of them level."""
    parts = [f"M{way[0][0]:.1f},{way[0][1]:.1f}"]
    for (x, y), (u, v) in pairwise(way):
        half = (u - x) / 2
        parts.append(f"C{x + half:.1f},{y:.1f} {u - half:.1f},{v:.1f} {u:.1f},{v:.1f}")
    return " ".join(parts)


def _middle(way: list[Point]) -> Point:
    at = (len(way) - 1) // 2
    (x, y), (u, v) = way[at], way[at + 1]
    return ((x + u) / 2, (y + v) / 2)


def _border(node: Node, at: Point, towards: Point) -> Point:
    """Where an edge meets the node: at the side that faces the other end, since edges run level there."""
    reach = _RADIUS if node.place and not node.shared else _WIDTH / 2 - (8 if node.shared else 0)
    return (at[0] + (reach if towards[0] >= at[0] else -reach), at[1])


def _tokens(count: int, x: float, y: float) -> Iterator[str]:
    if not count:
        return
    if count > _MOST_DOTS:
        yield f'<text class="count" x="{x:g}" y="{y + 4:g}">{count}</text>'
        return
    spots = {1: [(0, 0)], 2: [(-5, 0), (5, 0)], 3: [(-5, 4), (5, 4), (0, -5)], 4: [(-5, -5), (5, -5), (-5, 5), (5, 5)]}
    for dx, dy in spots[count]:
        yield f'<circle cx="{x + dx:g}" cy="{y + dy:g}" r="3.4" fill="#1f2933"/>'


def _icon(sign: str, x: float, y: float) -> Iterator[str]:
    """Who fires a transition, drawn: letters for such signs are not in every font."""
    if shape := _ICONS.get(sign):
        yield f'<g class="icon" transform="translate({x:g} {y:g})"><circle r="8.5" fill="#ffffff"/>{shape}</g>'


def _lines(lines: list[str], x: float, y: float, kind: str = "") -> Iterator[str]:
    named = f' class="{kind}"' if kind else ""
    for index, line in enumerate(lines):
        yield f'<text{named} x="{x:g}" y="{y + index * _LINE:g}">{_text(line)}</text>'


def _beside(lines: list[str], x: float, y: float, kind: str = "") -> Iterator[str]:
    """Lines that stand free: on a white shadow, so that an edge below them does not make them hard to read."""
    yield from _lines(lines, x, y, f"{kind} halo".strip())
    yield from _lines(lines, x, y, kind)


def _short(text: str) -> list[str]:
    """A name on few short lines; what is too long is cut in the middle, where names differ least."""
    flat = " ".join(text.split())
    if len(flat) <= _WIDE:
        return [flat]
    if len(flat) > _WIDE * _LINES:
        flat = f"{flat[: _WIDE - 1]}…{flat[-(_WIDE - 1) :]}"
    return _halved(flat)


def _halved(text: str) -> list[str]:
    """The text on two lines, parted at the mark nearest to its middle."""
    middle = len(text) / 2
    parts = [
        index + 1 for index, letter in enumerate(text[:-1]) if letter in " _.:-/…" and 4 < index + 1 < len(text) - 4
    ]
    fitting = [index for index in parts if index <= _WIDE + 1 and len(text) - index <= _WIDE + 1]
    at = min(fitting, key=lambda index: abs(index - middle)) if fitting else min(_WIDE, round(middle + 0.5))
    return [text[:at].strip(), text[at:].strip()]


def _cut(text: str, width: int) -> str:
    """The end of a text that is too long: in conditions what is asked for stands there."""
    line = " ".join(text.split())
    return line if len(line) <= width else f"…{line[-(width - 1) :]}"


def _warm(share: float) -> str:
    """From pale yellow to red, by how much of the most it is."""
    cold, hot = (255, 251, 230), (240, 101, 67)
    mixed = (round(a + (b - a) * max(0.0, min(share, 1.0))) for a, b in zip(cold, hot, strict=True))
    return f"rgb({', '.join(map(str, mixed))})"


def _clean(text: str) -> str:
    return text.translate(_FORBIDDEN)


def _text(text: str) -> str:
    return escape(_clean(text))
