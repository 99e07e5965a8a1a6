"""E-mail messages (EML): sender, recipients, date and body; attachments are named, not read."""

from __future__ import annotations

import email
import email.policy
from collections.abc import Iterator
from email.message import EmailMessage
from email.utils import parsedate_to_datetime
from typing import Any

from rag.loading.base import DocumentAssembler, UnreadableFile, clean_text, paragraphs
from rag.loading.formats import html
from rag.loading.metadata import properties
from rag.types import Document

_SHOWN_HEADERS = ("Subject", "From", "To", "Cc", "Date")
_METADATA_HEADERS = {
    "From": "from",
    "To": "to",
    "Cc": "cc",
    "Message-ID": "message_id",
    "In-Reply-To": "in_reply_to",
}
_MAX_ATTACHMENTS = 100


def read(id: str, data: bytes) -> Iterator[Document]:
    """Yield the message as one document titled by its subject; its names and date are in the metadata."""
    message = email.message_from_bytes(data, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    headers = {
        name: value for name in (*_SHOWN_HEADERS, *_METADATA_HEADERS) if (value := _header(message, name))
    }
    if not headers:
        raise UnreadableFile("not an e-mail message: it has no headers")
    attachments = _attachment_names(message)
    assembler = DocumentAssembler()
    hidden = 0
    lines = [f"{name}: {headers[name]}" for name in _SHOWN_HEADERS if name in headers]
    lines += [f"Attachments: {', '.join(attachments)}"] if attachments else []
    assembler.add("paragraph", "\n".join(lines))
    kind, body = _body(message)
    if kind == "html":
        page = html.parse_html(body)
        hidden = page.hidden
        for block in page.main_blocks():
            assembler.add(block.kind, block.text, block.heading)
    else:
        for block in paragraphs(body):
            assembler.add("paragraph", block.text)
    meta: dict[str, Any] = {name: headers[key] for key, name in _METADATA_HEADERS.items() if key in headers}
    meta |= {"date": _parse_date(headers.get("Date", "")), "attachments": attachments}
    yield assembler.document(id, headers.get("Subject", ""), "mail", properties(meta), hidden)


def _header(message: EmailMessage, name: str) -> str:
    """Return a header on one line, "" when it is missing or broken."""
    try:
        return clean_text(" ".join(str(message.get(name, "")).split()))
    except Exception:  # the header parser fails on broken headers in ways it does not document
        return ""


def _body(message: EmailMessage) -> tuple[str, str]:
    """Return the kind (plain or html) and the text of the body, plain if there is a choice."""
    try:
        part = message.get_body(preferencelist=("plain", "html"))
    except Exception:  # an invalid structure of parts
        part = None
    if part is None:
        return "plain", ""
    kind = part.get_content_subtype()
    try:
        return kind, clean_text(str(part.get_content()))
    except Exception:  # an unknown charset or transfer encoding: decode what can be decoded
        payload = part.get_payload(decode=True)
        return kind, clean_text(payload.decode("utf-8", "replace")) if isinstance(payload, bytes) else ""


def _attachment_names(message: EmailMessage) -> list[str]:
    """Return the file names of the attachments, or their types where they have none."""
    names = []
    try:
        for part in message.iter_attachments():
            name = part.get_filename() or part.get_content_type()
            names.append(clean_text(" ".join(str(name).split()))[:200])
    except Exception:  # a multipart message without parts
        return names
    return names[:_MAX_ATTACHMENTS]


def _parse_date(text: str) -> Any:
    """Return a Date header as a datetime, or its text when it cannot be parsed."""
    try:
        return parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return text
