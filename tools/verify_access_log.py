#!/usr/bin/env python3
"""Verifies an access log's proofs offline: this one file, Python 3.11 and the package `cryptography`; nothing else.

For an auditor who believes nobody: it imports nothing of Planier and reads only the files and keys given to it.

    verify_access_log.py receipt FILE.tlog-proof     KEYS    one access is in the log, and was not changed
    verify_access_log.py consistency OLD EXTENSION   KEYS    the log only grew from one checkpoint to another
    verify_access_log.py copy FOLDER                 KEYS    a whole copy: entries, tiles, records, checkpoint

KEYS: --log-key KEY, --witness-key KEY for each witness whose cosignature is demanded, --hand-overs FILE where the log
has changed its key. A KEY is C2SP text, "name+hash+key", or a file that holds it. Exit status: 0 proved, 1 not proved,
2 not understood. What fails is named in the first word.

Formats: RFC 6962; C2SP signed-note, tlog-checkpoint, tlog-cosignature, tlog-proof, tlog-tiles, tlog-witness. An entry
is 0x01 and SHA-256(salt ‖ record), its salt 32 bytes.
"""

import argparse
import base64
import binascii
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

HASH, SALT, WIDTH = 32, 32, 256
LOG, WITNESS = b"\x01", b"\x04"
MOST = 1 << 63
# Operation, kind, resource, RPC (none) and author of a statement of erasure; the shortest schedule in seconds.
STATEMENT = (6, 2, "access-log", None, "spiffe://planier/audit")
LEAST_KEPT = 364 * 86_400


class Unproved(Exception):  # noqa: N818 -- the outcome
    """What does not hold: its name, then words."""

    def __init__(self, name: str, words: str) -> None:
        super().__init__(f"{name}: {words}")
        self.name = name


class Key(NamedTuple):
    """An Ed25519 key of a log (0x01) or of a witness (0x04)."""

    name: str
    kind: bytes
    raw: bytes

    @property
    def id(self) -> bytes:
        """What a signature line names the key by, beside its name."""
        return sha256(self.name.encode() + b"\n" + self.kind + self.raw).digest()[:4]


class Note(NamedTuple):
    """A signed note: text and signature lines, as (name, key id, signature)."""

    text: str
    lines: tuple[tuple[str, bytes, bytes], ...]


class Head(NamedTuple):
    """A checkpoint: origin, size, root."""

    origin: str
    size: int
    root: bytes


def parse_key(text: str, kind: bytes) -> Key:
    """A verifier key's text."""
    parts = text.strip().split("+", 2)
    content = unbase64(parts[2], "KEY_MALFORMED") if len(parts) == 3 else b""
    key = Key(parts[0], content[:1], content[1:])
    if len(content) != 1 + HASH or not key.name or key.id.hex() != parts[1]:
        raise Unproved("KEY_MALFORMED", "not the text of a verifier key")
    if key.kind != kind:
        raise Unproved("KEY_MALFORMED", "a log's key was given for a witness's, or the reverse")
    return key


def parse_note(text: str) -> Note:
    """A signed note, nothing verified."""
    head, separator, tail = text.rpartition("\n\n")
    if not separator or not tail.endswith("\n") or any(c < " " and c != "\n" for c in text):
        raise Unproved("NOTE_MALFORMED", "not a signed note")
    lines = []
    for line in tail[:-1].split("\n"):
        parts = line.split(" ")
        content = unbase64(parts[2], "NOTE_MALFORMED") if len(parts) == 3 and parts[0] == "—" else b""
        if len(content) <= 4 or not parts[1] or "+" in parts[1]:
            raise Unproved("NOTE_MALFORMED", "a line is no signature")
        lines.append((parts[1], content[:4], content[4:]))
    return Note(head + "\n", tuple(lines))


def parse_head(text: str) -> Head:
    """A checkpoint's text."""
    lines = text.split("\n")
    if len(lines) < 4 or lines[-1] or not all(lines[:-1]):
        raise Unproved("CHECKPOINT_MALFORMED", "not a checkpoint")
    root = unbase64(lines[2], "CHECKPOINT_MALFORMED")
    if len(root) != HASH:
        raise Unproved("CHECKPOINT_MALFORMED", "a root has 32 bytes")
    return Head(lines[0], number(lines[1], "CHECKPOINT_MALFORMED"), root)


def signed_by(note: Note, key: Key) -> bool:
    """Whether this key signed the note; a signature of this key that fails is no signature but a forgery."""
    own = [signature for name, key_id, signature in note.lines if (name, key_id) == (key.name, key.id)]
    for signature in own:
        message, raw = note.text.encode(), signature
        if key.kind == WITNESS:
            seconds, raw = int.from_bytes(signature[:8], "big"), signature[8:]
            message = f"cosignature/v1\ntime {seconds}\n{note.text}".encode()
        try:
            Ed25519PublicKey.from_public_bytes(key.raw).verify(raw, message)
        except (InvalidSignature, ValueError):
            name = "COSIGNATURE_INVALID" if key.kind == WITNESS else "SIGNATURE_INVALID"
            raise Unproved(name, f"a signature of {key.name} does not hold") from None
    return bool(own)


class Trust(NamedTuple):
    """The log's keys with the sizes that each may sign, and the witnesses whose cosignatures are demanded."""

    keys: tuple[tuple[Key, int, int], ...]
    witnesses: tuple[Key, ...]

    def head(self, text: str) -> Head:
        """A checkpoint's head, once the log signed it and every witness cosigned it."""
        note = parse_note(text)
        head = parse_head(note.text)
        able = [key for key, low, high in self.keys if low <= head.size <= high]
        if head.origin != self.keys[0][0].name:
            raise Unproved("ORIGIN_UNKNOWN", f"a checkpoint of {head.origin}, which is not the key's log")
        signed = [signed_by(note, key) for key in able]
        if not any(signed):
            raise Unproved("SIGNATURE_MISSING", "no key of the log that may sign this size has signed")
        for witness in self.witnesses:
            if not signed_by(note, witness):
                raise Unproved("COSIGNATURE_MISSING", f"{witness.name} has not cosigned")
        return head


def trust(log_key: Key, witnesses: Sequence[Key], hand_overs: Sequence[str]) -> Trust:
    """Follows the changes of the log's key, each signed by the key before and the key after."""
    keys, bounds = [log_key], list[int]()
    for place, text in enumerate(hand_overs):
        note = parse_note(text)
        lines = note.text.split("\n")
        if len(lines) != 7 or lines[0] != "planier-key-hand-over/v1":
            raise Unproved("HAND_OVER_INVALID", "not a change of the log's key")
        old, new = parse_key(lines[4], LOG), parse_key(lines[5], LOG)
        if place == 0:
            keys = [old]
        bounds.append(number(lines[2], "HAND_OVER_INVALID"))
        ordered = bounds == sorted(bounds) and old == keys[-1] and {old.name, new.name} == {lines[1]}
        if not ordered or not (signed_by(note, old) and signed_by(note, new)):
            raise Unproved("HAND_OVER_INVALID", "a change of the log's key that both keys have not signed in turn")
        keys.append(new)
    if log_key not in keys:
        raise Unproved("HAND_OVER_INVALID", "no change of key leads to the given key")
    spans = zip(keys, (0, *bounds), (*bounds, MOST), strict=True)
    return Trust(tuple(spans), tuple(witnesses))


def leaf_hash(entry: bytes) -> bytes:
    """RFC 6962 2.1, as the next."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """RFC 6962 2.1."""
    return sha256(b"\x01" + left + right).digest()


def climb(place: int, last: int, values: list[bytes], proof: Sequence[bytes]) -> list[bytes]:
    """The roots that a path leads to from a node; none where it is too short or too long (RFC 9162 2.1.3.2, 2.1.4.2).

    Of two values the first is that of the older tree, which ends where the path turns left for the last time.
    """
    for sibling in proof:
        if last == 0:
            return []
        if place & 1 or place == last:
            values = [node_hash(sibling, value) for value in values]
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            values[-1] = node_hash(values[-1], sibling)
        place, last = place >> 1, last >> 1
    return values if last == 0 else []


def included(index: int, head: Head, leaf: bytes, proof: Sequence[bytes]) -> bool:
    """Whether the proof leads from the leaf to the root."""
    return 0 <= index < head.size and climb(index, head.size - 1, [leaf], proof) == [head.root]


def consistent(old: Head, new: Head, proof: Sequence[bytes]) -> bool:
    """Whether the proof shows that the new tree extends the old one; of an empty tree nothing can be shown."""
    if not 1 <= old.size <= new.size:
        return False
    if old.size == new.size:
        return not proof and old.root == new.root
    steps = list(proof) if old.size & (old.size - 1) else [old.root, *proof]
    place, last = old.size - 1, new.size - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    return bool(proof) and climb(place, last, [steps[0], steps[0]], steps[1:]) == [old.root, new.root]


class Tree:
    """Grows by leaves; the root at any moment. Memory: one hash a level."""

    def __init__(self) -> None:
        self.size = 0
        self.peaks: list[tuple[int, bytes]] = []

    def add(self, leaf: bytes) -> None:
        """One leaf more."""
        level, value = 0, leaf
        while self.peaks and self.peaks[-1][0] == level:
            value = node_hash(self.peaks.pop()[1], value)
            level += 1
        self.peaks.append((level, value))
        self.size += 1

    def root(self) -> bytes:
        """The tree hash."""
        if not self.peaks:
            return sha256(b"").digest()
        value = self.peaks[-1][1]
        for _, left in reversed(self.peaks[:-1]):
            value = node_hash(left, value)
        return value


def check_receipt(path: Path, trusted: Trust) -> dict[str, Any]:
    """One access: its record is in the tree that log and witnesses signed."""
    text = read_text(path)
    head_text, _, checkpoint = text.partition("\n\n")
    lines = head_text.split("\n")
    if lines.pop(0) != "c2sp.org/tlog-proof@v1":
        raise Unproved("PROOF_MALFORMED", "not a tlog-proof file")
    extra = unbase64(lines.pop(0)[6:], "PROOF_MALFORMED") if lines and lines[0].startswith("extra ") else b""
    if not lines or not lines[0].startswith("index "):
        raise Unproved("PROOF_MALFORMED", "no index")
    index = number(lines.pop(0)[6:], "PROOF_MALFORMED")
    hashes = read_hashes(lines)
    head = trusted.head(checkpoint)
    if len(extra) <= SALT:
        raise Unproved("RECORD_ABSENT", "the proof holds no record: it was erased, or belongs to the other party")
    record = extra[SALT:]
    leaf = leaf_hash(b"\x01" + sha256(extra).digest())
    if not included(index, head, leaf, hashes):
        raise Unproved("INCLUSION_INVALID", "the record is not shown to be in the tree")
    return {"proved": "receipt", "index": index, "tree_size": head.size, "record": decode(record, ACCESS_RECORD)}


def check_consistency(old_path: Path, extension_path: Path, trusted: Trust) -> dict[str, Any]:
    """From a remembered checkpoint to another: nothing was changed or taken away.

    The extension is the body of a tlog-witness request: the old size, the proof, the new checkpoint.
    """
    # Of the remembered one the log's signature is enough: it is the auditor's own copy.
    old = Trust(trusted.keys, ()).head(read_text(old_path))
    head_text, _, checkpoint = read_text(extension_path).partition("\n\n")
    first, *lines = head_text.split("\n")
    if not first.startswith("old "):
        raise Unproved("PROOF_MALFORMED", "not a proof of consistency and a checkpoint")
    hashes, new = read_hashes(lines), trusted.head(checkpoint)
    if number(first[4:], "PROOF_MALFORMED") != old.size or not consistent(old, new, hashes):
        raise Unproved("CONSISTENCY_INVALID", f"the tree of {new.size} is not shown to extend that of {old.size}")
    return {"proved": "consistency", "from": old.size, "to": new.size}


def check_copy(folder: Path, trusted: Trust, remembered: Path | None) -> dict[str, Any]:
    """A whole copy: every entry hashes to its tile, the tiles to the root that was signed, each record to its entry.

    The folder is laid out as tlog-tiles; `records.jsonl`, if there, holds records and salts.
    """
    head = trusted.head(read_text(folder / "checkpoint"))
    old = Trust(trusted.keys, ()).head(read_text(remembered)) if remembered else Head("", 0, Tree().root())
    if old.size > head.size:
        raise Unproved("CONSISTENCY_INVALID", "the copy is shorter than the remembered log")
    tree, seen, records = Tree(), set[bytes](), Records(folder / "records.jsonl")
    for index, entry in enumerate(entries_of(folder, head.size)):
        leaf = leaf_hash(entry)
        if leaf[:16] in seen:
            raise Unproved("ENTRY_REPEATED", f"entry {index} repeats an earlier one")
        seen.add(leaf[:16])
        tree.add(leaf)
        records.match(index, entry)
        if tree.size == old.size and tree.root() != old.root:
            raise Unproved("CONSISTENCY_INVALID", "the copy does not extend the remembered checkpoint")
    if tree.root() != head.root:
        raise Unproved("ROOT_MISMATCH", "the entries are not those of the signed tree")
    records.end(head.size)
    counts = {"records": records.held, "masked": records.masked, "erased": records.erased}
    return {"proved": "copy", "tree_size": head.size, **counts}


class Records:
    """The records of a copy, matched with its entries one by one; a copy without the file holds none.

    An erased one must be named by a statement of the log's own retention, a record that comes after it.
    """

    def __init__(self, path: Path) -> None:
        self.given = path.is_file()
        self.unstated = set[int]()
        self.lines = read_records(path) if self.given else iter(())
        self.held = self.erased = self.masked = 0

    def match(self, index: int, entry: bytes) -> None:
        """The next record is that of this entry."""
        found = next(self.lines, None)
        if not self.given:
            return
        if found is None or found[0] != index:
            raise Unproved("RECORD_MISSING", f"record {index} is missing or out of order")
        if found[1] is None:
            self.erased += not found[2]
            self.masked += found[2]
            self.unstated |= set() if found[2] else {index}
            return
        if entry != b"\x01" + sha256(found[1]).digest():
            raise Unproved("RECORD_ALTERED", f"record {index} is not the one that was logged")
        self.held += 1
        # Most records are of accesses: those alone are read that may be a statement.
        if self.unstated and b"access-log" in found[1]:
            self.unstated -= set(erasures(decode(found[1][SALT:], ACCESS_RECORD)))

    def end(self, size: int) -> None:
        """No record lies beyond the tree."""
        if next(self.lines, None) is not None:
            raise Unproved("RECORD_UNKNOWN", f"there are more records than the {size} of the signed tree")
        if self.unstated:
            raise Unproved("ERASURE_UNAUTHORISED", f"no later record states that {min(self.unstated)} was erased")


def erasures(record: Mapping[str, Any]) -> Iterator[int]:
    """The indices whose erasure a record of the log's retention authorises: what was past a year by then."""
    data, actor = record.get("data", {}), record.get("actor", {})
    kind = record.get("operation"), record.get("kind"), record.get("resource"), record.get("rpc")
    made, cutoff = (int((at or "0").partition(".")[0]) for at in (record.get("occurred_at"), data.get("period_end")))
    if (*kind, actor.get("certificate_identity")) != STATEMENT or made - cutoff < LEAST_KEPT:
        return
    filters = data.get("filters", [])
    for entry in filters if isinstance(filters, list) else [filters]:
        for run in entry.get("value", "").split(",") if entry.get("key") == "indices" else ():
            first, _, last = run.partition("-")
            if first.isdecimal() and last.isdecimal():
                yield from range(int(first), int(last) + 1)


def entries_of(folder: Path, size: int) -> Iterator[bytes]:
    """Each entry of the tree in order, its bundle compared with its tile of hashes."""
    for index in range(-(-size // WIDTH)):
        width = min(WIDTH, size - index * WIDTH)
        bundle = read_tile(folder, "entries", index, width)
        hashes = read_tile(folder, "0", index, width)
        entries, at = [], 0
        while at + 2 <= len(bundle):
            end = at + 2 + int.from_bytes(bundle[at : at + 2], "big")
            entries.append(bundle[at + 2 : end])
            at = end
        if at != len(bundle) or len(entries) < width or len(hashes) < width * HASH or len(hashes) % HASH:
            raise Unproved("TILE_TRUNCATED", f"tile {index} is cut")
        for place, entry in enumerate(entries[:width]):
            if leaf_hash(entry) != hashes[place * HASH : (place + 1) * HASH]:
                raise Unproved("ENTRY_ALTERED", f"entry {index * WIDTH + place} is not the one of its tile")
            yield entry


def read_tile(folder: Path, level: str, index: int, width: int) -> bytes:
    """A tile's file; the full one also serves where a partial one was replaced by it."""
    parts, rest = [f"{index % 1000:03d}"], index // 1000
    while rest:
        parts.insert(0, f"x{rest % 1000:03d}")
        rest //= 1000
    full = folder / "tile" / level / Path(*parts)
    partial = full.parent / f"{full.name}.p" / str(width)
    path = partial if width < WIDTH and not full.is_file() else full
    if not path.is_file():
        raise Unproved("TILE_MISSING", str(path.relative_to(folder)))
    return path.read_bytes()


def read_records(path: Path) -> Iterator[tuple[int, bytes | None, bool]]:
    """Of each line, index and salt ‖ record (base64, `salt`, `record`); None where erased, or shown masked (True)."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            try:
                item = json.loads(line)
                index, record, salt = int(item["index"]), item.get("record"), item.get("salt")
            except (ValueError, KeyError, TypeError, AttributeError):
                raise Unproved("RECORDS_MALFORMED", "records.jsonl holds a line that is none") from None
            if record is None or salt is None:
                yield index, None, bool(item.get("masked"))
                continue
            content = unbase64(salt, "RECORDS_MALFORMED"), unbase64(record, "RECORDS_MALFORMED")
            yield index, content[0] + content[1], False


# --- reading ------------------------------------------------------------------------------------------------------

# A record is protobuf (planier.audit.v1.AccessRecord); of its fields, those that say who, when, what, why, decided how.
# A name alone is text; "#" a number, "%" a truth, "@" seconds since 1970; a table is a message.
Table = Mapping[int, Any]
ACTOR: Table = {
    1: "issuer", 2: "subject", 3: "certificate_identity", 4: "party", 5: "organisation", 6: "role", 7: "clearance_id",
    8: "session_id", 9: "agent_reference",
}  # fmt: skip
FILTER: Table = {1: "key", 2: "value"}
DATA: Table = {
    1: "sources", 2: "kinds", 4: "@period_start", 5: "@period_end", 6: "@as_of", 7: ("filters", FILTER), 8: "#count",
}  # fmt: skip
DECISION: Table = {1: "%permit", 2: "clauses", 5: "policy_hash", 7: "@decision_time"}
ACCESS_RECORD: Table = {
    1: "record_id", 2: "instance", 3: "#sequence", 4: "@occurred_at", 5: "#kind", 6: ("actor", ACTOR),
    7: "#operation", 8: "resource", 9: "rpc", 10: "#purpose", 11: "#motive_code", 12: "motive",
    13: "consultation_id", 14: ("data", DATA), 15: ("decision", DECISION), 16: "refusal_reason", 17: "trace_id",
    18: "peer", 20: "continues_record_id",
}  # fmt: skip


def decode(content: bytes, table: Table) -> dict[str, Any]:
    """The fields of a protobuf message that the table names; repeated ones as lists."""
    found: dict[str, Any] = {}
    for field, value in fields(content):
        known = table.get(field)
        if known is None:
            continue
        name, shown = known if isinstance(known, tuple) else (known.lstrip("#%@"), known[0])
        readable = show(value, shown)
        if name in found:
            readable = [*(found[name] if isinstance(found[name], list) else [found[name]]), readable]
        found[name] = readable
    return found


def show(value: int | bytes, shown: Any) -> Any:
    """A field as an auditor reads it."""
    if isinstance(value, int):
        return bool(value) if shown == "%" else value
    if isinstance(shown, Mapping):
        return decode(value, shown)
    if shown == "@":
        parts = dict(fields(value))
        return f"{parts.get(1, 0)!s}.{parts.get(2, 0)!s:>09}"
    return value.decode(errors="replace")


def fields(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protobuf message as they stand on the wire."""
    at = 0
    while at < len(content):
        tag, at = varint(content, at)
        kind = tag & 7
        value: int | bytes
        if kind == 0:
            value, at = varint(content, at)
        else:
            length = {1: 8, 5: 4}.get(kind, -1)
            if kind == 2:
                length, at = varint(content, at)
            if length < 0 or at + length > len(content):
                raise Unproved("RECORD_MALFORMED", "the record is no protobuf message")
            value, at = content[at : at + length], at + length
        yield tag >> 3, value


def varint(content: bytes, at: int) -> tuple[int, int]:
    """A number, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(content):
            break
        value |= (content[at] & 0x7F) << shift
        at += 1
        if not content[at - 1] & 0x80:
            return value, at
    raise Unproved("RECORD_MALFORMED", "the record is no protobuf message")


def read_hashes(lines: Sequence[str]) -> list[bytes]:
    """The lines of a path in the tree."""
    hashes = [unbase64(line, "PROOF_MALFORMED") for line in lines]
    if len(hashes) > 63 or any(len(value) != HASH for value in hashes):
        raise Unproved("PROOF_MALFORMED", "not a path of hashes")
    return hashes


def unbase64(text: Any, name: str) -> bytes:
    """Canonical base64."""
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError):
        content = None
    if content is None or base64.b64encode(content).decode() != text:
        raise Unproved(name, "not canonical base64")
    return content


def number(text: str, name: str) -> int:
    """A decimal below 2^63 without zeroes before it."""
    if not (text.isascii() and text.isdigit()) or len(text) > 19 or (text != "0" and text[0] == "0"):
        raise Unproved(name, "not a number")
    if int(text) >= MOST:
        raise Unproved(name, "a number beyond 2^63")
    return int(text)


def read_text(path: Path) -> str:
    """A text file, its line ends as they are."""
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise Unproved("FILE_MISSING", f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Unproved("FILE_MALFORMED", f"{path} is not text") from None


def read_key(given: str, kind: bytes) -> Key:
    """A key's text, or the file that holds it."""
    path = Path(given)
    return parse_key(given if "+" in given and not path.is_file() else read_text(path), kind)


def main(arguments: Sequence[str] | None = None) -> int:
    """0 proved, 1 not proved; argparse exits with 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    receipt = commands.add_parser("receipt")
    receipt.add_argument("file", type=Path)
    consistency = commands.add_parser("consistency")
    consistency.add_argument("old", type=Path)
    consistency.add_argument("extension", type=Path)
    copy = commands.add_parser("copy")
    copy.add_argument("folder", type=Path)
    copy.add_argument("--remembered", type=Path, help="a checkpoint that the copy must extend")
    for command in (receipt, consistency, copy):
        command.add_argument("--log-key", required=True)
        command.add_argument("--witness-key", action="append", default=[])
        command.add_argument("--hand-overs", type=Path, help="JSON: changes of the log's key, in order")
    options = parser.parse_args(arguments)
    try:
        notes = json.loads(read_text(options.hand_overs)) if options.hand_overs else []
        if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
            raise Unproved("HAND_OVER_INVALID", "not a list of changes of the log's key")  # noqa: TRY301
        witnesses = [read_key(given, WITNESS) for given in options.witness_key]
        trusted = trust(read_key(options.log_key, LOG), witnesses, notes)
        if options.command == "receipt":
            found = check_receipt(options.file, trusted)
        elif options.command == "consistency":
            found = check_consistency(options.old, options.extension, trusted)
        else:
            found = check_copy(options.folder, trusted, options.remembered)
    except (Unproved, json.JSONDecodeError) as error:
        print(f"NOT PROVED {error}", file=sys.stderr)
        return 1
    found["cosigned_by"] = [witness.name for witness in trusted.witnesses]
    print(json.dumps(found, ensure_ascii=False, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
