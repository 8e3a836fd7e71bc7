"""Files that are cut off, changed or made by somebody hostile: refused by line, and nothing of them is kept."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from owners import Line, exported, fill, lines, rows, sealed

from mirai_memory import ConfigurationError, InvalidInput, Knowledge, MemoryManager, UserPreferences, load_settings
from mirai_memory.testing.clock import FrozenClock

SECRET = "walrus"


@pytest.fixture(scope="module")
def whole() -> bytes:
    clock = FrozenClock()
    with MemoryManager(":memory:", clock=clock) as memory:
        fill(memory, clock)
        return exported(memory)


@pytest.fixture(scope="module")
def target() -> Iterator[MemoryManager]:
    """One for all files, since nothing of them may stay."""
    with MemoryManager(":memory:") as memory:
        yield memory
        assert {value for name, value in memory.get_stats().items() if name.startswith("total_")} == {0}


def refused(memory: MemoryManager, file: bytes) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        memory.import_user(BytesIO(file))
    said = str(caught.value)
    assert SECRET not in said
    assert not any(rows(memory).values())
    return caught.value


# --- cut off, changed -------------------------------------------------------------------------------------------------


def test_a_file_that_is_cut_off_anywhere_is_refused(target: MemoryManager, whole: bytes) -> None:
    ends = [place for place, byte in enumerate(whole) if byte == 10]
    for length in sorted({0, 1, *ends, *(end + 1 for end in ends[:-1]), *range(5, len(whole), 97), len(whole) - 1}):
        error = refused(target, whole[:length])
        assert error.field == f"line {whole[:length].count(10) + 1}", length


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_bit_that_has_turned_is_noticed(target: MemoryManager, whole: bytes, place: float, bit: int) -> None:
    changed = bytearray(whole)
    changed[int(place * len(whole))] ^= 1 << bit
    assert refused(target, bytes(changed)).field.startswith("line ")


def test_a_line_that_is_missing_twice_there_or_elsewhere_is_noticed(target: MemoryManager, whole: bytes) -> None:
    split = whole.splitlines(keepends=True)
    for place in range(len(split)):
        refused(target, b"".join(split[:place] + split[place + 1 :]))
        refused(target, b"".join([*split[: place + 1], *split[place:]]))
    refused(target, b"".join([split[0], *split[2:3], split[1], *split[3:]]))


def test_more_than_the_end_is_refused(target: MemoryManager, whole: bytes) -> None:
    assert "follows the end" in refused(target, whole + b"\n").rule
    assert "follows the end" in refused(target, whole + whole).rule


def test_a_file_that_changes_between_checking_and_storing_is_refused(whole: bytes, memory: MemoryManager) -> None:
    class Changing(BytesIO):
        passes = 0

        def seek(self, offset: int, whence: int = 0) -> int:
            self.passes += offset == 0
            if self.passes == 2 and offset == 0:
                self.getbuffer()[:] = whole.replace(b"walrus 0", b"walrus 9")
            return super().seek(offset, whence)

    with pytest.raises(InvalidInput, match="sha256"):
        memory.import_user(Changing(whole))
    assert not any(rows(memory).values())


# --- what a line may hold ---------------------------------------------------------------------------------------------

DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        (b"", "is no JSON"),
        (b"walrus", "is no JSON"),
        (b"[]", "must be an object"),
        (b'"walrus"', "must be an object"),
        (b"{}", "type: must be one of"),
        (b'{"type": 7}', "type: must be one of"),
        (b'{"type": ["walrus"]}', "type: must be one of"),
        (b'{"type": "walrus"}', "type: must be one of"),
        (b'{"type": "fact", "x": NaN}', "is no JSON"),
        (b'{"type": "fact", "x": 1' + b"0" * 5_000 + b"}", "is no JSON"),
        (b'{"type": "fact", "walrus": 1}', "does not know"),
        (b'{"type": "fact", "value": "\xff"}', "is no UTF-8"),
        (b'{"type": "fact", "x": ' + DEEP.encode() + b"}", "nested too deeply"),
        (b'{"type": "fact", "metadata": {"x": "' + b"walrus" * 20_000_000 + b'"}}', "is longer than"),
        (b'{"type": "fact", "metadata": {"x": [' + b"[]," * 5_000_000 + b"1]}}", "more values than"),
        (b'{"type": "header"}', "wrong place"),
        (b'{"type": "end"}', "differ from what was read"),
    ],
    ids=range(17),
)
def test_a_line_that_is_none(target: MemoryManager, whole: bytes, line: bytes, rule: str) -> None:
    split = whole.splitlines(keepends=True)
    place = len(split) - 1
    error = refused(target, b"".join([*split[:place], line, b"\n", *split[place:]]))
    assert (error.field, rule in error.rule) == (f"line {place + 1}", True), error


TOO_LONG = SECRET * 200_000
DEEPER: list[Any] = []
for _ in range(200):
    DEEPER = [DEEPER]
WRONG: list[Any] = [
    *(0, -1, 1.5, True, 2**70, "", SECRET, f"{SECRET}\0b", f"{SECRET}\ud800", TOO_LONG),
    *([], [SECRET], {}, {SECRET: 1}, [[]], DEEPER, {SECRET: DEEPER}, {"x": f"{SECRET}\0"}),
]


def _kinds() -> Iterator[tuple[str, str]]:
    from mirai_memory.transfer import form

    for kind in ("header", "preferences", "session", "message", "task", "fact", "end"):
        yield from ((kind, name) for name in getattr(form, kind.upper()))


def _with(records: list[Line], kind: str, name: str, value: Any) -> bytes:
    changed = copy.deepcopy(records)
    if kind == "end":
        return sealed(changed, **{name: value})
    for record in changed:
        if record["type"] == kind:
            record[name] = value
    return sealed(changed)


@pytest.mark.parametrize(("kind", "name"), list(_kinds()))
def test_a_value_of_a_wrong_type_in_any_field(target: MemoryManager, whole: bytes, kind: str, name: str) -> None:
    """Refused by our own error, unless the field may have it; no driver's error, and no content in what is said."""
    outcomes = [_outcome(target, _with(lines(whole), kind, name, value)) for value in WRONG]
    said = [str(error) for error in outcomes if error is not None]
    assert len(said) >= len(WRONG) - 7, "each field has a rule"
    assert all(text.startswith("line ") and SECRET not in text and len(text) < 200 for text in said), said


def _outcome(memory: MemoryManager, file: bytes) -> InvalidInput | None:
    try:
        memory.import_user(BytesIO(file), dry_run=True)
    except InvalidInput as error:
        return error
    return None


def test_sealed_files_are_taken(whole: bytes, memory: MemoryManager) -> None:
    """Without this, files that are refused for their seal would prove nothing."""
    assert memory.import_user(BytesIO(sealed(lines(whole)))).facts_added == 8


Change = Callable[[list[Line]], object]


def _of(records: list[Line], kind: str) -> list[Line]:
    return [record for record in records if record["type"] == kind]


HOSTILE: dict[str, tuple[Change, str]] = {
    "another format": (lambda r: r[0].update(format="x"), "format"),
    "a newer version": (lambda r: r[0].update(version=2), "newer than 1"),
    "version 0": (lambda r: r[0].update(version=0), "version"),
    "no owner": (lambda r: r[0].pop("user_id"), "user_id: is missing"),
    "the owner of shared facts": (lambda r: r[0].update(user_id=""), "must not be empty"),
    "an owner inside": (lambda r: _of(r, "fact")[0].update(user_id="bob"), "does not know"),
    "an owner of a session": (lambda r: _of(r, "session")[0].update(user_id="bob"), "does not know"),
    "two headers": (lambda r: r.insert(1, r[0]), "wrong place"),
    "no header": (lambda r: r.pop(0), "is no header"),
    "preferences twice": (lambda r: r.insert(1, _of(r, "preferences")[0]), "wrong place"),
    "a session after tasks": (lambda r: r.append(_of(r, "session")[1]), "wrong place"),
    "a session twice": (lambda r: r.insert(2, _of(r, "session")[0]), "id: is that of an earlier"),
    "a name twice": (lambda r: _of(r, "session")[1].update(external_id="chat"), "external_id: is that of an earlier"),
    "a message of no session": (lambda r: r.insert(2, _of(r, "message")[0]), "session: is not the one before"),
    "a message of another session": (lambda r: _of(r, "message")[0].update(session="x"), "session: is not the one"),
    "a position twice": (lambda r: _of(r, "message")[1].update(position=1), "position: must be larger"),
    "a position beyond": (lambda r: _of(r, "message")[-1].update(position=11), "next_position"),
    "a group from the future": (lambda r: _of(r, "message")[0].update(group_start=2), "group_start"),
    "a client_id twice": (lambda r: [m.update(client_id="c") for m in _of(r, "message")], "client_id"),
    "a task of no session": (lambda r: _of(r, "task")[0].update(session="x"), "session: is none of this file"),
    "tasks of one client_id": (lambda r: [t.update(client_id="c") for t in _of(r, "task")], "client_id"),
    "a done task without its time": (lambda r: _of(r, "task")[1].pop("completed_at"), "completed_at"),
    "a fact twice": (lambda r: _of(r, "fact")[1].update(id=_of(r, "fact")[0]["id"]), "id: must be larger"),
    "two open values": (lambda r: _of(r, "fact")[1].update(key="city"), "two open values"),
    "superseded by itself": (lambda r: _of(r, "fact")[0].update(superseded_by=1), "superseded_by"),
    "superseded by nothing": (lambda r: _of(r, "fact")[0].update(superseded_by=99), "superseded_by: is none of this"),
    "superseded and open": (lambda r: _of(r, "fact")[0].pop("superseded_at"), "superseded_at: is missing"),
    "learned from nothing": (lambda r: _of(r, "fact")[0]["message"].update(position=2), "message: is none of this"),
    "learned in no session": (lambda r: _of(r, "fact")[0]["message"].update(session="x"), "message: is none of this"),
    "a vector that is none": (lambda r: _of(r, "fact")[3]["vectors"][0].update(float16="walrus"), "float16"),
    "a vector of half a number": (lambda r: _of(r, "fact")[3]["vectors"][0].update(float16="AAAA"), "float16"),
    "a vector with a NaN": (lambda r: _of(r, "fact")[3]["vectors"][0].update(float16="AH4="), "finite"),
    "vectors of one model": (lambda r: _of(r, "fact")[3].update(vectors=_of(r, "fact")[3]["vectors"] * 2), "one model"),
    "a role that is none": (lambda r: _of(r, "message")[0].update(role="walrus"), "role: must be one of"),
    "a time without a zone": (lambda r: _of(r, "task")[0].update(created_at="2026-01-01T00:00:00"), "time zone"),
    "a time out of time": (lambda r: _of(r, "task")[0].update(created_at="0001-01-01T00:00:00+14:00"), "years 1 to"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_lines_must_be_to_each_other(target: MemoryManager, whole: bytes, name: str) -> None:
    change, rule = HOSTILE[name]
    records = lines(whole)
    change(records)
    assert rule in str(refused(target, sealed(records))), name


def test_another_owner_s_file_is_not_for_one_owner_alone(whole: bytes, memory: MemoryManager) -> None:
    with pytest.raises(InvalidInput, match="bound to") as caught:
        memory.for_user("bob").import_user(BytesIO(whole))
    assert "alice" not in str(caught.value)
    assert memory.list_sessions() == []


def test_what_is_longer_than_allowed_here_is_refused(whole: bytes, tmp_path: Path) -> None:
    short = load_settings(memory={"max_content_chars": 10})
    with MemoryManager(tmp_path / "a.db", settings=short) as memory:
        assert "the limit is 10" in refused(memory, whole).rule


@pytest.mark.parametrize("section", ["long_term", "user_preferences"])
def test_what_is_switched_off_takes_nothing_in(whole: bytes, tmp_path: Path, section: str) -> None:
    off = load_settings(memory={section: {"enabled": False}})
    with MemoryManager(tmp_path / "a.db", settings=off) as memory:
        with pytest.raises(ConfigurationError, match=section):
            memory.import_user(BytesIO(whole))
        assert not any(rows(memory).values())


def test_what_is_no_file(memory: MemoryManager, tmp_path: Path) -> None:
    wrong: list[Any] = [tmp_path, tmp_path / "missing", None, 7, object(), "a\0b", "\ud800", Path(memory.url)]
    for source in wrong:
        with pytest.raises(InvalidInput, match="source"):
            memory.import_user(source)
    memory.create_session("alice")


def test_the_file_of_an_open_memory_is_not_opened(sqlite_memory: MemoryManager, tmp_path: Path) -> None:
    """Closed again, it would cost the other memory its locks."""
    with MemoryManager(tmp_path / "other.db"):
        for source in (tmp_path / "other.db", Path(sqlite_memory.url)):
            with pytest.raises(InvalidInput, match="memory that is open"):
                sqlite_memory.import_user(source)
    with pytest.raises(InvalidInput, match="line 1"):
        sqlite_memory.import_user(tmp_path / "other.db")


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs POSIX")
def test_a_hostile_line_does_not_fill_the_memory(tmp_path: Path, whole: bytes) -> None:
    """A line of 100 MB of empty lists would be several gigabytes of Python."""
    path = tmp_path / "big.jsonl"
    header = whole.splitlines(keepends=True)[0]
    for name, filling in (("long", b"[]," * 33_000_000), ("fitting", b"[]," * 7_000_000)):
        path.write_bytes(header + b'{"type":"preferences","x":[' + filling + b"1]}\n")
        code = (
            "import sys\nfrom mirai_memory import InvalidInput, MemoryManager\n"
            "with MemoryManager(':memory:') as memory:\n"
            "    try:\n        memory.import_user(sys.argv[1])\n"
            "    except InvalidInput as error:\n        assert error.field == 'line 2', error\n"
            # The peak of getrusage may be the parent's.
            "peak = next((line for line in open('/proc/self/status') if line.startswith('VmHWM')), '0 0')\n"
            "print(peak.split()[1])\n"
        )
        done = subprocess.run([sys.executable, "-c", code, path], check=True, capture_output=True, text=True)
        assert 0 < int(done.stdout) * 1024 < 400e6, name


def test_no_header_of_ours_in_other_files(memory: MemoryManager) -> None:
    for other in ([{"role": "user", "content": "x"}], [{"type": "header", "format": "other", "version": 1}]):
        with pytest.raises(InvalidInput, match="line 1"):
            memory.import_user(BytesIO(sealed(other)))


def test_a_conflict_is_not_an_error(memory: MemoryManager) -> None:
    memory.save_user_preferences(UserPreferences(user_id="alice", coding_style="here"))
    memory.add_knowledge(Knowledge(user_id="alice", key="k", value="here"))
    file = exported(memory)
    memory.update_user_preferences("alice", coding_style="changed")
    memory.add_knowledge(Knowledge(user_id="alice", key="k", value="changed"))
    done = memory.import_user(BytesIO(file))
    assert [(item.line, item.kind) for item in done.conflicts] == [(2, "preferences"), (3, "fact")]
    assert json.dumps(done.to_dict())
