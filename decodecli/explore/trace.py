"""A branch of a session as a trace that `replay` shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from decodecli.decoding.decode import DEFAULT_CANDIDATES, Decoding
from decodecli.explore.engine import ModelSource
from decodecli.explore.session import Session
from decodecli.records.json_lines import step_json_line, to_json_line
from decodecli.sampling.one_position import Distribution
from decodecli.settings import SamplingParams
from decodecli.sweeps.folder import write_whole


def write_trace(source: ModelSource, session: Session, path: str) -> None:
    """Write the current branch, each step under the settings that its token was chosen with.

    The header's parameters are the session's last ones. A token that was taken although the settings
    had removed it has a final_logprob of −1e308.

    Raises:
        WriteError: it cannot be written.
        DecodeError: as `ModelSource.logits`.
    """
    choices = session.branch.choices
    params = replace(session.params, seed=session.branch.seed, max_new_tokens=max(len(choices), 1))
    decoding = Decoding(source.prefix, params, recorded={"explored": True})
    lines = [to_json_line(decoding.header.as_dict())]
    ids = session.prompt_ids
    for index, choice in enumerate(choices):
        distribution = Distribution(source.logits(ids), ids, SamplingParams(**choice.params))
        step = distribution.step(index, choice.token_id, source.piece, DEFAULT_CANDIDATES)
        lines.append(step_json_line(decoding.record(step)))
        ids = (*ids, choice.token_id)
    lines.append(to_json_line(decoding.summary().as_dict()))
    write_whole(Path(path), "".join(f"{line}\n" for line in lines).encode())
