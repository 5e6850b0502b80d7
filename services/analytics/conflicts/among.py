"""The conflicts among some facts, all of them at once; pure: what `planier conflicts FILE` shows without a system."""

from collections.abc import Sequence

from planier.analytics.v1 import conflicts_pb2 as pb
from planier.common.v1 import fact_pb2

from services.analytics.conflicts.crossing import near_pairs
from services.analytics.conflicts.detection import Detector, Found, fingerprint, set_windows
from services.analytics.conflicts.rules import Rules
from services.analytics.conflicts.standing import lacking, windows_of
from services.analytics.conflicts.subjects import FOREVER, Metres, Subject, columns_of, in_metres, is_placed, sides_of
from services.analytics.conflicts.subjects import windows_of as periods_of


def conflicts_among(
    facts: Sequence[tuple[bytes, fact_pb2.Fact]], rules: Rules, metres: Metres
) -> tuple[pb.Conflict, ...]:
    """The conflicts of facts (id of 16 bytes, fact), the earliest first; nobody has acted on any."""
    detector = Detector(rules, metres)
    subjects = _subjects(facts, rules, metres)
    if not subjects:
        return ()
    columns = columns_of(subjects)
    pairs = near_pairs(columns, *rules.reach_of(-1))
    needs = list(detector.of_needs(subjects))
    found, covers = [], dict[bytes, list[Found]]()
    for one in detector.of_pairs(subjects, columns, pairs):
        if rules.rules[one.rule].needs:
            covers.setdefault(one.conflict_id, []).append(one)
        else:
            found.append(pb.Conflict.FromString(one.body))
    for need in needs:
        conflict = pb.Conflict.FromString(need.body)
        having = [pb.Conflict.FromString(cover.body) for cover in covers.get(need.conflict_id, ())]
        windows = lacking(conflict, having)
        if windows:
            set_windows(conflict, windows)
            conflict.covering_fact_ids.extend(sorted(key for cover in having for key in cover.covering_fact_ids))
            found.append(conflict)
    for conflict in found:
        conflict.fingerprint, conflict.state = fingerprint(conflict), pb.CONFLICT_STATE_DETECTED
    return tuple(sorted(found, key=lambda one: (windows_of(one)[0], one.conflict_id)))


def _subjects(facts: Sequence[tuple[bytes, fact_pb2.Fact]], rules: Rules, metres: Metres) -> list[Subject]:
    shapes = in_metres(metres, [fact for _, fact in facts])
    subjects = []
    for position, ((fact_id, fact), shape) in enumerate(zip(facts, shapes, strict=True), 1):
        left, right = sides_of(rules, fact)
        if left | right and is_placed(shape):
            subjects.append(Subject(fact_id, position, 0, FOREVER, fact, shape, periods_of(fact), left, right))
    return subjects
