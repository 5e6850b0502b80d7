"""The log on real SQLite and PostgreSQL: order, idempotence, proofs, append-only tables, two processes."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from planier.audit.v1.audit_pb2 import ReplayFilter
from planier.audit.v1.record_pb2 import AccessRecord, RecordKind
from planier.common.v1.release_pb2 import Purpose
from sqlalchemy import inspect, text
from sqlalchemy.exc import DBAPIError

from services.audit import derived, merkle
from services.audit.batch import Outcome
from services.audit.checkpoint import parse_checkpoint
from services.audit.cosignature import Cosigner, cosign
from services.audit.derived import derived_until
from services.audit.entry import parse_record
from services.audit.folding import fold_database
from services.audit.log import AccessLog, leaf_of
from services.audit.publication import Publication
from services.audit.replay import Span, matches, read_page
from services.audit.schema import METADATA, SEQUENCERS
from services.audit.sequencer import LogBroken, LogFenced
from services.audit.verify import VerifyReport, verify_database
from tests.fixtures.audit import KEY, ORIGIN, access_record, batch, items, opened, sqlite_url, statement
from tests.fixtures.audit_earlier import create_log_of_0_1_0


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each engine."""
    return sqlite_url(tmp_path) if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def log(url: str) -> Iterator[AccessLog]:
    with opened(url) as opened_log:
        yield opened_log


def verified(log: AccessLog) -> VerifyReport:
    """The whole log verified as an auditor would, from the database and the public key only."""
    return verify_database(log.engine.url.render_as_string(hide_password=False), KEY.public_key())


def leaves(log: AccessLog) -> list[bytes]:
    with log.reading() as connection:
        rows = connection.execute(text("SELECT leaf_hash FROM access_records ORDER BY idx"))
        return [bytes(row[0]) for row in rows]


def test_every_prefix_proves_and_grows_consistently(log: AccessLog) -> None:
    for count in (1, 2, 5, 1, 30):
        log.append(batch(count))
    stored = leaves(log)
    assert log.size() == len(stored) == 39
    for size in range(1, 40):
        root = log.root_at(size)
        assert root == merkle.EMPTY.grow(stored[:size])[0].root()
        proof = log.inclusion_proof(size // 2, size)
        assert merkle.verify_inclusion(size // 2, size, stored[size // 2], proof, root)
        assert merkle.verify_consistency(size, 39, root, log.root_at(39), log.consistency_proof(size, 39))


def test_the_head_is_signed_and_covers_every_result(log: AccessLog) -> None:
    results = log.append(batch(3))
    head = log.head()
    assert parse_checkpoint(log.verifier.open(head.note)) == head.checkpoint
    for result in results:
        proof = log.inclusion_proof(result.log_index, head.checkpoint.size)
        assert merkle.verify_inclusion(
            result.log_index, head.checkpoint.size, result.leaf_hash, proof, head.checkpoint.root
        )


def test_the_same_bytes_under_a_known_id_get_the_first_result(log: AccessLog) -> None:
    first = batch(3)
    results = log.append(first)
    assert [result.log_index for result in results] == [0, 1, 2]
    assert log.append([first[1], *batch(1), first[0]])[::2] == [results[1], results[0]]
    assert log.size() == 4


def test_other_bytes_under_a_known_id_are_a_conflict_and_their_neighbours_are_written(log: AccessLog) -> None:
    record = access_record()
    stored = items([record])
    log.append(stored)
    record.motive = "autre motif"
    results = log.append([*items([record]), *batch(1)])
    assert [result.outcome for result in results] == [Outcome.CONFLICT, Outcome.RECORDED]
    assert log.append(stored)[0].log_index == 0


def test_within_one_batch_the_first_wins(log: AccessLog) -> None:
    record = access_record()
    first = items([record])
    record.motive = "autre motif"
    results = log.append([*first, *first, *items([record])])
    assert [result.outcome for result in results] == [Outcome.RECORDED, Outcome.RECORDED, Outcome.CONFLICT]
    assert results[0] == results[1]
    assert log.size() == 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda record_id, _: (record_id, b"\xff\xff"),
        lambda record_id, _: (record_id, b""),
        lambda record_id, record: (record_id[:-1] + ("0" if record_id[-1] != "0" else "1"), record),
        lambda _, __: ("a\0b", access_record(record_id="a\0b").SerializeToString()),
    ],
)
def test_an_unfit_record_is_refused_alone(log: AccessLog, spoil: Callable[[str, bytes], tuple[str, bytes]]) -> None:
    good, bad, other = batch(3)
    results = log.append([good, spoil(*bad), other])
    assert [result.outcome for result in results] == [Outcome.RECORDED, Outcome.INVALID, Outcome.RECORDED]
    assert verified(log).sound


def test_what_no_engine_can_hold_as_it_is_is_recorded_and_derived(log: AccessLog) -> None:
    records = [access_record(1, instance="nul\0"), access_record(2, kind=70_000), access_record(3)]
    records[2].sequence = (1 << 64) - 1
    assert [result.outcome for result in log.append(items(records))] == [Outcome.RECORDED] * 3
    assert log.catch_up() == 3
    assert verified(log).sound


def test_what_replay_filters_on_follows_the_log_and_can_be_thrown_away(log: AccessLog) -> None:
    log.append(batch(2_500))
    with log.reading() as connection:
        assert derived_until(connection) == 0
    assert log.catch_up() == 2_500
    with log.engine.begin() as connection:
        connection.execute(text("DELETE FROM access_columns"))
    log.append(batch(1))
    assert log.catch_up() == 2_501
    assert verified(log).sound


def test_a_record_erased_while_it_was_read_leaves_no_columns(log: AccessLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """An erasure between the reading of the records and the writing of their columns."""
    log.append(items([access_record(1), access_record(2), statement(0, 0)]))

    def erasing(content: bytes) -> AccessRecord | None:
        monkeypatch.setattr(derived, "parse_record", parse_record)
        log.erase([0], erased_by=2)
        return parse_record(content)

    monkeypatch.setattr(derived, "parse_record", erasing)
    assert log.catch_up() == 3
    with log.reading() as connection:
        assert connection.execute(text("SELECT subject, party FROM access_columns WHERE idx = 0")).one() == (None, None)
    assert verified(log).sound


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE access_records SET record_id = 'x' WHERE idx = 1",
        "UPDATE access_records SET leaf_hash = leaf_hash WHERE idx = 1",
        "UPDATE access_bodies SET record = salt WHERE idx = 1",
        "UPDATE access_bodies SET record = NULL, salt = NULL WHERE idx = 1",
        "UPDATE tree_runs SET first = first + 1",
        "UPDATE checkpoints SET note = ''",
        "DELETE FROM access_records",
        "DELETE FROM access_bodies",
        "DELETE FROM tree_runs",
        "DELETE FROM checkpoints",
    ],
)
def test_the_tables_refuse_change(log: AccessLog, statement: str) -> None:
    log.append(batch(3))
    with pytest.raises(DBAPIError, match="append-only"), log.engine.begin() as connection:
        connection.execute(text(statement))
    assert verified(log).sound


def test_a_log_reopens_where_it_was(url: str) -> None:
    with opened(url) as log:
        first = log.append(batch(5))
        head = log.head()
    with opened(url) as log:
        assert log.head() == head
        assert log.append(batch(1))[0].log_index == 5
        root = log.root_at(6)
        assert merkle.verify_inclusion(2, 6, first[2].leaf_hash, log.inclusion_proof(2, 6), root)


def test_a_log_whose_tree_is_not_the_signed_one_does_not_open(url: str) -> None:
    with opened(url) as log:
        log.append(batch(4))
    tamper(url, "UPDATE tree_runs SET hashes = :value WHERE level = 2", {"value": bytes(32)})
    with pytest.raises(LogBroken), opened(url):
        pass


def test_of_two_processes_only_the_last_that_opened_the_log_appends(url: str) -> None:
    """Whatever both try at the same time: the log does not fork, and nothing that was acknowledged is lost."""
    with opened(url) as one:
        results: dict[int, list[int]] = {0: [], 1: []}
        fenced = threading.Event()

        def run(log: AccessLog, name: int) -> None:
            for _ in range(25):
                try:
                    results[name] += [result.log_index for result in log.append(batch(3))]
                except LogFenced:
                    fenced.set()

        first = threading.Thread(target=run, args=(one, 0))
        first.start()
        with opened(url) as two:
            second = threading.Thread(target=run, args=(two, 1))
            second.start()
            for thread in (first, second):
                thread.join(60)
            with pytest.raises(LogFenced):
                one.append(batch(1))
            assert len(results[1]) == 75
            # Nobody was told of a record that the other's place took.
            assert sorted(results[0] + results[1]) == list(range(two.size()))
            assert one.head() == two.head()
    assert verified(one).sound


def test_a_fenced_process_does_not_take_the_log_back(url: str) -> None:
    with opened(url) as one:
        one.append(batch(2))
        with opened(url) as two:
            for _ in range(2):
                with pytest.raises(LogFenced):
                    one.append(batch(1))
            two.append(batch(1))
        assert one.size() == 3


def test_a_log_of_an_earlier_version_opens(url: str) -> None:
    """0.1.0: columns with the leaves, a row a node; no commitments of erased records, no epochs, no keys."""
    before = create_log_of_0_1_0(url, 70)
    of_agent = ReplayFilter(subject="agent-7")
    with opened(url) as log:
        with log.reading() as connection:
            columns = {column["name"] for column in inspect(connection).get_columns("access_records")}
            assert columns == {"idx", "record_id", "leaf_hash"}
            assert not inspect(connection).has_table("tree_nodes")
            assert derived_until(connection) == 70
            assert [entry.index for entry in read_page(connection, of_agent, Span(0, 70, 0))] == list(range(70))
        assert leaves(log) == before
        for size in (1, 16, 33, 70):
            root = merkle.EMPTY.grow(before[:size])[0].root()
            proof = log.inclusion_proof(size // 2, size)
            assert merkle.verify_inclusion(size // 2, size, before[size // 2], proof, root)
        log.append([*batch(1), *items([statement(0, 0)])])
        log.erase([0], erased_by=71)
        assert verified(log).sound
        log.store_checkpoint()
        assert fold_database(url, KEY.public_key()).size == 72
    for table in ("access_records", "access_bodies", "tree_runs", "checkpoints"):
        with log.engine.begin() as connection, pytest.raises(DBAPIError, match="append-only"):
            connection.execute(text(f"DELETE FROM {table}"))  # noqa: S608
    log.engine.dispose()
    tamper(url, "DELETE FROM log_keys", {})
    stranger = AccessLog(url, origin=ORIGIN, key=Ed25519PrivateKey.generate())
    with pytest.raises(LogBroken):
        stranger.open()


def test_a_repeated_leaf_is_found_and_named(tmp_path: Path) -> None:
    """Somebody with the log's key records one access twice, under two ids, to hide another."""
    url = sqlite_url(tmp_path)
    random = iter([bytes(96), bytes(32)])
    log = AccessLog(url, origin=ORIGIN, key=KEY, random_bytes=lambda _: next(random))
    log.open()
    first = batch(3)
    log.append(first)
    known = first[0]
    tamper(url, "UPDATE access_records SET record_id = 'other' WHERE idx = 0", {})
    log.append([known])
    log.close()
    faults = {(fault.index, fault.fault) for fault in verify_database(url, KEY.public_key()).faults}
    assert (3, "ENTRY_REPEATED") in faults


def test_an_erased_record_is_told_from_a_missing_one(log: AccessLog) -> None:
    erased = batch(1)
    log.append([*erased, *batch(3), *items([statement(0, 0)])])
    log.catch_up()
    log.erase([0], erased_by=4)
    report = verified(log)
    assert (report.sound, report.erased, report.tree_size) == (True, 1, 5)
    assert log.append(erased)[0].outcome is Outcome.CONFLICT
    with log.reading() as connection:
        entries = read_page(connection, ReplayFilter(), Span(0, 5, 0))
        assert not entries[0].HasField("record")
        found = read_page(connection, ReplayFilter(subject="agent-7"), Span(0, 5, 0))
        assert [entry.index for entry in found] == [1, 2, 3]
    tamper(str(log.engine.url.render_as_string(hide_password=False)), "DELETE FROM access_bodies WHERE idx = 2", {})
    assert [(fault.index, fault.fault) for fault in verified(log).faults] == [(2, "ENTRY_MISSING")]


@pytest.mark.parametrize("spoil", ["other index", "not the log's own", "before its time", "no statement"])
def test_an_erasure_that_no_statement_authorises_is_named(log: AccessLog, spoil: str) -> None:
    stated = statement(1, 1) if spoil == "other index" else statement(0, 0)
    if spoil == "not the log's own":
        stated.rpc = "/planier.analytics.v1.AnalyticsService/QueryMap"
    if spoil == "before its time":
        stated.data.period_end.CopyFrom(stated.occurred_at)
    log.append([*batch(2), *(batch(1) if spoil == "no statement" else items([stated]))])
    log.erase([0], erased_by=2)
    assert [(fault.index, fault.fault) for fault in verified(log).faults] == [(0, "ERASURE_UNAUTHORISED")]


def test_an_erasure_cites_a_record_of_the_log(log: AccessLog) -> None:
    log.append(batch(2))
    with pytest.raises(ValueError, match="cites"):
        log.erase([0], erased_by=2)
    assert verified(log).erased == 0


ALTERATIONS = {
    "record": ("access_bodies", "record", "idx = 3", "RECORD_ALTERED"),
    "salt": ("access_bodies", "salt", "idx = 3", "RECORD_ALTERED"),
    "leaf": ("access_records", "leaf_hash", "idx = 3", "LEAF_ALTERED"),
    "node": ("tree_runs", "hashes", "level = 2 AND first = 0", "NODE_ALTERED"),
    "signature": ("checkpoints", "note", "size = 5", "SIGNATURE_INVALID"),
    "root": ("checkpoints", "root", "size = 5", "ROOT_MISMATCH"),
    "id": ("access_records", "record_id", "idx = 3", "COLUMN_ALTERED"),
    "subject": ("access_columns", "subject", "idx = 3", "COLUMN_ALTERED"),
    "clauses": ("access_columns", "clauses", "idx = 3", "COLUMN_ALTERED"),
    "occurred": ("access_columns", "occurred_at", "idx = 3", "COLUMN_ALTERED"),
    "permitted": ("access_columns", "permitted", "idx = 3", "COLUMN_ALTERED"),
}


@pytest.mark.parametrize("name", ALTERATIONS)
def test_one_altered_bit_is_found_and_named(url: str, name: str) -> None:
    table, column, where, fault = ALTERATIONS[name]
    with opened(url) as log:
        log.append(batch(5))
        log.append(batch(6))
        log.catch_up()
    assert verify_database(url, KEY.public_key()).sound
    with log.engine.connect() as connection:
        value = connection.execute(text(f"SELECT {column} FROM {table} WHERE {where}")).scalar()  # noqa: S608 -- names of this test
    log.engine.dispose()
    tamper(url, f"UPDATE {table} SET {column} = :value WHERE {where}", {"value": flipped(value)})  # noqa: S608
    faults = verify_database(url, KEY.public_key()).faults
    assert fault in {found.fault for found in faults}
    assert faults[0].index in (0, 3, 5)
    # The quick check sees what the newest head covers of the records themselves.
    assert fold_database(url, KEY.public_key()).sound is (fault != "RECORD_ALTERED")


# Who opened the log when is for its operators: no proof rests on it.
PROVABLE = [(t.name, c.name) for t in METADATA.sorted_tables if t is not SEQUENCERS for c in t.columns]


@pytest.mark.parametrize(("table", "column"), PROVABLE)
def test_no_column_can_change_unseen(tmp_path: Path, table: str, column: str) -> None:
    url = sqlite_url(tmp_path)
    with opened(url) as log:
        log.append(batch(5))
        witness = Ed25519PrivateKey.generate()
        publication = Publication(log, [Cosigner("w", witness.public_key())])
        head = log.head()
        publication.add(head, [(publication.witnesses[0], cosign(head.checkpoint.text(), "w", witness, 1))])
        log.append(batch(6))
        log.catch_up()
    where = {"tree_runs": "level = 1 AND first = 2", "cosignatures": "size = 5", "log_keys": "place = 0"}.get(
        table, "rowid = 3"
    )
    with log.engine.connect() as connection:
        value = connection.execute(text(f"SELECT {column} FROM {table} WHERE {where}")).scalar()  # noqa: S608
    log.engine.dispose()
    # An index moves to where no row is; a column that holds nothing comes to hold something.
    elsewhere: dict[str, object] = {"idx": 1_000, "first": 1_000, "size": 7}
    changed = elsewhere.get(column, 1 if value is None else flipped(value))
    tamper(url, f"UPDATE {table} SET {column} = :value WHERE {where}", {"value": changed})  # noqa: S608
    assert not verify_database(url, KEY.public_key()).sound


@pytest.mark.parametrize("table", ["access_records", "access_bodies", "access_columns", "tree_runs", "checkpoints"])
def test_a_deleted_row_is_found(url: str, table: str) -> None:
    with opened(url) as log:
        log.append(batch(5))
        log.append(batch(6))
        log.catch_up()
    where = {"tree_runs": "level = 1 AND first = 2", "checkpoints": "size = 11", "access_columns": "idx = 9"}.get(
        table, "idx = 10"
    )
    tamper(url, f"DELETE FROM {table} WHERE {where}", {})  # noqa: S608
    report = verify_database(url, KEY.public_key())
    # A lost checkpoint is no lost access: the tree under it still stands, and the next head covers it.
    assert report.sound is (table == "checkpoints")


def test_a_cut_tail_is_found_while_its_checkpoint_stands(url: str) -> None:
    with opened(url) as log:
        log.append(batch(3))
        log.append(batch(1))
    for table in ("access_records", "access_bodies"):
        tamper(url, f"DELETE FROM {table} WHERE idx = 3", {})  # noqa: S608
    tamper(url, "DELETE FROM tree_runs WHERE level = 2 OR first = 1", {})
    assert [fault.fault for fault in verify_database(url, KEY.public_key()).faults] == ["ENTRY_MISSING"]


def test_records_that_the_log_never_signed_are_counted(url: str) -> None:
    """Whoever can write the tables, without the log's key, can add rows that prove each other."""
    with opened(url) as log:
        log.append(batch(5))
    assert verify_database(url, KEY.public_key()).unsigned == 0
    forger = AccessLog(url, origin=ORIGIN, key=KEY)
    forger.open()
    forger.append(batch(3))
    forger.engine.dispose()
    report = verify_database(url, KEY.public_key())
    assert (report.sound, report.tree_size, report.unsigned) == (True, 8, 3)


def test_holes_in_a_process_count_are_shown(log: AccessLog) -> None:
    log.append(items([access_record(number) for number in (4, 5, 9)]))
    assert verified(log).holes == {"analytics-1": 6}
    # What is erased may be what bore the numbers beside it.
    log.append(items([*(access_record(number, instance="analytics-2") for number in (1, 2, 3)), statement(4, 4)]))
    log.erase([4], erased_by=6)
    assert verified(log).holes == {"analytics-1": 6}


def test_replay_filters_in_sql_as_defined_over_the_bytes(log: AccessLog) -> None:
    records = [access_record(number) for number in range(1, 7)]
    records[1].actor.subject = "agent-8"
    records[2].decision.clauses[:] = ["art6.purpose_x", "art7.list"]
    records[3].data.sources[:] = ["travaux%"]
    records[4].actor.party = "PREFECTURE"
    records[4].kind = RecordKind.RECORD_KIND_REFUSAL
    records[5].actor.Clear()
    records[5].actor.certificate_identity = "spiffe://planier/cortege"
    log.append(items(records))
    log.catch_up()
    from_second, until_fourth = ReplayFilter(), ReplayFilter()
    from_second.occurred_from.CopyFrom(records[1].occurred_at)
    until_fourth.occurred_until.CopyFrom(records[3].occurred_at)
    wanted = [
        ReplayFilter(), from_second, until_fourth, ReplayFilter(subject="agent-8"), ReplayFilter(party="PREFECTURE"),
        ReplayFilter(clause="art6.purpose"), ReplayFilter(clause="art7.list", subject="agent-7"),
        ReplayFilter(source="travaux"), ReplayFilter(source="travaux%"), ReplayFilter(permitted=False),
        ReplayFilter(permitted=True), ReplayFilter(record_id=records[2].record_id),
        ReplayFilter(purpose=Purpose.PURPOSE_CROSSING),
        ReplayFilter(subject="spiffe://planier/cortege"), ReplayFilter(consultation_id=records[0].consultation_id),
        ReplayFilter(rpc=records[0].rpc, issuer="https://idp.example"), ReplayFilter(clause="art6"),
    ]  # fmt: skip
    with log.reading() as connection:
        for filter_ in wanted:
            found = [entry.index for entry in read_page(connection, filter_, Span(0, 6, 0))]
            assert found == [index for index, record in enumerate(records) if matches(record, filter_)], filter_
        assert [entry.index for entry in read_page(connection, ReplayFilter(), Span(2, 5, 2))] == [2, 3]
        for entry in read_page(connection, ReplayFilter(), Span(0, 6, 0)):
            assert leaf_of(entry.salt, entry.record) == entry.leaf_hash


def flipped(value: object) -> object:
    """The value with its lowest bit, or the last signature character's, changed."""
    match value:
        case bool():
            return not value
        case int():
            return value ^ 1
        case "":
            return "x"
        case str():
            at = len(value) // 2 if not value.endswith("\n") else len(value) - 20
            return value[:at] + ("B" if value[at] != "B" else "C") + value[at + 1 :]
        case bytes():
            return value[:-1] + bytes([value[-1] ^ 1])
    raise AssertionError(type(value))


def tamper(url: str, statement: str, values: dict[str, object]) -> None:
    """What an administrator of the machine can do: drops the triggers, then changes a row."""
    log = AccessLog(url, origin=ORIGIN, key=KEY)
    tables = [table.name for table in METADATA.sorted_tables]
    with log.engine.begin() as connection:
        for table in tables:
            for action in ("update", "delete"):
                on = "" if connection.dialect.name == "sqlite" else f" ON {table}"
                connection.execute(text(f"DROP TRIGGER IF EXISTS {table}_{action}{on}"))
        connection.execute(text(statement), values)
    log.engine.dispose()
