"""`planier status`: whether everything serves."""

import asyncio
import os
from typing import Any

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from planier.access.v1.access_pb2 import GetCommitmentsRequest
from planier.access.v1.access_pb2_grpc import AccessServiceStub

from services.cli.app import JsonOption, app, perform
from services.cli.connection import channel
from services.cli.output import print_json, print_table
from services.cli.profile import Profile
from services.kernel.errors import Problem

PATIENCE = 2.0


@app.command()
def status(as_json: JsonOption = False) -> None:
    """Say what serves; exits with 0 exactly when everything does."""
    perform(_status(as_json=as_json), as_json=as_json)


async def _status(*, as_json: bool) -> None:
    profile = Profile.load()
    names = list(profile.addresses)
    states = dict(zip(names, await asyncio.gather(*(health(profile, name) for name in names)), strict=True))
    convention = await _convention(profile)
    serving = all(state == "SERVING" for state in states.values())
    ready = serving and bool(convention["instruments"]) and _supervised(profile)
    if as_json:
        print_json({"ready": ready, "services": states, "convention": convention})
    else:
        print_table(
            "planier", ("part", "state"), [*states.items(), ("convention", convention["version"] or "unsigned")]
        )
    if not ready:
        raise SystemExit(1)


async def health(profile: Profile, service: str) -> str:
    """A service's own word: SERVING, NOT_SERVING, or UNREACHABLE."""
    async with channel(profile, service) as opened:
        check = opened.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        )
        try:
            answer: HealthCheckResponse = await check(HealthCheckRequest(), timeout=PATIENCE)
        except (Problem, grpc.aio.AioRpcError):
            return "UNREACHABLE"
    return HealthCheckResponse.ServingStatus.Name(answer.status)


async def _convention(profile: Profile) -> dict[str, Any]:
    async with channel(profile, "access") as opened:
        try:
            answer = await AccessServiceStub(opened).GetCommitments(GetCommitmentsRequest(), timeout=PATIENCE)
        except (Problem, grpc.aio.AioRpcError):
            return {"version": "", "instruments": [], "annex_hash": ""}
    instruments = {item.instrument_id: item.version for item in answer.instruments}
    return {
        "version": instruments.get("convention", ""),
        "instruments": sorted(instruments),
        "annex_hash": answer.annex_hash,
    }


def _supervised(profile: Profile) -> bool:
    """Whether the local supervisor has said `ready` and lives; without one, the services' word is enough."""
    marker = profile.home / "ready"
    if not (profile.home / "supervisor").exists():
        return True
    try:
        os.kill(int(marker.read_text()), 0)
    except (OSError, ValueError):
        return False
    return True
