"""The access service: who may do what, under which clause of the convention.

Owns the streams "convention", "clearance-<id>" and "nominative-list" and the RPCs of planier.access.v1; emits
ConventionSigned, ClearanceGranted, ClearanceRevoked, BindingProposed, BindingConfirmed and the events of the list;
reads no other service's events.
"""
