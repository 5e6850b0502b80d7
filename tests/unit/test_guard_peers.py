"""Attempts of unknown callers: one record per peer and minute, none lost to a log that is away."""

import pytest

from tests.fixtures.guard import Bench, no_log


async def test_one_record_per_peer_and_minute() -> None:
    bench = Bench()
    attempts = bench.guard.attempts
    for port in range(50):
        attempts.count(f"ipv4:10.0.0.1:{port}", "TOKEN_INVALID")
    attempts.count("ipv6:[::1]", "TLS_HANDSHAKE_FAILED", 7)
    bench.clock.advance(60)
    attempts.count("ipv4:10.0.0.1:9", "TOKEN_EXPIRED")
    await attempts.flush()
    summaries = {record.peer: dict(record.unauthenticated) for record in bench.log.records}
    assert summaries == {"ipv4:10.0.0.1": {"TOKEN_INVALID": 50}, "ipv6:[::1]": {"TLS_HANDSHAKE_FAILED": 7}}
    assert {record.data.period_end.seconds - record.data.period_start.seconds for record in bench.log.records} == {60}
    await bench.guard.close()
    assert dict(bench.log.records[2].unauthenticated) == {"TOKEN_EXPIRED": 1}
    assert [record.sequence for record in bench.log.records] == [1, 2, 3]


async def test_the_present_minute_is_not_over() -> None:
    bench = Bench()
    bench.guard.attempts.count("ipv4:10.0.0.1:1", "TOKEN_INVALID")
    await bench.guard.attempts.flush()
    assert bench.log.records == []
    await bench.guard.close()


async def test_a_flood_of_peers_is_counted_together() -> None:
    bench = Bench()
    for number in range(1500):
        bench.guard.attempts.count(f"ipv4:10.1.{number // 256}.{number % 256}:1", "TOKEN_INVALID")
    await bench.guard.close()
    assert len(bench.log.records) == 1001
    assert [record.unauthenticated["TOKEN_INVALID"] for record in bench.log.records if record.peer == "(others)"] == [
        500
    ]


async def test_what_the_log_did_not_take_is_sent_again_as_the_same_bytes() -> None:
    bench = Bench()
    bench.guard.attempts.count("ipv4:10.0.0.1:1", "TOKEN_INVALID")
    bench.clock.advance(60)
    bench.log.answer = no_log
    await bench.guard.attempts.flush()
    bench.log.answer = None
    await bench.guard.close()
    first, second = bench.log.records
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.0.0.1:80", "ipv4:10.0.0.1"),
        ("ipv4:10.0.0.1", "ipv4:10.0.0.1"),
        ("ipv6:[::1]:80", "ipv6:[::1]"),
        ("ipv6:[::1]", "ipv6:[::1]"),
        ("ipv6:%5B::1%5D:80", "ipv6:%5B::1%5D"),
        ("unix:", "unix:"),
        ("unknown", "unknown"),
    ],
)
async def test_a_peer_is_known_by_its_address(peer: str, address: str) -> None:
    bench = Bench()
    bench.guard.attempts.count(peer, "TOKEN_INVALID")
    await bench.guard.close()
    assert [record.peer for record in bench.log.records] == [address]
