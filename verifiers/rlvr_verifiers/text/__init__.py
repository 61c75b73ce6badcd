"""The `text` verifier: does a reply keep to rules that can be checked by reading it?

`rules` says which there are and reads them, `kinds` and `ifeval` check them, `seen` says what of a text counts, and
`counts`, `choice`, `tags` and `language` hold the written definitions. `writer` writes replies that keep the rules.
"""

from __future__ import annotations

from .ifeval import IDS
from .verifier import text

__all__ = ["IDS", "text"]
