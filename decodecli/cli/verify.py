"""`replay --verify`: recorded runs made again, and whether they hold."""

from __future__ import annotations

from dataclasses import replace

from decodecli.cli.loading_line import load_model
from decodecli.cli.streams import write_stdout
from decodecli.config import Effective
from decodecli.decoding.verify import Verification
from decodecli.errors import DecodecliError
from decodecli.models.loading import LanguageModel
from decodecli.records.run import RunHeader, Step
from decodecli.records.trace import TraceReader
from decodecli.render.escaping import one_line, visible
from decodecli.render.number_format import count, scientific
from decodecli.settings import LoadParams, OutputParams


def verify(reader: TraceReader, effective: Effective, output: OutputParams) -> None:
    """Make every run of the trace again, and print a line on each.

    Raises:
        DecodecliError: one does not hold; or what loading and decoding raise.
    """
    loaded: tuple[LoadParams, LanguageModel] | None = None
    runs: list[Verification] = []
    complete = True  # whether a line was printed on the last
    for record in reader:
        if isinstance(record, RunHeader | Step):
            if isinstance(record, Step):
                runs[-1].compare(record)
                continue
            if not complete:
                _tell(runs)
            load = _load_params(record, effective)
            if loaded is None or loaded[0] != load:
                loaded = load, load_model(load, output)
            runs.append(Verification(record, loaded[1]))
            complete = False
        else:
            _tell(runs)
            complete = True
    if not complete:
        _tell(runs)
    failed = sum(not run.holds for run in runs)
    if failed:
        raise DecodecliError(
            f"{failed} of {count(len(runs), 'run')} no longer hold" + ("s" if failed == 1 else "")
        )


def _load_params(header: RunHeader, effective: Effective) -> LoadParams:
    """The recorded model as it was loaded; a device that is not there any more is another one."""
    model, typed = header.model, effective.load()
    given = {name for name, source in effective.sources.items() if source == "flag"}
    params = LoadParams(
        model=model.name,
        revision=model.revision,
        device="cpu" if model.device == "cpu" else "auto",
        dtype=model.dtype if model.dtype in ("float32", "bfloat16", "float16") else "auto",
        quantize=model.quantize if model.quantize in ("none", "nf4", "fp4", "int8") else "auto",
        allow_pickle=typed.allow_pickle,
        trust_remote_code=typed.trust_remote_code,
        loader=str(header.params.get("loader", "auto")),
    )
    if "model" in given:
        params = replace(params, model=typed.model, revision=None)
    return replace(params, device=typed.device) if "device" in given else params


def _tell(runs: list[Verification]) -> None:
    run = runs[-1]
    model = run.header.model
    line = f"run {len(runs)}: {one_line(model.name)} {one_line(model.dtype)}, "
    line += f"seed {run.header.seed}, {count(run.steps, 'step')}: "
    if run.divergence is not None:
        index, recorded, now = run.divergence
        line += f"at #{index + 1} {visible(recorded)} was recorded, and now it is {visible(now)}"
    else:
        line += "the same tokens"
    if run.difference:
        line += f"; numbers differ by {scientific(run.difference)} at most ({one_line(run.where)})"
        line += "" if run.difference <= run.tolerance else f", more than {run.tolerance:g}"
    elif run.steps:
        line += "; the same numbers"
    write_stdout(f"{line}\n")
    if run.other_versions and not run.holds:
        write_stdout(f"  recorded with {one_line(run.other_versions)}\n")
