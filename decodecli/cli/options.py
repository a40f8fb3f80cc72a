"""The options that mean the same thing wherever they appear, declared once."""

from __future__ import annotations

from decodecli.cli.command import CONFIG, DECODING, INPUT, MODEL, OUTPUT, Argument, Option


def _presets(incomplete: str) -> list[str]:
    from decodecli.config import preset_names

    return [name for name in preset_names() if name.startswith(incomplete)]


PROMPT = Argument(
    "prompt",
    "PROMPT",
    r"What to continue; - reads it from standard input. [dim]\[default: Once upon a time,][/dim]",
)
FILE = Option("file", str, INPUT, "Read the text from FILE.", "FILE", flags="-f")

# Which model, and how it is held in memory: the fields of `settings.LoadParams`.
MODEL_NAME = Option(
    "model", str, MODEL, "Hub name or local folder of a causal language model.",
    "NAME_OR_PATH", "builtin", "-m",
)  # fmt: skip
REVISION = Option("revision", str, MODEL, "Branch, tag or commit on the hub.", "REV", "main")
DEVICE = Option(
    "device", str, MODEL, "Where to run.",
    default="auto", choices=("auto", "cuda", "cuda:N", "mps", "cpu"),
)  # fmt: skip
DTYPE = Option(
    "dtype", str, MODEL,
    "Number type of the weights. auto: float32 below 1 B parameters, else as stored.",
    default="auto", choices=("auto", "float32", "bfloat16", "float16"),
)  # fmt: skip
QUANTIZE = Option(
    "quantize", str, MODEL, "Weights in 4 or 8 bits. auto: nf4 on a GPU from 1 B parameters.",
    default="auto", flags="-q", choices=("auto", "none", "nf4", "fp4", "int8"),
)  # fmt: skip
MAX_MEMORY = Option(
    "max_memory", str, MODEL, "What each device may hold, as 0=10GiB,cpu=30GiB.",
    "DEV=SIZE,…", "all that is free",
)  # fmt: skip
THREADS = Option(
    "threads", int, MODEL, "Threads on a CPU; goes before OMP_NUM_THREADS.",
    "N", "by the model's size",
)  # fmt: skip
LOADER = Option(
    "loader", str, MODEL, "What reads and runs the model. auto: transformers where it must.",
    default="auto", choices=("auto", "transformers"),
)  # fmt: skip
ALLOW_PICKLE = Option("allow_pickle", bool, MODEL, "Load pickled weights (they can run code).")
TRUST_REMOTE_CODE = Option(
    "trust_remote_code", bool, MODEL, "Run Python code that comes with the model."
)
LOADING = (
    *(MODEL_NAME, REVISION, DEVICE, DTYPE, QUANTIZE, MAX_MEMORY, THREADS),
    *(LOADER, ALLOW_PICKLE, TRUST_REMOTE_CODE),
)

# How the next token is picked: the fields of `settings.SamplingParams`, each an axis of a sweep.
TEMPERATURE = Option(
    "temperature", float, DECODING, "Divide the logits by T; 0 is greedy.", "T", "1.0", "-t"
)
TEMPERATURES = TEMPERATURE.but(
    kind=str, several=True, metavar="T,T,…",
    help="One column each; repeatable or with commas. 0 is the limit.",
)  # fmt: skip
GREEDY = Option(
    "greedy", bool, DECODING, "Take the most probable token every time; the same as -t 0."
)
FILTERS = (
    Option("top_k", int, DECODING, "Keep the K most probable tokens.", "K", "0, off"),
    Option("top_p", float, DECODING, "Keep the smallest set with mass P (nucleus).", "P", "1.0, off"),
    Option("min_p", float, DECODING, "Keep tokens with at least P of the top probability.",
           "P", "0, off"),
    Option("typical_p", float, DECODING, "Keep mass P nearest the expected surprisal.",
           "P", "1.0, off"),
    Option("epsilon_cutoff", float, DECODING, "Keep tokens with probability at least E.",
           "E", "0, off"),
    Option("eta_cutoff", float, DECODING, "As epsilon, scaled down by the entropy.", "E", "0, off"),
    Option("top_nsigma", float, DECODING, "Keep logits within N standard deviations of the top.",
           "N", "0, off"),
    Option("top_h", float, DECODING, "Keep the most probable up to share H of the entropy.",
           "H", "0, off"),
    Option("top_a", float, DECODING, "Keep tokens with at least A of the top probability squared.",
           "A", "0, off"),
    Option("tfs_z", float, DECODING, "Cut the tail: keep share Z of the curvature.", "Z", "1.0, off"),
)  # fmt: skip
PENALTIES = (
    Option("repetition_penalty", float, DECODING, "Penalise tokens already in the text.",
           "R", "1.0, off"),
    Option("no_repeat_ngram_size", int, DECODING, "Never repeat N tokens in a row.", "N", "0, off"),
    Option("presence_penalty", float, DECODING, "Lower the logits of tokens already there by X.",
           "X", "0, off"),
    Option("frequency_penalty", float, DECODING, "Lower them by X for each time they are there.",
           "X", "0, off"),
    Option("penalty_last_n", int, DECODING, "Penalise what is among the last N tokens.",
           "N", "-1, all"),
    Option("dynatemp_range", float, DECODING, "Vary the temperature by R with the entropy.",
           "R", "0, off"),
    Option("dynatemp_exponent", float, DECODING, "How it follows the entropy.", "E", "1.0"),
)  # fmt: skip
# What depends on the run: its seed, its earlier steps, its tokenizer.
RUN_STAGES = (
    Option("xtc_probability", float, DECODING, "Exclude the top choices in share P of the steps.",
           "P", "0, off"),
    Option("xtc_threshold", float, DECODING, "Top choices have at least this probability.",
           "P", "0.1"),
    Option("mirostat", int, DECODING, "2 holds the surprisal at --mirostat-tau.", "0|2", "0, off"),
    Option("mirostat_tau", float, DECODING, "Its target, in bits.", "BITS", "5.0"),
    Option("mirostat_eta", float, DECODING, "Its learning rate.", "RATE", "0.1"),
    Option("dry_multiplier", float, DECODING, "Penalise what extends a repetition (DRY).",
           "X", "0, off"),
    Option("dry_base", float, DECODING, "DRY grows by B with each token repeated.", "B", "1.75"),
    Option("dry_allowed_length", int, DECODING, "DRY lets N tokens be repeated.", "N", "2"),
    Option("dry_penalty_last_n", int, DECODING, "DRY looks at the last N tokens.", "N", "-1, all"),
    Option("min_new_tokens", int, DECODING, "Do not end before N new tokens.", "N", "0, off"),
)  # fmt: skip
BREAKERS = Option(
    "dry_sequence_breakers", str, DECODING,
    "Text that DRY matches nothing across (repeatable); none for no text.",
    "TEXT", "line break : \" *", several=True,
)  # fmt: skip
LOGIT_BIAS = Option(
    "logit_bias", str, DECODING, "Add to a token's logit; text or id (repeatable).",
    "TOKEN=±X", several=True,
)  # fmt: skip
BAD_WORDS = Option(
    "bad_words", str, DECODING, "Never generate TEXT (repeatable).", "TEXT", several=True
)
ORDER = Option(
    "order", str, DECODING, "Order of the stages: transformers, llama.cpp, vllm, mlx, or a list.",
    "ORDER", "transformers",
)  # fmt: skip
CONSTRAIN = Option(
    "constraint", str, DECODING,
    "Only texts like this: choice:A,B, regex:…, json, json-schema:FILE, grammar:FILE.",
    "KIND:…", flags="--constrain",
)  # fmt: skip
# Of these each run takes one as it is written, so that in a sweep they are no axes.
TEXTS = (BREAKERS, LOGIT_BIAS, BAD_WORDS, CONSTRAIN)
MAX_NEW_TOKENS = Option(
    "max_new_tokens", int, DECODING, "Tokens to generate at most.", "N", "40", "-n"
)
STOP = Option(
    "stop", str, DECODING, "End the text before STRING (repeatable).", "STRING", several=True
)
SEED = Option(
    "seed", int, DECODING, "Repeat the run of this seed; 0 to 4294967295.", "S", "drawn and shown"
)
NUM_SAMPLES = Option(
    "num_samples", int, DECODING, "N runs, with seeds S, S+1, …; one prefill.", "N", "1"
)
BOS = Option(
    "bos", bool, DECODING, "Add special tokens to the prompt.",
    default="as the tokenizer does", flags="--bos/--no-bos",
)  # fmt: skip
ALLOW_SPECIAL = Option(
    "allow_special", bool, DECODING,
    "With --chat: special tokens spelt in a message are read as such.",
)  # fmt: skip
CHAT = (
    Option("chat", bool, DECODING, "Apply the chat template: PROMPT is the user's message."),
    Option("system", str, DECODING, "The system message before it; implies --chat.", "TEXT"),
    ALLOW_SPECIAL,
)
BEAMS = (
    Option("num_beams", int, DECODING, "Beam search over N texts at once.", "N", "1, off"),
    Option("length_penalty", float, DECODING,
           "Score beams by log probability / length^L; above 0 favours longer texts.", "L", "1.0"),
    Option("early_stopping", str, DECODING,
           "End at N ended beams, when no beam is likely to do better, or when none can.",
           default="false", choices=("false", "true", "never")),
    Option("num_return_sequences", int, DECODING, "How many of the beams to return.", "N", "1"),
    Option("beam_sample", bool, DECODING, "Draw the beams in place of taking the best."),
)  # fmt: skip
# What says which cells a sweep has: those that take several values are axes.
AXES = (TEMPERATURE, *FILTERS, *PENALTIES, *RUN_STAGES, MAX_NEW_TOKENS)
OF_CELLS = (
    *(option.name for option in (*AXES, *TEXTS)), "order", "greedy", "stop", "seed", "bos"
)  # fmt: skip

MOST_CELLS = 60  # whose texts `compare` and `sweep --show` show, unless told otherwise

# What is shown of a run, and what is written.
CANDIDATES = Option("candidates", int, OUTPUT, "Rows of a step's table.", "N", "10", "-c")
TABLES = Option(
    "tables", str, OUTPUT, "A table a step, a line a step, or neither.",
    default="full on a terminal, else none", choices=("full", "line", "none"),
)  # fmt: skip
STAGES = Option(
    "stages", str, OUTPUT, "all: the probability after each stage, a column each.",
    default="last", choices=("last", "all"),
)  # fmt: skip
WATCH = Option(
    "watch", str, OUTPUT, "Show TOKEN, text or id, at every step, wherever it ranks (repeatable).",
    "TOKEN", several=True,
)  # fmt: skip
EXPLAIN = Option("explain", bool, OUTPUT, "Say in words why each token was taken.")
WHAT_IF = Option(
    "what_if", str, OUTPUT,
    "Show what other settings would have drawn, with the same noise (repeatable).",
    "NAME=VALUE,…", several=True,
)  # fmt: skip
DELAY = Option("delay", float, OUTPUT, "Wait after each token.", "SECONDS", "0")
PAUSE = Option(
    "pause", bool, OUTPUT,
    "Wait for a key: space or enter shows the next token, c goes on, q ends.",
)  # fmt: skip
TRACE = Option("trace", str, OUTPUT, "Write every number of the run to FILE (JSONL).", "FILE")
SAVE_LOGITS = Option(
    "save_logits", str, OUTPUT, "Write every step's logits to FILE.npy, float32.", "FILE.npy"
)
PLOT = Option(
    "plot", str, OUTPUT, "Draw to a .png, .svg or .pdf; - draws in the terminal.", "FILE"
)  # fmt: skip
TEXT_PLOT = PLOT.but(help="The text in its colours as a picture: .png, .svg, .pdf or .html.")
HTML = Option(
    "html", str, OUTPUT, "A page with every step's table, and sliders for temperature and filters.",
    "FILE.html",
)  # fmt: skip
PLOT_KIND = Option(
    "plot_kind", str, OUTPUT, "What to draw.",
    default="auto: bars, or a panel for several temperatures",
    choices=("auto", "bars", "panel", "lines", "tokens", "cumulative", "entropy")
)  # fmt: skip
QUIET = Option("quiet", bool, OUTPUT, "Only the result: no notices and no progress.")
QUIET_TEXT = QUIET.but(
    help="Only the text: no notices, no progress, no tables but those of --tables."
)
VERBOSE = Option("verbose", bool, OUTPUT, "Let the libraries' own log lines through.")
COLOR = Option(
    "color", str, OUTPUT, "Colour what is shown; never a bare text, JSON or CSV.",
    default="auto, on a terminal", choices=("auto", "always", "never"),
)  # fmt: skip
DEBUG = Option("debug", bool, OUTPUT, "Show a traceback on errors.")

PRESET = Option(
    "preset", str, CONFIG, "A named setting; see decodecli presets.", "NAME",
    flags="-p", complete=_presets,
)  # fmt: skip
CONFIG_FILE = Option("config", str, CONFIG, "Options from a TOML file.", "FILE")


def format_of(*formats: str) -> Option:
    """The `--format` option of a command that can print these, the first by default."""
    return Option(
        "format", str, OUTPUT, "What goes to stdout.",
        default=formats[0], choices=formats,
    )  # fmt: skip
