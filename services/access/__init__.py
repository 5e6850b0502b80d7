"""The access service: who may do what, under which clause of the convention.

Owns the streams "convention", "clearance-<id>", "nominative-list" and "engagement-<id>" and the RPCs of
planier.access.v1; emits the events of events.proto, list_events.proto and engagement_events.proto; reads no other
service's events.
"""
