"""The gRPC door: the SDK's servicer, with failures told to the engine as one line instead of a traceback."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from pulumi.provider.experimental.property_value import PropertyValue
from pulumi.provider.experimental.server import ProviderServicer
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc, status_pb2

from localcloud.provider.errors import ProviderError
from localcloud.provider.parent import end_with_parent
from localcloud.provider.provider import HalfMadeResourceError, Provider

VERSION = "7.51.1"
# The engine sends whole states and documents in one message; 400 MB is its own limit.
_MESSAGE_BYTES = 400 * 1024 * 1024
_Method = Callable[[Any, Any], Awaitable[Any]]


def _where(request: Any) -> str:
    """Return `type name: ` of the resource that a request is about, or nothing."""
    urn = getattr(request, "urn", "")
    parts = urn.split("::", 3)
    if len(parts) < 4:
        return f"{request.tok}: " if getattr(request, "tok", "") else ""
    return f"{parts[2].rsplit('$', 1)[-1]} {parts[3]}: "


async def _half_made(context: Any, error: HalfMadeResourceError) -> None:
    """Tell the engine that the resource exists but failed to become ready, so that it keeps the id."""
    detail = provider_pb2.ErrorResourceInitFailed(
        id=error.resource_id, properties=PropertyValue.marshal_map(error.state), reasons=[str(error)]
    )
    status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=str(error))
    status.details.add().Pack(detail)
    metadata = (("grpc-status-details-bin", status.SerializeToString()),)
    await context.abort(grpc.StatusCode.UNKNOWN, str(error), metadata)


def _told(method: _Method) -> _Method:
    async def wrapper(request: Any, context: Any) -> Any:
        try:
            return await method(request, context)
        except HalfMadeResourceError as exc:
            await _half_made(context, exc)
        except ProviderError as exc:
            message = str(exc)
            where = _where(request)
            await context.abort(grpc.StatusCode.UNKNOWN, message if message.startswith(where) else where + message)

    return wrapper


class Servicer(ProviderServicer):
    """The SDK's servicer with ProviderErrors turned into gRPC statuses."""

    def __init__(self, engine_address: str) -> None:
        """`engine_address` is where the engine listens."""
        super().__init__([], VERSION, Provider(), engine_address)
        for name in ("Configure", "Check", "Diff", "Create", "Read", "Update", "Delete", "Invoke"):
            setattr(self, name, _told(getattr(self, name)))


async def _serve(engine_address: str) -> None:
    options = [
        ("grpc.max_receive_message_length", _MESSAGE_BYTES),
        ("grpc.max_send_message_length", _MESSAGE_BYTES),
        ("grpc.server_max_unrequested_time_in_server", 30 * 60),
    ]
    server = grpc.aio.server(options=options)
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(Servicer(engine_address), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"{port}\n")  # the engine's protocol: the first line is the port
    sys.stdout.flush()
    await server.wait_for_termination()


def main(arguments: list[str]) -> int:
    """Serve until the engine ends this process, or is gone itself.

    `arguments` hold the engine's address among flags that are ignored.
    """
    addresses = [argument for argument in arguments if not argument.startswith("-")]
    if not addresses:
        sys.stderr.write(
            "usage: python -m localcloud.provider ENGINE_ADDRESS (the Pulumi engine starts this program)\n"
        )
        return 2
    end_with_parent()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(addresses[0]))
    return 0
