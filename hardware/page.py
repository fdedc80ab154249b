"""Parts of a page that needs nothing beside it: no script, no font, no other file. It reads on a phone, on paper and in the dark.

Text is escaped where it becomes ``Html``; what is ``Html`` already stays as it is. matplotlib is imported when a picture is made,
and only its object interface: no window, no global state.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "Html",
    "absent",
    "canvas",
    "cards",
    "code",
    "collapsible",
    "contents",
    "document",
    "escape",
    "figure",
    "figures",
    "items",
    "link",
    "marked",
    "number",
    "paragraph",
    "section",
    "table",
]

# A picture is as wide as a phone, or as half a page: its letters are then those of the text, which a wide one's would not be.
WIDTH, HEIGHT = 4.2, 2.3  # inches
BLUE, ORANGE, GREY, INK = "#0072B2", "#D55E00", "#B8BCC2", "#22272E"  # as of eventnet.plots

LONG = 24  # letters of a cell that is a sentence

# Pictures keep a white ground in the dark. The dark colours are for screens only: paper is white whatever the screen was.
CSS = """
:root{color-scheme:light dark;--ink:#22272e;--soft:#59616c;--line:#d5d9de;--ground:#fff;--good:#00694f;--bad:#a83600;
--open:#745700}
@media screen and (prefers-color-scheme:dark){:root{--ink:#e6e8eb;--soft:#a6aeb8;--line:#3d444d;--ground:#15181c;
--good:#4fd1a5;--bad:#ff9466;--open:#e6c04d}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem;max-width:54rem;background:var(--ground);color:var(--ink);
font:1rem/1.5 system-ui,sans-serif;overflow-wrap:break-word}
h1{font-size:1.6rem;line-height:1.25;margin:.5rem 0}
h2{font-size:1.2rem;margin:2.2rem 0 .6rem;padding-top:.6rem;border-top:1px solid var(--line)}
p,ul{max-width:42rem;margin:.6rem 0}
ul{padding-left:1.2rem}
.soft,figcaption{color:var(--soft);font-size:.9rem}
.good{color:var(--good)}.bad{color:var(--bad)}.open{color:var(--open)}
.good,.bad,.open{font-weight:600}
.answer{border:2px solid;border-radius:8px;padding:.7rem 1rem;font-size:1.1rem;max-width:none}
.scroll{overflow-x:auto;margin:.3rem 0 1rem}
table{border-collapse:collapse;min-width:min(100%,24rem);font-variant-numeric:tabular-nums}
th,td{padding:.35rem 1.2rem .35rem 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
td{min-width:4.5rem}
th{font-weight:600}
thead th{color:var(--soft)}
td.range{white-space:nowrap}
td.long{min-width:11rem}
.named tbody th{min-width:9rem}
td .soft{overflow-wrap:anywhere}
code{font:.85em ui-monospace,monospace;overflow-wrap:anywhere}
.figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,22rem),1fr));gap:1rem;margin:.8rem 0}
figure{margin:0}
a{color:inherit}
h3{font-size:1.05rem;margin:1.8rem 0 .5rem}
nav ul{display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;list-style:none;padding:0;max-width:none;font-size:.9rem}
nav li{min-width:0;overflow-wrap:anywhere}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,15rem),1fr));gap:.8rem;margin:1rem 0}
.cards div{border:1px solid var(--line);border-radius:8px;padding:.7rem 1rem}
.cards p{margin:0}
.cards .value{font-size:1.15rem;font-weight:600;margin:.15rem 0}
summary{cursor:pointer;padding:.4rem 0;font-weight:600}
svg{display:block;width:100%;height:auto;background:#fff;border:1px solid var(--line);border-radius:8px}
svg *{stroke-linejoin:round;stroke-linecap:butt}
@page{margin:15mm}
@media print{:root{color-scheme:light;font-size:10pt}
body{padding:0;max-width:none}
p,li{orphans:3;widows:3}
.figures{grid-template-columns:1fr 1fr}
.scroll{overflow:visible}
th,td{padding-right:.7rem}
td,td.long,.named tbody th{min-width:0}
.wide{font-size:8pt}
.wide th,.wide td{padding-right:.4rem;overflow-wrap:anywhere}
nav{display:none}
.cards{grid-template-columns:repeat(3,1fr)}
details::details-content{content-visibility:visible;display:block;height:auto}
h2,h3,p{break-after:avoid}
figure,tr,.answer,.cards div{break-inside:avoid}}
"""


# ---- text ------------------------------------------------------------------------------------------------------------------


class Html(str):
    """Text that is HTML: escaped, and with every tag closed."""


def escape(value: object) -> Html:
    """What is not ``Html`` yet, with its special characters escaped.

    Example:
        >>> escape("a < b"), escape(escape("a < b"))
        ('a &lt; b', 'a &lt; b')
    """
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def number(value: Any, unit: str = "") -> str:
    """A value as text, to four digits; what is no number as it is.

    Example:
        >>> [number(x) for x in (844810.75, 0.0125, math.inf, None, "blocks")], number(12.5, "%")
        (['844,811', '0.0125', '∞', '–', 'blocks'], '12.5 %')
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and not math.isfinite(value):
        text = "not a number" if math.isnan(value) else "∞" if value > 0 else "−∞"
    elif isinstance(value, int | float):
        text = f"{value:,}" if isinstance(value, int) else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
        text = text.replace("-", "−")  # a line may break after a hyphen
    else:
        return str(value)
    return f"{text} {unit}".rstrip()


def paragraph(text: object, kind: str = "") -> Html:
    """A paragraph; ``kind``: soft, good, bad, open or answer, several apart by spaces."""
    return Html(f'<p class="{escape(kind)}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>")


def items(lines: Iterable[object]) -> Html:
    """A list."""
    return Html("<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>")


def code(text: object) -> Html:
    """Text that a line may break anywhere in, as a hash needs."""
    return Html(f"<code>{escape(text)}</code>")


def marked(text: object, kind: str) -> Html:
    """A word in the colour of ``kind``: soft, good, bad or open."""
    return Html(f'<span class="{escape(kind)}">{escape(text)}</span>')


def absent(why: object) -> list[Html]:
    """What stands where a section has nothing to show."""
    return [paragraph(f"Left out: {why}.", "soft")]


def link(address: str, text: object) -> Html:
    """A link to a place in the page (``#name``) or to a file beside it.

    Raises:
        ValueError: the address leads elsewhere.

    Example:
        >>> link("loihi/parity.html", "the report")
        '<a href="loihi/parity.html">the report</a>'
    """
    if not re.fullmatch(r"#[\w-]+|(?![/\\#]|.*:).+", address):
        raise ValueError(f"expected the path of a file beside the page, got {address!r}")
    target = address if address.startswith("#") else quote(address)
    return Html(f'<a href="{escape(target)}">{escape(text)}</a>')


def contents(names: Iterable[str], prefix: str = "") -> Html:
    """Links to the sections with these headings."""
    lines = "".join(f"<li>{link('#' + _address(name, prefix), name)}</li>" for name in names)
    return Html(f'<nav aria-label="Contents"><ul>{lines}</ul></nav>')


def cards(*some: tuple[object, object, object]) -> Html:
    """What matters most, side by side: what is asked, the answer, and what the answer must not be read without."""
    return Html(
        '<div class="cards">'
        + "".join(
            f"<div>{paragraph(asked, 'soft')}{paragraph(answer, 'value')}{paragraph(more, 'soft')}</div>\n"
            for asked, answer, more in some
        )
        + "</div>"
    )


def collapsible(summary: object, *parts: Html) -> Html:
    """Parts that are folded on a screen until they are asked for; on paper they are all there."""
    return Html(f"<details><summary>{escape(summary)}</summary>\n" + "\n".join(parts) + "</details>")


def table(header: Sequence[object], rows: Iterable[Sequence[object]], caption: str) -> Html:
    """A table that scrolls by itself where it is wider than the page; the first cell of a row is its name. No header: ``()``."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' if cell else "<td></td>" for cell in header)
    head = f"<thead><tr>{head}</tr></thead>\n" if header else ""
    body = ""
    rows = list(rows)
    kinds = ["wide"] if len(header) > 5 else []  # smaller on paper, where nothing scrolls
    kinds += ["named"] if len(header) > 3 and any(len(str(name)) > LONG for name, *_ in rows) else []
    wide = f' class="{" ".join(kinds)}"' if kinds else ""
    for name, *cells in rows:
        body += f'<tr><th scope="row">{escape(name)}</th>' + "".join(map(_cell, cells)) + "</tr>\n"
    return Html(  # the caption is not the table's own, which would scroll away; a tab stop, so that the keyboard can scroll too
        f'{paragraph(caption, "soft")}<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}">'
        f"<table{wide}>\n{head}<tbody>{body}</tbody></table></div>"
    )


def _cell(value: object) -> str:
    """A cell; a range of numbers stays on one line, and a sentence is not squeezed into a word's width."""
    text = re.sub(r"<[^>]*>", "", str(value)) if isinstance(value, Html) else str(value)
    if re.fullmatch(r"[\d.,]+–[\d.,∞]+(\s\S{1,3})?", text):
        return f'<td class="range">{escape(value)}</td>'
    return f'<td class="long">{escape(value)}</td>' if len(text) > LONG else f"<td>{escape(value)}</td>"


def section(heading: str, *parts: Html, level: int = 2, prefix: str = "") -> Html:
    """Parts under a heading, which gives them their address; ``prefix`` keeps that apart where a heading comes several times."""
    title = f"<h{level}>{escape(heading)}</h{level}>"
    return Html(f'<section id="{_address(heading, prefix)}">{title}\n' + "\n".join(parts) + "</section>")


def _address(heading: str, prefix: str) -> str:
    return prefix + re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")


def document(title: str, *parts: Html) -> str:
    """The whole page."""
    pieces = re.split(r"(<svg.*?</svg>)", "\n".join(parts), flags=re.DOTALL)  # every second one is a picture
    body = "".join(_own_ids(piece, f"p{k // 2}") if k % 2 else piece for k, piece in enumerate(pieces))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style></head>\n<body><main>\n{body}\n</main></body></html>\n"
    )


# ---- pictures --------------------------------------------------------------------------------------------------------------


def canvas(width: float = WIDTH, height: float = HEIGHT) -> tuple[Figure, Axes]:
    """An empty picture, inches, in the style of ``eventnet.plots``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    picture = Figure((width, height), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08), facecolor="white")
    FigureCanvasAgg(picture)
    axis = picture.subplots()
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(GREY)
    axis.tick_params(colors=INK, labelsize=9, color=GREY)
    for label in (axis.xaxis.label, axis.yaxis.label):
        label.set(color=INK, fontsize=9.5)
    return picture, axis


def figure(picture: Figure, alt: str, caption: object = "") -> Html:
    """A picture within the page; ``alt``: what it shows, for those who do not see it."""
    caption = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return Html(f"<figure>{_svg(picture, alt)}{caption}</figure>")


def figures(*some: Html) -> Html:
    """Pictures beside each other, or below where the page is narrow."""
    return Html('<div class="figures">' + "".join(some) + "</div>")


def _svg(picture: Figure, alt: str) -> str:
    """Without what a page has no use for: sizes, sources, comments, digits beyond a hundredth of a point."""
    file = StringIO()
    picture.savefig(file, format="svg", dpi=200, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    head, _, rest = file.getvalue().partition("<svg")[2].partition(">")
    box = re.search(r'viewBox="[^"]*"', head)
    rest = re.sub(r"<!--.*?-->|<style.*?</style>", "", rest, flags=re.DOTALL)
    rest = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), rest)
    return f'<svg role="img" aria-label="{escape(alt)}" {box[0] if box else ""}>{rest.strip()}'


def _own_ids(svg: str, prefix: str) -> str:
    """Ids are a page's, not a picture's: those that the picture refers to get a prefix, the others go."""
    used = dict.fromkeys(re.findall(r'(?:href="|url\()#([^")]+)', svg))
    names = {name: f"{prefix}-{k}" for k, name in enumerate(used)}  # matplotlib's differ from run to run
    svg = re.sub(r' id="([^"]*)"', lambda found: f' id="{names[found[1]]}"' if found[1] in names else "", svg)
    return re.sub(r'(href="|url\()#([^")]+)', lambda found: f"{found[1]}#{names[found[2]]}", svg)
