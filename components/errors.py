"""The one error a user may cause. Everything else is a bug and keeps its traceback."""

from __future__ import annotations


class UserError(ValueError):
    """Bad input or configuration: says what is wrong, where, and the remedy.

    The CLI and the HTTP gateway print it without a traceback.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(f"{problem}\n  remedy: {remedy}" if remedy else problem)
        self.problem = problem
        self.remedy = remedy
