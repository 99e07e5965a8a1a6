"""Sphinx configuration of the documentation: Markdown pages, one theme without remote resources, strict references."""

project = "tunewise"
html_title = "tunewise"
extensions = ["myst_parser"]
root_doc = "index"
html_theme = "furo"
html_static_path: list[str] = []
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
# Every heading that a page links to has an anchor of GitHub's kind, so that links work there as they do here.
myst_heading_anchors = 4
# A link is to a page, an anchor or the web; anything else is an error instead of a guess.
nitpicky = True
