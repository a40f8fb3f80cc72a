"""The recipe: `python -m recipes.builtin_model.train --corpora DIR` makes the built-in model again.

Prepare the texts, learn the tokenizer, train, export, evaluate: one command, which goes on where
it stopped when it is given the same `--work` folder. It runs on a CPU or, with one, on a GPU.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # a spinning barrier starves on shared cores

import argparse
import math
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import torch
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import LlamaForCausalLM
from transformers.utils import logging

from recipes.builtin_model import card_text, credits, evaluate, knowledge, prepare
from recipes.builtin_model.measure import bits_per_byte
from recipes.builtin_model.mixture import Mixture
from recipes.builtin_model.model import export, new_model
from recipes.builtin_model.muon import Muon
from recipes.builtin_model.tokenizer import train_tokenizer, with_words

WARM_UP = 0.01  # share of the training
SLOW = 4.0  # a step that takes this many medians was paused; no more than that counts


@dataclass
class Progress:
    """How far the training is, and its history; saved with every checkpoint."""

    share: float = 0.0
    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best: float = math.inf
    history: list[dict[str, float]] = field(default_factory=list)


def rate(share: float, decay: float) -> float:
    """The learning rate's factor: a short climb, a plateau, a line to zero in the last `decay`."""
    if share < WARM_UP:
        return max(share, 1e-3) / WARM_UP
    return min(1.0, max(0.0, (1.0 - share) / decay))


def counted(taken: float, recent: Sequence[float]) -> float:
    """The seconds of a step that count: a pause in it is cut to `SLOW` usual steps."""
    return min(taken, SLOW * median(recent))


def optimizers(model: LlamaForCausalLM, args: argparse.Namespace) -> list[torch.optim.Optimizer]:
    """Muon for the hidden matrices, AdamW for the embedding and the norms' gains."""
    hidden = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    embeddings = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" in n]
    gains = [p for p in model.parameters() if p.ndim < 2]
    adam = torch.optim.AdamW(
        [{"params": embeddings, "lr": args.adam_lr}, {"params": gains, "lr": args.adam_lr}],
        betas=(0.9, 0.95),
        weight_decay=0.0,
    )
    return [Muon(hidden, lr=args.muon_lr, weight_decay=args.weight_decay), adam]


def loss_function(model: LlamaForCausalLM, device: str) -> Callable[..., torch.Tensor]:
    """Mean cross-entropy in nats of `(rows, length + 1)` ids, under bfloat16 autocast."""

    def loss(ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device, dtype=torch.bfloat16):
            hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
            logits = model.lm_head(hidden)
        return functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())

    return loss


def grown(
    weights: dict[str, torch.Tensor], old: Tokenizer, tokenizer: Tokenizer
) -> dict[str, torch.Tensor]:
    """The weights for a tokenizer with more pieces: a new one is the mean of its old parts."""
    rows = weights["model.embed_tokens.weight"]
    added = [tokenizer.id_to_token(i) or "" for i in range(len(rows), tokenizer.get_vocab_size())]
    parts = [old.encode(piece[1:], add_special_tokens=False).ids for piece in added]
    table = torch.cat([rows, *(rows[ids].mean(0, keepdim=True) for ids in parts)])
    return weights | {"model.embed_tokens.weight": table, "lm_head.weight": table}


class Trainer:
    """One training: the model, its optimizers, its stream of tokens, its checkpoints."""

    def __init__(
        self,
        args: argparse.Namespace,
        found: Sequence[prepare.Document],
        tokenizer: Tokenizer,
    ) -> None:
        torch.manual_seed(args.seed)
        self.args, self.tokenizer = args, tokenizer
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        attention = "blocked_causal" if args.compile and self.device == "cpu" else "sdpa"
        self.model = new_model(
            tokenizer.get_vocab_size(), args.layers, args.width, args.heads, args.inner, attention
        ).to(self.device)
        if args.start:
            finished = LlamaForCausalLM.from_pretrained(args.start, dtype=torch.float32)
            old = Tokenizer.from_file(str(args.start / "tokenizer.json"))
            self.model.load_state_dict(grown(finished.state_dict(), old, tokenizer))
        self.optimizers = optimizers(self.model, args)
        self.base_rates = [[g["lr"] for g in o.param_groups] for o in self.optimizers]
        self.mixture = Mixture(found, tokenizer, args.seed)
        self.watched = [d.text for d in found if d.heldout and d.source == "tinystories"][:120]
        self.progress = Progress()
        self.asked_to_stop = False
        loss = loss_function(self.model, self.device)
        self.loss = torch.compile(loss, dynamic=False) if args.compile else loss
        self.checkpoint = args.work / "checkpoint.pt"
        if self.checkpoint.exists():
            self._restore()
        if args.decay_now:
            self.progress.share = max(self.progress.share, 1.0 - args.decay)

    def run(self) -> None:
        """Train until the budget is spent; every step's time counts, pauses do not."""
        recent: list[float] = []
        checked = time.monotonic()
        signal.signal(signal.SIGTERM, self._ask_to_stop)
        while self.progress.share < 1.0:
            if self.asked_to_stop:
                self._save()
                raise SystemExit("stopped; the same command goes on from the checkpoint")
            began = time.monotonic()
            loss = self._step()
            taken = time.monotonic() - began
            recent = [*recent[-50:], taken]
            self._count(counted(taken, recent))
            if self.progress.steps % 20 == 0:
                self._log(f"loss {loss:.4f}")
            if time.monotonic() - checked > 60 * self.args.check_minutes:
                self._check()
                checked = time.monotonic()
            if self.progress.share >= 1.0:
                self._check()

    def _ask_to_stop(self, *_: object) -> None:
        self.asked_to_stop = True

    def _step(self) -> float:
        factor = rate(self.progress.share, self.args.decay)
        for optimizer, rates in zip(self.optimizers, self.base_rates, strict=True):
            for group, base in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = base * factor
        batch = self.mixture.batch(self.args.rows, self.args.length, self.progress.share)
        ids = torch.from_numpy(batch).to(self.device)
        loss = self.loss(ids[:, :-1].contiguous(), ids[:, 1:].contiguous())
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        return loss.item()

    def _count(self, seconds: float) -> None:
        tokens = self.args.rows * self.args.length
        self.progress.steps += 1
        self.progress.tokens += tokens
        self.progress.seconds += seconds
        by_time = seconds / (60 * self.args.minutes) if self.args.minutes else 0.0
        by_tokens = tokens / self.args.tokens if self.args.tokens else 0.0
        self.progress.share += max(by_time, by_tokens)

    def _check(self) -> None:
        self.model.eval()
        with torch.autocast(self.device, dtype=torch.bfloat16):
            bits = bits_per_byte(self.model, self.tokenizer, self.watched)
        self.model.train()
        point = {
            "minutes": round(self.progress.seconds / 60, 2),
            "tokens": self.progress.tokens,
            "bits_per_byte": round(bits, 4),
        }
        self.progress.history.append(point)
        self._log(f"held-out bits per byte {bits:.4f}")
        if bits <= self.progress.best:  # should held-out text get worse, the best weights stay
            self.progress.best = bits
            export(self.model, self.tokenizer, self.args.work / "best")
        self._save()

    def _log(self, what: str) -> None:
        p = self.progress
        speed = p.tokens / max(p.seconds, 1e-9)
        print(
            f"{p.share:6.1%} step {p.steps} tokens {p.tokens / 1e6:.2f} M "
            f"{p.seconds / 60:.1f} min {speed:.0f} tok/s {what}",
            flush=True,
        )

    def _save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "mixture": self.mixture.state(),
            "progress": vars(self.progress),
        }
        fresh = self.checkpoint.with_suffix(".new")
        torch.save(state, fresh)
        fresh.replace(self.checkpoint)

    def _restore(self) -> None:
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.mixture.restore(state["mixture"])
        self.progress = Progress(**state["progress"])
        self._log("taken up again")


def gather(args: argparse.Namespace) -> list[prepare.Document]:
    """Every document of the training, held-out ones marked; facts and stories told apart."""
    found = prepare.documents(args.corpora)
    stories = [d.text for d in found if d.source == "tinystories" and d.start and not d.heldout]
    return found + knowledge.documents(args.corpora / "facts", stories, args.facts, args.seed)


def tokenizer_for(args: argparse.Namespace, found: Sequence[prepare.Document]) -> Tokenizer:
    """The tokenizer of the work folder, learned from the texts if there is none yet."""
    path = args.work / "tokenizer.json"
    if not path.exists():
        training = [d for d in found if not d.heldout]
        if args.start:
            parts = Tokenizer.from_file(str(args.start / "tokenizer.json"))
        else:
            # tales and facts count less than stories: one in three
            texts = [
                d.text
                for i, d in enumerate(training)
                if d.source.startswith("tinystories") or i % 3 == 0
            ]
            parts = train_tokenizer(texts, args.parts)
        names = knowledge.names(knowledge.all_facts(args.corpora / "facts"))
        stories = [d.text for d in training if d.source.startswith("tinystories")]
        with_words(parts, names, stories, args.vocabulary).save(str(path))
    return Tokenizer.from_file(str(path))


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; the defaults are those of the shipped model."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.builtin_model.train", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--corpora", type=Path, required=True, help="folder with the texts")
    parser.add_argument("--out", type=Path, help="folder for the model (default: WORK/model)")
    parser.add_argument("--work", type=Path, default=Path("runs/builtin"), help="checkpoints")
    parser.add_argument("--start", type=Path, help="a finished model to go on from")
    parser.add_argument("--minutes", type=float, default=0.0, help="budget of training time")
    parser.add_argument("--tokens", type=float, default=36e6, help="or of tokens")
    parser.add_argument("--decay", type=float, default=0.65, help="last share, of falling rates")
    parser.add_argument("--decay-now", action="store_true", help="begin that last share at once")
    parser.add_argument("--vocabulary", type=int, default=6656, help="pieces, whole words included")
    parser.add_argument("--parts", type=int, default=4096, help="pieces that BPE learns")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--inner", type=int, default=768)
    parser.add_argument("--rows", type=int, default=8, help="sequences in a batch")
    parser.add_argument("--length", type=int, default=512, help="tokens in a sequence")
    parser.add_argument("--muon-lr", type=float, default=0.03)
    parser.add_argument("--adam-lr", type=float, default=0.01)
    parser.add_argument("--weight-decay", type=float, default=0.03)
    parser.add_argument("--facts", type=int, default=70_000, help="number of fact documents")
    parser.add_argument("--check-minutes", type=float, default=3.0)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (0: as torch does)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a short evaluation at the end")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args(words)
    if args.minutes:
        args.tokens = 0.0
    return args


def describe(trainer: Trainer, shares: dict[str, dict[str, int]], folder: Path) -> None:
    """Write what is known of the training into the cards of the exported folder."""
    model, progress = trainer.model, trainer.progress
    config = model.config
    card_text.fill(folder, "data", card_text.data_text(shares, trainer.mixture.drawn))
    card_text.fill(folder, "training", card_text.training_text(progress.history))
    facts = {
        "name": "builtin",
        "architecture": f"Llama, {config.num_hidden_layers} layers of {config.hidden_size}",
        "parameters": sum(p.numel() for p in model.parameters()),
        "vocabulary": config.vocab_size,
        "context": config.max_position_embeddings,
        "dtype": "bfloat16",
        "tokens": progress.tokens,
        "training_minutes": round(progress.seconds / 60, 1),
        "trained": datetime.now(UTC).date().isoformat(),
        "licence": "MIT",
    }
    card_text.note(folder, facts)


def main(words: Sequence[str] | None = None) -> None:
    """Prepare, learn the tokenizer, train, export, evaluate."""
    args = arguments(words)
    if args.threads:
        torch.set_num_threads(args.threads)
    logging.disable_progress_bar()
    args.work.mkdir(parents=True, exist_ok=True)
    found = gather(args)
    tokenizer = tokenizer_for(args, found)
    trainer = Trainer(args, found, tokenizer)
    trainer.run()
    out = args.out or args.work / "model"
    shutil.copytree(args.work / "best", out, dirs_exist_ok=True)
    (out / "CREDITS.md").write_text(credits.credits_text(args.corpora), encoding="utf-8")
    describe(trainer, prepare.shares(found), out)
    made = evaluate.sample(found, knowledge.all_facts(args.corpora / "facts"))
    packed = args.work / evaluate.SAMPLE.name
    evaluate.save_sample(made, packed)
    quick = ["--quick"] if args.quick else []
    evaluate.main(["--model", str(out), "--sample", str(packed), "--write-card", *quick])


if __name__ == "__main__":
    main()
