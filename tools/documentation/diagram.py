"""The diagram of the tables, drawn from the entities: keys and relations, as an SVG that takes the colours of the page.

Tables stand in columns: to the left of each what it refers to. A relation that passes a column on its way has a lane of
its own there, so no line crosses a table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise

from sqlalchemy import Column, ForeignKey, Table

from data_layer.entities import Entity

WIDTH, ROW, HEAD = 160, 22, 30
GAP, BETWEEN, LANE, MARGIN = 54, 22, 8, 2


@dataclass(eq=False)
class Place:
    """A box, or a lane if it has no table. ``neighbours`` are the places it is connected with in the column before."""

    table: Table | None
    rank: int
    neighbours: list[Place] = field(default_factory=list)
    followers: list[Place] = field(default_factory=list)
    y: float = 0

    @property
    def height(self) -> int:
        """In pixels."""
        return LANE if self.table is None else HEAD + ROW * (len(shown_columns(self.table)) + 1)

    @property
    def x(self) -> int:
        """The left edge."""
        return MARGIN + self.rank * (WIDTH + GAP)

    @property
    def middle(self) -> float:
        """The height of its middle."""
        return self.y + self.height / 2


@dataclass
class Relation:
    """A foreign key, with the lanes that it takes from its table to the one that it refers to."""

    key: ForeignKey
    lanes: list[Place]


def render_directive() -> str:
    """The picture, inside of a page."""
    return f'```{{raw}} html\n<div class="entity-diagram">{draw()}</div>\n```'


def draw() -> str:
    """The SVG."""
    places, relations = _arrange(Entity.metadata.sorted_tables)
    boxes = {place.table.name: place for place in places if place.table is not None}
    lines = [_line(relation, boxes) for relation in relations]
    pictures = [_box(place.table, place) for place in boxes.values() if place.table is not None]
    width = max(place.x + WIDTH for place in places) + MARGIN
    height = max(place.y + place.height for place in places) + MARGIN
    label = "The tables with their keys; a line leads from each foreign key to the table that it refers to."
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" role="img" aria-label="{label}">{"".join([*lines, *pictures])}</svg>'
    )


def shown_columns(table: Table) -> list[Column[object]]:
    """The keys; everything else stands in the reference of the tables."""
    return [column for column in table.columns if column.primary_key or column.foreign_keys or _is_unique(column)]


def _is_unique(column: Column[object]) -> bool:
    return bool(column.unique) or any(
        index.unique and list(index.columns) == [column] for index in column.table.indexes
    )


def _arrange(tables: Sequence[Table]) -> tuple[list[Place], list[Relation]]:
    boxes: dict[str, Place] = {}
    for table in tables:  # Each comes after those that it refers to.
        parents = [key.column.table.name for key in table.foreign_keys if key.column.table is not table]
        boxes[table.name] = Place(table, 1 + max((boxes[name].rank for name in parents), default=-1))
    places, relations = list(boxes.values()), []
    for table in tables:
        for key in sorted(table.foreign_keys, key=lambda key: str(key.parent.name)):
            relation = _route(key, boxes)
            places += relation.lanes
            relations.append(relation)
    last = max(place.rank for place in places)
    for place in places:
        if not place.neighbours and not place.followers:
            place.rank = last  # Where there is room for tables without relations.
    _order([[place for place in places if place.rank == rank] for rank in range(last + 1)])
    return places, relations


def _route(key: ForeignKey, boxes: dict[str, Place]) -> Relation:
    child, parent = boxes[key.parent.table.name], boxes[key.column.table.name]
    lanes = [Place(None, rank) for rank in range(child.rank - 1, parent.rank, -1)]
    if child is not parent:
        for right, left in pairwise([child, *lanes, parent]):
            right.neighbours.append(left)
            left.followers.append(right)
    return Relation(key, lanes)


def _order(columns: list[list[Place]]) -> None:
    """Put each place near those that it is connected with, forwards and backwards, a few times."""
    for column in columns:
        _stack(column)
    for _ in range(12):
        for column in columns[1:]:
            column.sort(key=lambda place: _mean(place.neighbours, place.middle))
            _stack(column)
        for column in reversed(columns[:-1]):
            column.sort(key=lambda place: _mean(place.followers, place.middle))
            _stack(column)
    tallest = max(column[-1].y + column[-1].height for column in columns)
    for column in columns:
        shift = (tallest - column[-1].y - column[-1].height) / 2
        for place in column:
            place.y += shift


def _mean(places: Sequence[Place], otherwise: float) -> float:
    return sum(place.middle for place in places) / len(places) if places else otherwise


def _stack(column: Sequence[Place]) -> None:
    y: float = MARGIN
    for place in column:
        place.y = y
        y += place.height + BETWEEN


def _line(relation: Relation, boxes: dict[str, Place]) -> str:
    """From the foreign key's row, through the lanes, to the primary key's row."""
    key = relation.key
    child, parent = boxes[key.parent.table.name], boxes[key.column.table.name]
    start, end = (child.x, _row_middle(child, key.parent)), (parent.x + WIDTH, _row_middle(parent, key.column))
    names = f"{key.parent.table.name}.{key.parent.name} → {key.column.table.name}.{key.column.name}"
    if child is parent:
        end, bend = (parent.x, end[1]), parent.x - 24
        path = f"M{start[0]},{start[1]:.1f} C{bend},{start[1]:.1f} {bend},{end[1]:.1f} {end[0]},{end[1]:.1f}"
    else:
        points = [start, *((lane.x + dx, lane.middle) for lane in relation.lanes for dx in (WIDTH, 0)), end]
        path = f"M{start[0]},{start[1]:.1f} " + " ".join(_pieces(points))
    kind = "optional" if key.parent.nullable else "required"
    dot = f'<circle cx="{end[0]}" cy="{end[1]:.1f}" r="4"/>'
    return f'<g class="{kind}"><title>{escape(names)}</title><path d="{path}"/>{dot}</g>'


def _pieces(points: Sequence[tuple[float, float]]) -> Iterator[str]:
    for (x1, y1), (x2, y2) in pairwise(points):
        middle = (x1 + x2) / 2
        yield f"C{middle:.1f},{y1:.1f} {middle:.1f},{y2:.1f} {x2},{y2:.1f}"


def _row_middle(place: Place, column: Column[object]) -> float:
    if place.table is None:
        return place.middle
    names = [shown.name for shown in shown_columns(place.table)]
    return place.y + HEAD + ROW * (names.index(column.name) + 0.5)


def _box(table: Table, place: Place) -> str:
    x, y, columns = place.x, place.y, shown_columns(table)
    more = len(table.columns) - len(columns)
    rows = [_row(column, x, y + HEAD + ROW * (number + 0.5)) for number, column in enumerate(columns)]
    rest = f"{more} more column{'s' if more > 1 else ''}"
    rows.append(_text(x + 30, y + HEAD + ROW * (len(columns) + 0.5), rest, "rest"))
    return (
        f'<a href="#{table.name.replace("_", "-")}"><rect class="box" x="{x}" y="{y:.1f}" width="{WIDTH}" '
        f'height="{place.height}" rx="6"/><path class="head" d="M{x},{y + HEAD:.1f} h{WIDTH}"/>'
        f"{_text(x + 10, y + HEAD / 2, table.name, 'name')}{''.join(rows)}</a>"
    )


def _row(column: Column[object], x: float, y: float) -> str:
    mark = "PK" if column.primary_key else "FK" if column.foreign_keys else "U"
    return _text(x + 8, y, mark, "mark") + _text(x + 30, y, column.name + ("?" if column.nullable else ""), "column")


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x}" y="{y + 4.5:.1f}">{escape(text)}</text>'
