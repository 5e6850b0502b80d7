"""Answers that reference layers take part in: counts by zone, search by words and by a place's name."""

import asyncio
import hashlib
import math

from planier.analytics.v1.analytics_pb2 import (
    CountByZoneRequest,
    CountByZoneResponse,
    SearchFactsRequest,
    SearchFactsResponse,
    ZoneCount,
)
from sqlalchemy import Connection

from services.analytics import asking
from services.analytics.area import Area
from services.analytics.bulk import run
from services.analytics.coverage import CoverageReader
from services.analytics.packing import pack_features, suppression_of
from services.analytics.placement import E7
from services.analytics.queries import MapAnswer, permitted
from services.analytics.reading import ReadModel
from services.analytics.search import Hits, search
from services.analytics.snapshot import Snapshot
from services.analytics.suppression import Minimums
from services.analytics.words import near, words_of
from services.analytics.zones import OUTSIDE, ZoneFinder, count_by_zone, known_layer, reference_to
from services.kernel.clock import Clock, from_microseconds, microseconds
from services.kernel.errors import not_found
from services.kernel.layers import Layer, LayerFolder, Zone
from services.kernel.rpc.call import Call
from services.kernel.screening import detector_of

_NAMES = "SELECT code, text FROM fact_names"


class ZoneAnswers:
    """The two RPCs whose answers name zones."""

    def __init__(
        self,
        model: ReadModel,
        clock: Clock,
        coverage: CoverageReader,
        minimums: Minimums,
        snapshot: Snapshot | None,
        layers: LayerFolder | None,
    ) -> None:
        self._model = model
        self._clock = clock
        self._coverage = coverage
        self._minimums = minimums
        self._snapshot = snapshot
        self._layers = layers
        self._finders: dict[str, ZoneFinder] = {}

    async def count(self, request: CountByZoneRequest, call: Call) -> CountByZoneResponse:
        """Counts by zone. Raises Problem NOT_FOUND LAYER_UNKNOWN."""
        now_us, grant = microseconds(self._clock.now()), call.granted
        as_of_us = asking.moment_of(request)
        layer, finder = await asyncio.to_thread(self._layer, request.layer, as_of_us)
        query = asking.zone_query(request, finder.area)
        asking.describe(call, query.sources, query.kinds, query.area, request.period)
        asking.note_moment(call, request)
        call.data.filters["layer"] = f"{layer.name}@{layer.hash}"

        def answer(connection: Connection) -> CountByZoneResponse:
            counts = count_by_zone(connection, grant, query, finder, self._minimums, self._snapshot)
            names = {row[0]: row[1] for row in run(connection, _NAMES, ())}
            sources = permitted(grant, query.sources)
            return CountByZoneResponse(
                layer=reference_to(layer),
                zones=[
                    ZoneCount(code=zone.code, name=zone.name, count=counts.shown[index])
                    for index, zone in enumerate(layer.zones)
                ],
                outside=counts.shown[OUTSIDE],
                total=counts.total,
                withheld=suppression_of(counts, names),
                coverage=self._coverage.read(connection, sources, query.area, now_us, as_of_us),
            )

        call.data_position, response = await self._model.read(answer)
        call.data.count = response.total
        return response

    async def search(self, request: SearchFactsRequest, call: Call) -> SearchFactsResponse:
        """Facts by words and place. Raises Problem NOT_FOUND PLACE_UNKNOWN."""
        now_us, grant = microseconds(self._clock.now()), call.granted
        as_of_us = asking.moment_of(request)
        place = None
        if request.HasField("place"):
            place = await asyncio.to_thread(self._place, request.place, as_of_us)
        query = asking.search_query(request, area_of_zone(place[1]) if place else None)
        period = request.period if request.HasField("period") else None
        asking.describe(call, query.sources, (), query.area, period)
        asking.note_moment(call, request)
        asking.note_polygon(call, request)
        if place:
            call.data.filters["zone"] = f"{place[0].name}/{place[1].code}@{place[0].hash}"

        def answer(connection: Connection) -> tuple[Hits, SearchFactsResponse]:
            hits = search(connection, grant, request.words, query)
            names = {row[0]: row[1] for row in run(connection, _NAMES, ())}
            sources = permitted(grant, query.sources)
            return hits, SearchFactsResponse(
                features=pack_features(MapAnswer(hits.features, names=names)),
                slips=hits.slips,
                more=hits.more,
                zone=place[1].name if place else "",
                layer=reference_to(place[0]) if place else None,
                coverage=self._coverage.read(connection, sources, query.area, now_us, as_of_us),
            )

        call.data_position, (hits, response) = await self._model.read(answer)
        _describe_words(call, request.words, hits)
        call.data.count = len(hits.features)
        return response

    def _layer(self, name: str, as_of_us: int | None) -> tuple[Layer, ZoneFinder]:
        layer = known_layer(self._layers, name, as_of_us)
        finder = self._finders.get(layer.hash)
        if finder is None:
            finder = self._finders[layer.hash] = ZoneFinder(layer)
        return layer, finder

    def _place(self, text: str, as_of_us: int | None) -> tuple[Layer, Zone]:
        """The zone whose name is nearest to the text; of equals, the one of the first layer and code."""
        found = []
        for name in self._layers.names() if self._layers else ():
            at = None if as_of_us is None else from_microseconds(as_of_us)
            layer = self._layers.find(name, at) if self._layers else None
            for zone in layer.zones if layer else ():
                slips = _slips_in_name(text, zone.name)
                if layer is not None and slips is not None:
                    found.append((slips, len(zone.name), name, zone.code, (layer, zone)))
        if not found:
            raise not_found("PLACE_UNKNOWN", "no zone of a reference layer has such a name")
        return min(found, key=lambda item: item[:4])[4]


def area_of_zone(zone: Zone) -> Area:
    """A zone as an area."""
    west, south, east, north = zone.shape.bounds
    box = (math.floor(west * E7), math.floor(south * E7), math.ceil(east * E7), math.ceil(north * E7))
    return Area(*box, zone.shape)


def _slips_in_name(text: str, name: str) -> int | None:
    asked, known = words_of(text), words_of(name)
    if not asked:
        return None
    total = 0
    for word in asked:
        close = near(word, known)
        if not close:
            return None
        total += min(close.values())
    return total


def _describe_words(call: Call, words: str, hits: Hits) -> None:
    """Words that titles hold are recorded; others could be anything, a name even: only that there were some, hashed."""
    if not words.strip():
        return
    call.data.filters["words"] = " ".join(hits.meanings)[:400]
    call.data.filters["words_sha256"] = hashlib.sha256(words.encode()).hexdigest()
    if detector := detector_of(words):
        call.data.filters["words_screened"] = detector
