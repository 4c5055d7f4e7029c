"""The versions of a project as a picture: a row for each, a node for each variant, a line to what it was made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from data_layer.entities.enums import GenerationStatus
from data_layer.schemas.generations import GenerationView

ROW = 64
COLUMN = 26
MARGIN = 18
_MOST_COLUMNS = 6


@dataclass(frozen=True, slots=True)
class Node:
    """A variant in the picture."""

    x: int
    y: int
    version: int
    variant: int
    status: GenerationStatus
    is_selected: bool
    is_shown: bool


@dataclass(frozen=True, slots=True)
class Picture:
    """The picture; edges are paths of SVG, from a variant to what was made from it."""

    width: int
    height: int
    nodes: tuple[Node, ...]
    edges: tuple[tuple[str, bool], ...]


def picture_of(generations: Sequence[GenerationView], shown: UUID | None) -> Picture:
    """Draw generations, of which the last one comes first.

    Args:
        generations: a page of the history.
        shown: the variant that the page is about; its ancestors are emphasized.
    """
    places: dict[UUID, tuple[int, int]] = {}
    parents: dict[UUID, UUID | None] = {}
    nodes, columns = [], 1
    for row, generation in enumerate(generations):
        for variant in generation.variants:
            column = min(variant.variant_index, _MOST_COLUMNS - 1)
            columns = max(columns, column + 1)
            place = MARGIN + column * COLUMN, row * ROW + ROW // 2
            places[variant.id], parents[variant.id] = place, variant.parent_id
            nodes.append(
                Node(
                    *place,
                    version=generation.number,
                    variant=variant.variant_index,
                    status=variant.status,
                    is_selected=variant.variant_index == generation.selected_variant,
                    is_shown=variant.id == shown,
                )
            )
    line = _ancestors(parents, shown)
    edges = []
    for child, parent in parents.items():
        if parent in places:
            edges.append((_curve(places[parent], places[child]), child in line))
    height = len(generations) * ROW
    return Picture(2 * MARGIN + (columns - 1) * COLUMN, height, tuple(nodes), tuple(sorted(edges, key=lambda e: e[1])))


def _ancestors(parents: dict[UUID, UUID | None], shown: UUID | None) -> set[UUID]:
    line: set[UUID] = set()
    while shown in parents and shown not in line:
        line.add(shown)
        shown = parents[shown]
    return line


def _curve(parent: tuple[int, int], child: tuple[int, int]) -> str:
    (x, y), (to_x, to_y) = parent, child
    if x == to_x:
        return f"M{x} {y}V{to_y}"
    turn = to_y + ROW // 2
    return f"M{x} {y}V{turn + 12}C{x} {turn} {to_x} {turn} {to_x} {to_y}"
