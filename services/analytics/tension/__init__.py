"""Where facts gather beyond chance, how sure that is, and why (art5.tension); methods and misuse: docs/tension.md.

`local`, `families`, `rates`, `trend` and `scan` are statistics: pure functions over arrays that take any spatial
weights, so that published tables can be run against them. `facts`, `supports`, `analysis`, `disclosure`, `zones`,
`opinion` and `reasons` are what Planier makes of them, pure too. `queries` reads, `packing` writes, `desk` answers.
"""
