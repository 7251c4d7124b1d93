"""Names of anywhere in Markdown, read by a parser of it."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from edgecls.core.text import printable
from edgecls.drift import DriftReport, Skipped
from edgecls.reports.escaping import plain, plain_line
from edgecls.reports.markdown import to_markdown

MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
PARTS = [
    *"\\`*_[]()<>|~$&!#+-=.:@^%{} \n\t\x1b\u202e\u200b1aé",
    "[a](http://e)", "![i](x)", "@all", "www.e.org", "HTTPS://e.org", "a@b.org", "~~s~~", "&lt;",
    "&#64;", "<b>", "<!-- -->", "$x$", "$$", "#1", "!2", "GH-3", "`c`", "[x]: y", "{+a+}", ":joy:",
    "[[w]]", "1. ", "- ", "    ", "a\udcffb", "\\|",
]  # fmt: skip
NAMES = st.lists(st.sampled_from(PARTS) | st.text(max_size=3), max_size=8).map("".join)
# What GitHub and GitLab look for in the text that the parser gives (docs.github.com, "Autolinked
# references and URLs" and "Mentioning people"; docs.gitlab.com, "GitLab Flavored Markdown").
LINKED = re.compile(
    r"https?://|ftp://|www\.|@\w|[#!&^]\d|\$\d|[%~][\w\"]|gh-\d|:\w+:|\[\[|[\[{][+-]", re.IGNORECASE
)


def leaves(tokens: list[Token]) -> list[Token]:
    return [leaf for token in tokens for leaf in (token.children or [])]


def shown(tokens: list[Token]) -> str:
    """The text of inline tokens, of which none may be more than text."""
    assert {token.type for token in tokens} <= {"text"}

    text = "".join(token.content for token in tokens)
    assert not LINKED.search(text)
    return text.replace("\u200b", "")


@given(NAMES)
@example("[a](http://e) ![i](x) @all www.e.org ~~s~~ &lt; \x1b[0m \u202e $x$ <b>")
def test_a_cell_shows_the_name(name: str) -> None:
    tokens = MARKDOWN.parse(f"| name | b |\n| --- | --- |\n| {plain(name)} | x {plain(name)} x |\n")
    cells = [token for token in tokens if token.type == "inline"]

    assert len(cells) == 4
    assert shown(cells[2].children or []) == printable(name)
    assert shown(cells[3].children or []) == f"x {printable(name)} x"


@given(NAMES)
@example("- # 1. x")
def test_a_line_shows_the_name(name: str) -> None:
    tokens = MARKDOWN.parse(f"- {plain_line(name)}\n")
    types = [token.type for token in tokens]

    assert shown(leaves(tokens)) == printable(name)
    assert set(types) <= {
        "bullet_list_open", "list_item_open", "paragraph_open", "inline",
        "paragraph_close", "list_item_close", "bullet_list_close",
    }  # fmt: skip
    assert types.count("bullet_list_open") == 1


def test_a_report_of_hostile_names_is_text_and_tables(make: Callable[..., DriftReport]) -> None:
    name = "- [a](http://e) ![i](x) `c` *e* **s** ~~s~~ <b> <!-- --> \n# x"
    report = make(
        candidate=name, reference=name, labels=(name,) * 10, truth=name,
        backends={"reference": name, "candidate": name},
        skipped=(Skipped(image=name, reason=name),),
    )  # fmt: skip
    tokens = MARKDOWN.parse(to_markdown(report))

    assert {leaf.type for leaf in leaves(tokens)} == {"text"}
    assert not {"html_block", "code_block", "fence", "hr"} & {token.type for token in tokens}
    assert sum(printable(name) in leaf.content.replace("\u200b", "") for leaf in leaves(tokens)) > 5


@pytest.mark.parametrize("name", ["data/cat_1/0001.png", "a & b", "R&D", "10 %", "C:/x", "é 猫"])
def test_names_stay_readable(name: str) -> None:
    assert plain(name).replace("\\", "").replace("&amp;", "&") == name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("@all", "@&#8203;all"),
        ("http://e", "http:&#8203;//e"),
        ("[a](x)", r"\[a\](x)"),
        ("$x$", "&#36;x&#36;"),
        ("\x1b\u202e", r"\\x1b\\u202e"),
    ],
)
def test_forms(text: str, expected: str) -> None:
    assert plain(text) == expected
