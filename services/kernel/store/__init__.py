"""Event store: append-only, hash-chained, over SQLite or PostgreSQL."""

from services.kernel.store.opening import create_schema, open_store

__all__ = ["create_schema", "open_store"]
