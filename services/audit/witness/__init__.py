"""A witness of access logs, run by one party: it cosigns what only ever grew, and answers for nothing else.

C2SP tlog-witness (c2sp.org/tlog-witness), Ed25519 cosignatures. It keeps, per log, the newest checkpoint that it
cosigned, and the checkpoints that it refused: these, signed by the log, are the evidence.
"""
