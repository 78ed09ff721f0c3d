"""Charts of the distributions of a Dataset."""

from __future__ import annotations

from datetime import datetime, timedelta

from segue.data.statistics.distributions import Histogram, Spread
from segue.data.statistics.figures import Figures, Popularity, Ratings, Times
from segue.evaluation.charts import Bars, Chart, Line


def data_charts(figures: Figures) -> tuple[Chart, ...]:
    """History lengths, item popularity and, if there are any, session lengths, times and ratings."""
    charts = [_lengths("How long are histories?", "user", "users", figures.lengths, figures.length_histogram)]
    charts.append(_popularity(figures.popularity))
    if figures.sessions is not None:
        sessions = figures.sessions
        charts.append(
            _lengths("How long are sessions?", "session", "sessions", sessions.lengths, sessions.length_histogram)
        )
    if figures.times is not None:
        charts.append(_times(figures.times))
    if figures.ratings is not None:
        charts.append(_ratings(figures.ratings))
    return tuple(chart for chart in charts if any(_size(one) for one in chart.series))


def _size(series: Line | Bars) -> int:
    return len(series.points) if isinstance(series, Line) else sum(height > 0 for _, _, height in series.bars)


def _lengths(title: str, owner: str, owners: str, spread: Spread, histogram: Histogram) -> Chart:
    """Equal bins of whole numbers. The note counts the longest hundredth, which is not drawn."""
    edges, counts = histogram.edges, histogram.counts
    longer = counts[-1] if len(counts) > 1 and edges[-1] - edges[-2] > edges[1] - edges[0] else 0
    drawn = len(counts) - (longer > 0)
    bars = [(edges[bin_] - 0.5, edges[bin_ + 1] - 0.5, float(counts[bin_])) for bin_ in range(drawn)]
    median = [(spread.median, f"median {spread.median:g}")] if bars[0][0] <= spread.median <= bars[-1][1] else []
    return Chart(
        title,
        across=f"interactions of a {owner}",
        up=owners,
        series=[Bars(owners, bars)],
        marks=median,
        note=f"{longer:,} longer ones, up to {spread.max:,}, are not drawn." if longer else "",
    )


def _popularity(popularity: Popularity) -> Chart:
    ranked = zip(popularity.ranks, popularity.counts, strict=True)
    points = [(float(rank), float(count)) for rank, count in ranked if count]
    return Chart(
        "How popular are items?",
        across="rank of the item, the most popular first",
        up="interactions",
        series=[Line("items", points, dots=False)],
        logarithmic=True,
        note=f"The top 1 % of the items have {popularity.top_1_percent:.0%} of the interactions, the top 10 % "
        f"{popularity.top_10_percent:.0%}.",
    )


def _times(times: Times) -> Chart:
    counts = times.activity.counts
    bars = [(float(period), period + 1.0, float(count)) for period, count in enumerate(counts)]
    labels = _labels(times)
    places = (0.0, len(counts) / 2, float(len(counts)))
    return Chart(
        "When did it happen?",
        across=f"time, in {len(counts)} equal periods",
        up="interactions",
        series=[Bars("interactions", bars)],
        ticks=list(zip(places, labels, strict=True)) if labels else [],
    )


def _labels(times: Times) -> list[str]:
    """First moment, middle and last moment as dates; none if the unit is unknown."""
    if times.days is None or not times.first.endswith("+00:00") or not times.last.endswith("+00:00"):
        return []
    first = datetime.fromisoformat(times.first)
    moments = [first + timedelta(days=times.days * share) for share in (0, 0.5, 1)]
    pattern = "%Y-%m-%d" if times.days >= 3 else "%H:%M"
    return [moment.strftime(pattern) for moment in moments]


def _ratings(ratings: Ratings) -> Chart:
    bars = [(place - 0.4, place + 0.4, float(count)) for place, count in enumerate(ratings.distribution.values())]
    names = list(ratings.distribution)
    every = -(-sum(len(name) + 2 for name in names) // 50)  # labels that fit beside each other
    return Chart(
        f"Which ratings? (mean {ratings.mean:.2f})",
        across="rating",
        up="interactions",
        series=[Bars("interactions", bars)],
        ticks=[(float(place), name) for place, name in enumerate(names) if place % every == 0],
    )
