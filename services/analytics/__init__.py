"""Reading: the map and the things on it, now or as they were known at a past moment (art5.map).

Owns no stream and emits no event: it reads ingest's FactDeclared, FactAmended, FactCancelled and FactErased and keeps
a read model that can be thrown away and rebuilt. Serves AnalyticsService (protos/planier/analytics/v1/analytics.proto).
Layout and figures: docs/adr/0006-read-model.md.
"""
