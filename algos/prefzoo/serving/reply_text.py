"""The text of a reply while its tokens come one by one; imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

UNFINISHED = "\ufffd"
"""What the bytes of half a letter are decoded as."""


class ReplyText:
    """Turns tokens into text that can be sent at once: never half a letter, nor the beginning of a stop text.

    Args:
        decode: the text of tokens.
        stop: texts before which the reply ends.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str] = ()) -> None:
        self._decode, self._stop = decode, [text for text in stop if text]
        self._ids: list[int] = []
        self._begin = self._read = 0  # tokens before `_begin` no longer change how later ones are written
        self._text = ""
        self._sent = 0
        self.stopped = False

    def add(self, token: int) -> str:
        """Return the text that may be sent after one more token."""
        self._ids.append(token)
        known = self._decode(self._ids[self._begin : self._read])
        text = self._decode(self._ids[self._begin :])
        if len(text) > len(known) and not text.endswith(UNFINISHED):
            self._text += text[len(known) :]
            self._begin, self._read = self._read, len(self._ids)
        return self._send(self._cut(self._text), held=True)

    def end(self, whole: str) -> tuple[str, str]:
        """Return what remains to be sent, and the text of the reply up to a stop text.

        Args:
            whole: the text of all tokens, decoded together.
        """
        final = self._cut(whole if whole.startswith(self._text[: self._sent]) else self._text)
        return self._send(final, held=False), final

    def _cut(self, text: str) -> str:
        places = [place for stop in self._stop if (place := text.find(stop)) >= 0]
        self.stopped = bool(places)
        return text[: min(places)] if places else text

    def _send(self, text: str, held: bool) -> str:
        keep = 0
        if held and not self.stopped:
            longest = max((len(stop) - 1 for stop in self._stop), default=0)
            keep = next(
                (k for k in range(min(longest, len(text)), 0, -1) if any(s.startswith(text[-k:]) for s in self._stop)),
                0,
            )
        piece = text[self._sent : len(text) - keep]
        self._sent += len(piece)
        return piece
