"""XML that comes from a cartridge, which anyone may have written: no entity, no document type, bounded on all sides."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from tape.errors import FormatError
from tape.scsi.transport import Buffer

DEPTH_MAX = 1024  # paths of 4096 bytes have no more directories than half as many; each is two elements deep
_TEXT_MAX = 1 << 20


@dataclass(slots=True)
class Element:
    """One element.

    Attributes:
        tag: its name.
        attributes: of its start tag.
        text: all its text, without that of its children.
        children: elements, or what ``made`` put in the place of one.
    """

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    text: str = ""
    children: list[Any] = field(default_factory=list)

    def elements(self, tag: str) -> list[Element]:
        """Its children of a name."""
        return [child for child in self.children if isinstance(child, Element) and child.tag == tag]

    def written(self) -> str:
        """As XML again; for what is kept without being understood."""
        attributes = "".join(f" {name}={quoteattr(value)}" for name, value in self.attributes.items())
        inner = text(self.text) + "".join(child.written() for child in self.children)
        return f"<{self.tag}{attributes}>{inner}</{self.tag}>"


Made = Callable[[Element], Any]


def text(characters: str) -> str:
    """Characters as XML has them; a carriage return would else come back as a line feed."""
    return escape(characters, {"\r": "&#13;"})


def parse(pieces: Iterable[Buffer], where: str, made: dict[str, Made] | None = None) -> Element:
    """Parse a document.

    Args:
        pieces: its bytes.
        where: it comes from, for messages.
        made: for elements of these names inside of ``<contents>``: what is put in their place, at once, so that a huge
            document does not become a huge tree of elements.

    Raises:
        FormatError: it is not well-formed, not UTF-8, declares entities or a document type, or is nested absurdly deep.
    """
    builder = _Builder(where, made or {})
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.characters
    parser.StartDoctypeDeclHandler = builder.refuse_doctype
    parser.EntityDeclHandler = builder.refuse_doctype
    parser.XmlDeclHandler = builder.declared
    try:
        for piece in pieces:
            parser.Parse(bytes(piece), False)
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise FormatError(where=where, reason=f"not XML: {error}") from error
    except (ValueError, LookupError) as error:
        raise FormatError(where=where, reason=f"not XML: {error}") from error
    if builder.root is None:
        raise FormatError(where=where, reason="no XML")
    return builder.root


class _Builder:
    def __init__(self, where: str, made: dict[str, Made]) -> None:
        self.root: Element | None = None
        self._where = where
        self._made = made
        self._open: list[Element] = []

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if len(self._open) >= DEPTH_MAX:
            raise FormatError(where=self._where, reason=f"elements nested more than {DEPTH_MAX} deep")
        self._open.append(Element(tag, attributes))

    def end(self, _tag: str) -> None:
        element = self._open.pop()
        if not self._open:
            self.root = element
            return
        make = self._made.get(element.tag) if self._open[-1].tag == "contents" else None
        self._open[-1].children.append(element if make is None else make(element))

    def characters(self, text: str) -> None:
        element = self._open[-1]
        element.text = text if not element.text else element.text + text
        if len(element.text) > _TEXT_MAX:
            raise FormatError(where=self._where, reason=f"more than {_TEXT_MAX} characters in one <{element.tag}>")

    def refuse_doctype(self, *_: object) -> None:
        raise FormatError(where=self._where, reason="it declares a document type or entities")

    def declared(self, _version: str, encoding: str | None, _standalone: int) -> None:
        if encoding is not None and encoding.upper() not in ("UTF-8", "UTF8"):
            raise FormatError(where=self._where, reason=f"it is in {encoding}, not in UTF-8")


class Reading:
    """What an element must have, must not have twice, and may have."""

    def __init__(self, element: Element, where: str, known: Iterable[str]) -> None:
        """Sort its children.

        Args:
            element: which.
            where: for messages.
            known: names of children that are understood; each may stand there once.

        Raises:
            FormatError: one stands there twice.
        """
        self._element = element
        self._where = where
        self._found: dict[str, Element] = {}
        self.unknown: list[str] = []
        """Children that are not understood, as XML: they are kept, and written back."""
        understood = frozenset(known)
        for child in element.children:
            if not isinstance(child, Element):
                continue
            if child.tag not in understood:
                self.unknown.append(child.written())
            elif child.tag in self._found:
                raise self.wrong(f"<{child.tag}> stands there twice")
            else:
                self._found[child.tag] = child

    def wrong(self, reason: str) -> FormatError:
        """The error for something in this element."""
        return FormatError(where=self._where, reason=f"<{self._element.tag}>: {reason}")

    def has(self, tag: str) -> bool:
        """Whether it has such a child."""
        return tag in self._found

    def element(self, tag: str) -> Element:
        """A child that must be there.

        Raises:
            FormatError: it is not.
        """
        if tag not in self._found:
            raise self.wrong(f"no <{tag}>")
        return self._found[tag]

    def text(self, tag: str) -> str:
        """A child's text.

        Raises:
            FormatError: no such child, or it has children itself.
        """
        found = self.element(tag)
        if found.children:
            raise self.wrong(f"<{tag}> should hold text alone")
        return found.text

    def number(self, tag: str, least: int = 0, most: int = (1 << 64) - 1) -> int:
        """A child's whole number.

        Raises:
            FormatError: none, or out of range.
        """
        text = self.text(tag).strip()
        if not (text.isascii() and text.isdecimal()) or len(text) > 20 or not least <= int(text) <= most:
            raise self.wrong(f"{text[:30]!r} is no number from {least} to {most} for <{tag}>")
        return int(text)

    def truth(self, tag: str, default: bool | None = None) -> bool:
        """A child's yes or no.

        Raises:
            FormatError: neither; or it must be there, and is not.
        """
        if default is not None and tag not in self._found:
            return default
        match self.text(tag).strip().lower():
            case "true" | "1":
                return True
            case "false" | "0":
                return False
        raise self.wrong(f"<{tag}> is neither true nor false")
