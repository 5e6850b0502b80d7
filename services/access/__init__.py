"""The access service: who may do what, under which clause of the convention.

Owns the streams "convention" and "clearance-<id>" and the RPCs of planier.access.v1; emits ConventionSigned,
ClearanceGranted, ClearanceRevoked, BindingProposed, BindingConfirmed; reads no other service's events.
"""
