"""From a request to a packed answer: the purpose, the record, the reading, the study."""

import asyncio
import hashlib
from collections import Counter, OrderedDict
from collections.abc import Sequence
from zoneinfo import ZoneInfo

import shapely
from planier.analytics.v1.analytics_pb2 import QueryTensionRequest
from planier.analytics.v1.coverage_pb2 import Coverage
from planier.analytics.v1.tension_pb2 import (
    TENSION_STEP_DAY,
    TENSION_STEP_MONTH,
    TENSION_STEP_UNSPECIFIED,
    TENSION_STEP_WEEK,
    QueryTensionResponse,
    TensionStep,
    TensionUnit,
)
from planier.common.v1.release_pb2 import PURPOSE_TENSION
from pyproj import Transformer
from shapely.geometry.base import BaseGeometry
from sqlalchemy import Connection

from services.analytics.area import area_of_box, area_of_polygon
from services.analytics.coverage import CoverageReader
from services.analytics.placement import E7, microseconds_of, polygon_of
from services.analytics.reading import ReadModel
from services.analytics.snapshot import Snapshot
from services.analytics.tension.facts import Facts, Feed
from services.analytics.tension.opinion import second_opinion
from services.analytics.tension.packing import pack
from services.analytics.tension.queries import TensionQuery, feeding, read_facts
from services.analytics.tension.zones import DAY_US, Question, study
from services.analytics.zones import known_layer, reference_to
from services.kernel.clock import Clock, microseconds
from services.kernel.errors import Violation, denied, invalid
from services.kernel.guard.grant import Grant
from services.kernel.layers import Layer, LayerFolder
from services.kernel.registry import Registry
from services.kernel.rpc.call import Call
from services.kernel.store.base import Position
from services.kernel.territory import Territory

DEFAULT_RESOLUTION = 9
DEFAULT_PERMUTATIONS = 999
# 28 years of months and some; more would be a table of gigabytes.
MOST_STEPS = 400
# Answers kept, for as long as nothing new was learnt.
KEPT = 8
_DAYS = {TENSION_STEP_UNSPECIFIED: 30, TENSION_STEP_DAY: 1, TENSION_STEP_WEEK: 7, TENSION_STEP_MONTH: 30}


class TensionDesk:
    """Answers QueryTension: one study at a time, in a thread, so that maps are served meanwhile."""

    def __init__(
        self,
        model: ReadModel,
        registry: Registry,
        territory: Territory,
        *,
        coverage: CoverageReader,
        clock: Clock,
        snapshot: Snapshot | None = None,
        layers: LayerFolder | None = None,
    ) -> None:
        self._model = model
        self._coverage = coverage
        self._clock = clock
        self._snapshot = snapshot
        self._layers = layers
        self._registry = registry
        self._zone = ZoneInfo(territory.time_zone)
        self._to_metres = Transformer.from_crs(4326, territory.epsg, always_xy=True)
        self._one_at_a_time = asyncio.Semaphore(1)
        self._answers: OrderedDict[bytes, tuple[Position, QueryTensionResponse]] = OrderedDict()

    async def answer(self, request: QueryTensionRequest, call: Call) -> QueryTensionResponse:
        """The answer.

        Raises:
            Problem: PERMISSION_DENIED PURPOSE_NOT_TENSION; INVALID_ARGUMENT AREA_INVALID or TENSION_INVALID; NOT_FOUND
                LAYER_UNKNOWN.
        """
        grant = call.granted
        if grant.purpose != PURPOSE_TENSION:
            raise denied(
                "PURPOSE_NOT_TENSION", "zones of tension are shown under the purpose TENSION only", "art6.purpose"
            )
        query, layer = query_of(request), None
        if request.layer_name:
            layer = await asyncio.to_thread(known_layer, self._layers, request.layer_name, query.as_of_us)
        question = question_of(request, layer)
        asked = feeding(grant, self._registry, query)
        _describe(request, question, query, asked, call)
        if layer is not None:
            call.data.filters["layer"] = f"{layer.name}@{layer.hash}"
        key, response = _key(request, asked, layer), QueryTensionResponse()
        call.data_position, coverage, studied = await self._answer(key, grant, query, question, asked, request.method)
        response.CopyFrom(studied)
        response.coverage.CopyFrom(coverage)
        if layer is not None:
            response.layer.CopyFrom(reference_to(layer))
        call.data.count = len(response.zones)
        return response

    async def _answer(
        self, key: bytes, grant: Grant, query: TensionQuery, question: Question, asked: Sequence[Feed], method: bool
    ) -> tuple[Position, Coverage, QueryTensionResponse]:
        """Position, what is not known there, and what was found there; the last may be kept, and is not changed."""
        now_us, sources = microseconds(self._clock.now()), sorted({feed.source for feed in asked})

        def covered(connection: Connection) -> Coverage:
            return self._coverage.read(connection, sources, query.area, now_us, query.as_of_us)

        kept = self._answers.get(key)
        if kept is not None:
            position, coverage = await self._model.read(covered)
            if position == kept[0]:
                return position, coverage, kept[1]
        position, (coverage, facts) = await self._model.read(
            lambda connection: (
                covered(connection),
                read_facts(connection, grant, self._registry, query, self._snapshot),
            )
        )
        async with self._one_at_a_time:
            studied = await asyncio.to_thread(self._study, facts, question, asked, method=method)
        self._keep(key, position, studied)
        return position, coverage, studied

    def _keep(self, key: bytes, position: Position, response: QueryTensionResponse) -> None:
        """A permit lapses in 2 s, a study of decades may take longer: asked again, its answer is there."""
        self._answers[key] = (position, response)
        self._answers.move_to_end(key)
        if len(self._answers) > KEPT:
            self._answers.popitem(last=False)

    def _study(self, facts: Facts, question: Question, asked: Sequence[Feed], *, method: bool) -> QueryTensionResponse:
        found = study(facts, question, self._to_metres.transform)
        opinion = second_opinion(found) if method else None
        return pack(found, opinion, asked, self._registry.hash, self._zone, self._back)

    def _back(self, x: float, y: float) -> tuple[float, float]:
        longitude, latitude = self._to_metres.transform(x, y, direction="INVERSE")
        return float(longitude), float(latitude)


def question_of(request: QueryTensionRequest, layer: Layer | None = None) -> Question:
    """The window in whole steps that end with the period; a period shorter than a step is one step of its own.

    `layer`: the reference layer that the request names.

    Raises:
        Problem: INVALID_ARGUMENT TENSION_INVALID: too many steps, or a layer that is missing or not valid.
    """
    start, end = microseconds_of(request.period.start), microseconds_of(request.period.end)
    step = _DAYS[request.step] * DAY_US
    steps = (end - start) // step
    if steps > MOST_STEPS:
        raise _invalid("period", "steps", f"the period holds more than {MOST_STEPS} steps: take longer ones")
    names, polygons = _units(request, layer)
    if request.by_layer and not names:
        raise _invalid("layer", "required", "the layer's polygons are to be the units, and there are none")
    if not steps:
        step, steps = end - start, 1
    return Question(
        first_us=end - steps * step,
        step_us=step,
        steps=steps,
        resolution=request.resolution or DEFAULT_RESOLUTION,
        names=names,
        polygons=polygons,
        by_polygon=request.by_layer,
        permutations=request.permutations or DEFAULT_PERMUTATIONS,
    )


def query_of(request: QueryTensionRequest) -> TensionQuery:
    """The request in the read model's words. Raises Problem INVALID_ARGUMENT AREA_INVALID."""
    return TensionQuery(
        area=area_of_box(request.box) if request.HasField("box") else area_of_polygon(request.polygon),
        starts_us=microseconds_of(request.period.start),
        ends_us=microseconds_of(request.period.end),
        sources=tuple(request.sources),
        kinds=tuple(request.kinds),
        as_of_us=microseconds_of(request.as_of) if request.HasField("as_of") else None,
    )


def _units(request: QueryTensionRequest, layer: Layer | None) -> tuple[tuple[str, ...], tuple[BaseGeometry, ...]]:
    """Names and shapes; zones of one name, which only their codes tell apart, show them."""
    if layer is None:
        return tuple(unit.name for unit in request.layer), tuple(_shape(unit) for unit in request.layer)
    times = Counter(zone.name for zone in layer.zones)
    names = (zone.name if times[zone.name] == 1 else f"{zone.name} ({zone.code})" for zone in layer.zones)
    return tuple(names), tuple(zone.shape for zone in layer.zones)


def _shape(unit: TensionUnit) -> BaseGeometry:
    """Layers in use have rings that touch themselves: they are mended, not refused, as long as they hold a surface."""
    if any(ring.points[0] != ring.points[-1] for polygon in unit.polygons for ring in polygon.rings):
        raise _invalid("layer", "closed", "first and last point of a ring are the same")
    shape = shapely.make_valid(shapely.union_all([shapely.make_valid(polygon_of(part)) for part in unit.polygons]))
    if not shape.area:
        raise _invalid("layer", "surface", "a unit has no surface")
    return shape


def _describe(
    request: QueryTensionRequest, question: Question, query: TensionQuery, asked: Sequence[Feed], call: Call
) -> None:
    data, area = call.data, query.area
    data.sources.extend(sorted({feed.source for feed in asked}))
    data.kinds.extend(sorted({feed.kind for feed in asked}))
    data.area.west, data.area.south = area.west / E7, area.south / E7
    data.area.east, data.area.north = area.east / E7, area.north / E7
    data.period_start.CopyFrom(request.period.start)
    data.period_end.CopyFrom(request.period.end)
    if request.HasField("as_of"):
        data.as_of.CopyFrom(request.as_of)
    data.filters["resolution"] = "layer" if question.by_polygon else str(question.resolution)
    data.filters["step"] = TensionStep.Name(request.step)
    data.filters["permutations"] = str(question.permutations)
    data.filters["method"] = str(request.method).lower()
    if request.HasField("polygon"):
        data.filters["polygon_sha256"] = _digest(request.polygon.SerializeToString(deterministic=True))
    if request.layer:
        parts = [unit.SerializeToString(deterministic=True) for unit in request.layer]
        data.filters["layer_sha256"] = _digest(b"".join(len(part).to_bytes(4, "big") + part for part in parts))


def _key(request: QueryTensionRequest, asked: Sequence[Feed], layer: Layer | None) -> bytes:
    """What an answer depends on beside the data: the question without who asks and why, kinds it may use, and layer."""
    question = QueryTensionRequest()
    question.CopyFrom(request)
    question.ClearField("consultation")
    beside = repr(([(feed.source, feed.kind) for feed in asked], layer and layer.hash)).encode()
    return hashlib.sha256(question.SerializeToString(deterministic=True) + beside).digest()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _invalid(field: str, rule: str, description: str) -> Exception:
    return invalid("TENSION_INVALID", "the question cannot be answered", Violation(field, rule, description))
