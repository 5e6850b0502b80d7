"""Crossing (art5.cross): rules as data, what collides under them, and what people did about it.

Pure: `rules`, `subjects`, `windows`, `crossing` (which pairs are near), `detection` (what a pair is under a rule) and
`standing` (what is derived for a reader). `tables` and `projection` keep it beside the read model, a version of a fact
against its neighbours only; `queries` answers; `register` holds people's steps. Why: docs/adr/0013-conflicts.md.
"""
