"""The access log: an RFC 6962 Merkle log of AccessRecords.

Owns: no event stream; one log in one database. RPCs: Record (internal), Replay, VerifyLog, GetCheckpoint,
GetInclusionProof, GetConsistencyProof. Emits and reads no event. Knows nothing of the access beyond its record.
"""
