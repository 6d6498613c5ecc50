"""A corpus report as one HTML file with pictures, drawn as SVG: sharp at any size, text that can be
found, nothing to install.
"""

import html
import math
from collections.abc import Sequence

from mmm.corpora.report import Group, Report, percentile, tables
from mmm.manifest import SPLITS

COLOURS = {
    "neutral": "#bbbbbb",
    "happy": "#ccbb44",
    "surprise": "#aa3377",
    "angry": "#ee6677",
    "sad": "#4477aa",
    "disgust": "#228833",
    "fear": "#66ccee",
}
_SPLIT_COLOURS = {"train": "#444444", "dev": "#e08214", "test": "#8073ac"}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff }
h1 { font-size: 1.5rem; margin-bottom: .2rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
.numbers { display: flex; flex-wrap: wrap; gap: .6rem 2.2rem; margin: 1rem 0 }
.numbers b { display: block; font-size: 1.5rem }
.leaks { border-left: 4px solid #c33; background: #fdf3f3; padding: .4rem 1rem }
.clean { border-color: #228833; background: #f2f9f2 }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 33rem), 1fr));
  gap: 1.6rem 2rem; align-items: start }
figure { margin: 0 } figure.wide { grid-column: 1 / -1 }
figcaption { color: #555; font-size: 13px; margin-top: .3rem }
svg { width: 100%; height: auto; font: 12px system-ui, sans-serif }
.scroll { overflow-x: auto; margin-bottom: 1.4rem }
table { border-collapse: collapse; font-size: 13px }
th, td { padding: .2rem .6rem; border-bottom: 1px solid #e4e4e4 }
th, td { text-align: right }
th:first-child, td:first-child { text-align: left } th { background: #f5f5f5; white-space: nowrap }
td { font-variant-numeric: tabular-nums }
caption { text-align: left; font-weight: 600; padding: .3rem 0 }
details summary { cursor: pointer; font-weight: 600; margin: .6rem 0 }
"""
_WIDTH = 560


def _text(x: float, y: float, content: str, anchor: str = "start", extra: str = "") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
        f" {extra}>{html.escape(content)}</text>"
    )


def _rect(
    x: float, y: float, width: float, height: float, fill: str, title: str = "", extra: str = ""
) -> str:
    inner = f"<title>{html.escape(title)}</title>" if title else ""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{max(height, 0):.1f}"'
        f' fill="{fill}" {extra}>{inner}</rect>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str = "#ccc", extra: str = "") -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" {extra}/>'
    )


def _figure(
    parts: Sequence[str], height: float, caption: str, width: float = _WIDTH, wide: bool = False
) -> str:
    picture = (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img"'
        f' aria-label="{html.escape(caption)}">{"".join(parts)}</svg>'
    )
    kind = " class=wide" if wide else ""
    return f"<figure{kind}>{picture}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _legend(entries: dict[str, str], x: float, y: float) -> list[str]:
    parts = []
    for name, colour in entries.items():
        parts += [_rect(x, y - 9, 10, 10, colour), _text(x + 14, y, name)]
        x += 26 + 7 * len(name)
    return parts


def nice_step(span: float, parts: int) -> float:
    """1, 2 or 5 times a power of ten that divides a span into about so many parts."""
    rough = max(span, 1e-9) / parts
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)


def _classes(found: Report) -> str:
    classes, left, bar = found.manifest.classes, 74, 11
    row = bar * len(found.splits) + 10
    parts = _legend({name: _SPLIT_COLOURS[name] for name in found.split_names}, left, 12)
    scale = (_WIDTH - left - 110) / max(
        group.classes[name] / group.num_utterances for group in found.splits for name in classes
    )
    for place, name in enumerate(classes):
        top = 26 + place * row
        parts.append(_text(left - 8, top + row / 2, name, "end"))
        for number, group in enumerate(found.splits):
            share = group.classes[name] / group.num_utterances
            y = top + number * bar
            parts += [
                _rect(left, y, share * scale, bar - 2, _SPLIT_COLOURS[group.name]),
                _text(
                    left + share * scale + 5,
                    y + 9,
                    f"{share:.1%}  {group.classes[name]}",
                    extra='font-size="10" fill="#555"',
                ),
            ]
    return _figure(
        parts,
        26 + row * len(classes),
        "Classes: share of each split and number of utterances. An utterance with several "
        "emotions counts for each.",
    )


def _histogram(
    values: Sequence[float], step: float, unit: str, caption: str, marks: dict[str, float]
) -> str:
    left, top, bottom, height = 46, 22, 36, 250

    def bin_of(value: float) -> int:
        return math.floor(value / step + 1e-9)

    first, last = bin_of(min(values)), bin_of(max(values))
    counts = [0] * (last - first + 1)
    for value in values:
        counts[bin_of(value) - first] += 1
    most = max(counts)
    width = (_WIDTH - left - 14) / len(counts)

    def x_of(value: float) -> float:
        return left + (value / step - first) * width

    parts = []
    tick = max(1.0, nice_step(most, 4))
    for number in range(int(most / tick) + 1):
        y = height - bottom - number * tick / most * (height - top - bottom)
        parts += [
            _line(left, y, _WIDTH - 14, y, "#eee"),
            _text(left - 6, y + 4, f"{number * tick:g}", "end"),
        ]
    for place, count in enumerate(counts):
        tall = count / most * (height - top - bottom)
        low = (first + place) * step
        parts.append(
            _rect(
                left + place * width,
                height - bottom - tall,
                width - (1 if width > 3 else 0),
                tall,
                "#4477aa",
                f"{low:g} to {low + step:g} {unit}: {count}",
            )
        )
    axis = nice_step((last + 1 - first) * step, 7)
    for number in range(
        math.ceil(first * step / axis), math.floor((last + 1) * step / axis + 1e-9) + 1
    ):
        parts.append(
            _text(x_of(number * axis), height - bottom + 16, f"{number * axis:g}", "middle")
        )
    parts.append(_text((_WIDTH + left) / 2, height - 4, unit, "middle", 'fill="#555"'))
    for number, (name, value) in enumerate(marks.items()):
        x = x_of(value)
        anchor, shift = ("end", -4) if x > _WIDTH - 130 else ("start", 4)
        parts += [
            _line(x, top - 10, x, height - bottom, "#ee6677", 'stroke-dasharray="4 3"'),
            _text(x + shift, top - 2 + 14 * number, f"{name} {value:.4g}", anchor, 'fill="#b33"'),
        ]
    return _figure(parts, height, caption)


def _stacked(groups: Sequence[Group], classes: Sequence[str], what: str) -> str:
    """A bar a group, its classes above each other, its split below."""
    width, left, top, bottom, height = 1180, 46, 26, 66, 330
    most = max(sum(group.classes.values()) for group in groups)
    bar = min(60.0, (width - left - 10) / len(groups))
    parts = _legend({name: COLOURS[name] for name in classes}, left, 12)
    parts += _legend(
        {
            name: _SPLIT_COLOURS[name]
            for name in SPLITS
            if any(name in group.splits for group in groups)
        },
        width - 190,
        12,
    )
    tick = max(1.0, nice_step(most, 4))
    plot = height - top - bottom
    for number in range(int(most / tick) + 1):
        y = height - bottom - number * tick / most * plot
        parts += [
            _line(left, y, left + bar * len(groups), y, "#eee"),
            _text(left - 6, y + 4, f"{number * tick:g}", "end"),
        ]
    for place, group in enumerate(groups):
        x, y = left + place * bar, height - bottom
        for name in classes:
            tall = group.classes[name] / most * plot
            y -= tall
            parts.append(
                _rect(
                    x,
                    y,
                    bar - (1.5 if bar > 5 else 0.3),
                    tall,
                    COLOURS[name],
                    f"{group.name}: {group.classes[name]} {name}",
                )
            )
        for number, split in enumerate(group.splits):
            part = (bar - 1) / len(group.splits)
            parts.append(
                _rect(
                    x + number * part,
                    height - bottom + 3,
                    part,
                    6,
                    _SPLIT_COLOURS[split],
                    f"{group.name}: {split}",
                )
            )
        if place % max(1, math.ceil(13 / bar)) == 0:
            label = group.name if len(group.name) <= 9 else f"...{group.name[-7:]}"
            x_mid, y_text = x + bar / 2, height - bottom + 20
            parts.append(
                _text(
                    x_mid + 4,
                    y_text,
                    label,
                    "end",
                    f'font-size="10" transform="rotate(-60 {x_mid + 4:.1f} {y_text:.1f})"',
                )
            )
    return _figure(
        parts,
        height,
        f"{what}: utterances by class; the strip below tells the split.",
        width,
        wide=True,
    )


def _transitions(found: Report) -> str:
    classes, cell, left, top = found.manifest.classes, 56, 76, 46
    parts = [_text(left + cell * len(classes) / 2, 12, "next turn", "middle", 'fill="#555"')]
    for row, before in enumerate(classes):
        total = sum(found.transitions[before].values())
        y = top + row * cell * 0.6
        parts += [
            _text(left - 8, y + 21, before, "end"),
            _text(left + cell * (row + 0.5), top - 8, before, "middle"),
        ]
        for column, after in enumerate(classes):
            share = found.transitions[before][after] / total if total else 0.0
            x = left + column * cell
            shade = f"rgba(68,119,170,{share:.3f})"
            parts += [
                _rect(
                    x,
                    y,
                    cell - 2,
                    cell * 0.6 - 2,
                    shade if total else "#f4f4f4",
                    f"{before} to {after}: {share:.1%} of {total}",
                    'stroke="#e4e4e4"',
                ),
                _text(
                    x + cell / 2 - 1,
                    y + 21,
                    f"{share:.0%}" if total else "",
                    "middle",
                    f'fill="{"#fff" if share > 0.55 else "#333"}" font-size="11"',
                ),
            ]
    caption = (
        "How emotions follow each other from turn to turn of a dialogue (rows sum to 100 %; train"
        " and dev, turns with one emotion)."
    )
    return _figure(parts, top + len(classes) * cell * 0.6 + 6, caption)


def _affect(found: Report) -> str | None:
    """Mean valence and arousal of each class."""
    rated = [
        one
        for one in found.manifest.utterances
        if one.split != "test"
        and one.valence is not None
        and one.arousal is not None
        and len(one.emotions) == 1
    ]
    if not rated:
        return None
    pairs = {
        name: [(one.valence or 0.0, one.arousal or 0.0) for one in rated if one.emotions[0] == name]
        for name in found.manifest.classes
    }
    values = [value for some in pairs.values() for pair in some for value in pair]
    low, high = math.floor(min(values)), math.ceil(max(values))
    high = max(high, low + 1)
    left, size = 46, 300
    parts = []
    step = nice_step(high - low, 5)
    for number in range(round((high - low) / step) + 1):
        value = low + number * step
        at = (value - low) / (high - low) * size
        parts += [
            _line(left + at, 10, left + at, 10 + size, "#eee"),
            _line(left, 10 + size - at, left + size, 10 + size - at, "#eee"),
            _text(left + at, size + 26, f"{value:g}", "middle"),
            _text(left - 6, 14 + size - at, f"{value:g}", "end"),
        ]
    parts += [
        _text(left + size / 2, size + 42, "valence", "middle", 'fill="#555"'),
        _text(
            12,
            10 + size / 2,
            "arousal",
            "middle",
            f'fill="#555" transform="rotate(-90 12 {10 + size / 2:g})"',
        ),
    ]
    labels: list[tuple[str, float, float, int]] = []
    for name, some in pairs.items():
        if not some:
            continue
        mean_v, mean_a = (sum(pair[axis] for pair in some) / len(some) for axis in (0, 1))
        sd_v, sd_a = (
            math.sqrt(sum((pair[axis] - mean) ** 2 for pair in some) / len(some))
            for axis, mean in ((0, mean_v), (1, mean_a))
        )
        x, y = (
            left + (mean_v - low) / (high - low) * size,
            10 + size - (mean_a - low) / (high - low) * size,
        )
        scale = size / (high - low)
        parts.append(
            f'<ellipse cx="{x:.1f}" cy="{y:.1f}" rx="{max(sd_v * scale, 2):.1f}"'
            f' ry="{max(sd_a * scale, 2):.1f}" fill="{COLOURS[name]}" fill-opacity=".25"'
            f' stroke="{COLOURS[name]}"/><circle cx="{x:.1f}" cy="{y:.1f}" r="4"'
            f' fill="{COLOURS[name]}"/>'
        )
        labels.append((name, x, y, len(some)))
    for place, (name, x, y, count) in enumerate(sorted(labels, key=lambda label: label[2])):
        target = 24 + place * 22
        parts += [
            _line(x, y, left + size + 16, target - 4, COLOURS[name], 'stroke-opacity=".6"'),
            _text(left + size + 20, target, f"{name} ({count})"),
        ]
    return _figure(
        parts,
        size + 48,
        "Raters' valence and arousal: mean and one standard deviation of each class (train and dev,"
        " one emotion).",
    )


def page(found: Report) -> str:
    """The report as one self-contained HTML page."""
    total, classes = found.total, found.manifest.classes
    numbers = {
        "utterances": f"{total.num_utterances:,}",
        "dialogues": f"{total.num_dialogues:,}",
        "sessions": str(total.num_sessions),
        "speakers": str(total.num_speakers),
        "hours of speech": f"{total.hours:.2f}",
        "tied votes": f"{total.num_tied:,}",
        "majority, dev macro F1": f"{found.majority['dev']['macro_f1']:.4f}",
    }
    longest = max(found.seconds)
    marks = {"median": percentile(found.seconds, 50), "95 %": percentile(found.seconds, 95)}
    figures = [
        _classes(found),
        _histogram(
            found.seconds,
            nice_step(longest, 50),
            "seconds",
            f"Durations: {min(found.seconds):.2f} to {longest:.2f} s.",
            marks,
        ),
        _transitions(found),
    ]
    if affect := _affect(found):
        figures.append(affect)
    if found.turns[-1] > 1:
        marks = {"median": percentile(found.turns, 50)}
        figures.append(
            _histogram(
                found.turns,
                max(1.0, nice_step(found.turns[-1], 50)),
                "turns",
                "Turns of each dialogue.",
                marks,
            )
        )
    if found.agreement:
        caption = (
            "Agreement: the share of an utterance's votes that its most voted class has (train and"
            " dev)."
        )
        figures.append(
            _histogram(
                found.agreement,
                0.05,
                "share of votes",
                caption,
                {"median": percentile(found.agreement, 50)},
            )
        )
    figures += [
        _stacked(found.sessions, classes, "Sessions"),
        _stacked(found.speakers, classes, "Speakers"),
    ]
    if found.leaks:
        items = "".join(f"<li>{html.escape(leak)}</li>" for leak in found.leaks)
        leaks = f'<div class="leaks"><b>Leaks between splits</b><ul>{items}</ul></div>'
    else:
        leaks = (
            '<div class="leaks clean">No leaks: splits share no speaker, session, audio file or'
            " content of one.</div>"
        )
    parts = [_table(title, header, rows) for title, header, rows in tables(found)]
    cells = "".join(f"<div><b>{value}</b>{name}</div>" for name, value in numbers.items())
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport"
        f" content='width=device-width'>"
        "<title>corpus report:"
        f" {html.escape(found.manifest.path.name)}</title><style>{_STYLE}</style>"
        f"<h1>Corpus report</h1><div>{html.escape(str(found.manifest.path))} (sha256"
        f" {found.manifest.sha256[:16]})</div>"
        "<div"
        f' class="numbers">{cells}</div>{leaks}'
        "<h2>Pictures</h2><div"
        f' class="figures">{"".join(figures)}</div><h2>Tables</h2>{"".join(parts)}</html>\n'
    )


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    body = "".join(
        f"<tr>{''.join(f'<td>{html.escape(value)}</td>' for value in row)}</tr>" for row in rows
    )
    table = (
        "<div"
        f' class="scroll"><table><caption>{html.escape(title)}</caption>'
        f"<tr>{head}</tr>{body}</table></div>"
    )
    if len(rows) > 15:
        return f"<details><summary>{html.escape(title)} ({len(rows)})</summary>{table}</details>"
    return table
