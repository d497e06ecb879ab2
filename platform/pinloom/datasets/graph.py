"""The section `graph` of a data set's YAML: what an edge is, what a positive pair is."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pinloom.datasets.mapping import Section


class EdgeSpec(Section):
    """One source of edges; those of several sources lie in one graph.

    Attributes:
        source: table of the contract. `boards`: its rows are the edges. `actions`: an edge leads from an item to the
            user or session that acted on it.
        board: what stands for a board when the source is `actions`.
        actions: which count; default: all with the role `positive`.
        weight: of each edge.
    """

    source: Literal["boards", "actions"] = "boards"
    board: Literal["user", "session"] = "user"
    actions: tuple[str, ...] = ()
    weight: float = Field(default=1.0, gt=0)


class PairSpec(Section):
    """Positive pairs for training and evaluation.

    Attributes:
        source: `actions`: an item and the one chosen right after it; `boards`: two items of a board.
        window_hours: longest time between the two.
        actions: which count; default: all with the role `positive`.
        per_step: pairs kept per step, from a moment (a basket, where equal times are unordered) to the next, or per
            board. The weights of the pairs of a step add up to 1.
        board_is: what a `board_id` names, if it is also the id of a `request` or `session` of the log: pairs of boards
            then know their user, whom intervals draw with all of theirs.
    """

    source: Literal["actions", "boards"] = "actions"
    window_hours: float = Field(default=24.0, gt=0)
    actions: tuple[str, ...] = ()
    per_step: int = Field(default=16, ge=1)
    board_is: Literal["request", "session"] | None = None


class PruningSpec(Section):
    """As `components.graph.build.Pruning`."""

    repeats: Literal["add", "largest"] = "add"
    min_board_items: int = Field(default=2, ge=1)
    max_board_items: int | None = Field(default=None, ge=1)
    max_board_entropy: float | None = Field(default=None, ge=0)
    max_item_boards: int | None = Field(default=None, ge=1)
    degree_power: float = Field(default=1.0, gt=0, le=1)
    prune_by: Literal["topic", "sample"] = "topic"


class GraphSpec(Section):
    """
    Attributes:
        half_life_days: an edge's weight halves with each such span of age at the graph's date; None = never.
    """

    edges: tuple[EdgeSpec, ...] = Field(default=(EdgeSpec(),), min_length=1)
    half_life_days: float | None = Field(default=None, gt=0)
    pruning: PruningSpec = PruningSpec()
    pairs: PairSpec = PairSpec()

    @model_validator(mode="after")
    def _distinct(self) -> GraphSpec:
        kinds = [(e.source, e.board) if e.source == "actions" else (e.source,) for e in self.edges]
        if len(set(kinds)) != len(kinds):
            raise ValueError("edges names a source twice: list its actions in one entry")
        return self

    def actions_named(self) -> list[tuple[str, str]]:
        """(place in the section, action) of every action that is named."""
        edges = [(f"edges[{i}].actions", a) for i, e in enumerate(self.edges) for a in e.actions]
        return edges + [("pairs.actions", a) for a in self.pairs.actions]
