"""What opens over `explore`'s screen: help, the tree of branches, and questions."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Static, TextArea
from textual.widgets import Tree as TreeWidget
from textual.widgets.tree import TreeNode

from decodecli.explore.keys import HELP
from decodecli.explore.session import Node, Session, tree
from decodecli.render.escaping import clip, one_line, visible


class Dialog(ModalScreen[str | None]):
    """Something that escape closes."""

    AUTO_FOCUS = "Input"

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)")]


class Help(Dialog):
    """All keys."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark,f1,q,enter,space", "dismiss(None)")
    ]

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog"):
            yield Static(HELP, markup=False)


class Leave(Dialog):
    """What becomes of a session that is not saved; the answer is "save", "discard" or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "dismiss('save')"),
        Binding("d", "dismiss('discard')"),
    ]

    def __init__(self, words: str) -> None:
        super().__init__()
        self._words = words

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(f"{self._words}\n\ns  save it    d  discard it    esc  stay", markup=False)


class AskName(Dialog):
    """The name of a file."""

    def __init__(self, suggestion: str) -> None:
        super().__init__()
        self._suggestion = suggestion

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(
                "Save the session as; its trace gets the same name in .jsonl", markup=False
            )
            yield Input(self._suggestion)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value.strip() or None)


class EditPrompt(Dialog):
    """The prompt; enter reads it, ctrl+j begins a line."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "done", priority=True),
        Binding("ctrl+j", "newline", priority=True),
    ]

    def __init__(self, prompt: str) -> None:
        super().__init__()
        self._prompt = prompt

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(
                "The prompt: enter reads it, ctrl+j begins a line, esc leaves it", markup=False
            )
            yield TextArea(self._prompt)

    def on_mount(self) -> None:
        area = self.query_one(TextArea)
        area.move_cursor(area.document.end)
        area.focus()

    def action_newline(self) -> None:
        self.query_one(TextArea).insert("\n")

    def action_done(self) -> None:
        self.dismiss(self.query_one(TextArea).text)


class Tree(ModalScreen[int | None]):
    """All branches with the tokens that they share once; enter goes to one."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,v,q", "dismiss(None)")]

    def __init__(self, session: Session, byte_level: bool) -> None:
        super().__init__()
        self._session, self._byte_level = session, byte_level

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static("The branches, with their mean surprisal in nats; enter goes to one")
            widget: TreeWidget[int | None] = TreeWidget(Text(one_line(self._session.prompt)[-40:]))
            widget.auto_expand = False
            yield widget

    def on_mount(self) -> None:
        widget = self.query_one(TreeWidget)
        self._add(widget.root, tree(self._session.branches), top=True)
        widget.root.expand_all()
        widget.focus()

    def _add(self, parent: TreeNode[int | None], node: Node, top: bool = False) -> None:
        words = "".join(visible(choice.token, self._byte_level) for choice in node.choices)
        here = parent
        if words or not top:
            here = parent.add(Text(clip(words, 60) or "(no token)"))
        for number in node.branches:
            branch, current = self._session.branches[number], number == self._session.current
            mean = branch.mean_surprisal
            facts = f"{len(branch.choices)} tokens" + ("" if mean is None else f", {mean:.2f} nats")
            mark = "▸" if current else " "
            label = Text(f"{mark} branch {number + 1}: {facts}", style="bold" if current else "")
            here.add_leaf(label, data=number)
        for child in node.children:
            self._add(here, child)

    def on_tree_node_selected(self, event: TreeWidget.NodeSelected[int | None]) -> None:
        if event.node.data is not None:
            self.dismiss(event.node.data)
