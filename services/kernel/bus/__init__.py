"""Carries a store's events to the other services; transport only, the store stays the record.

Owner's side: `Relay` reads the store and publishes runs; `read_events` answers `ReadEvents`.
Consumer's side: `Feed` yields verified, contiguous runs, whatever the bus loses, doubles or reorders.
"""
