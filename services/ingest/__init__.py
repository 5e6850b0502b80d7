"""Ingest: the one door for facts.

Owns the streams "fact-<fact_id>", one a fact, whose events are its revisions.
Serves IngestService (protos/planier/ingest/v1/ingest.proto). Emits FactDeclared, FactAmended, FactCancelled and
FactErased; reads no other service's events. Asks access for each decision and for the hash of annex 1, and audit for
a record of each call.
"""
