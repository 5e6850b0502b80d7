"""Answers map questions, as the read model stands: one given before, one chosen from a neighbourhood, or a new one.

All three give the same bytes (tests/property/test_analytics_viewports.py). Every look is checked and recorded before.
"""

from collections.abc import Hashable

from planier.analytics.v1.analytics_pb2 import QueryMapResponse
from sqlalchemy import Connection

from services.analytics.answers import Answers, Kept, key_of
from services.analytics.coverage import CoverageReader, Covered
from services.analytics.neighbourhoods import MOST_FEATURES, Neighbourhood, Neighbourhoods, around, widened
from services.analytics.packing import pack
from services.analytics.queries import MapQuery, permitted, query_map
from services.analytics.reading import ReadModel
from services.analytics.snapshot import Snapshot
from services.analytics.suppression import Minimums
from services.kernel.guard.grant import Grant
from services.kernel.store.base import Position


class Viewports:
    """The map's questions over one read model; of one event loop."""

    def __init__(
        self, model: ReadModel, coverage: CoverageReader, minimums: Minimums, snapshot: Snapshot | None
    ) -> None:
        self._model = model
        self._coverage = coverage
        self._minimums = minimums
        self._snapshot = snapshot
        self._answers = Answers()
        self._neighbourhoods = Neighbourhoods()

    def forget(self) -> None:
        """Lets go of every fact in memory: call it when the read model moved."""
        self._model.forget_standing()
        self._answers.forget()
        self._neighbourhoods.forget()

    async def answer(self, grant: Grant, query: MapQuery, now_us: int) -> tuple[Position, QueryMapResponse]:
        """The answer, which nobody may change, and the position that it is of. Raises what `ReadModel.read` does."""
        sources = permitted(grant, query.sources)
        key, standing = key_of(query, sources), self._model.standing()
        kept = None if key is None or standing is None else self._answers.get(standing, key, now_us)
        if standing is not None and kept is not None:
            return standing, kept.response
        area = around(query) if sources else None
        place = None if area is None else key_of(query, sources, area, MOST_FEATURES)
        near = None if standing is None or place is None else self._neighbourhoods.get(standing, grant, place)
        if standing is not None and near is not None:
            covered = self._coverage.known(standing, sources, query.area, now_us)
            chosen = None if covered is None else near.within(query.area, query.limit)
            if covered is not None and chosen is not None:
                return standing, self._completed(standing, key, chosen, covered)
        # While the read model moves all the time, what is read around is of no use to the next one.
        wide, is_wanted = None, place is not None and self._neighbourhoods.is_wanted(place)
        if is_wanted and area is not None and standing is not None and near is None:
            wide = widened(query, area)
            # Until it is known to be worth it: a wide question may have to be asked again in a thread.
            self._neighbourhoods.avoid(place)
        found = self._model.read_here(lambda connection: self._asked(connection, grant, query, wide, now_us))
        is_present = found is not None
        if found is None:
            found = await self._model.read_away(lambda connection: self._asked(connection, grant, query, wide, now_us))
            # What was read in another turn may be of facts that were erased since: it is told, and not kept.
            is_present = found[0] == self._model.standing()
        position, (response, covered, around_it) = found
        if not is_present:
            return position, self._completed(position, None, response, covered)
        if around_it is not None and place is not None:
            self._neighbourhoods.keep(position, grant, place, around_it)
        return position, self._completed(position, key, response, covered)

    def _asked(
        self, connection: Connection, grant: Grant, query: MapQuery, wide: MapQuery | None, now_us: int
    ) -> tuple[QueryMapResponse, Covered, Neighbourhood | None]:
        """The answer, and what was read around it."""
        sources = permitted(grant, query.sources)
        covered = self._coverage.covered(connection, sources, query.area, now_us, query.as_of_us)
        response = found = None
        if wide is not None:
            answer = query_map(connection, grant, wide, self._minimums)
            if answer.counts is None:
                found = Neighbourhood(answer)
                response = found.within(query.area, query.limit)
        if response is None:
            response = pack(query_map(connection, grant, query, self._minimums, self._snapshot))
        return response, covered, found

    def _completed(
        self, position: Position, key: Hashable | None, response: QueryMapResponse, covered: Covered
    ) -> QueryMapResponse:
        """The answer with its coverage; kept under the key, if there is one."""
        response.coverage.CopyFrom(covered.answer)
        if key is not None and covered.lasts is not None:
            self._answers.keep(position, key, Kept(response, *covered.lasts))
        return response
