"""Which calls gRPC repeats by itself when the service is unavailable: only those that are the same done twice."""

import json

# Reads, proofs and hashes; Check decides anew; Record and DeclareFacts are idempotent by id for ever. A repeated read
# leaves one record per try, which a record being an upper bound of what was seen allows.
IDEMPOTENT: dict[str, tuple[str, ...]] = {
    "planier.ingest.v1.IngestService": ("DeclareFacts", "GetDeclaration", "ReadEvents", "GetHead"),
    "planier.access.v1.AccessService": (
        "GetConvention",
        "GetCommitments",
        "ListClearances",
        "GetDecision",
        "Check",
        "ReadEvents",
    ),
    "planier.analytics.v1.AnalyticsService": ("QueryMap", "GetFact", "GetPosition"),
    "planier.audit.v1.AuditService": (
        "Record",
        "VerifyLog",
        "GetCheckpoint",
        "GetInclusionProof",
        "GetConsistencyProof",
    ),
    "grpc.health.v1.Health": ("Check",),
}

_POLICY = {
    "maxAttempts": 3,
    "initialBackoff": "0.05s",
    "maxBackoff": "0.5s",
    "backoffMultiplier": 3,
    "retryableStatusCodes": ["UNAVAILABLE"],
}


def service_config() -> str:
    """The gRPC service config of every channel; retries stop while too many calls fail."""
    names = [{"service": service, "method": method} for service, methods in IDEMPOTENT.items() for method in methods]
    return json.dumps(
        {
            "methodConfig": [{"name": names, "retryPolicy": _POLICY}],
            "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.5},
        }
    )
