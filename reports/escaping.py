"""Text of anywhere in Markdown, as GitHub and GitLab show it: names of files and classes."""

from __future__ import annotations

import re
from typing import Final

from ..core.text import printable

# GitHub and GitLab look for addresses, mentions and references in the text that is shown, where a
# backslash or an entity has done its work already: only another character parts them. A zero-width
# space of the text's own is not taken for it: ``printable`` escapes that.
_APART: Final = "\u200b"
_LINKED: Final = re.compile(
    r"@(?=[\w-])"  # a mention, an e-mail address
    r"|[#!$&^](?=\d)|[%~](?=[\w\"'])|GH(?=-\d)|\[(?=\w+:)"  # issues, milestones, labels and so on
    r"|:(?=//)|www(?=\.)"  # an address
    r"|:(?=[\w+-]+:)"  # :an_emoji:
    r"|\[(?=\[)|[\[{](?=[+-])",  # GitLab's [[wiki link]] and {+difference+}
    re.IGNORECASE,
)
# ``$`` is an entity, for what is between two of them is a formula before a backslash counts.
_ESCAPES: Final = str.maketrans(
    {mark: f"\\{mark}" for mark in r"\`*_[]|~"}
    | {"<": "&lt;", "&": "&amp;", "$": "&#36;", _APART: "&#8203;"}
)


def plain(text: str) -> str:
    """Return text that Markdown shows as it is, inside a line or a table's cell."""
    escaped = _LINKED.sub(rf"\g<0>{_APART}", printable(text)).translate(_ESCAPES)
    return re.sub(r"^ | $", "&#32;", escaped)  # spaces at the edges would be left out


def plain_line(text: str) -> str:
    """Return text that Markdown shows as it is, as a line: it begins no list and no heading."""
    return re.sub(r"^(\d*)([-+>=#.)])", r"\1\\\2", plain(text))
