"""Whether a command goes on with what a folder was begun with."""

import json
from pathlib import Path
from typing import Any

from gatedcells.forecast.errors import ForecastError

_SHOWN = 3  # settings that an error names
_LONGEST = 40  # characters of a value


def check_begun(folder: Path, what: str, before: Any, settings: dict[str, Any]) -> None:
    """Refuse to go on with other settings or data. Where the data lie is no matter: their digests tell them
    apart.

    Args:
        folder: of the run; what: it is, for the message.
        before: its settings, as JSON has them; settings: those of now, likewise.

    Raises:
        ForecastError: they differ; the message says in what.
    """
    found, given = _without_place(before), _without_place(settings)
    if found != given:
        raise ForecastError(
            f"{folder}: holds {what} with other settings or data{differences(found, given)}; choose another"
            " folder"
        )


def differences(before: Any, given: Any) -> str:
    """In parentheses, the names and values of the first settings that differ; nothing where there were none
    before."""
    if not isinstance(before, dict):
        return ""
    one, other = _flat(before), _flat(given)
    names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    said = [_said(name[-1], one.get(name), other.get(name), name[:-1]) for name in names[:_SHOWN]]
    return f" ({', '.join(said)}{', ...' if len(names) > _SHOWN else ''})" if said else ""


def _said(name: str, before: Any, given: Any, inside: tuple[str, ...]) -> str:
    if inside == ("data", "sha256"):
        return f"{name} {'is new' if before is None else 'is gone' if given is None else 'has changed'}"
    shown = (json.dumps(value, ensure_ascii=False)[:_LONGEST] for value in (before, given))
    return "{} was {}, is {}".format(name, *shown)


def _flat(settings: dict[str, Any]) -> dict[tuple[str, ...], Any]:
    found: dict[tuple[str, ...], Any] = {}
    for name, value in settings.items():
        inside = _flat(value) if isinstance(value, dict) else {(): value}
        found |= {(str(name), *names): one for names, one in inside.items()}
    return found


def _without_place(settings: Any) -> Any:
    data = settings.get("data") if isinstance(settings, dict) else None
    if not isinstance(data, dict):
        return settings
    return settings | {"data": {name: value for name, value in data.items() if name != "place"}}
