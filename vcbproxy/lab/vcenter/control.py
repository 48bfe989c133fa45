"""The door at which trouble is ordered while the server runs: JSON at ``/lab/trouble`` of its own port.

    GET    what there is, and how often each will still strike
    POST   {"name": "removal-fails", "times": 2}    or    {"clear": true}

It is open to whoever can reach the port, which is loopback: what it can break is made to be broken.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pydantic
from pydantic import TypeAdapter

from vcbproxy.errors import UsageError
from vcbproxy.lab.vcenter import recipes
from vcbproxy.lab.vcenter.faults import Stocked
from vcbproxy.lab.vcenter.http import JSON, Reply
from vcbproxy.lab.vcenter.recipes import RECIPES, Order, Server

PATH = "/lab/trouble"
_ORDERS = TypeAdapter(Order)


class Control:
    """Orders by name, and what became of them."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._placed: dict[str, list[Stocked]] = {}

    def listing(self) -> Reply:
        """All recipes, then the methods that trouble was ordered for."""
        names = dict.fromkeys([*RECIPES, *self._placed])
        return _reply(200, [{"trouble": name, "does": _does(name), **self._left(name)} for name in names])

    def order(self, body: bytes) -> Reply:
        """Carry out what is asked for; 400 when it makes no sense."""
        try:
            asked = json.loads(body)
            if asked == {"clear": True}:
                recipes.calm(self._server)
                self._placed.clear()
            else:
                order = _ORDERS.validate_python(asked)
                self._placed[order.name] = recipes.place(self._server, order)
        except pydantic.ValidationError as error:
            return _reply(400, {"error": "; ".join(f"{e['loc'][0]}: {e['msg']}" for e in error.errors())})
        except (ValueError, UsageError) as error:
            return _reply(400, {"error": str(error)})
        return self.listing()

    def _left(self, name: str) -> dict[str, object]:
        """Whether it will still strike, and how often; None: without end."""
        stocked = [known for known in self._placed.get(name, ()) if not known.spent]
        endless = any(known.trouble.times == 0 for known in stocked)
        left = None if endless else max((known.left for known in stocked), default=0)
        return {"ordered": bool(stocked), "left": left}


def document(order: Order) -> dict[str, Any]:
    """An order as it is sent; what is not said is left out."""
    return {name: value for name, value in asdict(order).items() if value not in (None, "", False)}


def _does(name: str) -> str:
    recipe = RECIPES.get(name)
    return recipe.does if recipe is not None else "ends in a fault"


def _reply(status: int, content: object) -> Reply:
    return Reply(status, json.dumps(content).encode(), content_type=JSON)
