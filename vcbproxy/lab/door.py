"""The client's side of a served lab's door for trouble: finds the server of a folder, asks, and reads the answer."""

from __future__ import annotations

import http.client
import json
import ssl
from pathlib import Path
from typing import Any

from vcbproxy.errors import Error, UsageError

READY_NAME = "serve.json"
_PATH = "/lab/trouble"
_TIMEOUT_S = 30


def ask(directory: Path, order: dict[str, object] | None) -> list[dict[str, Any]]:
    """Place an order, or (None) only look; the answer is what there is.

    Raises:
        UsageError: nobody serves this lab, or the order makes no sense.
        Error: the server cannot be reached.
    """
    try:
        port = int(json.loads((directory / READY_NAME).read_text("utf-8"))["port"])
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"nobody serves the lab in {directory}: start `vcbproxy lab serve {directory}`") from error
    context = ssl.create_default_context(cafile=str(directory / "tls" / "ca.pem"))
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=_TIMEOUT_S)
    try:
        connection.request("GET" if order is None else "POST", _PATH, None if order is None else json.dumps(order))
        answer = connection.getresponse()
        content = json.loads(answer.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Error(f"the lab in {directory} does not answer: {error}; is it still served?") from error
    finally:
        connection.close()
    if answer.status != 200:
        raise UsageError(content["error"])
    rows: list[dict[str, Any]] = content
    return rows
