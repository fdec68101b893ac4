"""Writes a policy in the usual layout: `policy fmt`.

Pure. The text is taken apart into words, put together again, and nothing is interpreted but brackets, "=" and lines:
comments stay where they are; assignments on neighbouring lines are aligned at "="; blocks are set off by empty lines.
Source: HashiCorp's description of HCL 1; the layout is that of its formatter.
"""

import re
from typing import Final, NamedTuple

_WORD: Final = re.compile(
    r"""(?P<blank>[ \t\r]+)|(?P<line>\n)|(?P<comment>(\#|//)[^\n]*|/\*.*?\*/)
    |(?P<text>"(\\.|[^"\\\n])*"|<<-?(?P<mark>\w+)\n.*?\n[ \t]*(?P=mark)(?=\n|$)|[\w.*+/:-]+)|(?P<sign>[={}\[\],])""",
    re.VERBOSE | re.DOTALL,
)


class _Word(NamedTuple):
    kind: str
    text: str
    line: int


class _Entry(NamedTuple):
    """One assignment or block: comments before it, its keys, its value's lines, a comment behind it."""

    comments: list[str]
    keys: str
    is_assigned: bool
    value: list[str]
    remark: str
    follows_closely: bool


def format_policy(text: str) -> str:
    """Return the text in the usual layout, with a newline at its end.

    Raises:
        ValueError: it is no HCL.
    """
    reader = _Reader(_words(text))
    entries, rest = reader.entries("")
    body = _layout(entries, rest, is_top=True)
    return "\n".join(body) + "\n"


def _words(text: str) -> list[_Word]:
    words, position, line = [], 0, 1
    while position < len(text):
        match = _WORD.match(text, position)
        if match is None or match.lastgroup is None:
            raise ValueError(f"line {line}: {text[position]!r} is not expected here")
        kind = next(name for name in ("blank", "line", "comment", "text", "sign") if match[name] is not None)
        if kind not in ("blank", "line"):
            words.append(_Word(kind, match.group(), line))
        line += match.group().count("\n")
        position = match.end()
    return words


class _Reader:
    """Goes through the words once, by recursive descent."""

    def __init__(self, words: list[_Word]) -> None:
        self._words = words
        self._at = 0
        self._last_line = 0

    def _peek(self) -> _Word:
        return self._words[self._at] if self._at < len(self._words) else _Word("end", "", self._last_line)

    def _next(self) -> _Word:
        word = self._peek()
        self._at += 1
        self._last_line = word.line + word.text.count("\n")
        return word

    def entries(self, closing: str) -> tuple[list[_Entry], list[str]]:
        """Read up to `closing` ("" is the end); also return comments that no entry follows."""
        found: list[_Entry] = []
        comments: list[str] = []
        while True:
            word = self._peek()
            is_close = bool(found) and word.line - self._last_line <= 1 and not comments
            if word.text == closing and word.kind in ("sign", "end"):
                self._next()
                return found, comments
            if word.kind == "comment":
                comments.append(self._next().text)
            elif word.kind == "text":
                found.append(self._entry(comments, follows_closely=is_close))
                comments = []
            elif word.text == "," and word.kind == "sign":
                self._next()
            else:
                raise ValueError(f"line {word.line}: {word.text or 'the end'!r} is not expected here")

    def _entry(self, comments: list[str], *, follows_closely: bool) -> _Entry:
        keys = [self._next().text]
        while self._peek().kind == "text":
            keys.append(self._next().text)
        is_assigned = self._peek().text == "=" and self._peek().kind == "sign"
        if is_assigned:
            self._next()
        value = self._value()
        remark = ""
        if self._peek().kind == "comment" and self._peek().line == self._last_line:
            remark = self._next().text
        return _Entry(comments, " ".join(keys), is_assigned, value, remark, follows_closely)

    def _value(self) -> list[str]:
        word = self._next()
        if word.kind == "text":
            return word.text.split("\n")
        if word.kind == "sign" and word.text == "{":
            body = _layout(*self.entries("}"), is_top=False)
            return ["{", *("  " + line if line else "" for line in body), "}"] if body else ["{}"]
        if word.kind == "sign" and word.text == "[":
            return self._list(word.line)
        raise ValueError(f"line {word.line}: a value is missing before {word.text or 'the end'!r}")

    def _list(self, first_line: int) -> list[str]:
        items: list[str] = []
        is_spread = False
        while True:
            word = self._peek()
            is_spread = is_spread or word.line > first_line
            if word.kind == "sign" and word.text == "]":
                self._next()
                break
            if word.kind == "comment":
                items.append(self._next().text)
                is_spread = True
            elif word.kind == "sign" and word.text == ",":
                self._next()
            else:
                items.append("\n".join(self._value()) + ",")
        if not is_spread:
            return ["[" + ", ".join(item.removesuffix(",") for item in items) + "]"]
        return ["[", *("  " + line for item in items for line in item.split("\n")), "]"] if items else ["[]"]


def _layout(entries: list[_Entry], rest: list[str], *, is_top: bool) -> list[str]:
    """Return the lines of a body; `rest` are the comments at its end."""
    lines: list[str] = []
    for group in _groups(entries, is_top=is_top):
        if lines:
            lines.append("")
        width = max(len(entry.keys) for entry in group)
        for entry in group:
            lines += [line for comment in entry.comments for line in comment.split("\n")]
            head = f"{entry.keys:{width}} = " if entry.is_assigned else f"{entry.keys} "
            first, *others = entry.value
            block = [head + first, *others]
            block[-1] += f" {entry.remark}" if entry.remark else ""
            lines += block
    if rest:
        lines += [*([""] if lines else []), *(line for comment in rest for line in comment.split("\n"))]
    return lines


def _groups(entries: list[_Entry], *, is_top: bool) -> list[list[_Entry]]:
    """Put assignments of one line that follow each other closely together; all others stand alone."""
    groups: list[list[_Entry]] = []
    for entry in entries:
        is_short = entry.is_assigned and len(entry.value) == 1 and not is_top
        if groups and is_short and entry.follows_closely and len(groups[-1][-1].value) == 1:
            groups[-1].append(entry)
        else:
            groups.append([entry])
    return groups
