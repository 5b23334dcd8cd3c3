"""The picture of what batching gains: an SVG of two panels, written by hand."""
import math

WIDTH, HEIGHT = 760, 300
# The panels: left edge, width; both from TOP to BOTTOM.
PANELS = ((62, 290), (440, 290))
TOP, BOTTOM = 52, 244
INK, FAINT, LINES = "#333", "#ddd", ("#b5432a", "#1f6f8b")
HEAD = f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">
<title>Latency of one call and instances per second over the batch size</title>
<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>"""


def batching_plot(rows):
    """`rows`: size, ms, per_second of each batch size, sizes rising by doubling."""
    sizes = [row["size"] for row in rows]
    left = panel(0, "Time of one call, ms", sizes, [row["ms"] for row in rows])
    right = panel(1, "Throughput, instances/s", sizes, [row["per_second"] for row in rows])
    return "\n".join([HEAD, *left, *right, "</svg>"]) + "\n"


def panel(number, title, sizes, values):
    left, width = PANELS[number]
    step = tick_step(max(values))
    top = math.ceil(max(values) / step) * step

    def x(index):
        return left + 14 + index * (width - 28) / (len(sizes) - 1)

    def y(value):
        return BOTTOM - value / top * (BOTTOM - TOP)

    yield text(left, TOP - 22, title, "start", ' font-weight="bold" font-size="14"')
    for count in range(round(top / step) + 1):
        at = y(count * step)
        yield f'<path d="M{left} {at:.1f}h{width}" stroke="{INK if count == 0 else FAINT}"/>'
        yield text(left - 8, at + 4, f"{count * step:,.10g}".replace(",", " "), "end")
    for index, size in enumerate(sizes):
        yield f'<path d="M{x(index):.1f} {BOTTOM}v5" stroke="{INK}"/>'
        yield text(x(index), BOTTOM + 19, str(size), "middle")
    yield text(left + width / 2, BOTTOM + 42, "instances in the call", "middle")
    points = [(x(index), y(value)) for index, value in enumerate(values)]
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    yield f'<polyline points="{line}" fill="none" stroke="{LINES[number]}" stroke-width="2"/>'
    yield from (f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5" fill="{LINES[number]}"/>' for a, b in points)


def tick_step(most):
    """1, 2 or 5 times a power of ten, for four to eight steps up to `most`."""
    power = 10 ** math.floor(math.log10(most / 4))
    return next(power * factor for factor in (5, 2, 1) if power * factor <= most / 4)


def text(x, y, words, anchor, more=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{INK}"{more}>{words}</text>'
