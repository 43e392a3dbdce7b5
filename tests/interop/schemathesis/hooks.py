"""What schemathesis cannot know: where our names are, who asks, and what there is to ask for.

Everything that it is told here is in the JSON file that LARDER_SCENE names.
"""

import base64
import itertools
import json
import os
import re
import socket

import schemathesis

with open(os.environ["LARDER_SCENE"], encoding="utf-8") as file:
    SCENE = json.load(file)

# One party may check in six times at once and then every ten seconds: so there are many.
PARTIES = itertools.cycle(SCENE["parties"])
REAL_GETADDRINFO = socket.getaddrinfo


def getaddrinfo(host, *args, **kwargs):
    """Finds the synthetic names, which no resolver knows, on this machine."""
    if isinstance(host, str) and host.endswith(".larder.internal"):
        host = "127.0.0.1"
    return REAL_GETADDRINFO(host, *args, **kwargs)


socket.getaddrinfo = getaddrinfo


def real(name, value):
    """For half of the values in order, one that is there: the value itself decides."""
    there = SCENE["names"].get(name)
    if not there or not isinstance(value, str) or not re.fullmatch(SCENE["forms"][name], value):
        return value
    choice = sum(value.encode())
    return there[choice // 2 % len(there)] if choice % 2 else value


@schemathesis.hook
def before_call(context, case, kwargs):
    """Asks as the next party, and for what is there."""
    kwargs["cert"] = tuple(next(PARTIES))
    for name, value in (case.path_parameters or {}).items():
        kind = "snapshot" if "/snapshots/" in case.operation.path else name
        case.path_parameters[name] = real(kind, value)


@schemathesis.serializer("application/pkcs10")
def pkcs10(context, value):
    """A certificate request as it travels; for half of the texts, a good one."""
    if not isinstance(value, str) or len(value) > 65536:
        return json.dumps(value).encode()
    body = value
    there = SCENE["names"]["request"]
    choice = sum(body.encode(errors="replace"))
    if choice % 2 == 0:
        body = there[choice // 2 % len(there)]
    elif choice % 3 == 0:
        body = base64.b64encode(body.encode(errors="replace")).decode()
    return body.encode(errors="replace")
