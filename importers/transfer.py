"""Starting a run from the weights of another voice: which weights fit, which are converted, and which stay random.

Weights of the same name and shape are copied. The rows of the text embedding follow the symbols and those of the
speaker embedding the names, so that other tables keep what they share. Everything else keeps its random values.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import checkpoint
import config as configs
from conditions import Speaker
from config import Config, DataConfig
from text.tokens import symbol_table

logger = logging.getLogger(__name__)

LOADED, RESIZED, RENAMED, FRESH = "loaded", "resized", "renamed", "fresh"
STATES = (LOADED, RESIZED, RENAMED, FRESH)
TEXT_EMBEDDING, SPEAKER_EMBEDDING = "enc_p.emb.weight", "emb_g.weight"
WARM_UP = 1000  # steps in which a missing posterior encoder learns alone
MAX_NAMED = 8  # unused parts of a file in a message


@dataclass
class Plan:
    """What becomes of each weight of a network: one of `STATES`, and the values of those that are not fresh."""

    where: str
    states: dict[str, str] = field(default_factory=dict)
    values: dict[str, Tensor] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)  # by part
    unused: list[str] = field(default_factory=list)  # weights of the file

    def set(self, name: str, state: str, value: Tensor | None = None, note: str = "") -> None:
        """Decide on a weight."""
        self.states[name] = state
        if value is not None:
            self.values[name] = value
        if note:
            self.notes.setdefault(part_of(name), note)

    @property
    def lacks_posterior(self) -> bool:
        """Whether the network has a posterior encoder of which no weight is loaded."""
        states = [state for name, state in self.states.items() if name.startswith(checkpoint.POSTERIOR)]
        return bool(states) and all(state == FRESH for state in states)

    def table(self) -> str:
        """Return the plan as a table with a line for each part of the network."""
        rows = {part: dict.fromkeys(STATES, 0) for part in map(part_of, self.states)}
        for name, state in self.states.items():
            rows[part_of(name)][state] += 1
        width = max(map(len, rows))
        lines = [f"{'':{width}} {''.join(f'{state:>9}' for state in STATES)}"]
        for part, counts in rows.items():
            numbers = "".join(f"{count or '-':>9}" for count in counts.values())
            lines.append(f"{part:{width}} {numbers}  {self.notes.get(part, '')}".rstrip())
        if self.unused:
            parts = sorted({part_of(name) for name in self.unused})
            more = f" and {len(parts) - MAX_NAMED} more" if parts[MAX_NAMED:] else ""
            lines.append(f"not used of {self.where}: {', '.join(parts[:MAX_NAMED])}{more}")
        return "\n".join(lines)


def part_of(name: str) -> str:
    """Return the part of the network that a weight belongs to: its first two names, such as `enc_p.encoder`."""
    return ".".join(name.split(".")[: 2 if name.startswith("enc_p.") else 1])


def plan(network: nn.Module, content: dict[str, Any], config: Config, where: str) -> Plan:
    """Decide which weights of a checkpoint's content a network gets; nothing is changed.

    `config` is the network's, and `where` names the file. Raises ValueError if no weight fits.
    """
    ours, given = checkpoint.reference_state_dict(network), checkpoint.voice_weights(content)
    theirs = checkpoint.fitted(given, ours)
    data = _data_of(content, where)
    other_flow = checkpoint.has_other_flow(content, config)
    found = Plan(where)
    for name, value in ours.items():
        other = theirs.get(name)
        if name == TEXT_EMBEDDING and other is not None and other.shape[1] == value.shape[1]:
            _map_rows(found, name, value, other, _symbol_rows(config.data, data, len(value), len(other)), "symbols")
        elif name == SPEAKER_EMBEDDING and other is not None and other.shape[1] == value.shape[1]:
            _map_rows(found, name, value, other, _speaker_rows(config.data, data, len(value), len(other)), "speakers")
        elif other is None:
            found.set(name, FRESH, note="not in the file")
        elif other_flow and name.startswith("flow."):
            found.set(name, FRESH, note="the file has another flow")
        elif other.shape != value.shape:
            found.set(name, FRESH, note=f"{list(other.shape)} in the file, {list(value.shape)} here")
        else:
            found.set(name, LOADED if name in given else RENAMED, other)
    found.unused = [name for name in theirs if name not in found.values]
    if not found.values:
        raise ValueError(f"{where} {checkpoint.mismatch(ours, theirs)}; none of its weights match")
    return found


def apply(network: nn.Module, decided: Plan) -> None:
    """Copy the values of a plan into a network."""
    ours = checkpoint.reference_state_dict(network)
    with torch.no_grad():
        for name, value in decided.values.items():
            ours[name].copy_(value)


def _data_of(content: dict[str, Any], where: str) -> DataConfig | None:
    """Return the data section of the config in a checkpoint, or None."""
    sections = content.get("config")
    return configs.from_dict(sections, where).data if isinstance(sections, dict) else None


def _map_rows(found: Plan, name: str, value: Tensor, other: Tensor, rows: Mapping[int, int], what: str) -> None:
    """Decide on an embedding whose row i is to be row `rows[i]` of the file's; speakers beyond begin as their mean."""
    if len(value) == len(other) and all(rows.get(i) == i for i in range(len(value))):
        found.set(name, LOADED, other)
        return
    filled = value.detach().clone()
    if what == "speakers":
        filled[:] = other.mean(0).to(filled)
    for row, source in rows.items():
        filled[row] = other[source].to(filled)
    rest = "the mean of the others" if what == "speakers" else "random"
    note = f"{len(rows)} of {len(value)} rows kept by their {what}, the rest {rest}"
    found.set(name, RESIZED, filled, note)


def _symbol_rows(ours: DataConfig, theirs: DataConfig | None, rows: int, their_rows: int) -> dict[int, int]:
    """Return the row of the file for each row of the text embedding whose symbol or mark both have."""
    table = symbol_table(ours)
    other = symbol_table(theirs or DataConfig())
    if theirs is None and their_rows != len(other.names):  # the file does not tell its table: assume the same beginning
        return {i: i for i in range(min(rows, their_rows))} if rows == their_rows else {}
    if table.ids == other.ids and rows == their_rows:
        return {i: i for i in range(rows)}
    pairs = [(table.ids[symbol], other.ids[symbol]) for symbol in table.ids if symbol in other.ids]
    for mark in ("blank_symbol", "begin_symbol", "end_symbol"):
        pairs.append((_ids_of_mark(ours, mark), _ids_of_mark(theirs or DataConfig(), mark)))
    found: dict[int, int] = {}
    for here, there in pairs:
        for i, j in zip(here, there):
            if i < rows and j < their_rows:
                found[i] = j
    return found


def _ids_of_mark(data: DataConfig, mark: str) -> tuple[int, ...]:
    symbol = getattr(data, mark)
    return symbol_table(data).ids[symbol] if symbol else (0,) if mark == "blank_symbol" and data.add_blank else ()


def _speaker_rows(ours: DataConfig, theirs: DataConfig | None, rows: int, their_rows: int) -> dict[int, int]:
    """Return the row of the file for each speaker that both have, by name, or by number where names are missing."""
    if theirs is None or not (ours.speakers and theirs.speakers):
        return {i: i for i in range(min(rows, their_rows))}
    there = Speaker().names(theirs)
    return {i: there[name] for name, i in Speaker().names(ours).items() if name in there}
