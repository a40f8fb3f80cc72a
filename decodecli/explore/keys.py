"""The keys of `explore`: what each does, and the lines that say so."""

from __future__ import annotations

KEYS = {
    "space": "draw",
    "enter": "take",
    "r": "redraw",
    "g": "greedy",
    "a": "run",
    "plus,equals_sign": "speed(1)",
    "minus": "speed(-1)",
    "backspace": "undo",
    "b": "branch",
    "left_square_bracket": "switch(-1)",
    "right_square_bracket": "switch(1)",
    "v": "tree",
    "slash": "find",
    "e": "edit",
    "w": "guess",
    "s": "save",
    "question_mark,f1": "help",
    "q": "leave",
    "escape": "close",
    "up": "highlight(-1)",
    "down": "highlight(1)",
    "pageup": "page(-1)",
    "pagedown": "page(1)",
    "left": "slide(-1)",
    "right": "slide(1)",
    "comma,shift+left": "cursor(-1)",
    "full_stop,shift+right": "cursor(1)",
    "home": "ends(0)",
    "end": "ends(1)",
}
# Not left to whatever has the focus.
PRIORITY_KEYS = {"ctrl+c": "interrupt", "tab": "slider(1)", "shift+tab": "slider(-1)"}
HINTS = (  # as many as fit
    "space draw  ⏎ take  r again  g greedy  a run  ⌫ undo  b branch  / find  w guess  s save  ? help",
    "space draw  ⏎ take  r again  g greedy  ⌫ undo  b branch  / find  ? help  q quit",
    "space draw  ⏎ take  ⌫ undo  ? help",
)
HELP = """\
space      draw a token              b    open a branch here
enter      take the highlighted      [ ]  other branches
r          draw the last again       v    the tree of all branches
g          take the most probable    /    find a token
a          run; again: stop          w    guess the next token
+ -        run faster, slower        e    edit the prompt
backspace  take the last away        s    save session and trace
esc        close; to the text's end  q    leave

↑ ↓ page up, page down, the wheel: move over all candidates; a click
  highlights one, a double click takes it.
, and . or shift with ← and →, home, end, or a click on the text:
  look at an earlier token; taking another in its place makes a branch.
tab, then ← and →, or the mouse: the settings. No forward pass is
  made for them. Temperature 0 is greedy.
"""
