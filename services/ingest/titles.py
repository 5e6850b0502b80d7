"""Titles composed from kind and place, for facts that carry no text of their own (art3.anonymised)."""

from planier.common.v1.fact_pb2 import Geometry

from services.ingest.place import middle
from services.kernel.registry import Kind
from services.kernel.territory import Territory


def compose(kind: Kind, geometry: Geometry, territory: Territory) -> str:
    """« Manifestation revendicative · Vieux-Port → Castellane » for a route, « … · Hôtel de Ville » elsewhere."""
    if geometry.HasField("line"):
        first, last = geometry.line.points[0], geometry.line.points[-1]
        start = territory.nearest(first.longitude, first.latitude).name
        end = territory.nearest(last.longitude, last.latitude).name
        return f"{kind.label} · {start}" if start == end else f"{kind.label} · {start} → {end}"
    return compose_at(kind, *middle(geometry), territory)


def compose_at(kind: Kind, longitude: float, latitude: float, territory: Territory) -> str:
    """The title of a fact at one point."""
    return f"{kind.label} · {territory.nearest(longitude, latitude).name}"
