"""What moto's EC2 gets wrong for real clients, put right: each correction has its test."""

from __future__ import annotations

from typing import Any

from moto.ec2.models import EC2Backend

from localcloud.layers import Layers
from localcloud.reconciler import Context, Reconciler


class _Corrections:
    """Corrects moto's EC2; owns neither processes nor threads."""

    name = "ec2 corrections"

    def __init__(self) -> None:
        self._layers = Layers()

    def install(self) -> None:
        self._layers.wrap(EC2Backend, "delete_subnet", self._delete_subnet)

    def reset(self) -> None:
        """Do nothing: all there is to forget is moto's own."""

    def suspend(self, region: str) -> None:
        """Do nothing: no process runs here."""

    def resume(self, region: str) -> None:
        """Do nothing: no process runs here."""

    def stop(self) -> None:
        self._layers.undo()

    def status(self) -> list[dict[str, str]]:
        return []

    def _delete_subnet(self, inner: Any, backend: Any, subnet_id: str) -> Any:
        """A subnet takes its association with a route table along, which else could never be deleted."""
        subnet = inner(backend, subnet_id)
        for table in backend.route_tables.values():
            links = table._associations  # noqa: SLF001  # moto has no other door to one association
            for link in [link for link, target in links.items() if target == subnet_id]:
                del links[link]
        return subnet


def reconciler(context: Context) -> Reconciler:
    """Return the part that corrects EC2."""
    del context
    return _Corrections()
