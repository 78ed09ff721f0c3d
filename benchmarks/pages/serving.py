"""Table of the page on production: what one server held, with the memory that it took."""

from __future__ import annotations

from collections.abc import Iterator

from pages.cells import Result, made, none_yet, number, table

_LISTS = {
    "lists": "",
    "lists-none-kept": " by the model",
    "lists-onnx": ", --engine onnx",
    "lists-onnx-none-kept": " by the model, --engine onnx",
}
_HEADS = ["load", "answers a second", "p50 / p90 / p99 in ms", "cores", "memory"]


def measured(results: dict[str, Result]) -> str:
    """Rates, latencies, cores and memory of each part that was measured."""
    parts = {name: part for name, part in results.get("serving", {}).items() if isinstance(part, dict)}
    rows = list(_rows(parts))
    if not rows:
        return none_yet("serving.py")
    return "\n\n".join([table(_HEADS, rows, texts=[0]), made("serving.py", list(parts.values()))])


def _rows(parts: dict[str, Result]) -> Iterator[list[str]]:
    """Rows of the table."""
    for key, engine in _LISTS.items():
        part = parts.get(key, {})
        measured_rates = [one for one in part.values() if isinstance(one, dict) and "lists_per_second" in one]
        for one in [part] if "lists_per_second" in part else measured_rates:
            yield _lists(f"lists of 10{engine}, each tenth after an event", one, {**part, **one})
    if "overload" in parts:
        asked = number(parts["overload"]["twice"]["rate"])
        for key, name in (
            ("twice", f"lists, {asked} asked a second"),
            ("a_second_later", "lists, a second after that"),
        ):
            yield _lists(name, parts["overload"][key], parts["overload"])
    for key, name in (("before", "lists, before a reload"), ("during", "lists, during a reload")):
        if "reload" in parts:
            yield _lists(name, parts["reload"][key], parts["reload"])
    for key in ("batches", "single"):
        if "events" in parts:
            one = parts["events"][key]
            size = "one by one" if one["size"] == 1 else f"in batches of {one['size']}"
            name = f"events {size}, {one['clients']} clients"
            yield [name, number(one["events_per_second"]), "", *_used(parts["events"])]
    for key, store in (("kills", "SQLite"), ("kills-postgresql", "PostgreSQL, its process killed too")):
        if key in parts:
            one = parts[key]
            name = f"{one['kills']} kills under load, {store}: {one['lost']} of {one['acknowledged']:,} events lost"
            yield [f"{name}, {one['twice']} twice", "", "", "", ""]
    if "start" in parts:
        one = parts["start"]
        name = f"start with {one['events']:,} events, {number(one['seconds'])} s"
        yield [name, "", "", "", f"{one['memory_mb']:,} MB"]
    if "soak" in parts:
        one = parts["soak"]
        sizes = one["memory_mb_over_time"]
        memory = f"{sizes[0]} MB first, {sizes[-1]} MB last, {min(sizes)} to {max(sizes)} between"
        yield _lists(f"soak of {round(one['seconds'] / 60)} minutes beside other work: {memory}", one, one)
    for key, name in {"starlette": "a Starlette function", "litserve": "LitServe"}.items():
        for rate, one in parts.get("peers", {}).get(key, {}).items():
            yield [f"`recommend` in {name}, {rate} asked a second", *_held(one), "", ""]


def _held(part: Result) -> list[str]:
    return [number(part["lists_per_second"]), " / ".join(number(part[f"p{share}_ms"]) for share in (50, 90, 99))]


def _lists(name: str, part: Result, whole: Result) -> list[str]:
    return [name, *_held(part), *_used(whole)]


def _used(part: Result) -> list[str]:
    return [f"{part['cores_of_the_server']:.2f}", f"{part['memory_mb']:,} MB"]
