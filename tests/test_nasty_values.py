"""Values that break programs, through every method and every search, on both engines.

What is accepted comes back as it went in and is found; what is not is refused by our own error, soon, without being
repeated. Nobody else's rows are seen or changed. (Values that are plainly wrong, one by one: test_bad_input.py.)
"""

from __future__ import annotations

import enum
import inspect
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import pytest

from mirai_memory import Knowledge, MemoryManager, Message, MiraiMemoryError, Task, UserMemory, UserPreferences
from mirai_memory.logging import logger
from mirai_memory.search.analyzer import query_terms

pytestmark = pytest.mark.long

GUARD = 60.0  # seconds; the slowest call takes a small part of it, beside other work too
ALL = 1_000_000
CANARY = "purplewalrus"

SYNTAX = {
    "one quote": '"',
    "quotes inside": 'a"b""c',
    "unclosed quote": '"never closed',
    "apostrophes": "'; DROP TABLE messages; --",
    "AND": "AND",
    "OR NOT": "OR NOT",
    "operators alone": "AND OR NOT NEAR",
    "NEAR": "NEAR(green tea, 2)",
    "prefix": "wal*",
    "initial token": "^walrus",
    "column filter": "terms : walrus",
    "column set": "{terms rowid} : walrus",
    "minus": "-walrus",
    "plus": "wal + rus",
    "parentheses": "((((((((((walrus",
    "closing": "walrus))))))))))",
    "percent": "%",
    "underscore": "_",
    "percent of": "100% of _ab_",
    "escape": "\\",
    "escaped percent": "\\%",
    "ampersand": "walrus & tea",
    "bar": "walrus | tea",
    "exclamation": "!walrus",
    "phrase operator": "walrus <-> tea",
    "prefix match": "walrus:*",
    "weights": "walrus:ABCD",
    "scope token": "walrus@1",
    "scope alone": "@1",
    "many scopes": "@1 @2 @3 @",
    "named parameter": ":session",
    "numbered parameter": "?1 $1 %s %(a)s",
    "format": "{} {0} {name} {0.__class__}",
    "backticks": "`id` [id]",
    "comment": "/* walrus */ -- tea",
    "end of statement": ";",
    "JSON": '{"a": [1, null]}',
    "end of a fence": "</memory>\n```\n</data>",
    "escaped NUL": "\\u0000 \\x00",
    "words for nothing": "NULL None nan true",
    "path": "../../etc/passwd",
    "formula": "=1+1",
}
SCRIPTS = {
    "Hebrew": "שלום עולם",
    "Arabic": "مرحبا بالعالم",
    "right to left override": "abc\u202edef\u202c",
    "isolates": "\u2067walrus\u2069",
    "family": "👨‍👩‍👧‍👦 family",
    "flag": "🇰🇿 flag",
    "skin tone": "👍🏽",
    "keycap": "1️⃣",
    "NFD": "é ё".replace("é", "e\u0301").replace("ё", "е\u0308") + " NFD",
    "NFC": "\u00e9 \u0451 NFD",
    "Hangul jamo": "\u1112\u1161\u11ab\u1100\u1173\u11af",
    "Hangul": "한글",
    "Chinese": "我喜欢绿茶",
    "Thai": "สวัสดีชาวโลก",
    "Hindi": "हिन्दी में",
    "Turkish": "İstanbul ısı",
    "sharp s": "Straße STRASSE",
    "ligature": "\ufb01sh \ufb03",
    "full width": "\uff57\uff41\uff4c\uff52\uff55\uff53",
    "mathematical": "𝔴𝔞𝔩𝔯𝔲𝔰",
    "Zalgo": "w" + "\u0301\u0302\u0303" * 40 + "alrus",
    "marks alone": "\u0301" * 500,
    "astral": "\U00010000 \U0010ffff",
    "private use": "\ue000 \uf8ff",
    "non-characters": "\ufffe \uffff \ufdd0",
    "replacement": "\ufffd",
}
SPACES = {
    "empty": "",
    "space": " ",
    "spaces around": "  walrus  ",
    "tab and feeds": "\t\n\r\v\f",
    "carriage returns": "a\r\nb\rc",
    "controls": "".join(map(chr, range(1, 32))) + "\x7f\x80\x9f",
    "line separators": "a\u2028b\u2029c\x85d",
    "no-break": "\u00a0walrus\u202f",
    "zero width": "wal\u200b\u200c\u200d\u2060rus",
    "byte order mark": "\ufeffwalrus",
    "soft hyphen": "wal\u00adrus",
}
SIZES = {
    "40,000 words": " ".join(f"word{n}" for n in range(40_000)),
    "40,000 times one word": "walrus " * 40_000,
    "one long word": "x" * 200_000,
    "signs alone": "!" * 200_000,
    "quotes alone": '"' * 200_000,
    "a flood of marks": "a" + "\u0301" * 200_000,
    "a flood of Chinese": "茶" * 100_000,
    "a flood of emoji": "👨‍👩‍👧‍👦" * 20_000,
    "digits": "9" * 200_000,
    "scripts in turns": "aяa9茶" * 20_000,
    "255": "n" * 255,
    "255 astral": "\U0001f600" * 255,
}
TEXTS = SYNTAX | SCRIPTS | SPACES | SIZES
NAMES = {name: text for name, text in TEXTS.items() if 0 < len(text) <= 100}


def _timed(call: Callable[[], Any], what: Any) -> Any:
    started = time.monotonic()
    try:
        return call()
    finally:
        took = time.monotonic() - started
        assert took < GUARD, f"{what} took {took:.1f} s"


def _words_of(error: BaseException | None) -> str:
    """All that an error and what led to it say."""
    if error is None:
        return ""
    return f"{error} {error!r} {vars(error)} {_words_of(error.__cause__)} {_words_of(error.__context__)}"


@pytest.fixture
def log() -> Iterator[list[str]]:
    """Every line of ours, whatever its level, with all that is bound to it but the owner, who may be named."""
    lines: list[str] = []

    def write(message: Any) -> None:
        record = message.record
        extra = {name: value for name, value in record["extra"].items() if name != "user_id"}
        lines.append(f"{record['message']} {extra} {record['exception']}")

    logger.enable("mirai_memory")
    sink = logger.add(write, level=0)
    yield lines
    logger.remove(sink)
    logger.disable("mirai_memory")


# --- what is accepted comes back, and is told apart -------------------------------------------------------------------


def _say(memory: MemoryManager, session: str, text: str, **more: Any) -> Message:
    id = memory.add_message(Message(**{"session_id": session, "role": "user", "content": text, **more}))
    found = memory.get_message(id)
    assert found is not None
    return found


def _with_a_call(memory: MemoryManager, session: str, text: str) -> Any:
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": text}}
    found = _say(memory, session, "", role="assistant", tool_calls=[call], parts=[{"type": "text", "text": text}])
    assert found.tool_calls is not None
    assert found.parts is not None
    return found.tool_calls[0]["function"]["arguments"], found.parts[0]["text"]


def _item(memory: MemoryManager, session: str, text: str) -> Any:
    payload = {"type": "function_call", "call_id": "c", "arguments": [text]}
    found = _say(memory, session, "", role=None, kind="item", payload=payload)
    assert found.payload is not None
    return found.payload["arguments"][0]


def _updated(memory: MemoryManager, session: str, text: str) -> str:
    id = _say(memory, session, "before").id
    assert id is not None
    memory.update_message(id, text)
    found = memory.get_message(id)
    assert found is not None
    return found.content


def _titled(memory: MemoryManager, session: str, text: str) -> Any:
    memory.update_session(session, metadata={text: {"deep": [text]}})
    found = memory.get_session(session)
    assert found is not None
    [(key, value)] = found.metadata.items()
    return key, *value["deep"]


def _liked(memory: MemoryManager, session: str, text: str) -> Any:
    memory.save_user_preferences(UserPreferences(user_id="alice", coding_style=text, metadata={text: text}))
    memory.update_user_preferences("alice", communication_tone=text, project_context=text, favorite_tools=[text, text])
    found = memory.get_user_preferences("alice")
    assert found is not None
    texts = found.coding_style, found.communication_tone, found.project_context
    return *texts, *found.favorite_tools, found.metadata[text]


def _done(memory: MemoryManager, session: str, text: str) -> Any:
    id = memory.add_task(Task(session_id=session, description=f"x{text}", result=text, metadata={"a": text}))
    memory.update_task_status(id, "completed", text)
    found = memory.get_task(id)
    assert found is not None
    return found.description[1:], found.result, found.metadata["a"]


def _known(memory: MemoryManager, session: str, text: str) -> Any:
    fact = Knowledge(user_id="alice", key="k", value=text, metadata={"a": [text]})
    memory.add_knowledge(fact)
    [found] = memory.get_knowledge(key="k", user_id="alice")
    return found.value, found.metadata["a"][0] if found.metadata else text


CARRIERS: dict[str, Callable[[MemoryManager, str, str], Any]] = {
    "content": lambda m, s, text: _say(m, s, text).content,
    "updated content": _updated,
    "calls and parts": _with_a_call,
    "payload": _item,
    "metadata of a message": lambda m, s, text: _say(m, s, "x", metadata={"a": {"b": [text]}}).metadata["a"]["b"][0],
    "metadata of a session": _titled,
    "preferences": _liked,
    "task": _done,
    "fact": _known,
}


def _sourced(memory: MemoryManager, session: str, text: str) -> Any:
    id = memory.add_knowledge(Knowledge(key="k", value="x", source=text, valid_to=datetime(2030, 1, 1, tzinfo=UTC)))
    return next(fact.source for fact in memory.knowledge_history("k") if fact.id == id)


LABELS: dict[str, Callable[[MemoryManager, str, str], Any]] = {
    "name": lambda m, s, text: _say(m, s, "x", name=text).name,
    "model": lambda m, s, text: _say(m, s, "x", model=text).model,
    "tool_call_id": lambda m, s, text: _say(m, s, "x", role="tool", tool_call_id=text).tool_call_id,
    "source": _sourced,
}


@pytest.mark.parametrize("carrier", [*CARRIERS, *LABELS])
def test_text_comes_back_as_it_went_in(memory: MemoryManager, carrier: str) -> None:
    session = memory.create_session("alice").id
    store = (CARRIERS | LABELS)[carrier]
    most = 2_000 if carrier in LABELS else ALL
    for name, text in TEXTS.items():
        if len(text) > most:
            continue
        back = _timed(lambda: store(memory, session, text), name)  # noqa: B023 - called at once
        is_same = back == text or (isinstance(back, tuple) and set(back) == {text})
        assert is_same, name  # not compared in here: showing how two long texts differ takes minutes


def _owners(memory: MemoryManager) -> Callable[[str], list[str]]:
    for name, text in NAMES.items():
        memory.for_user(text).add_knowledge(Knowledge(key="k", value=name))
        memory.create_session(text, metadata={"is": name})
    return lambda text: [
        *(fact.value for fact in memory.for_user(text).get_knowledge()),
        *(session.metadata["is"] for session in memory.list_sessions(text)),
    ]


def _session_ids(memory: MemoryManager) -> Callable[[str], list[str]]:
    for name, text in NAMES.items():
        memory.create_session("alice", session_id=text, agent_id=text)
        memory.add_message(Message(session_id=text, role="user", content=f"walrus {name}"))

    def found(text: str) -> list[str]:
        messages = memory.get_messages(text) + memory.search_messages("walrus", session_id=text, limit=ALL)
        return [message.content.removeprefix("walrus ") for message in messages]

    return found


def _external_ids(memory: MemoryManager) -> Callable[[str], list[str]]:
    for name, text in NAMES.items():
        memory.ensure_session("alice", text, metadata={"is": name})
    return lambda text: [memory.ensure_session("alice", text).metadata["is"]] * 2


def _client_ids(memory: MemoryManager) -> Callable[[str], list[str]]:
    session = memory.create_session("alice").id
    ids = {}
    for name, text in NAMES.items():
        id = memory.add_message(Message(session_id=session, role="user", content=name, client_id=text))
        ids[id] = name
        memory.add_task(Task(user_id="alice", description=name, client_id=text))

    def found(text: str) -> list[str]:
        name = next(name for name, other in NAMES.items() if other == text)
        again = memory.add_message(Message(session_id=session, role="user", content=name, client_id=text))
        task = memory.get_task(memory.add_task(Task(user_id="alice", description=name, client_id=text)))
        assert task is not None
        return [ids[again], task.description]

    return found


def _keys(memory: MemoryManager) -> Callable[[str], list[str]]:
    for name, text in NAMES.items():
        memory.add_knowledge(Knowledge(user_id="alice", key=text, value=name))
    return lambda text: [
        *(fact.value for fact in memory.get_knowledge(key=text, user_id="alice")),
        *(fact.value for fact in memory.knowledge_history(text, user_id="alice")),
    ]


def _categories(memory: MemoryManager) -> Callable[[str], list[str]]:
    for name, text in NAMES.items():
        memory.add_knowledge(Knowledge(user_id="alice", category=text, value=f"walrus {name}", source=text))

    def found(text: str) -> list[str]:
        listed = memory.get_knowledge(text, user_id="alice")
        searched = memory.search_knowledge("walrus", ALL, category=text, user_id="alice")
        return [fact.value.removeprefix("walrus ") for fact in (*listed, *searched)]

    return found


IDENTITIES = {
    "owner": _owners,
    "session_id": _session_ids,
    "external_id": _external_ids,
    "client_id": _client_ids,
    "key": _keys,
    "category": _categories,
}


@pytest.mark.parametrize("identity", IDENTITIES)
def test_names_are_told_apart_by_exact_equality(memory: MemoryManager, identity: str) -> None:
    """No pattern, no folding, no normal form, no trailing space: each name names its own and nothing else."""
    look_up = IDENTITIES[identity](memory)
    for name, text in NAMES.items():
        assert look_up(text) == [name, name], (identity, name)


# --- every search -----------------------------------------------------------------------------------------------------


def _fill(memory: MemoryManager, texts: dict[str, str]) -> MemoryManager:
    """Every text as a message and a fact of alice's and of bob's."""
    for owner in ("alice", "bob"):
        session = memory.create_session(owner, session_id=f"{owner}'s").id
        for number, (name, text) in enumerate(texts.items()):
            memory.add_message(Message(session_id=session, role="user", content=text, metadata={"is": name}))
            memory.add_knowledge(Knowledge(user_id=owner, key=f"{number}", value=text, source=name))
    return memory


def test_every_text_finds_itself_and_nothing_of_anybody_else(memory: MemoryManager) -> None:
    alice = _fill(memory, TEXTS).for_user("alice")
    unfound = []
    for name, text in TEXTS.items():
        messages = _timed(lambda: alice.search_messages(text, limit=ALL), name)  # noqa: B023
        facts = _timed(lambda: alice.search_knowledge(text, ALL), name)  # noqa: B023
        recalled = _timed(lambda: alice.recall(text, limit=5), name)  # noqa: B023
        assert {item.user_id for item in (*messages, *facts, *recalled)} <= {"alice"}, name
        held = name in {message.metadata["is"] for message in messages} and name in {fact.source for fact in facts}
        if query_terms(text) and not held:
            unfound.append(name)
    assert unfound == []


def test_no_term_is_query_syntax() -> None:
    """What a text matches is what its words match, whatever stands between them."""
    for name, text in TEXTS.items():
        assert not any(set(term) & set("\"'*^:()&|!<>@-+% ") for term in query_terms(text)), name


def test_every_text_may_be_asked_of_a_context(memory: MemoryManager) -> None:
    filled = _fill(memory, NAMES)
    for name, text in TEXTS.items():
        context = _timed(lambda: filled.build_context("alice's", text, max_tokens=3_000), name)  # noqa: B023
        others = {item.user_id for item in (*context.history, *context.recalled, *context.knowledge)} - {"alice"}
        assert others == set(), name
        assert context.tokens <= 3_000


def test_a_member_of_an_enum_is_the_text_that_it_is(memory: MemoryManager) -> None:
    session = memory.create_session(Chosen.WORD, session_id=Chosen.WORD).id
    memory.add_message(Message(session_id=session, role="user", content=Chosen.WORD, name=Chosen.WORD))
    memory.add_knowledge(Knowledge(user_id=Chosen.WORD, category=Chosen.WORD, key=Chosen.WORD, value=Chosen.WORD))
    [message] = memory.search_messages(CANARY, user_id=CANARY, session_id=CANARY)
    [fact] = memory.search_knowledge(CANARY, user_id=CANARY, category=CANARY)
    values = [message.session_id, message.content, message.name, fact.user_id, fact.category, fact.key, fact.value]
    assert [(type(value), value) for value in values] == [(str, CANARY)] * 7
    assert memory.get_knowledge(user_id=Chosen.WORD, key=Chosen.WORD) == memory.get_knowledge(user_id=CANARY)


def test_narrowed_searches_take_every_name(memory: MemoryManager) -> None:
    filled = _fill(memory, NAMES)
    for name, text in NAMES.items():
        assert filled.search_messages("walrus", session_id=text) == [], name
        assert filled.search_messages("walrus", user_id=text) == [], name
        assert filled.search_knowledge("walrus", category=text, user_id="alice") == [], name
        assert filled.search_knowledge("walrus", user_id=text) == [], name
        assert filled.recall("walrus", user_id=text) == [], name


# --- every parameter of every method ----------------------------------------------------------------------------------


@dataclass
class Held:
    """What alice and bob hold before, and what the parameters of a good call would be."""

    session: str
    message: int
    task: int
    fact: int
    made: int = 0
    good: dict[str, Any] = field(default_factory=dict)


def _cyclic() -> dict[str, Any]:
    value: dict[str, Any] = {"text": CANARY}
    value["self"] = [value]
    return value


def _deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {"text": CANARY}
    for _ in range(levels):
        value = {CANARY: [value]}
    return value


class Chosen(str, enum.Enum):  # noqa: UP042 - StrEnum would be no trouble
    """A string whose ``str()`` is another one."""

    WORD = CANARY


ANYTHING: dict[str, Any] = {
    "None": None,
    "True": True,
    "zero": 0,
    "minus one": -1,
    "2**31": 2**31,
    "2**63-1": 2**63 - 1,
    "2**63": 2**63,
    "-2**63-1": -(2**63) - 1,
    "2**64": 2**64,
    "10**4300": 10**4300,
    "10**5000": 10**5000,
    "half": 0.5,
    "NaN": float("nan"),
    "infinity": float("inf"),
    "largest": 1.7e308,
    "complex": 1j,
    "bytes": CANARY.encode(),
    "NUL": f"{CANARY}\x00",
    "lone surrogate": f"{CANARY}\ud800",
    "reversed pair": f"{CANARY}\udc00\ud800",
    "text": CANARY,
    "empty": "",
    "long": CANARY * 1_000,
    "2 MB": f"{CANARY} " * 150_000,
    "quotes": f"{CANARY}\"'`;--",
    "member of an enum": Chosen.WORD,
    "list": [CANARY],
    "empty list": [],
    "tuple": (CANARY,),
    "set": {CANARY},
    "dict": {CANARY: CANARY},
    "empty dict": {},
    "deep": _deep(99),
    "too deep": _deep(5_000),
    "cyclic": _cyclic(),
    "huge in JSON": {"a": 2**64, "b": 10**1_000, CANARY: 10**5_000},
    "NaN in JSON": {CANARY: float("nan")},
    "NUL in JSON": {"a": f"{CANARY}\x00"},
    "surrogate in JSON": {f"{CANARY}\udfff": 1},
    "integer keys": {1: CANARY},
    "naive": datetime(2026, 1, 1),  # noqa: DTZ001 - that is the point
    "first moment": datetime.min.replace(tzinfo=UTC),
    "last moment": datetime.max.replace(tzinfo=UTC),
    "object": object(),
    "class": Message,
    "function": len,
    "numbers": [1e300, 1.0],
    "numbers too large": [1e39] * 3,
    "generator": "made anew",
}

# What else than ours may be raised: by what the caller hands in to be called.
CALLED = {"fn", "progress"}
NAMED = {  # whose values may stand in an error: ids, names of owners, keys
    *("user_id", "session_id", "external_id", "agent_id", "key", "category", "after", "client_id", "embedding_model"),
    *("message_id", "task_id", "knowledge_id", "status", "role", "kind", "source_kind", "on_conflict", "kinds"),
    *("path", "source", "target"),  # of files
}
ENTITIES: dict[str, Callable[[Held], dict[str, Any]]] = {
    "message": lambda held: {"session_id": held.session, "role": "user", "content": "x"},
    "task": lambda held: {"user_id": "alice", "description": "x"},
    "knowledge": lambda held: {"user_id": "alice", "value": "x"},
    "preferences": lambda held: {"user_id": "alice"},
}
CLASSES: dict[str, type] = {"message": Message, "task": Task, "knowledge": Knowledge, "preferences": UserPreferences}
DELETING = ("delete", "clear", "pop", "trim")
UPKEEP = {"cleanup", "cleanup_old_sessions"}  # touches everybody's, as it should
NO_CALL = {"settings", "url", "user_id", "embedding_model", "close", "run", "unit_of_work", "health"}


def _good(held: Held, name: str) -> Any:
    values: dict[str, Any] = {
        "session_id": held.session,
        "message_id": held.message,
        "task_id": held.task,
        "knowledge_id": held.fact,
        "user_id": "alice",
        "external_id": "chat",
        "metadata": {},
        "query": "walrus",
        "content": "walrus",
        "status": "completed",
        "key": "city",
        "t1": datetime(2026, 1, 1, tzinfo=UTC),
        "t2": datetime(2027, 1, 1, tzinfo=UTC),
        "keep": held.fact,
        "drop": held.fact,
        "path": "nothing.db",
        "source": "nothing.jsonl",
        "target": "new",
        "other": None,
    }
    if name in CLASSES:
        return CLASSES[name](**ENTITIES[name](held))
    if name in ("messages", "items"):
        entity = {"messages": "message", "items": "knowledge"}[name]
        return [CLASSES[entity](**ENTITIES[entity](held))]
    return values[name]


def _arguments(held: Held, method: Callable[..., Any]) -> dict[str, Any]:
    """What the method must be given, all of it good."""
    parameters = inspect.signature(method).parameters.values()
    return {
        p.name: _good(held, p.name)
        for p in parameters
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    }


def _calls(held: Held, method: Callable[..., Any], value: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The value in place of each parameter, and of each field of an entity that the method takes."""
    good = _arguments(held, method)
    for name, parameter in inspect.signature(method).parameters.items():
        if name in CALLED:
            continue
        if parameter.kind is parameter.VAR_KEYWORD:
            for change in ("coding_style", "favorite_tools", "metadata", "project_context", "nonsense"):
                yield change, lambda change=change: method(**good, **{change: value})
            continue
        yield name, lambda name=name: method(**{**good, name: value})
        entity = {"messages": "message", "items": "knowledge"}.get(name, name)
        if entity in CLASSES:
            for attribute in CLASSES[entity].__dataclass_fields__:  # type: ignore[attr-defined]
                yield (
                    attribute,
                    lambda n=name, e=entity, a=attribute: method(**{**good, n: _wrapped(n, _made(held, e, a, value))}),
                )


def _made(held: Held, entity: str, attribute: str, value: Any) -> Any:
    return CLASSES[entity](**{**ENTITIES[entity](held), attribute: value})


def _wrapped(name: str, entity: Any) -> Any:
    return [entity] if name in ("messages", "items") else entity


def _public(facade: MemoryManager | UserMemory) -> dict[str, Callable[..., Any]]:
    names = (name for name in dir(type(facade)) if not name.startswith("_") and name not in NO_CALL)
    return {name: getattr(facade, name) for name in names}


def _refill(memory: MemoryManager) -> Held:
    """A session, a message, a task and a fact of alice's, which the last call may have deleted."""
    session = memory.create_session("alice").id
    return Held(
        session=session,
        message=memory.add_message(Message(session_id=session, role="user", content="walrus")),
        task=memory.add_task(Task(user_id="alice", description="walrus")),
        fact=memory.add_knowledge(Knowledge(user_id="alice", key="city", value="Oslo")),
    )


def _bobs(memory: MemoryManager) -> list[Any]:
    bob = memory.for_user("bob")
    return [
        [fact for fact in bob.get_knowledge() if fact.user_id == "bob"],
        bob.get_tasks(),
        bob.get_user_preferences(),
        *((session, bob.get_messages(session.id)) for session in bob.list_sessions()),
    ]


def _give_bob(memory: MemoryManager) -> list[Any]:
    """What bob has from then on."""
    session = memory.create_session("bob").id
    memory.add_message(Message(session_id=session, role="user", content="bob's walrus"))
    memory.add_task(Task(session_id=session, description="bob's task"))
    memory.add_knowledge(Knowledge(user_id="bob", key="city", value="Riga"))
    memory.save_user_preferences(UserPreferences(user_id="bob", coding_style="terse"))
    return _bobs(memory)


def _values() -> Iterator[tuple[str, Any]]:
    for name, value in ANYTHING.items():
        yield name, (item for item in [CANARY]) if name == "generator" else value


FACES: dict[str, Callable[[MemoryManager], MemoryManager | UserMemory]] = {
    "the administrator": lambda memory: memory,
    "one owner": lambda memory: memory.for_user("alice"),
}


@pytest.mark.parametrize("face", FACES)
def test_any_value_in_any_place_is_taken_or_refused_by_our_own_error(
    memory: MemoryManager, log: list[str], face: str
) -> None:
    _try_everything(memory, log, face, each=3)


@pytest.mark.long
@pytest.mark.parametrize("face", FACES)
def test_every_value_in_every_place(memory: MemoryManager, log: list[str], face: str) -> None:
    _try_everything(memory, log, face, each=1)


def _try_everything(memory: MemoryManager, log: list[str], face: str, *, each: int) -> None:
    """``each``: every so manieth value only, other ones for each method."""
    bobs, facade, tried = _give_bob(memory), FACES[face](memory), 0
    for number, (method, bound) in enumerate(_public(facade).items()):
        if method in UPKEEP:
            continue
        held = _refill(memory)
        for what, value in islice(_values(), number % each, None, each):
            if method.startswith(DELETING):
                held = _refill(memory)
            for place, call in _calls(held, bound, value):
                tried += 1
                _try(call, (face, method, place, what))
        assert _bobs(memory) == bobs, f"{method} changed what is bob's"
    assert tried > 5_000 / each
    assert len(log) > tried / 3
    assert [line for line in log if CANARY in line] == []


def _try(call: Callable[[], Any], what: tuple[str, str, str, str]) -> None:
    place = what[2]
    try:
        result = _timed(call, what)
    except MiraiMemoryError as error:
        said, result = _words_of(error), None
    except Exception as error:
        pytest.fail(f"{what}: {type(error).__name__}")
    else:
        said = ""
    assert place in NAMED or CANARY not in said, what
    assert what[0] == "the administrator" or "bob" not in repr(result), what


def test_upkeep_takes_or_refuses_any_value(memory: MemoryManager) -> None:
    for method in sorted(UPKEEP):
        for what, value in _values():
            for place, call in _calls(_refill(memory), getattr(memory, method), value):
                _try(call, ("the administrator", method, place, what))


# --- 100 MB -----------------------------------------------------------------------------------------------------------

HUGE_CALLS: dict[str, Callable[[MemoryManager, str, str], Any]] = {
    "content": lambda m, s, text: m.add_message(Message(session_id=s, role="user", content=text)),
    "update_message": lambda m, s, text: m.update_message(1, text),
    "metadata": lambda m, s, text: m.update_session(s, metadata={"a": [text]}),
    "key of metadata": lambda m, s, text: m.update_session(s, metadata={text: 1}),
    "preferences": lambda m, s, text: m.update_user_preferences("alice", coding_style=text),
    "task": lambda m, s, text: m.add_task(Task(user_id="alice", description=text)),
    "fact": lambda m, s, text: m.add_knowledge(Knowledge(value=text)),
    "key": lambda m, s, text: m.add_knowledge(Knowledge(key=text, value="x")),
    "owner": lambda m, s, text: m.create_session(text),
    "session_id": lambda m, s, text: m.get_session(text),
    "client_id": lambda m, s, text: m.add_message(Message(session_id=s, role="user", client_id=text)),
    "search_messages": lambda m, s, text: m.search_messages(text, user_id="alice"),
    "search_knowledge": lambda m, s, text: m.search_knowledge(text, user_id="alice"),
    "recall": lambda m, s, text: m.recall(text, user_id="alice"),
    "build_context": lambda m, s, text: m.build_context(s, text),
}


@pytest.mark.parametrize("unit", ["x", "walrus ", "茶"])
def test_a_hundred_megabytes_are_refused_or_asked_soon(memory: MemoryManager, unit: str) -> None:
    session = _refill(memory).session
    text = unit * (100_000_000 // len(unit.encode()))
    for name, call in HUGE_CALLS.items():
        try:
            _timed(lambda: call(memory, session, text), name)  # noqa: B023 - called at once
        except MiraiMemoryError as error:
            said = len(_words_of(error))
        else:
            said = 0
        assert said < 2_000, name
        assert said or name in ("search_messages", "search_knowledge", "recall", "build_context")
