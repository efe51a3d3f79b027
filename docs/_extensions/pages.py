"""`docs/rules.md` between backticks is a link to that page: read in a checkout and on the site.

A page of the site is named in the text as the file that it is, because most readers of the text
have a checkout before them. On the site the name of the file is replaced by the page's title.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref

PAGE = re.compile(r"docs/([\w-]+)\.md|(CHANGELOG|CONTRIBUTING)\.md")


def link_pages(app: Any, doctree: Any) -> None:
    """Turn the literals of one document that name a page into links with the page's title."""
    for literal in list(doctree.findall(nodes.literal)):
        match = PAGE.fullmatch(literal.astext())
        if match and not isinstance(literal.parent, nodes.reference | pending_xref):
            page = match[1] or match[2].lower()
            link = pending_xref(
                "",
                nodes.inline("", page),
                refdoc=app.env.docname,
                refdomain="std",
                reftype="doc",
                reftarget=f"/{page}",
                refexplicit=False,
                refwarn=True,
            )
            link.line = literal.line
            literal.replace_self(link)


def setup(app: Any) -> dict[str, bool]:
    """Let Sphinx link."""
    app.connect("doctree-read", link_pages)
    return {"parallel_read_safe": True}
