"""The keys that the files of all kinds of studies share."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from archspec.validation import Frame

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Reference = Annotated[str, Field(min_length=1, max_length=1_000, description="a shipped name, or a file")]


class StudyFrame(Frame):
    """A part of a study's file."""

    grammar: ClassVar[str] = "study"
