"""`prefzoo label`: the server of the page, the export, and what people said so far."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from prefzoo.errors import PrefzooError, os_error_text
from prefzoo.feedback.export_answers import DATA_KINDS
from prefzoo.feedback.feedback_types import Answer, Explain, Item
from prefzoo.feedback.store import FeedbackStore
from prefzoo.report.explained_replies import key, read_explanations
from prefzoo.run.stage_graph import START

SHARE = {"first": (1.0, 0.0), "second": (0.0, 1.0), "tie": (0.5, 0.5), "both_bad": (0.5, 0.5)}
"""What an answer gives the first and the second reply."""


def export_all(store: FeedbackStore, folder: Path) -> list[str]:
    """Write the answers of each kind into a folder, and say what is where and how a recipe reads it."""
    kinds = {answer.kind: None for answer in store.answers()}
    if not kinds:
        raise PrefzooError(f"{store.path} holds no answers yet")
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for kind in kinds:
        path = folder / f"{kind}.jsonl"
        counts = store.export(path, kind)
        line = f"{path}: {counts['written']} answers"
        line += f"; data: {{{DATA_KINDS[kind]}: {path}}}" if kind in DATA_KINDS else ""
        line += f"; {counts['gold']} to gold questions are left out" if counts["gold"] else ""
        line += f"; {counts['all_tied']} that rank all replies alike are left out" if counts["all_tied"] else ""
        lines.append(f"{line}.")
        names = {name: None for a in store.answers("rate") for name in a.value["ratings"]} if kind == "rate" else {}
        lines += [f"  with data.attributes: {json.dumps(list(names))}"] if names else []
    return lines


def said_so_far(store: FeedbackStore) -> list[str]:
    """Sentences on each annotator, and on each A/B test."""
    from prefzoo.results.statistics.confidence_sequence import confidence_sequence  # takes a second

    items = {item.item_id: item for item in store.items()}
    answers = store.answers()
    lines = []
    for name in store.annotators():
        own = [answer for answer in answers if answer.annotator == name]
        gold = [(answer, items[answer.item_id].gold) for answer in own if items[answer.item_id].gold is not None]
        right = sum(answer.value["choice"] == (known or {})["choice"] for answer, known in gold)
        checked = f", {right} of {len(gold)} gold questions right" if gold else ""
        seconds = sorted(answer.seconds for answer in own)
        took = f", {seconds[len(seconds) // 2]:.1f} s each (median)" if seconds else ""
        lines.append(f"{name}: {len(own)} answer{'s' * (len(own) != 1)}{took}{checked}.")
    for label, shares in ab_shares(items, answers).items():
        low, high = confidence_sequence(shares)
        verdict = "better" if low > 0.5 else "worse" if high < 0.5 else "inconclusive"
        lines.append(
            f"A/B: {label} wins {sum(shares) / len(shares):.0%} of {len(shares)} against the start (95% {low:.0%} to "
            f"{high:.0%} however often one looks): {verdict}."
        )
    return lines


def ab_shares(items: Mapping[str, Item], answers: Sequence[Answer]) -> dict[str, list[float]]:
    """Policy -> what it won of each item of its A/B test: 1, 0, or 1/2 where neither is better.

    In the order of the answers; the first answer to an item counts, so that each observation is of another prompt.
    """
    shares: dict[str, list[float]] = {}
    seen: set[str] = set()
    for answer in answers:
        item = items[answer.item_id]
        if answer.kind != "ab" or item.gold is not None or item.item_id in seen:
            continue
        seen.add(item.item_id)
        policies = [reply["policy"] for reply in item.replies]
        trained = 1 if policies[0] == START else 0
        shares.setdefault(policies[trained], []).append(SHARE[answer.value["choice"]][trained])
    return shares


def serve(
    store: FeedbackStore,
    dimensions: Sequence[str] | None,
    annotators: Sequence[str],
    host: str,
    port: int,
    hostname: str | None,
    new_links: bool,
    source: Path | None = None,
) -> Iterator[str]:
    """Yield what to tell before the page is served, and serve it until it is interrupted.

    Args:
        source: the run whose replies are judged; None where they are of a file.

    Raises:
        PrefzooError: when a package is missing, or the address cannot be listened on.
    """
    require_people()
    import uvicorn

    from prefzoo.feedback.label_app import DIMENSIONS, Labelling, link, make_app

    labelling = Labelling(store, dimensions or DIMENSIONS, host, hostname, explanations_of(source))
    if not (labelling.by_name or annotators or store.annotators()):
        raise PrefzooError(f"--host {host}: other machines may come in, so say who may: --annotators anna,ben")
    listening = _listen(host, port)
    shown = host if host not in ("0.0.0.0", "::") else socket.gethostname()
    shown = f"[{shown}]" if ":" in shown else shown
    base = f"https://{hostname}" if hostname else f"http://{shown}:{listening.getsockname()[1]}"
    known = store.annotators()
    for name in annotators:
        if name in known and not new_links:
            yield f"{name}: has a link already (--new-links makes another)"
        else:
            yield f"{name}: {link(base, store.add_annotator(name))}"
    yield f"{base}/ (Ctrl-C ends it; nothing is lost)" if labelling.by_name else "Ctrl-C ends it; nothing is lost."
    config = uvicorn.Config(make_app(labelling), log_level="warning", server_header=False, date_header=False)
    with contextlib.suppress(KeyboardInterrupt):  # how a server is ended
        uvicorn.Server(config).run(sockets=[listening])


def explanations_of(source: Path | None) -> Explain | None:
    """What `prefzoo explain` left about the replies of items, see `label_app.Labelling`; None where it left nothing."""
    by_label = {} if source is None else read_explanations(source)
    found = {(prompt, reply): each for (_, prompt, reply), each in by_label.items()}
    if not found:
        return None

    def explain(item: Item) -> list[list[tuple[str, float | None, float]]]:
        texts = [key("", item.prompt, reply["text"])[1:] for reply in item.replies]
        return [[(s.text, s.value, s.heat) for s in found[text].segments] for text in texts if text in found]

    return explain


def require_people() -> None:
    """Raise PrefzooError where the packages of the page are not installed."""
    missing = [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise PrefzooError(f"prefzoo label needs the packages {', '.join(missing)}: pip install 'prefzoo[people]'")


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = os_error_text(error, "listening") if isinstance(error, OSError) else str(error)
        raise PrefzooError(f"--host {host} --port {port}: {reason}; is it in use? Choose another --port") from error
