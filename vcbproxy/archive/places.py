"""What people call the places in a library."""

from __future__ import annotations

from tape.elements import Element, ElementKind, Inventory

_WORDS = {ElementKind.SLOT: "slot", ElementKind.MAIL_SLOT: "mail", ElementKind.DRIVE: "drive"}


def place(element: Element, inventory: Inventory) -> str:
    """An element by its number: slots and mail slots are counted from 1, drives from 0, as mtx and libraries do."""
    if element.kind not in _WORDS:
        return "robot"
    return f"{_WORDS[element.kind]} {number(element, inventory)}"


def number(element: Element, inventory: Inventory) -> int:
    """Which of its kind it is, counted likewise."""
    alike = [one.address for one in inventory.of_kind(element.kind)]
    return alike.index(element.address) + (element.kind is not ElementKind.DRIVE)
