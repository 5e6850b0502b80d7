"""Reading: the map and the things on it, now or as they were known at a past moment (art5.map).

Reads ingest's FactDeclared, FactAmended, FactCancelled and FactErased; keeps a read model that can be thrown away and
rebuilt. Owns the streams "conflict-<id>" of what people did about conflicts, emits ConflictAcknowledged and
ConflictResolved. Serves AnalyticsService (protos/planier/analytics/v1). Layout: docs/adr/0006-read-model.md.
"""
