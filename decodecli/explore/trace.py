"""A branch of a session as a trace that `replay` shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from decodecli.decoding.decode import DEFAULT_CANDIDATES, Decoding
from decodecli.explore.engine import Distribution, ModelSource
from decodecli.explore.session import Choice, Session
from decodecli.records.run import Step, step_json_line, to_json_line
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
        lines.append(step_json_line(decoding.record(_step(source, ids, index, choice))))
        ids = (*ids, choice.token_id)
    lines.append(to_json_line(decoding.summary().as_dict()))
    write_whole(Path(path), "".join(f"{line}\n" for line in lines).encode())


def _step(source: ModelSource, ids: tuple[int, ...], index: int, choice: Choice) -> Step:
    distribution = Distribution(source.logits(ids), ids, SamplingParams(**choice.params))
    listed = distribution.order[:DEFAULT_CANDIDATES].tolist()
    if choice.token_id not in listed:
        listed.append(choice.token_id)
    rows = tuple(distribution.candidate(token, source.piece(token)) for token in listed)
    chosen = next(row for row in rows if row.token_id == choice.token_id)
    entropy, final_entropy = distribution.entropies
    return Step(
        index=index,
        position=0,
        token_id=chosen.token_id,
        token=chosen.token,
        text="",
        rank=chosen.rank,
        logit=chosen.logit,
        logprob=chosen.logprob,
        tempered_logprob=chosen.tempered_logprob,
        final_logprob=-1e308 if chosen.final_logprob is None else chosen.final_logprob,
        entropy=entropy,
        final_entropy=final_entropy,
        kept=distribution.kept,
        candidates=rows,
    )
