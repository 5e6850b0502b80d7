"""The access log: an RFC 6962 Merkle log of AccessRecords.

Owns one log in one database, and beside it the stream "log-governance" of what officers decide about it. Serves
AuditService (records, proofs, replay) and OversightService (planier.audit.v1). Reads access's events, for exports only.
Knows nothing of an access beyond its record. Each party's witness is services.audit.witness.
"""
