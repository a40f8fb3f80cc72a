"""`decodecli generate`: stream text, and show how every token was picked."""

from __future__ import annotations

from decodecli.cli import chat_options as c
from decodecli.cli import options as o
from decodecli.cli import streams

FORMATS = ("text", "jsonl")
_NOT_SETTINGS = ("prompt", "file", "plot", "debug")


def generate(
    prompt: o.Prompt = None,
    temperature: o.Temperature = None,
    greedy: o.Greedy = None,
    top_k: o.TopK = None,
    top_p: o.TopP = None,
    min_p: o.MinP = None,
    typical_p: o.TypicalP = None,
    epsilon_cutoff: o.EpsilonCutoff = None,
    eta_cutoff: o.EtaCutoff = None,
    repetition_penalty: o.RepetitionPenalty = None,
    no_repeat_ngram_size: o.NoRepeatNgramSize = None,
    max_new_tokens: o.MaxNewTokens = None,
    stop: o.Stop = None,
    seed: o.Seed = None,
    num_samples: o.NumSamples = None,
    bos: o.Bos = None,
    chat: c.Chat = None,
    system: c.System = None,
    allow_special: c.AllowSpecial = None,
    model: o.Model = None,
    revision: o.Revision = None,
    device: o.Device = None,
    dtype: o.Dtype = None,
    quantize: o.Quantize = None,
    max_memory: o.MaxMemory = None,
    threads: o.Threads = None,
    allow_pickle: o.AllowPickle = None,
    trust_remote_code: o.TrustRemoteCode = None,
    file: o.File = None,
    tables: o.Tables = None,
    candidates: o.Candidates = None,
    format: o.text_or(*FORMATS) = None,  # type: ignore[valid-type]
    delay: o.Delay = None,
    pause: o.Pause = None,
    trace: o.Trace = None,
    save_logits: o.SaveLogits = None,
    plot: o.TextPlot = None,
    quiet: o.QuietText = None,
    verbose: o.Verbose = None,
    color: o.Color = None,
    debug: o.Debug = None,
    preset: o.Preset = None,
    config: o.Config = None,
) -> None:
    """Generate text, and see at every step which tokens were in play and why one was picked.

    On a terminal: a table a step. Into a pipe or file: the text alone.

    [bold]Examples[/bold]

      decodecli generate --temperature 1.4 --top-p 0.9

      decodecli generate "The capital of Japan is" --greedy --tables line

      decodecli generate -m mistralai/Mistral-7B-v0.1 -q nf4 "Long, long ago," -t 0.7

      decodecli generate -m ./chat-model "Who are you?" --chat --system "Answer in one word."

      decodecli generate "Once upon a time" --num-samples 5 --seed 0 --quiet

      decodecli generate "Once upon a time" -t 1.3 --seed 3 --plot text.png

      decodecli generate < prompt.txt --format jsonl | jq -j 'select(.type == "step").text'
    """
    flags = {name: value for name, value in locals().items() if name not in _NOT_SETTINGS}
    flags["stop"] = tuple(stop) if stop else None
    # Imported here, so that --help starts at once.
    from decodecli.cli.run import run_command
    from decodecli.config import resolve
    from decodecli.settings import check_chat_and_bos, check_choice

    effective = resolve(flags)
    check_choice("format", effective.output().format, FORMATS)
    output = effective.output()
    check_chat_and_bos(output.chat_params, output.bos)
    effective.sampling(), effective.load()  # refuse bad values before reading anything
    text, is_default = streams.read_prompt(prompt, file, streams.Notices(output.quiet).tell)
    run_command(text, is_default, effective, plot)
